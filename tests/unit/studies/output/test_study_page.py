"""The page of a study, as HTML and in a real browser."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from synthetic_study import ERROR, changed, synthetic_cells, synthetic_study

from pocketvit.report.curves import SPLITS
from pocketvit.report.study_curves import mean_curve, study_curves
from pocketvit.runs.result import Evaluation
from pocketvit.studies.analysis.findings import findings
from pocketvit.studies.output.outputs import write_outputs
from pocketvit.studies.output.page import sentence

EVIL = "</pre><script>alert('&')</script>"


class Page(HTMLParser):
    """Tags, links and visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.links, self.words, self.scripts = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        (self.scripts if self.tags and self.tags[-1] == "script" else self.words).append(data)


def write(folder: Path, study=None, cells=None) -> Path:
    study = study or synthetic_study()
    cells = cells or synthetic_cells(study, failed=("whitening-s2",), missing=("muon-s2",))
    return write_outputs(study, findings(study, cells), folder)[-1]


def test_the_page_says_what_was_found_and_what_was_not(tmp_path):
    page = Page(write(tmp_path))
    for words in (
        "Helps muon", "Hurts mla-qkv", "No significant difference mla-q, whitening", "13 of 15", "1 failed, 1 missing",
        "against baseline", "seed 2 failed", "seed 2 missing", ERROR, "model.q_rank=64", "NVIDIA H100 80GB HBM3",
        "pocketvit train paper --model.q-rank 64 --seed SEED", "torch 2.11.0", "0940641021137524",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.tags.count("svg") == 2
    assert page.tags.count("script") == 1 and page.tags[-1] == "script", "only that which copies commands"


def test_the_page_tells_first_what_was_found_of_each_row(tmp_path):
    study = synthetic_study()
    failed, missing = tuple(f"mla-q-s{s}" for s in range(3)), tuple(f"whitening-s{s}" for s in range(3))
    page = Page(write(tmp_path, study, synthetic_cells(study, failed=failed, missing=missing)))
    story = page.text.partition("What was found baseline")[2].partition("Differences Dot")[0].replace("\xa0", " ")
    assert story.startswith(
        " reaches 94.13 ± 0.02 % in 3 runs. mla-q failed in all of its 3 runs. mla-qkv is worse than baseline, by 1.04"
    )
    assert "whitening has no result yet. muon is better than baseline, by 1.63 ± " in story
    assert re.search(r"\(p < 0\.001\): 95\.76 ± 0\.10 % in 3 runs\. $", story)
    sections = re.findall(r'<section id="(\w+)"', (tmp_path / "study.html").read_text())
    assert sections[:3] == ["found", "differences", "table"]


def test_a_sentence_for_what_cannot_be_told_or_is_chance(tmp_path):
    study = synthetic_study()
    said = {found.row: sentence(found) for found in findings(study, synthetic_cells(study))}
    assert "whitening differs from baseline by no more than chance may explain (−0.10 ± " in said["whitening"]
    assert "would most likely have shown)" in said["whitening"]
    one = synthetic_study(seeds=1)
    said = {found.row: sentence(found) for found in findings(one, synthetic_cells(one))}
    assert re.fullmatch(
        r"muon has too few runs to be told from baseline \(\+1\.\d+ points\): 95\.\d+.% in 1 run\.", said["muon"]
    )
    missing = tuple(f"baseline-s{s}" for s in range(3))
    said = {found.row: sentence(found) for found in findings(study, synthetic_cells(study, missing=missing))}
    assert said["muon"].startswith("muon waits for the runs of baseline: 95.76 ± 0.10")


def test_a_button_copies_the_command_of_a_row(chromium, tmp_path):
    path = write(tmp_path)
    chromium.open(path, 400)
    chromium.value("document.querySelectorAll('#made details')[1].open = true")
    assert chromium.value("document.querySelectorAll('pre.command + button').length") == 5
    chromium.value("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    chromium.value("document.querySelectorAll('pre.command + button')[1].click()")
    chromium.wait_for("document.querySelectorAll('pre.command + button')[1].textContent != 'Copy'")
    assert chromium.value("document.querySelectorAll('pre.command + button')[1].textContent") == "Copied"
    copied = chromium.value("window.copied")
    assert copied == "pocketvit train paper --model.q-rank 64 --seed SEED"
    assert chromium.complaints() == [] and chromium.value("document.documentElement.scrollWidth") == 400


def test_no_other_script_runs_on_the_page(chromium, tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("<footer>", "<script>document.title = 'taken over'</script><footer>"))
    chromium.open(path, 400)
    assert "taken over" not in chromium.value("document.title")
    assert any("Content Security Policy" in words for words in chromium.complaints())


def test_a_row_without_settings_is_the_studys_base_where_there_is_one(tmp_path):
    text = Page(write(tmp_path / "without")).text
    assert "Every row starts from the recipe paper. baseline the recipe as it is" in text
    study = synthetic_study(base={"model.width": 144, "optim.lr": 0.002})
    text = Page(write(tmp_path / "with", study)).text
    assert "starts from the recipe paper with the study's base: model.width=144, optim.lr=0.002." in text
    assert "baseline the study's base" in text and "mla-q model.q_rank=64" in text


def test_the_path_of_a_users_file_does_not_make_a_phone_scroll_sideways(chromium, tmp_path):
    study = synthetic_study()
    overrides = {"model.attention": "/home/" + 20 * "somebody/" + "my_attention.py:MyAttention"}
    study = replace(study, base=overrides, rows=(replace(study.rows[0], overrides=overrides), *study.rows[1:]))
    chromium.open(write(tmp_path, study), 390)
    assert chromium.value("document.documentElement.scrollWidth") == 390


def test_a_row_that_failed_is_said_to_have(tmp_path):
    study = synthetic_study()
    cells = synthetic_cells(
        study, failed=("muon-s0", "muon-s1", "muon-s2"), missing=tuple(f"mla-q-s{s}" for s in range(3))
    )
    path = write(tmp_path, study, cells)
    text = Page(path).text
    assert "Failed muon" in text and "No result yet mla-q" in text and "Cannot be told" not in text
    assert '<td class="verdict failed">failed</td>' in path.read_text()


def test_a_phone_shows_that_a_row_failed(chromium, tmp_path):
    """There, cells without a figure are left out."""
    study = synthetic_study()
    chromium.open(write(tmp_path, study, synthetic_cells(study, failed=("muon-s0", "muon-s1", "muon-s2"))), 390)
    shown = "getComputedStyle(document.querySelector('td.verdict.failed')).display"
    assert chromium.value(shown) == "block"


def test_the_table_of_a_study_with_two_intervals_fits_the_page(chromium, tmp_path):
    study = synthetic_study(seeds=9)
    chromium.open(write(tmp_path, study, synthetic_cells(study, failed=("mla-q-s1", "mla-q-s2"))), 1200)
    beyond = "(e => e.scrollWidth - e.clientWidth)(document.querySelector('.scroll'))"
    assert chromium.value(beyond) == 0


def test_runs_link_to_their_reports_where_there_are_some(tmp_path):
    study = synthetic_study()
    folders = {name: tmp_path / "runs of today" / name for name in ("with#1", "without")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    (folders["with#1"] / "report.html").write_text("a report")
    cells = synthetic_cells(study)
    cells[0], cells[1] = replace(cells[0], folder=folders["with#1"]), replace(cells[1], folder=folders["without"])
    path = write(tmp_path / "study", study, cells)
    links = [link for link in Page(path).links if not link.startswith(("#", "data:"))]
    assert links == ["../runs%20of%20today/with%231/report.html"]
    assert (path.parent / unquote(links[0])).is_file()


def test_what_comes_from_outside_is_escaped(tmp_path):
    study = synthetic_study()
    rows = (replace(study.rows[0], overrides={"model.attention": EVIL}), *study.rows[1:])
    cells = synthetic_cells(study, failed=("muon-s0",))
    cells = [replace(cell, error=cell.error and EVIL) for cell in cells]
    cells[0] = changed(cells[0], device=EVIL)
    page = Page(write(tmp_path, replace(study, rows=rows), cells))
    assert page.text.count(EVIL) >= 4 and page.tags.count("script") == 1


@pytest.mark.parametrize("rows", [synthetic_study().rows, synthetic_study(base={"data.val_frac": 0.1}).rows])
def test_curves_are_of_the_images_that_the_rows_are_compared_on(rows, tmp_path):
    """Though most looks were at the others."""
    study = replace(synthetic_study(), rows=rows)
    split, other = ("val", "test") if study.measure == "val_accuracy" else ("test", "val")
    cells = synthetic_cells(study)
    for number, cell in enumerate(cells):
        curve = cell.result.curve
        others = tuple(replace(point, split=other, accuracy=0.5) for point in curve)
        curve = (*others, replace(curve[-1], split=split))
        cells[number] = changed(cell, val_accuracy=cell.result.test_accuracy, curve=curve)
    text = write(tmp_path, study, cells).read_text()
    assert f"Accuracy on the {SPLITS[split][0]}: the mean" in text
    assert f"with the accuracy on the {SPLITS[split][0]} after the last step" in text


def test_an_effect_far_out_does_not_press_the_others_together(tmp_path):
    study = synthetic_study()
    cells = synthetic_cells(study)
    cells = [changed(cell, test_accuracy=0.2738) if cell.row == "muon" else cell for cell in cells]
    html = write(tmp_path, study, cells).read_text()
    assert html.count('class="beyond"') == 1 and "Diamond: beyond the end of the axis" in html


def test_many_rows_are_dealt_out_with_their_reference_in_each_plot():
    def run(level):
        return [Evaluation(10 * k, k, level + 0.1 * k, "test") for k in (1, 2, 3)]

    rows = {f"r{k}": [run(0.01 * k), run(0.01 * k + 0.005)] for k in range(12)} | {"none": []}
    groups = study_curves(rows, "test", ["r3"] * 11)
    assert [len(group.legend) for group in groups] == [6, 6, 2]
    assert all(group.has_reference and group.legend[0] == ("r3", "ink") for group in groups)
    assert study_curves({"none": []}, "test", []) == study_curves(rows, "val", []) == []


def test_a_row_that_diverged_does_not_flatten_the_others():
    def run(level):
        return [Evaluation(10 * k, k, level + 0.01 * k, "test") for k in (1, 2, 3)]

    [group] = study_curves({"a": [run(0.9)], "b": [run(0.91)], "diverged": [run(0.1)]}, "test", ["a"])
    assert group.below == ["diverged"]
    assert not study_curves({"a": [run(0.9)], "b": [run(0.8)]}, "test", ["a"])[0].below


def test_a_band_holds_only_what_all_runs_were_evaluated_at():
    def point(images, accuracy, split="val"):
        return Evaluation(images, images / 10, accuracy, split)

    runs = [[point(10, 0.5), point(20, 0.6), point(30, 0.7), point(30, 0.9, "test")], [point(20, 0.8), point(30, 0.9)]]
    curve = mean_curve(runs, "val")
    assert curve.images == [20, 30] and curve.mean == pytest.approx([0.7, 0.8])
    assert (curve.low, curve.high) == ([0.6, 0.7], [0.8, 0.9])
    assert mean_curve(runs, "test") is None and mean_curve([], "val") is None


def test_a_curves_times_are_those_of_the_runs_that_are_timed():
    slow, fast = ([Evaluation(n, n / speed, n / 100, "test") for n in (10, 20)] for speed in (1, 2))
    assert mean_curve([slow, fast], "test").train_s == [7.5, 15]
    assert mean_curve([slow, fast], "test", timed=[fast]).train_s == [5, 10]
    [group] = study_curves({"a": [slow, fast], "b": [fast]}, "test", [], {"a": [fast], "b": []})
    (_, by_images), (_, by_time) = group.plots
    [usual] = study_curves({"a": [fast, fast], "b": [fast]}, "test", [])
    assert by_time == usual.plots[1][1] and by_images == usual.plots[0][1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_has_nothing_to_complain_about(chromium, tmp_path, width, scheme):
    path = write(tmp_path)
    chromium.open(path, width, scheme=scheme)
    assert chromium.complaints() == []
    assert chromium.requests() == [path.as_uri()]
    assert chromium.value("document.documentElement.scrollWidth") == width, "the page scrolls sideways"
    assert chromium.value("document.querySelectorAll('svg path').length") > 10
    # Nothing of the text is smaller than a phone's reader can take.
    small = "[...document.querySelectorAll('body *')].filter(e => parseFloat(getComputedStyle(e).fontSize) < 11).length"
    assert chromium.value(small) == 0


def test_the_browser_would_complain(chromium, tmp_path):
    """A page that does everything wrong, so that the test above can fail."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='https://example.invalid/x.png'><script>console.error('no')</script><pre>" + 99 * "wide ")
    chromium.open(bad, 390)
    assert any("no" in words for words in chromium.complaints())
    assert "https://example.invalid/x.png" in chromium.requests()
    assert chromium.value("document.documentElement.scrollWidth") > 390
