"""The page and the picture of attention maps."""

import base64
import io
import re

import numpy as np
from PIL import Image

from pocketvit.report.explanations import MOST_DRAWN, Explanation, draw, render, write_explanations


def explained(file: str = "a.png", name: str = "cat", **values) -> Explanation:
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    maps = {"rollout": np.array([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]]), "head 1": np.full((2, 3), 0.25)}
    shares = {name: 0.125, "dog": 0.75, **{f"class {k}": 0.01 for k in range(9)}}
    return Explanation(**{"file": file, "image": image, "probabilities": shares, "maps": maps} | values)


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/png;base64,([\w+/=]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB")) for each in found]


def test_the_page_has_each_image_with_its_classes_and_maps():
    page = render("run", [explained(), explained("b.png")])
    shown = pictures(page)
    assert np.array_equal(shown[0], explained().image) and len(shown) == 2 * (1 + 2)
    assert shown[1].shape == (2, 3, 3), "a pixel for each patch"
    assert shown[1][0, 0].tolist() == [68, 1, 84] and shown[1][1, 2].tolist() == [253, 231, 37], (
        "viridis from end to end"
    )
    assert (shown[2] == shown[2][0, 0]).all(), "no difference, no color"
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.split("<main>")[1])).replace("\xa0", " ")
    assert "a.png dog 75.0 % cat 12.5 % class 0 1.0 % class 1 1.0 % class 2 1.0 % rollout 0.000 to 0.500" in text
    assert "class 3" not in text and "b.png" in text


def test_the_values_of_a_faint_map_are_told_apart():
    """Gradient-weighted maps of a sure model have values far below a thousandth."""
    faint = {"gradient-weighted": np.array([[0.0, 0.00041]]), "none": np.zeros((1, 2))}
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", render("run", [explained(maps=faint)])))
    assert "gradient-weighted 0 to 0.00041 " in text and "none 0 to 0 " in text


def test_names_cannot_break_out_of_the_page():
    evil = '"><script>alert(1)</script>'
    page = render(evil, [explained(evil, evil)])
    assert "<script" not in page and page.count("&lt;script&gt;") >= 6


def test_the_picture_has_a_row_for_each_image_and_takes_any_name(recwarn):
    heights = []
    for count in (1, 2, 3):
        with Image.open(io.BytesIO(draw([explained("x", "$猫_{$") for _ in range(count)]))) as image:
            assert image.format == "PNG"
            heights.append(image.height)
    assert np.ptp(np.diff(heights)) <= 1 and heights[0] > 100
    assert not recwarn


def test_many_images_are_all_on_the_page_but_not_in_the_picture(tmp_path):
    page, picture = write_explanations(tmp_path / "new", "run", [explained(f"{k}.png") for k in range(MOST_DRAWN + 5)])
    assert page.read_text().count("<section") == MOST_DRAWN + 5
    with Image.open(picture) as drawn, Image.open(io.BytesIO(draw([explained()] * MOST_DRAWN))) as first:
        assert drawn.size == first.size
