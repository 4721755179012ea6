"""From panels to a finished figure: where everything stands, and its two renderings.

The sheet is as high as what stands on it: labels, titles and keys are measured once, and each panel
gets the height that it asked for. So nothing overlaps, whatever the names are, and no solver runs.
The same data gives the same bytes: no dates, no random ids.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from harness.analysis.plots.data import Data
from harness.analysis.plots.style import INK, STYLE, WIDTH, break_lines

_EDGE, _GAP = 0.07, 0.16
"""Inches around everything, and between two panels."""
_LONG = 600
"""Bytes of a path from which on a tenth of a point is exact enough."""
_FONT = b" font-family: 'DejaVu Sans', sans-serif;"
"""As each text has it, which is said once instead."""
_KEY = 0.46
"""Inches that a key takes beside its words, with the space to the next column."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A finished figure: file stem, what it shows in words, its two renderings and its numbers.

    ``note`` is its caption; ``alt`` says to those who cannot see it what it shows. ``part`` counts
    the sheets of a figure that is too long for one.
    """

    name: str
    title: str
    note: str
    alt: str
    svg: bytes
    png: bytes
    data: Data
    part: int = 1


@dataclass(frozen=True, slots=True)
class Sheet:
    """A figure in the making: its panels, and the inches that each of them is high."""

    name: str
    figure: Figure
    panels: tuple[Axes, ...]
    heights: tuple[float, ...]
    width: float = WIDTH


@contextmanager
def start_sheet(name: str, heights: Sequence[float], width: float = WIDTH) -> Iterator[Sheet]:
    """Panels one above the other, of ``heights`` in inches, in the house style."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in another script
        figure = Figure(figsize=(width, sum(heights) + 1))
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        yield Sheet(name, figure, tuple(axes), tuple(heights), width)


def add_keys(sheet: Sheet, keys: Sequence[Artist], columns: int = 0) -> None:
    """A legend below everything, in as many columns as there is room for."""
    labels = [break_lines(str(key.get_label()), 84, 6) for key in keys]
    if labels:
        sheet.figure.legend(
            keys, labels, loc="lower left", ncols=columns or count_columns(sheet.figure, labels)
        )


def count_columns(figure: Figure, labels: Sequence[str]) -> int:
    """How many columns of keys with these labels fit beside each other."""
    font = FontProperties(size=8.5)
    renderer = _find_renderer(figure)
    widths = [
        _find_width(renderer, line, font) / figure.dpi
        for label in labels
        for line in label.split("\n")
    ]
    return max(1, min(len(labels), int((WIDTH - 2 * _EDGE) / (max(widths) + _KEY))))


def finish(sheet: Sheet, title: str, note: str, alt: str, data: Data, part: int = 1) -> Drawing:
    """Put everything in its place and render it."""
    heading = sheet.figure.suptitle(
        break_lines(title, int(60 * sheet.width / WIDTH)), x=_EDGE / sheet.width,
        ha="left", va="top", fontsize=12, fontweight="bold", color=INK,
    )  # fmt: skip
    place_panels(sheet, heading)
    svg, png = render(sheet)
    return Drawing(sheet.name, title, note, alt, svg, png, data, part)


def place_panels(sheet: Sheet, heading: Text) -> None:
    """Margins as wide as the labels, panels as high as asked for, all below the heading."""
    figure, dpi, width = sheet.figure, sheet.figure.dpi, sheet.width
    renderer = _find_renderer(figure)
    first = (0.22, 0.1, 0.58, 0.8)
    for axes in sheet.panels:
        axes.set_position(first)
    boxes = [(axes.bbox, _measure(axes, renderer)) for axes in sheet.panels]
    left = max((box.x0 - tight.x0) / dpi for box, tight in boxes) + _EDGE
    right = max((tight.x1 - box.x1) / dpi for box, tight in boxes) + _EDGE
    above = [max((tight.y1 - box.y1) / dpi, 0.05) for box, tight in boxes]
    below = [max((box.y0 - tight.y0) / dpi, 0.05) for box, tight in boxes]
    top = heading.get_window_extent(renderer).height / dpi + _EDGE + _GAP
    keys = sum(each.get_window_extent(renderer).height / dpi + _GAP for each in figure.legends)
    height = top + sum(above) + sum(below) + sum(sheet.heights) + keys + 2 * _EDGE
    height += _GAP * (len(sheet.panels) - 1)
    figure.set_size_inches(width, height)
    heading.set_y(1 - _EDGE / height)
    edge = height - top
    for axes, tall, over, under in zip(sheet.panels, sheet.heights, above, below, strict=True):
        bottom = edge - over - tall
        share = (width - left - right) / width
        axes.set_position((left / width, bottom / height, share, tall / height))
        edge = bottom - under - _GAP
    for each in figure.legends:
        each.set_bbox_to_anchor((_EDGE / width, _EDGE / height))


def _measure(axes: Axes, renderer: RendererAgg) -> Bbox:
    """What the axes take with their labels and texts; across, their titles need no room."""
    found = axes.get_tightbbox(renderer, bbox_extra_artists=axes.texts, for_layout_only=True)
    return axes.bbox if found is None else found


def _find_renderer(figure: Figure) -> RendererAgg:
    assert isinstance(figure.canvas, FigureCanvasAgg)
    found: RendererAgg = figure.canvas.get_renderer()  # type: ignore[no-untyped-call]
    return found


def _find_width(renderer: RendererAgg, text: str, font: FontProperties) -> float:
    """Dots that a line of text takes."""
    size = renderer.get_text_width_height_descent(text, font, False)  # type: ignore[no-untyped-call]
    return float(size[0])


def render(sheet: Sheet) -> tuple[bytes, bytes]:
    """SVG and PNG, without anything that changes from one time to the next."""
    svg, png = io.BytesIO(), io.BytesIO()
    sheet.figure.savefig(
        png,
        format="png",
        dpi=sheet.figure.dpi,
        metadata={"Software": None},
        pil_kwargs={"compress_level": 3},
    )
    sheet.figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "harness"})
    return clean_svg(svg.getvalue()), png.getvalue()


def clean_svg(data: bytes) -> bytes:
    """Without what says nothing: metadata, comments, groups of one, further digits, and ids that
    nobody refers to. Digits are cut within tags alone: words stay as they are."""
    text = re.sub(rb"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", b"", data, flags=re.DOTALL)
    used = set(re.findall(rb"#([\w-]+)", text))

    def shorten(tag: "re.Match[bytes]") -> bytes:
        kept = re.sub(rb"(\d\.\d)\d+" if len(tag[0]) > _LONG else rb"(\d\.\d\d)\d+", rb"\1", tag[0])
        if b"C" not in kept and b"Q" not in kept:  # else a line could be taken for a curve
            kept = kept.replace(b"\nL ", b" ")
        kept = re.sub(rb' transform="rotate\(-0 [^"]*"', b"", kept)
        return re.sub(rb' id="([\w-]+)"', lambda each: each[0] if each[1] in used else b"", kept)

    text = re.sub(rb"<[^>]+>", shorten, text)
    text = re.sub(rb"\s*\n\s*", b"\n", text)
    text = text.replace(b"<g/>\n", b"")
    text = text.replace(_FONT, b"").replace(b"<svg ", b'<svg style="%s" ' % _FONT.strip(b" ;"), 1)
    for _ in range(3):
        text = re.sub(rb"<g>\n((?:<(?:path|use)[^<]*/>\n)*)</g>\n", rb"\1", text)
        text = re.sub(rb"<g>\n(<text[^<]*</text>\n)</g>\n", rb"\1", text)
    return text
