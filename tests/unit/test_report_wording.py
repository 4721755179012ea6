"""Numbers in words."""

import math

import pytest

from harness.analysis.colours import PLATFORM_COLOURS, SPARE_COLOURS, assign_colours
from harness.analysis.plots.style import (
    INK,
    MARKERS,
    PAPER,
    PHASE_COLOURS,
    wrap_label,
)
from harness.analysis.results import Figure, Ratio
from harness.analysis.wording import (
    format_figure,
    format_number,
    format_ratio,
    format_share,
    quote,
    say_intervals,
)
from harness.model import MILESTONES, RESIDUAL
from tests.unit.synthetic import MACHINES

DARK = "#14181d"


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (Figure(10, 0.0031, 0.0029, 0.00331, "s"), "3.10 ms (2.90–3.31)"),
        (Figure(10, 0.00095, 0.00087, 0.0012, "s"), "950 µs (870–1200)"),
        (Figure(10, 0.9996, 0.99, 1.01, "s"), "1.00 s (0.990–1.01)"),
        (Figure(10, 2.3, 2.25, 2.33, "s"), "2.30 s (2.25–2.33)"),
        (Figure(10, 0.0, 0.0, 0.0, "s"), "0 s"),
        (Figure(10, 24 << 20, 24 << 20, 24 << 20, "B"), "24.0 MiB"),
        (Figure(10, 0, 0, 4096, "B"), "0 KiB (0–4.00)"),
        (Figure(10, 0.0, 0.0, 0.000148, "s"), "0 µs (0–148)"),
        (Figure(10, 12.4 * 2**20, -(2**20), 30 * 2**20, "B"), "12.4 MiB (-1.00 to 30.0)"),
        (Figure(10, 1023.9 * 1024, 1000 * 1024, 1048 * 1024, "B"), "1.00 MiB (0.977–1.02)"),
        (None, "–"),
    ],
)
def test_a_figure_has_one_unit_for_all_three(figure: Figure | None, words: str) -> None:
    assert format_figure(figure) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.54, "0.540"), (2.0, "2.00"), (31.25, "31.2"), (312.4, "312"), (1480.2, "1480"),
     (0.0123, "0.0123"), (0.00001, "1e-05")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, words: str) -> None:
    assert format_number(value) == words


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ((8,), "95 % intervals"),
        ((6, 10), "95 % intervals"),
        ((3, 3), "ranges of 3 blocks, which hold the median with at most 75 %"),
        ((2, 3), "ranges of 2 to 3 blocks, which hold the median with at most 50 to 75 %"),
        ((1,), "ranges of 1 block, which hold the median with at most 0 %"),
        ((3, 8),
         "95 % intervals, else ranges of 3 blocks, which hold the median with at most 75 %"),
    ],
)  # fmt: skip
def test_a_range_of_few_blocks_is_not_called_an_interval_of_95(
    blocks: tuple[int, ...], words: str
) -> None:
    assert say_intervals([None, *(Figure(n, 2.0, 1.0, 3.0, "s") for n in blocks)]) == words


def test_a_ratio_without_spread_has_no_interval() -> None:
    assert format_ratio(Ratio(9, 1.46, 1.46, 1.46, 0, None, "larger")) == "1.46 ×"
    assert format_ratio(Ratio(9, 312, 290.2, 330, 0, None, "larger")) == "312 × (290–330)"


@pytest.mark.parametrize(("share", "words"), [(0.0361, "3.6 %"), (0, "0 %"), (1.5, "150 %")])
def test_shares(share: float, words: str) -> None:
    assert format_share(share) == words


def test_a_quoted_name_cannot_end_its_quotes() -> None:
    assert quote("a`b\nc") == "`aʼb c`"
    assert quote("") == "`?`"


def test_a_long_label_is_cut_in_the_middle() -> None:
    assert wrap_label("vm-direct, emulated (TCG)") == "vm-direct\nemulated (TCG)"
    assert wrap_label("x" * 40) == f"{'x' * 12}…{'x' * 12}"


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("paper", [PAPER, DARK])
@pytest.mark.parametrize("colour", [*PLATFORM_COLOURS.values(), *SPARE_COLOURS])
def test_platform_colours_stand_out_on_light_and_dark_paper(colour: str, paper: str) -> None:
    assert contrast(colour, paper) >= 3


@pytest.mark.parametrize("colour", PHASE_COLOURS.values())
def test_phase_colours_stand_out(colour: str) -> None:
    assert contrast(colour, PAPER) >= 3
    assert contrast(colour, DARK) >= 2.5


def test_colours_are_the_platforms_own() -> None:
    every = [*PLATFORM_COLOURS.values(), *SPARE_COLOURS]
    assert len(set(every)) == len(every)
    names = ["namespace", "namespace#2", "mine", *MACHINES]
    found = assign_colours(names)
    assert found["namespace#2"] == found["namespace"]
    assert found["mine"] == assign_colours(["mine"])["mine"]
    assert len(set(found.values())) == len(names) - 1
    assert len(set(MARKERS.values())) == len(MARKERS)
    assert contrast(INK, PAPER) >= 7


# Machado, Oliveira and Fernandes (IEEE TVCG 15, 2009), complete loss of one kind of cone.
EYES = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": ((0.1523, 1.0526, -0.2049), (0.1145, 0.7863, 0.0992), (-0.0039, -0.0481, 1.0520)),
    "no green": ((0.3673, 0.8606, -0.2280), (0.2801, 0.6725, 0.0474), (-0.0118, 0.0429, 0.9689)),
    "no blue": ((1.2555, -0.0767, -0.1788), (-0.0784, 0.9308, 0.1476), (0.0047, 0.6914, 0.3039)),
}
NEIGHBOURS = [
    ("created", "init"), ("created", "started"), ("started", "init"), ("created", "kernel"),
    ("created", "loader"), ("loader", "kernel"), ("kernel", "init"), ("kernel", "initramfs"),
    ("initramfs", "system"), ("system", "init"), ("init", "exec"), ("exec", "ready"),
    ("ready", "response"),
]  # fmt: skip


def see(colour: str, eye: str) -> tuple[float, float, float]:
    """CIE L*a*b* of a colour as an eye sees it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    red, green, blue = (
        min(1.0, max(0.0, sum(a * b for a, b in zip(row, linear, strict=True))))
        for row in EYES[eye]
    )
    x, y, z = (
        value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116
        for value in (
            (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
            0.2126 * red + 0.7152 * green + 0.0722 * blue,
            (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089,
        )
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("pair", NEIGHBOURS)
def test_neighbouring_phases_differ_to_every_eye(pair: tuple[str, str], eye: str) -> None:
    one, other = (see(PHASE_COLOURS[name], eye) for name in pair)
    assert math.dist(one, other) >= 25


def test_every_milestone_has_a_colour() -> None:
    assert set(PHASE_COLOURS) == {*MILESTONES[1:-1], RESIDUAL}


def test_a_long_variant_is_broken_at_its_options() -> None:
    text = "vm-direct/disk=erofs/upper=tmpfs, emulated (TCG)"
    assert wrap_label(text) == "vm-direct/disk=erofs/\nupper=tmpfs\nemulated (TCG)"
