"""Parts: what a section of the page is made of. page.html draws each by its `kind` and escapes all text, from wherever it comes."""

from dataclasses import dataclass, field

import numpy as np

from ecg_batch.report.glance import Course


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    kind: str = "words"


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and what is to be said of it."""

    pairs: list[tuple[str, str]]
    kind: str = "facts"


@dataclass(frozen=True)
class Code:
    """Text as it stands in a file; a long one is folded away."""

    text: str
    says: str
    kind: str = "code"

    @property
    def is_long(self) -> bool:
        return self.text.count("\n") > 30


@dataclass(frozen=True)
class Share:
    """A number in a table with a bar behind it: of the largest in its column."""

    text: str
    share: float


@dataclass(frozen=True)
class Table:
    """rows: texts or Shares; the first cell of each row is its head."""

    caption: str
    head: list[str]
    rows: list[list]
    kind: str = "table"


@dataclass(frozen=True)
class Series:
    """Counts (bin,) of a histogram, and what they are."""

    name: str
    counts: np.ndarray
    is_line: bool = False


@dataclass(frozen=True)
class Histogram:
    """edges (bin + 1,), evenly apart; ticks: (share of the width, text)."""

    title: str
    edges: np.ndarray
    series: list[Series]
    unit: str
    kind: str = "histogram"

    @property
    def most(self) -> int:
        return max(1, *(int(one.counts.max(initial=0)) for one in self.series))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """At most seven, at edges."""
        count = len(self.edges) - 1
        every = max(1, -(-count // 6))
        return [(at / count, f"{self.edges[at]:g}") for at in range(0, count + 1, every)]

    def path(self, one: Series) -> str:
        """In a box of 1000 x 100: bars, or the line over them."""
        width, high = 1000 / (len(self.edges) - 1), np.rint(1000 * one.counts / self.most) / 10
        if one.is_line:
            return f"M0 100{''.join(f'V{100 - h:g}h{width:.4g}' for h in high)}V100"
        return "".join(f"M{at * width + 0.05 * width:.4g} 100v-{h:g}h{0.9 * width:.4g}v{h:g}z" for at, h in enumerate(high) if h)

    @property
    def says(self) -> str:
        """For those who do not see it: where most lie."""
        said = []
        for one in self.series:
            total = int(one.counts.sum())
            if total:
                top = int(np.argmax(one.counts))
                most = f"{self.edges[top]:g} to {self.edges[top + 1]:g} {self.unit}, {int(one.counts[top]):,} times"
                said.append(f"{one.name}: {total:,} values, most often {most}")
        return "; ".join(said) or "no values"


@dataclass(frozen=True)
class Drawn:
    """A record on ECG paper. columns: SVG of each column of 2.5 s; height_mm: of the paper; course: of a long record, what comes
    over its hours.
    """

    title: str
    facts: str
    says: str
    columns: list[str]
    height_mm: float
    course: Course | None = None
    is_marked: bool = False

    @property
    def bytes(self) -> int:
        """About how much of the page it takes."""
        course = [self.course.line, self.course.band, *(lane[3] for lane in self.course.lanes)] if self.course else []
        return 1000 + sum(map(len, [*self.columns, *course]))


@dataclass(frozen=True)
class Gallery:
    """Records with one label: some open, the others folded away."""

    label: str
    shown: list[Drawn]
    folded: list[Drawn]
    kind: str = "gallery"


@dataclass(frozen=True)
class Section:
    """title; name: of its anchor; parts, in order."""

    title: str
    name: str
    parts: list = field(default_factory=list)


def histogram(
    title: str, unit: str, of: dict[str, np.ndarray], bins: int = 24, limits: tuple[float, float] | None = None
) -> Histogram:
    """Of each name its values, NaN left out: the first as bars, the others as lines over them. Edges are round numbers."""
    values = {name: each[~np.isnan(each)] for name, each in of.items()}
    everything = np.concatenate(list(values.values())) if values else np.empty(0)
    low, high = limits or ((everything.min(), everything.max()) if len(everything) else (0.0, 1.0))
    step = round_step((high - low) / bins)
    edges = step * np.arange(np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9) + 1)
    edges = np.array([edges[0], edges[0] + step]) if len(edges) < 2 else edges
    inside = [Series(name, np.histogram(each, edges)[0], at > 0) for at, (name, each) in enumerate(values.items())]
    return Histogram(title, np.round(edges, 6), inside, unit)


def round_step(least: float) -> float:
    """The first of 1, 2, 5, 10, 20 ... (and their tenths) that is not less."""
    if not least > 0:
        return 1.0
    ten = 10.0 ** np.floor(np.log10(least))
    return float(next(ten * one for one in (1, 2, 5, 10) if ten * one >= least * (1 - 1e-9)))
