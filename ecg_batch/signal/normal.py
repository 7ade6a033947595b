"""The normal distribution as scipy.special computes it, to the bit: importing that takes 0.1 s, to draw a heart rate.

The approximations are those of Cephes (Moshier 1989, Methods and Programs for Mathematical Functions); a test holds both to scipy.
"""

import math

import numpy as np

EXP_2 = 0.13533528323661269189
ROOT_2_PI = 2.50662827463100050242
MAX_LOG = 7.09782712893383996843e2
# numerators, and denominators of which the first coefficient, 1, is left out; highest power first
MIDDLE = (
    (-5.99633501014107895267e1, 9.80010754185999661536e1, -5.66762857469070293439e1, 1.39312609387279679503e1,
     -1.23916583867381258016e0),
    (1.95448858338141759834e0, 4.67627912898881538453e0, 8.63602421390890590575e1, -2.25462687854119370527e2,
     2.00260212380060660359e2, -8.20372256168333339912e1, 1.59056225126211695515e1, -1.18331621121330003142e0),
)  # fmt: skip
TAIL = (
    (4.05544892305962419923e0, 3.15251094599893866154e1, 5.71628192246421288162e1, 4.40805073893200834700e1,
     1.46849561928858024014e1, 2.18663306850790267539e0, -1.40256079171354495875e-1, -3.50424626827848203418e-2,
     -8.57456785154685413611e-4),
    (1.57799883256466749731e1, 4.53907635128879210584e1, 4.13172038254672030440e1, 1.50425385692907503408e1,
     2.50464946208309415979e0, -1.42182922854787788574e-1, -3.80806407691578277194e-2, -9.33259480895457427372e-4),
)  # fmt: skip
FAR_TAIL = (
    (3.23774891776946035970e0, 6.91522889068984211695e0, 3.93881025292474443415e0, 1.33303460815807542389e0,
     2.01485389549179081538e-1, 1.23716634817820021358e-2, 3.01581553508235416007e-4, 2.65806974686737550832e-6,
     6.23974539184983293730e-9),
    (6.02427039364742014255e0, 3.67983563856160859403e0, 1.37702099489081330271e0, 2.16236993594496635890e-1,
     1.34204006088543189037e-2, 3.28014464682127739104e-4, 2.89247864745380683936e-6, 6.79019408009981274425e-9),
)  # fmt: skip
ERF = (
    (9.60497373987051638749e0, 9.00260197203842689217e1, 2.23200534594684319226e3, 7.00332514112805075473e3,
     5.55923013010394962768e4),
    (3.35617141647503099647e1, 5.21357949780152679795e2, 4.59432382970980127987e3, 2.26290000613890934246e4,
     4.92673942608635921086e4),
)  # fmt: skip
ERFC = (
    (2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687e0, 4.86371970985681366614e1,
     1.96520832956077098242e2, 5.26445194995477358631e2, 9.34528527171957607540e2, 1.02755188689515710272e3,
     5.57535335369399327526e2),
    (1.32281951154744992508e1, 8.67072140885989742329e1, 3.54937778887819891062e2, 9.75708501743205489753e2,
     1.82390916687909736289e3, 2.24633760818710981792e3, 1.65666309194161350182e3, 5.57535340817727675546e2),
)  # fmt: skip
FAR_ERFC = (
    (5.64189583547755073984e-1, 1.27536670759978104416e0, 5.01905042251180477414e0, 6.16021097993053585195e0,
     7.40974269950448939160e0, 2.97886665372100240670e0),
    (2.26052863220117276590e0, 9.39603524938001434673e0, 1.20489539808096656605e1, 1.70814450747565897222e1,
     9.60896809063285878198e0, 3.36907645100081516050e0),
)  # fmt: skip


def ndtr(x: float) -> float:
    """How much of the standard normal distribution lies below x."""
    at = x * math.sqrt(0.5)
    if abs(at) < 1:
        return 0.5 + 0.5 * (at * _numerator(at * at, ERF) / _denominator(at * at, ERF))
    far, ratio = abs(at), ERFC if abs(at) < 8 else FAR_ERFC
    above = 0.5 * (math.exp(-far * far) * _numerator(far, ratio) / _denominator(far, ratio)) if far * far <= MAX_LOG else 0.0
    return 1.0 - above if x > 0 else above


def ndtri(share: np.ndarray) -> np.ndarray:
    """Where so much of it lies below: shares (n,) in [0, 1]."""
    share = np.asarray(share, np.float64)
    upper = share > 1.0 - EXP_2
    tail = np.where(upper, 1.0 - share, share)
    centred = tail - 0.5
    square = centred * centred
    x = (centred + centred * (square * _numerator(square, MIDDLE) / _denominator(square, MIDDLE))) * ROOT_2_PI
    for at in np.flatnonzero(tail <= EXP_2).tolist():
        x[at] = _of_tail(float(tail[at])) * (1.0 if upper[at] else -1.0)
    return x


def _of_tail(share: float) -> float:
    """By the logarithm of the C library: numpy's own may differ in the last bit."""
    if share <= 0:
        return math.inf
    x = math.sqrt(-2.0 * math.log(share))
    ratio = TAIL if x < 8 else FAR_TAIL
    return x - math.log(x) / x - 1.0 / x * _numerator(1.0 / x, ratio) / _denominator(1.0 / x, ratio)


def _numerator(x, ratio):
    value = ratio[0][0]
    for coefficient in ratio[0][1:]:
        value = value * x + coefficient
    return value


def _denominator(x, ratio):
    value = x + ratio[1][0]
    for coefficient in ratio[1][1:]:
        value = value * x + coefficient
    return value
