"""Order: the beats of a record with events one after another, of which form each is, and what the rhythm is called.

write_order.py makes it, rhythm.py gives it times, stock.py has the beats of each form. Cycles are in units of the current RR.
"""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

SHAPES = 3  # of ventricular beats that one patient may have


class Form(IntEnum):
    """What a beat is made of: stock.py has the beats of each."""

    OWN = 0  # of the donor's main rhythm
    WITHOUT_P = 1  # the same without its P wave
    PREMATURE = 2  # with another P wave
    ABERRANT = 3  # premature, and conducted with a bundle branch block
    JUNCTIONAL = 4  # with no P wave, or one that runs backwards
    ESCAPE = 5  # the same, late
    FUSION = 6
    PACED = 7
    IDIOVENTRICULAR = 8  # an escape from the ventricle
    BRANCH = 9  # of the main rhythm, with a bundle branch block
    PREEXCITED = 10
    VENTRICULAR = 11  # and the next SHAPES - 1
    DISSOCIATED = 20  # an escape while the atria beat by themselves


SYMBOL_OF = {Form.OWN: "N", Form.WITHOUT_P: "N", Form.PREMATURE: "A", Form.ABERRANT: "a", Form.JUNCTIONAL: "J", Form.ESCAPE: "j",
             Form.FUSION: "F", Form.PACED: "/", Form.IDIOVENTRICULAR: "E", Form.BRANCH: "B", Form.PREEXCITED: "N",
             Form.DISSOCIATED: "j"}  # fmt: skip
TACHYCARDIA_S = 0.6  # its mean RR is shorter


@dataclass(frozen=True)
class LoneP:
    """A P wave that no beat follows: so far on the way from the P wave of the beat before `beat` to that of `beat`."""

    beat: int
    share: float
    premature: bool


@dataclass
class Order:
    """Beats one after another. cycle: from the beat before; form; pr_s: seconds from P to QRS of beats whose P wave is laid apart,
    NaN of others. changes: (first beat, WFDB's word for the rhythm that begins). atrial, apart: (first beat, the one after the
    last) of paroxysms, "(AFIB" or "(AFL", and of stretches whose P waves come as if there were no beats. events: (first beat,
    name). seconds: how long all beats last. r_s: when each beat is, where the writer's clock is the record's (clock.py).
    fixed: whether something has its place in it, so that times cannot be scaled.
    """

    cycle: list[float] = field(default_factory=list)
    form: list[int] = field(default_factory=list)
    pr_s: list[float] = field(default_factory=list)
    lone: list[LoneP] = field(default_factory=list)
    changes: list[tuple[int, str]] = field(default_factory=list)
    atrial: list[tuple[int, int, str]] = field(default_factory=list)
    apart: list[tuple[int, int]] = field(default_factory=list)
    events: list[tuple[int, str]] = field(default_factory=list)
    r_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    fixed: bool = False

    def lengths(self) -> dict[str, int]:
        """Of all that it holds: where it is cut to take back what comes after."""
        return {name: len(held) for name, held in vars(self).items() if isinstance(held, list)}

    def cut(self, lengths: dict[str, int]) -> None:
        """Back to what it was when it had these lengths."""
        for name, length in lengths.items():
            del getattr(self, name)[length:]

    def rhythms(self, r_s: np.ndarray) -> list[tuple[int, str]]:
        """changes of the beats that lie at r_s, called by what their rate is: no tachycardia is under 100 bpm."""
        begun, found = [(beat, aux) for beat, aux in self.changes if beat < len(r_s)], []
        for (beat, aux), (after, _) in zip(begun, [*begun[1:], (len(r_s), "")], strict=True):
            mean_s = (r_s[after - 1] - r_s[beat]) / max(after - 1 - beat, 1)
            one_beat = after - beat < 2  # all that the record's end leaves of it: no rate
            if aux in ("(VT", "(IVR") and not one_beat:
                aux = "(VT" if mean_s < TACHYCARDIA_S else "(IVR"
            elif aux == "(SVTA" and mean_s >= TACHYCARDIA_S and not one_beat:  # an ectopic atrial rhythm: WFDB has no word
                aux = self.changes[0][1]
            if not found or found[-1][1] != aux:
                found.append((beat, aux))
        return found

    def symbols(self) -> np.ndarray:
        """WFDB's symbol of each beat: (beat,)."""
        return np.array([SYMBOL_OF.get(form, "V") for form in self.form])
