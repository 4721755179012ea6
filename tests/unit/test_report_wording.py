"""Numbers in words."""

import pytest

from harness.analysis.plots.style import (
    INK,
    MARKERS,
    PAPER,
    PHASE_COLOURS,
    PLATFORM_COLOURS,
    find_colour,
    wrap_label,
)
from harness.analysis.results import Figure, Ratio
from harness.analysis.wording import format_figure, format_number, format_ratio, format_share, quote

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
        (Figure(10, 0, 0, 4096, "B"), "0 B (0–4096)"),
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
@pytest.mark.parametrize("name", [*PLATFORM_COLOURS, "something-new"])
def test_platform_colours_stand_out_on_light_and_dark_paper(name: str, paper: str) -> None:
    assert contrast(find_colour(name), paper) >= 3


@pytest.mark.parametrize("colour", PHASE_COLOURS.values())
def test_phase_colours_stand_out(colour: str) -> None:
    assert contrast(colour, PAPER) >= 3
    assert contrast(colour, DARK) >= 2.5


def test_colours_are_the_platforms_own() -> None:
    assert len(set(PLATFORM_COLOURS.values())) == len(PLATFORM_COLOURS)
    assert find_colour("namespace#2") == find_colour("namespace")
    assert find_colour("mine") == find_colour("mine")
    assert len(set(MARKERS.values())) == len(MARKERS)
    assert contrast(INK, PAPER) >= 7
