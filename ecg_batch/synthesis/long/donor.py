"""A donor taken apart for long records: its single beats by type, where any two of them join best, its atrial activity.

A donor shows 10 s, some 8 to 20 beats. Each is kept as it lies in the skeleton (QRS as recorded, P and ST-T as the typical beat of
its type), with the TP segments around it. For each pair of beats the splice between them is found once, by the published seam cost.
"""

from dataclasses import dataclass, replace

import numpy as np

from ecg_batch.donors.bank import Bank
from ecg_batch.donors.level import tp_before_r
from ecg_batch.donors.loop import SEAM_S, seam_cost
from ecg_batch.donors.split import END_S, JOIN_S, UNLOCKED_ATRIAL, as_recorded, typical_beats
from ecg_batch.donors.symbols import ATRIAL, VENTRICULAR, symbols_of
from ecg_batch.donors.usable import MIN_BEATS, usable_beats
from ecg_batch.signal.beats import QRS_HALF_WIDTH_S, beat_types, windows
from ecg_batch.signal.filters import band
from ecg_batch.synthesis.donor_marks import waves_of
from ecg_batch.synthesis.units import P_BEGINS_S, T_END_S

FOOT_S = 0.05  # before a QRS that no P wave is locked to: as recorded too, or its first rise would be stretched with TP
WIDER_S = (0.04, 0.06)  # a ventricular QRS begins so much earlier and ends so much later than the donor's others
FAR_OFF, FAR_OF_QRS = 4.0, 0.25  # an artefact: so many times the median beat's difference, and so much of a QRS over all leads
TP_HZ, TP_MARGIN_S, TP_FADE_S = 3.0, 0.04, 0.05  # how smooth TP is where one beat alone reaches; how far from T and P, and joined
POINTS = 8  # places in each TP segment that are tried for the splice
CLOSE_UV2 = 25.0  # seam costs below make no difference: 5 uV
ATRIAL_PERIODS_S = (0.1, 0.4)
# The skeleton keeps the band B of it (split.ATRIAL_BAND_HZ), and texture, which is of another patient here, the rest: powers add up
# then, not amplitudes. So this band A is taken of both, |A|^2 = 2B - B^2 within 0.25 dB.
ATRIAL_HZ = (1.4, 20.5)
PLACE_S = 0.15  # over which its power about R is smoothed
LITTLE_TP_S, QUIETER = 0.5, 0.4  # with less TP, this quantile of the places about R: as loud as TP in the median of other donors
NONE = np.empty((0, 0), np.int64)


class TooFewBeats(Exception):
    """A donor from which no long record can be made."""


@dataclass(frozen=True)
class LongDonor:
    """A donor's beats. Arrays over those that are used; lengths in samples.

    x: float64 (lead, time) in steps, what recurs with each beat. level: (lead,), its baseline. r: R in x. qrs_on, qrs_off, t_end,
    p_on: samples of x; first, last: between which a beat may be read. symbol: "N", "V", "A". waves: (beat, wave) samples from R,
    NaN is absent. splice_out, splice_in: (beat, beat) samples of x; after beat i comes beat j: x is left at splice_out[i, j] and
    entered at splice_in[i, j]. atrial: None or (lead, time), what goes on whatever the beats do. ectopic: share of each ectopic
    type among all usable beats; coupling: see _couplings. ectopic_spliced: whether one of these types has no beat whose neighbours
    are usable too, so that it is joined where TP is short. beat_to_beat: see _beat_to_beat. fade_s: over which, to either side of
    a splice, A becomes B.
    """

    x: np.ndarray
    level: np.ndarray
    r: np.ndarray
    p_on: np.ndarray
    qrs_on: np.ndarray
    qrs_off: np.ndarray
    t_end: np.ndarray
    first: np.ndarray
    last: np.ndarray
    symbol: np.ndarray
    waves: np.ndarray
    splice_out: np.ndarray
    splice_in: np.ndarray
    rr_samples: float
    beat_to_beat: float
    atrial: np.ndarray | None
    ectopic: dict[str, float]
    coupling: dict[str, float]
    ectopic_spliced: bool
    codes: frozenset[str]
    fs_hz: int
    fade_s: float = SEAM_S


def long_donor(bank: Bank, donor: int) -> LongDonor:
    """The donor in one row of the bank. TooFewBeats where fewer than three of its main rhythm are usable."""
    return with_splices(single_beats(bank, donor))


def single_beats(bank: Bank, donor: int) -> LongDonor:
    """The same before it is known where its beats join."""
    fs_hz, codes = bank.table.fs_hz, frozenset(bank.table.scp_codes(donor))
    skeleton, r = bank.skeleton[donor].astype(np.float64), bank.beats(donor)
    types = beat_types(skeleton, r, fs_hz)
    unlocked = bool(codes & UNLOCKED_ATRIAL)
    symbol, waves = _symbols_and_waves(bank, donor, r, types)
    symbol[_artefacts(skeleton, r, symbol == "N", fs_hz)] = ""
    cells = _cells(bank, donor, r, symbol, unlocked)
    kept = np.flatnonzero(usable_beats(r, bank.p_on[donor], bank.t_end[donor], skeleton.shape[1], fs_hz) & (symbol != ""))
    if (symbol[kept] == "N").sum() < MIN_BEATS:
        raise TooFewBeats
    ectopic = {name: float((symbol[kept] == name).mean()) for name in ("V", "A") if name in symbol[kept]}
    kept, joined = _without_lonely(kept, symbol)
    fiducials = {name: cells[name][kept] for name in ("p_on", "qrs_on", "qrs_off", "t_end", "first", "last")}
    if unlocked:
        x, atrial = without_atrial(skeleton, bank.texture[donor], r, types, cells["t_end"], cells["p_on"], fs_hz)
        edge = round((END_S + JOIN_S) * fs_hz)
        atrial = atrial[:, edge:-edge]
        waves[:, :3] = np.nan  # atrial activity goes on whatever the beats do
    else:
        x, atrial = skeleton - lone_noise(skeleton, r, types, cells["t_end"], cells["p_on"], fs_hz), None
    level = np.median(x[:, np.concatenate([cells["p_on"][kept] - shift for shift in range(3)])], axis=1)
    return LongDonor(x, level, r[kept], **fiducials, symbol=symbol[kept], waves=waves[kept], splice_out=NONE, splice_in=NONE,
                     rr_samples=float(np.diff(r).mean()), beat_to_beat=_beat_to_beat(r, symbol == "N"), atrial=atrial,
                     ectopic=ectopic, coupling=_couplings(r, symbol), ectopic_spliced=joined, codes=codes, fs_hz=fs_hz)  # fmt: skip


def _beat_to_beat(r: np.ndarray, normal: np.ndarray) -> float:
    """RMS of successive differences of log RR of normal beats, less what rounding R to samples adds; NaN under four of them."""
    rr, sinus = np.diff(r), normal[1:] & normal[:-1]
    change = np.diff(np.log(rr))[sinus[1:] & sinus[:-1]]
    if len(change) < 4:
        return float("nan")
    rounding = 6 / 12 / rr.mean() ** 2  # of three R, the middle one counted twice, 1/12 sample squared each
    return float(np.sqrt(max(np.square(change).mean() - rounding, 0.0)))


def _couplings(r: np.ndarray, symbol: np.ndarray) -> dict[str, float]:
    """How early each type of ectopic beat comes after a normal one, over the usual RR between two normal ones: the median."""
    rr, after_normal = np.diff(r), symbol[:-1] == "N"
    usual = rr[after_normal & (symbol[1:] == "N")]
    each = {name: rr[after_normal & (symbol[1:] == name)] for name in ("V", "A")}
    return {name: float(np.median(of) / np.median(usual)) for name, of in each.items() if len(of)} if len(usual) > 1 else {}


def lone_noise(
    x: np.ndarray, r: np.ndarray, types: np.ndarray, t_end: np.ndarray, p_on: np.ndarray, fs_hz: int
) -> np.ndarray:
    """What x (lead, time) has above TP_HZ where one beat alone of its type reaches, after so long a cycle: what is typical there is
    that beat's noise, and a record lays texture over it. Nothing near T and P.
    """
    reach = np.append(np.diff(r) - tp_before_r(np.diff(r), fs_hz), 0)  # of each cell
    others = [np.delete(reach, beat)[np.delete(types, beat) == types[beat]].max(initial=0) for beat in range(len(r) - 1)]
    return _fast_in_tp(x, np.maximum(r[:-1] + np.array(others), t_end[:-1] + round(TP_MARGIN_S * fs_hz)), p_on, fs_hz)


def _fast_in_tp(x: np.ndarray, start: np.ndarray, p_on: np.ndarray, fs_hz: int) -> np.ndarray:
    """What x (lead, time) has above TP_HZ from start (beat,) to the next beat's P, beats but for the last; zero elsewhere."""
    out, fade = np.zeros_like(x), round(TP_FADE_S * fs_hz)
    for begins, ends in zip(start.astype(int), p_on[1:].astype(int) - round(TP_MARGIN_S * fs_hz), strict=True):
        if ends - begins >= 3 * fade:
            tp, time = x[:, begins:ends], np.arange(ends - begins)
            out[:, begins:ends] = np.minimum(1, np.minimum(time + 1, time[::-1] + 1) / fade) * (tp - _smooth(tp, fs_hz))
    return out


def _smooth(x: np.ndarray, fs_hz: int) -> np.ndarray:
    """x (lead, time) in waves of up to TP_HZ, by a cosine transform: no sample beside it says anything."""
    from scipy.fft import dct, idct

    waves = dct(x, axis=1)
    waves[:, int(2 * TP_HZ * x.shape[1] / fs_hz) + 1 :] = 0
    return idct(waves, axis=1)


def lacks_ectopic(donor: LongDonor) -> bool:
    """Whether a donor's statements speak of ectopic beats that it has no usable one of, so that a record could not show them."""
    return any(donor.codes & codes and name not in donor.ectopic for name, codes in (("V", VENTRICULAR), ("A", ATRIAL)))


def _symbols_and_waves(bank: Bank, donor: int, r: np.ndarray, types: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each beat what donors/symbols.py says of it; waves in samples from R."""
    row = np.array([donor])
    symbol = symbols_of(bank.table.codes, bank.table.likelihood[row], r[None], types[None])
    return symbol[0], waves_of(bank, row, symbol)[0] * (bank.table.fs_hz / 1000)


def _without_lonely(kept: np.ndarray, symbol: np.ndarray) -> tuple[np.ndarray, bool]:
    """(the kept beats without ectopic ones that lack a kept neighbour, whether some stay because all of their type lack one)."""
    normal = kept[symbol[kept] == "N"]
    whole = np.isin(kept - 1, normal) & np.isin(kept + 1, normal)
    lonely = (symbol[kept] != "N") & ~whole
    of_whole = np.isin(symbol[kept], symbol[kept][whole])
    return kept[~(lonely & of_whole)], bool((lonely & ~of_whole).any())


def _artefacts(skeleton: np.ndarray, r: np.ndarray, normal: np.ndarray, fs_hz: int) -> np.ndarray:
    """Which normal beats have a QRS that differs from their median in some lead far more than the others do: bool (beat,).

    An electrode that jumps once in 10 s would jump hundreds of times in an hour.
    """
    qrs = windows(skeleton, r, round(QRS_HALF_WIDTH_S * fs_hz))
    typical = np.median(qrs[normal], axis=0)
    off = np.sqrt(np.square(qrs - typical).mean(axis=-1))  # (beat, lead)
    far = (off > FAR_OFF * np.median(off[normal], axis=0)) & (off > FAR_OF_QRS * np.sqrt(np.square(typical).mean()))
    return normal & far.any(axis=1)


def _cells(bank: Bank, donor: int, r: np.ndarray, symbol: np.ndarray, unlocked: bool) -> dict[str, np.ndarray]:
    """Fiducials of each beat, and how far it may be read: first, last (beat,), the TP segments before and after it."""
    fs_hz, samples = bank.table.fs_hz, bank.skeleton.shape[-1]
    edge = round((SEAM_S + END_S + JOIN_S) * fs_hz)
    wide = symbol == "V"
    early, late = (np.where(wide, round(by * fs_hz), 0) for by in WIDER_S)
    qrs_on, qrs_off = r + bank.qrs_on[donor] - early, r + bank.qrs_off[donor] + late
    rr_before = np.diff(r, prepend=r[0] - 10 * samples)
    pr = round(FOOT_S * fs_hz) if unlocked else bank.qrs_on[donor] - bank.p_on[donor]
    pr = np.minimum(pr, 0.4 * (rr_before - (qrs_off - qrs_on))).astype(int)
    p_on = qrs_on - np.where(wide & (not unlocked), 1, np.maximum(pr, 1))
    next_p_on = np.append(p_on[1:], samples - edge)
    t_end = np.minimum(r + bank.t_end[donor] + late, np.maximum(next_p_on - 1, qrs_off + 1))
    first = np.append(edge, np.minimum(t_end[:-1], p_on[1:]))
    last = np.maximum(np.minimum(next_p_on, samples - edge), t_end)
    return {"p_on": p_on, "qrs_on": qrs_on, "qrs_off": qrs_off, "t_end": t_end, "first": np.minimum(first, p_on), "last": last}


def with_splices(donor: LongDonor, close_uv2: float = CLOSE_UV2) -> LongDonor:
    """The donor with the best splice of each pair of its beats. close_uv2: costs below make no difference.

    The published cost decides; where it says next to nothing, since beats of a type share their P and T, the middle of TP is best:
    there is room on both sides then.
    """
    x, beats, seam = donor.x, len(donor.r), round(SEAM_S * donor.fs_hz)
    off_middle = np.abs(np.linspace(-1, 1, POINTS))
    far = 1 + off_middle[:, None] + off_middle  # (way in, way out)
    ways_out, ways_in = (np.rint(np.linspace(begin, end, POINTS, axis=1)).astype(int) for begin, end in
                         ((donor.t_end, donor.last), (donor.first, donor.p_on)))  # fmt: skip
    ways_out, ways_in = (np.clip(points, seam, x.shape[1] - seam - 1) for points in (ways_out, ways_in))
    after, before = (np.empty((beats, beats), np.int64) for _ in range(2))
    for i, out in enumerate(ways_out):
        cost = seam_cost(x, ways_in.ravel(), out, seam).reshape(beats, POINTS, POINTS)  # (beat after, way in, way out)
        cost = (cost + close_uv2) * far
        best = cost.reshape(beats, -1).argmin(axis=1)
        before[i], after[i] = ways_in[np.arange(beats), best // POINTS], out[best % POINTS]
    return replace(donor, splice_out=after, splice_in=before)


# Atrial activity that is not locked to the QRS -------------------------------------------------------------------------


def without_atrial(
    skeleton: np.ndarray, texture: np.ndarray, r: np.ndarray, types: np.ndarray, t_end: np.ndarray, p_on: np.ndarray, fs_hz: int
) -> tuple[np.ndarray, np.ndarray]:
    """(what comes with each beat, atrial activity): float64 (lead, time) each.

    What no typical beat explains goes on by itself as far as it is as loud as in TP, bridged across QRS. What is louder, beside a
    QRS or in T, is of its beat and stays with it: their powers add up to the whole. All that is fast in TP is atrial as well, for a
    mean over few beats holds their f waves, which would lie there twice.
    """
    typical, inside = typical_beats(skeleton, r, types, fs_hz), as_recorded(skeleton.shape[1], r, fs_hz)
    fast = _fast_in_tp(typical, t_end[:-1] + round(TP_MARGIN_S * fs_hz), p_on, fs_hz)
    free = band(skeleton + texture - typical + fast, ATRIAL_HZ, fs_hz)
    share = _as_in_tp(free, inside, r, fs_hz)
    atrial = _bridged(share * free, inside, fs_hz)
    of_beats = typical - fast + np.sqrt(1 - share**2) * free
    return (1 - inside) * of_beats + inside * (skeleton - atrial), atrial


def _as_in_tp(free: np.ndarray, inside: np.ndarray, r: np.ndarray, fs_hz: int) -> np.ndarray:
    """What free (lead, time) is multiplied by, 1 or less, to be nowhere louder than in TP, place by place about R, in the mean over
    beats. inside: 1 in QRS, which does not count. Where there is little TP: than in the quieter places.
    """
    from scipy.ndimage import uniform_filter1d

    time, outside = np.arange(free.shape[1]), 1 - inside
    before, after = round(P_BEGINS_S * fs_hz), round(T_END_S * fs_hz)
    place = np.clip(time - r[np.argmin(np.abs(time[:, None] - r), axis=1)], -before, after) + before  # the first and the last: TP
    samples = np.bincount(place, outside)
    power = np.stack([np.bincount(place, outside * np.square(lead)) for lead in free])
    near, power_near = (uniform_filter1d(of[..., 1:-1], round(PLACE_S * fs_hz), axis=-1, mode="nearest") for of in (samples, power))
    power_near = power_near / np.maximum(near, 1e-9)
    in_tp = samples[[0, -1]].sum()
    if in_tp >= LITTLE_TP_S * fs_hz:
        quiet = power[:, [0, -1]].sum(axis=1) / in_tp
    elif (near > 1).any():
        quiet = np.quantile(power_near[:, near > 1], QUIETER, axis=1)
    else:  # one QRS after another: nothing can be seen to go on
        quiet = np.zeros(len(free))
    share = np.ones_like(power)
    share[:, 1:-1] = np.sqrt(np.minimum(1, quiet[:, None] / np.maximum(power_near, 1e-9)))
    return share[:, place]


def _bridged(rest: np.ndarray, inside: np.ndarray, fs_hz: int) -> np.ndarray:
    """rest with what lies inside QRS replaced by its own continuation from both sides, whole atrial periods away."""
    period, width = atrial_period(rest * (1 - inside), fs_hz), round(0.25 * fs_hz)
    shift = period * -(-width // period)
    time, last = np.arange(rest.shape[1]), rest.shape[1] - 1
    outside = 1 - inside
    left, right = np.clip(time - shift, 0, last), np.clip(time + shift, 0, last)
    weight = outside[left] + outside[right] + 1e-6
    bridge = (outside[left] * rest[:, left] + outside[right] * rest[:, right]) / weight
    return outside * rest + inside * bridge


def atrial_period(rest: np.ndarray, fs_hz: int) -> int:
    """Samples of the strongest period between 0.1 and 0.4 s, over all leads: fibrillatory waves come at 4 to 9 Hz."""
    spectrum = np.abs(np.fft.rfft(rest - rest.mean(axis=1, keepdims=True), 2 * rest.shape[1], axis=1)) ** 2
    correlation = np.fft.irfft(spectrum, axis=1).sum(axis=0)
    low, high = (round(s * fs_hz) for s in ATRIAL_PERIODS_S)
    return low + int(np.argmax(correlation[low : high + 1]))
