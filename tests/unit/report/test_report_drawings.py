"""Plots, pictures and numbers as text: what the page is put together from."""

import base64
import io
import re

import matplotlib
import numpy as np
import pytest
from PIL import Image

from pocketvit.report import text
from pocketvit.report.pictures import filter_sheet_uri, heat_map_uri, image_uri, similarity_sheet_uri
from pocketvit.report.plots import Series, line_plot


def pixels_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))))


def plot(name: str = "plot", lines: int = 1, x_label: str = "passes") -> str:
    series = [Series(f"line {i}", [1, 2, 3], [i, 2.0, 1.0]) for i in range(lines)]
    formats = {"x_format": "{:g}".format, "y_format": "{:.1f}".format}
    return line_plot(name, series, description="falls", x_label=x_label, **formats)


def test_a_plot_takes_its_colours_and_typeface_from_the_page():
    svg = plot()
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert set(re.findall(r"var\(--(\w+)\)", svg)) == {"accent", "muted", "rule"}
    assert "font-family" not in svg and "<style" not in svg
    assert ">1.5</text>" in svg, "numbers are text, not outlines"


def test_a_plot_escapes_and_names_itself():
    svg = plot(x_label="<b>$x$")
    assert "&lt;b&gt;$x$" in svg
    assert 'role="img" aria-label="falls"' in svg


def test_two_plots_share_no_inner_name():
    first, second = (set(re.findall(r'id="(\w+)"', plot(name))) for name in ("a", "b"))
    assert first and not first & second
    assert plot("a") == plot("a")


def test_only_several_lines_have_a_legend():
    assert "line 0" not in plot(lines=1)
    assert "line 0" in plot(lines=2) and "line 1" in plot(lines=2)


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    plot()
    assert dict(matplotlib.rcParams) == before


def test_small_images_keep_their_pixels(real_images):
    np.testing.assert_array_equal(pixels_of(image_uri(real_images[0])), real_images[0])
    grey = np.repeat(real_images[1][..., :1], 3, axis=-1)
    np.testing.assert_array_equal(pixels_of(image_uri(grey)), grey[..., 0])


def test_large_images_become_small_jpegs():
    uri = image_uri(np.zeros((600, 400, 3), np.uint8))
    assert uri.startswith("data:image/jpeg;base64,")
    assert pixels_of(uri).shape == (256, 171, 3)


def test_heat_map_shows_right_and_wrong():
    pixels = pixels_of(heat_map_uri(np.array([[8, 2, 0], [0, 5, 0], [9, 0, 1]])))
    assert pixels.shape == (3, 3, 4)
    opacity = pixels[..., 3]
    assert opacity[1, 1] == 255 and opacity[2, 0] == 255  # all right; the worst error
    assert opacity[0, 2] == opacity[1, 0] == 0
    assert 0 < opacity[0, 1] < opacity[2, 0]
    assert tuple(pixels[0, 0, :3]) != tuple(pixels[0, 1, :3])


def test_filters_are_scaled_each_by_itself_around_grey():
    filters = np.zeros((9, 4, 4, 3))
    filters[0, 0, 0] = 5.0
    filters[8, 0, 0] = -0.01
    sheet = pixels_of(filter_sheet_uri(filters))
    assert sheet.shape == (2 * 5 - 1, 8 * 5 - 1, 4)
    assert tuple(sheet[0, 0]) == (255, 255, 255, 255) and tuple(sheet[5, 0]) == (0, 0, 0, 255)
    assert tuple(sheet[1, 1]) == (128, 128, 128, 255)
    assert sheet[4, 0, 3] == 0 and sheet[5, 5, 3] == 0  # between the tiles; where there is none


def test_position_similarity_is_a_map_for_each_position():
    sheet = pixels_of(similarity_sheet_uri(np.eye(9)))
    assert sheet.shape == (3 * 10 - 1, 3 * 10 - 1, 4)  # each position is three pixels
    first = [0, 3, 6, 10, 13, 16, 20, 23, 26]
    corners = sheet[first][:, first]
    brightest = np.argwhere((corners[..., :3] == sheet[0, 0, :3]).all(axis=-1))
    np.testing.assert_array_equal(brightest, [(4 * row, 4 * column) for row in range(3) for column in range(3)])
    assert pixels_of(similarity_sheet_uri(np.eye(5))).shape == (10, 10, 4)  # not a square of patches: the matrix
    assert pixels_of(similarity_sheet_uri(np.eye(64))).shape == (8 * 9 - 1, 8 * 9 - 1, 4)


def test_an_accuracy_axis_does_not_go_beyond_100_percent():
    formats = {"description": "level", "x_label": "", "x_format": "{:g}".format, "y_format": text.axis_percent}

    def numbers(**options) -> list[float]:
        svg = line_plot("level", [Series("line", [1, 2], [1.0, 1.0])], **formats, **options)
        return [float(number) for number in re.findall(rf">([\d.]+){text.NBSP}%</text>", svg)]

    assert max(numbers()) > 100, "what matplotlib makes of a level line"
    assert max(numbers(y_range=(0.0, 1.0))) == 100


def test_a_plot_ends_to_the_right_of_its_last_point():
    """Also where the rows of a study end close together, each with a single point."""
    formats = {"description": "", "x_label": "", "x_format": "{:g}".format, "y_format": "{:g}".format}
    rows = [Series(f"row {x}", [x], [0.5], band=([0.4], [0.6])) for x in (0.98, 1.0)]
    svg = line_plot("ends", rows, y_start=0.3, legend=False, **formats)
    (clip,) = set(re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg))
    marks = [float(x) for x in re.findall(r'<use [^>]*?x="([\d.]+)" y="[\d.]+" style="fill', svg)]
    assert marks, svg
    assert max(marks) < sum(map(float, clip)) - 5


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.914, "0.91 s"),
        (45.23, "45.2 s"),
        (272.9, "4 min 33 s"),
        (3599.7, "1 h 0 min"),
        (4658, "1 h 18 min"),
        (7199, "2 h 0 min"),
    ],
)
def test_durations(seconds, expected):
    assert text.duration(seconds).replace(text.NBSP, " ") == expected


def test_numbers():
    assert text.count(2697610.4) == "2,697,610"
    short = [text.short_count(number).replace(text.NBSP, " ") for number in (0, 500, 1500, 2.5e6)]
    assert short == ["0", "500", "1.5 k", "2.5 M"]
    assert text.percent(0.97222).replace(text.NBSP, " ") == "97.2 %"
    assert [text.percent_decimals(total) for total in (360, 10_000)] == [1, 2]


def test_a_band_is_shaded_and_an_axis_may_begin_above_the_data():
    line = Series("line", [1, 2, 3], [0.0, 5.0, 6.0], "ink", band=([0.0, 4.0, 5.0], [0.0, 6.0, 7.0]), dashed=True)
    formats = {"description": "climbs", "x_label": "", "x_format": "{:g}".format, "y_format": "{:g}".format}
    whole, cut = line_plot("band", [line], **formats), line_plot("band", [line], y_start=4.5, **formats)
    assert "fill: var(--ink); fill-opacity: 0.2" in whole and "stroke-dasharray" in whole

    def numbers_upwards(svg: str) -> list[str]:
        return re.findall(r"text-anchor: end[^>]*>(\d+)</text>", svg)

    assert "0" in numbers_upwards(whole) and "5" in numbers_upwards(cut) and "0" not in numbers_upwards(cut)
