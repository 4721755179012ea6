"""Numbers and names in words: pure functions that the page, the plots and the terminal share."""

from collections.abc import Collection, Iterable

from harness.analysis.results import Figure, Ratio, Results
from harness.analysis.statistics import CONFIDENCE, best_coverage
from harness.model import AA_SUFFIX, NO_ACCELERATOR, UNKNOWN_ACCELERATOR, base_platform

ABSENT = "–"

PACKINGS = {
    "tree": "directory tree",
    "oci-gzip": "OCI layers, gzip",
    "oci-zstd": "OCI layers, zstd",
    "ext4-raw": "raw ext4 file system",
    "raw": "raw ext4 file system",
    "raw-zstd": "raw ext4 file system, zstd",
    "qcow2": "qcow2, compressed",
    "overlay": "qcow2 overlay on the base",
    "casync": "chunks, casync",
    "qcow2-full": "qcow2, a file of its own",
    "squashfs": "squashfs, read-only",
    "erofs": "EROFS, read-only",
    "disk-raw": "bootable disk, raw",
    "disk-qcow2": "bootable disk, compressed qcow2",
    "disk-raw-zstd": "bootable disk, raw, zstd",
    "snapshot": "memory snapshot with its disk",
    "snapshot-zstd": "memory snapshot with its disk, zstd",
    "blocks-zstd": "changed blocks of the raw disk, zstd",
    "overlay-zstd": "qcow2 overlay on the old disk, zstd",
}
"""What a packing is; one that is not here is shown by its name alone."""


def format_figure(figure: Figure | None) -> str:
    """``3.10 ms (2.90–3.31)``: a median with its interval, all three in the median's unit.

    A figure without any spread has no interval to show.
    """
    if figure is None:
        return ABSENT
    median, interval = split_figure(figure)
    return f"{median} ({interval})" if interval else median


def split_figure(figure: Figure) -> tuple[str, str]:
    """``3.10 ms`` and ``2.90–3.31``, for a cell with two lines; no interval without a spread."""
    # a median of 0 has no size of its own: then the interval decides on the unit
    size = figure.median or max(figure.low, figure.high, key=abs)
    factor, unit = _find_scale(size, figure.unit)
    median, low, high = (
        format_number(value / factor) for value in (figure.median, figure.low, figure.high)
    )
    if low == high == median:
        return f"{median} {unit}", ""
    between = " to " if "-" in low + high else "–"
    return f"{median} {unit}", f"{low}{between}{high}"


def format_number(value: float) -> str:
    """Three significant digits without an exponent: ``0.0123``, ``2.30``, ``31.2``, ``1480``."""
    if abs(value) >= 100 or value == int(value) == 0:
        return f"{value:.0f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) >= 1e-4 else f"{value:.2g}"


def _find_scale(value: float, unit: str) -> tuple[float, str]:
    """What to divide by, and the unit that is left, so that ``value`` reads well."""
    scales = {
        "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
        "B": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
        "1/s": ((1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")),
        "B/s": ((2.0**30, "GiB/s"), (2.0**20, "MiB/s"), (2.0**10, "KiB/s"), (1.0, "B/s")),
    }.get(unit, ((1.0, unit),))
    if value == 0:
        return next(scale for scale in scales if scale[0] == 1.0)
    rounded = float(f"{abs(value):.3g}")
    return next((scale for scale in scales if rounded >= scale[0]), scales[-1])


def format_ratio(ratio: Ratio | None) -> str:
    """``312 × (290–330)``."""
    if ratio is None:
        return ABSENT
    median, interval = split_ratio(ratio)
    return f"{median} ({interval})" if interval else median


def split_ratio(ratio: Ratio) -> tuple[str, str]:
    """``312 ×`` and ``290–330``; nothing to show where values of zero have no ratio."""
    if ratio.median != ratio.median:
        return ABSENT, ""
    median, low, high = (format_number(each) for each in (ratio.median, ratio.low, ratio.high))
    return f"{median} ×", "" if low == high == median else f"{low}–{high}"


def say_intervals(figures: Iterable[Figure | None]) -> str:
    """What the intervals of ``figures`` are, for a caption.

    ``95 % intervals``; of fewer than six blocks ``ranges of 3 blocks, which hold the median with
    at most 75 %``. Where the figures differ, both are said.
    """
    counts = {each.n for each in figures if each is not None}
    few = sorted(n for n in counts if best_coverage(n) < CONFIDENCE)
    if not few:
        return "95 % intervals"
    ends = dict.fromkeys((few[0], few[-1]))
    blocks = f"{' to '.join(map(str, ends))} block{'' if few[-1] == 1 else 's'}"
    shares = " to ".join(format_number(best_coverage(n) * 100).removesuffix(".0") for n in ends)
    ranges = f"ranges of {blocks}, which hold the median with at most {shares} %"
    return ranges if len(few) == len(counts) else f"95 % intervals, else {ranges}"


def shorten_reason(reason: str) -> str:
    """Why a figure is withheld, for a table: the marks and their remedies have a table of their
    own, and the answer says them once."""
    return reason.partition(" (")[0]


def format_share(share: float) -> str:
    """``3.6 %``."""
    if share != share:
        return ABSENT
    return f"{share * 100:.2g} %" if share < 0.995 else f"{share * 100:.0f} %"


def format_p(p: float) -> str:
    if p != p:
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def describe_accelerator(accelerator: str) -> str:
    """``emulated (TCG)`` for tcg, ``KVM`` for kvm, empty where there is none. A sandbox's own words
    (``systrap``, ``ptrace``) stay as they are."""
    if accelerator == "tcg":
        return "emulated (TCG)"
    if accelerator in ("", NO_ACCELERATOR):
        return ""
    if accelerator == UNKNOWN_ACCELERATOR:
        return "on an unknown platform"
    return "KVM" if accelerator == "kvm" else accelerator


def describe_ran(results: Results, platform: str) -> str:
    """What a platform ran on, where its name does not say it: ``gvisor/systrap`` does."""
    accelerator = results.accelerators.get(platform, "")
    said = accelerator in base_platform(platform).split("/")[1:]
    return "" if said else describe_accelerator(accelerator)


def quote(name: str) -> str:
    """A name as a code span: in sentences, whatever stands between backticks is one."""
    plain = " ".join(name.split()) or "?"
    return f"`{plain.replace('`', 'ʼ')}`"


def describe_platform(results: Results, platform: str, *, quoted: bool = False) -> str:
    """A platform's name as a reader is to see it: ``vm-direct, emulated (TCG)``."""
    name = base_platform(platform)
    words = [quote(name) if quoted else name]
    if platform.endswith(AA_SUFFIX):
        words.append("second arm")
    words.append(describe_ran(results, platform))
    return ", ".join(word for word in words if word)


def describe_accelerators(results: Results) -> str:
    """One phrase on what the virtual machines of a run ran on; empty without one.

    Where they differ, the fewer are named: ``Virtual machines: emulated (TCG), but vm-b: KVM``.
    """
    found: dict[str, list[str]] = {}
    for name in results.first_arms:
        words = describe_accelerator(results.accelerators.get(name, ""))
        if results.kinds[name] == "vm" and words:
            found.setdefault(words, []).append(name)
    if len(found) < 2:
        return "".join(f"Virtual machines: {words}" for words in found)
    (most, _), *others = sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    parts = (f"{', '.join(names)}: {words}" for words, names in others)
    return f"Virtual machines: {most}, but {'; '.join(parts)}"


def find_traits(results: Results, platform: str, milestones: Collection[str]) -> frozenset[str]:
    """What decides on the words for a platform's phases: kind, base platform and milestones."""
    base = base_platform(platform).partition("/")[0].partition("+")[0]
    return frozenset((results.kinds[platform], base, *milestones))
