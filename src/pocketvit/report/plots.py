"""Plots as inline SVG with the colors of the page.

Matplotlib draws the plot. Its SVG is then adapted to HTML: colors become CSS variables, so that one drawing fits light,
dark and paper; the font is the page's; and what only a separate file needs is removed. The same numbers give the same
bytes.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

COLOURS = {
    "muted": "#010101", "rule": "#020202", "accent": "#030303", "warm": "#040404",
    "ink": "#050505", "violet": "#060606", "green": "#070707", "ochre": "#080808",
}  # fmt: skip
"""CSS variables of the page, and the placeholder color that matplotlib draws each with."""

SIZE_INCHES = (5.4, 3.0)  # at 72 points per inch, close to the width of a phone, so that text is not scaled down there
FONT_POINTS = 11.5
MAX_MARKERS = 30  # lines with more points have no markers
MARGIN = 0.05  # room between the data and the end of an axis, as a fraction of the axis
ROUND_STEPS = (1, 2, 2.5, 5, 10)  # distances between the numbers along an axis, times a power of ten


@dataclass(frozen=True)
class Series:
    """One line of a plot."""

    label: str  # shown in a legend if there are several lines
    x: Sequence[float]
    y: Sequence[float]
    colour: str = "accent"  # a key of COLOURS
    band: tuple[Sequence[float], Sequence[float]] | None = None
    """Lower and upper edge of a shaded band around the line, one value for each point."""
    dashed: bool = False


def line_plot(
    name: str,
    series: Sequence[Series],
    *,
    description: str,
    x_label: str,
    x_format: Callable[[float], str] = "{:g}".format,
    y_format: Callable[[float], str] = "{:g}".format,
    y_start: float | None = None,
    y_range: tuple[float, float] | None = None,
    legend: bool = True,
    legend_at: Literal["lower right", "upper right"] = "lower right",
) -> Markup:
    """Draw lines over common axes.

    Args:
        name: unique on the page; makes the SVG's internal names unique.
        series: the lines, the first one on top.
        description: text for readers who cannot see the plot.
        x_label: of the horizontal axis.
        x_format, y_format: format the numbers along the axes.
        y_start: where the vertical axis begins; what is below is cut off. By default all is shown.
        y_range: the least and the greatest possible value, beyond which the vertical axis does not go.
        legend: name the lines inside the plot if there are several.
        legend_at: where.
    Returns:
        an `<svg>` element, safe to put into a page.
    """
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for depth, line in enumerate(series):
        _draw(axes, line, zorder=3 - depth / 10, clip_on=y_start is not None)
    axes.set_xlabel(x_label, color=COLOURS["muted"], fontsize=FONT_POINTS, loc="right", parse_math=False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: x_format(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: y_format(value)))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS))
    axes.tick_params(colors=COLOURS["muted"], labelsize=FONT_POINTS, length=0, pad=5)
    axes.grid(axis="y", color=COLOURS["rule"], linewidth=1)
    axes.spines[:].set_visible(False)
    axes.set_xlim(0, (1 + MARGIN) * axes.dataLim.x1)
    axes.set_ylim(bottom=y_start)
    if y_range:  # around a flat line, matplotlib makes room even beyond 100 %
        bottom, top = axes.get_ylim()
        margin = MARGIN * (top - bottom)
        axes.set_ylim(max(bottom, y_range[0] - margin), min(top, y_range[1] + margin))
    if legend and len(series) > 1:
        axes.legend(loc=legend_at, frameon=False, fontsize=FONT_POINTS, labelcolor=COLOURS["muted"])
    return _embeddable(figure, name, description)


def _draw(axes: Axes, line: Series, **place: Any) -> None:
    """One line with its band; `place` sets its depth and whether it is clipped."""
    # A single point would be an invisible line; long lines, and those in a band, would be hidden by markers.
    marker = "o" if len(line.x) <= (1 if line.band else MAX_MARKERS) else None
    colour = COLOURS[line.colour]
    if line.band:
        axes.fill_between(line.x, *line.band, color=colour, alpha=0.2, linewidth=0, **place)
    axes.plot(line.x, line.y, color=colour, linewidth=1.8, linestyle="--" if line.dashed else "-", marker=marker,
              markersize=3.6, label=line.label, solid_capstyle="round", **place)  # fmt: skip


def _embeddable(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an `<svg>` element, without what only a separate file needs."""
    file = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    # The salt makes the names of clip paths and markers reproducible.
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", transparent=True, metadata=no_metadata)
    svg = file.getvalue()
    body = svg[svg.index("<defs>") : svg.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # a style element would affect the whole page
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # the same names in every plot
    body = re.sub(r" font-family: [^;\"]*;?", "", body)
    body = body.replace("xlink:href", "href")
    for variable, stand_in in COLOURS.items():
        body = body.replace(stand_in, f"var(--{variable})")
    body = re.sub(r">\s+<", "><", body)
    width, height = (72 * inches for inches in SIZE_INCHES)
    box = f'viewBox="0 0 {width:g} {height:g}"'
    return Markup(f'<svg class="plot" {box} role="img" aria-label="{escape(description)}">{body}</svg>')  # noqa: S704
