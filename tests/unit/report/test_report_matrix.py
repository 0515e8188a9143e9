"""The confusion matrix on the page of a run, with many classes and with wide letters."""

import re
from pathlib import Path

import numpy as np
import pytest

from pocketvit.report import by_class
from pocketvit.report.page import write_report

WHERE = "const r = document.querySelector('.map .cells').getBoundingClientRect(), c = r.width / 100;"


@pytest.fixture
def report(make_run):
    """Writes the page of a run on so many classes; a third of each is predicted as the next class."""

    def write(names: list[str]) -> Path:
        run = make_run(f"of {len(names)}")
        labels = np.repeat(np.arange(len(names)), 3)
        logits = 9 * np.eye(len(names), dtype=np.float32)[labels]
        logits[::3] = np.roll(logits[::3], 1, axis=1)
        np.savez(run / "predictions.npz", logits=logits, labels=labels, indices=labels, class_names=np.array(names))
        (run / "samples.npz").unlink()
        return write_report(run)

    return write


def test_every_cell_of_a_picture_says_what_it_is(report, monkeypatch):
    html = report([f"<{k}>" for k in range(100)]).read_text()
    cells = re.findall(r'<path d="M(\d+) (\d+)h1v1h-1z"><title>(.*?)</title>', html)
    assert len(cells) == 200
    assert ("8", "7", "&lt;7&gt; predicted as &lt;8&gt;: 1, 33.3\N{NO-BREAK SPACE}% of its class") in cells
    assert ("7", "7", "&lt;7&gt; predicted as &lt;7&gt;: 2, 66.7\N{NO-BREAK SPACE}% of its class") in cells
    for side in ("across", "down"):
        names = html[html.index(f'class="{side}"') :]
        assert re.findall('<span title="(.*?)">(.*?)</span>', names)[99] == ("&lt;99&gt;", "&lt;99&gt;")
    monkeypatch.setattr(by_class, "MAX_TOLD_CELLS", 150)
    monkeypatch.setattr(by_class, "MAX_NAMED_CLASSES", 98)
    html = report([str(k) for k in range(99)]).read_text()
    assert html.count("h1v1h-1z") == 150 and 'class="map unnamed"' in html and 'class="across"' not in html


@pytest.mark.parametrize(("width", "points"), [(1100, 10), (400, 12)])
def test_names_can_be_read_beside_their_rows(report, chromium, width, points):
    chromium.open(report([f"class_of_{k}" for k in range(100)]), width)
    assert chromium.value("document.documentElement.scrollWidth") == width
    off = f"""(() => {{ {WHERE} return [...document.querySelectorAll('.map .down span')].map((name, k) => {{
        const box = name.getBoundingClientRect(); return (box.top + box.bottom) / 2 - r.top - c * (k + .5) }}) }})()"""
    assert max(map(abs, chromium.value(off))) < 1.5
    heads = off.replace(".down", ".across").replace("top", "left").replace("bottom", "right")
    assert max(map(abs, chromium.value(heads))) < 1.5
    assert chromium.value("parseFloat(getComputedStyle(document.querySelector('.map span[title]')).fontSize)") == points
    cut = (
        "[...document.querySelectorAll('.map span[title]')].filter(name => name.scrollWidth > name.clientWidth).length"
    )
    assert chromium.value(cut) == 0


def test_names_stay_when_a_phone_scrolls_and_a_cell_is_under_the_pointer(report, chromium):
    chromium.open(report([f"class {k}" for k in range(100)]), 400)
    chromium.value("document.querySelector('#confusions').scrollIntoView({behavior: 'instant'})")
    chromium.value("document.querySelector('.map').scrollTo(600, 600)")
    seen = f"""(() => {{ {WHERE} const x = r.left + c * 51.5, y = r.top + c * 50.5, at = (x, y) =>
        document.elementFromPoint(x, y).textContent; return [at(x, y), at(60, y), r.left < 0 && r.top < 0] }})()"""
    told, name, scrolled = chromium.value(seen)
    assert scrolled and told.startswith("class 50 predicted as class 51: 1, 33.3") and name == "class 50"


def test_wide_letters_have_room(report, chromium):
    names = ["\u4e00\u4e8c\u4e09", *(f"{k}" for k in range(9))]
    path = report(names)
    assert 'class="matrix"' in path.read_text(), "three wide letters take six columns, so the heads are vertical"
    chromium.open(path, 400)
    heads = "[...document.querySelectorAll('.matrix thead span')].map(head => [head.scrollHeight, head.clientHeight])"
    assert all(needed <= given for needed, given in chromium.value(heads))
    assert (
        chromium.value("getComputedStyle(document.querySelector('.matrix thead span')).textOrientation") == "sideways"
    )
