"""What two runs are compared by, and what comes of it, as plain data."""

from dataclasses import dataclass

from harness.analysis.compare_sides import Case, Side
from harness.analysis.compare_traits import Difference
from harness.analysis.pairs import SIGNIFICANT as SIGNIFICANT
from harness.analysis.pairs import THRESHOLD


@dataclass(frozen=True, slots=True)
class Terms:
    """How to compare: the practical threshold as a share, what may differ, and relative to what.

    ``every`` compares all metrics and phases, not only the headline metrics.
    """

    threshold: float = THRESHOLD
    allowed: frozenset[str] = frozenset()
    relative_to: str | None = None
    every: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric on one platform with one workload: medians, ratio of new to base and verdict.

    ``shift`` and medians are in ``unit``; ``p`` is Holm-corrected; ``floor`` is a share, None
    where no A/A arm saw this; ``detectable`` is the least change, as a share, that would have been
    found with 80 % power before the correction. None is what cannot be known. ``withheld`` is why
    there is no verdict, or empty.
    """

    platform: str
    workload: str
    metric: str
    phase: str
    unit: str
    n_base: int
    n_new: int
    base: float | None
    new: float | None
    ratio: float | None
    low: float | None
    high: float | None
    shift: float | None
    p: float | None
    floor: float | None
    detectable: float | None
    verdict: str
    regression: bool
    withheld: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What `compare_sides` found. ``refused`` is not empty where nothing was compared.

    ``only_base`` and ``only_new`` are platforms with their workloads; ``broken`` are those that
    BASE measured and of which every trial in NEW failed.
    """

    base: Side
    new: Side
    terms: Terms
    refused: tuple[Difference, ...] = ()
    accepted: tuple[Difference, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    only_base: tuple[Case, ...] = ()
    only_new: tuple[Case, ...] = ()
    broken: tuple[Case, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def regressions(self) -> tuple[Comparison, ...]:
        return tuple(each for each in self.comparisons if each.regression)

    @property
    def verdict(self) -> str:
        """``regression``, ``no regression`` or ``not comparable``.

        Where every comparison is withheld nothing was compared: that is no good news.
        """
        if self.regressions or self.broken:
            return "regression"
        compared = any(not each.withheld for each in self.comparisons)
        return "no regression" if compared else "not comparable"
