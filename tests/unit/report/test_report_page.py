"""The page of one run: what it shows, that it stands alone, and what happens when files are missing or damaged."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pocketvit.cli import main
from pocketvit.errors import InputError
from pocketvit.report.page import write_report
from pocketvit.report.scores import wilson_interval
from pocketvit.runs.result import RunResult

VOID = {"meta", "link", "img", "br", "hr", "input"}
EVIL = "<script>alert('&')</script>"


class Page(HTMLParser):
    """Parses a page strictly enough to notice broken nesting; keeps tags, attributes and visible text."""

    def __init__(self, html: str):
        super().__init__()
        self.html, self.tags, self.attributes, self.words, self.open = html, [], [], [], []
        self.feed(html)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> does not close what is open"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """The visible text with single blanks, no-break ones included."""
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        """All values of one attribute."""
        return [value for key, value in self.attributes if key == name]


def page_of(run: Path, result: RunResult | None = None) -> Page:
    return Page(write_report(run, result).read_text(encoding="utf-8"))


def replace_arrays(path: Path, **arrays) -> None:
    with np.load(path) as old:
        np.savez(path, **(dict(old) | arrays))


def test_the_page_says_what_the_run_found(make_run):
    page = page_of(make_run())
    for words in (
        "digits", "95.6 % test accuracy after the last step", "344 of 360 test images are correct.",
        "95 % interval 92.9 % to 97.2 %", "203,530", "1,564 images/s", "27.0 s", "31.5 s in total", "AMD EPYC, 2 cores",
        "42,240", "30 passes", "with uncommitted changes", "test accuracy, biased upward",
        "Accuracy by images seen", "Accuracy by training time", "Training loss", "Learning rate",
        "4 predicted as 9 3 8.1 % of its class", "Precision, recall and F1", "Expected calibration error",
        "83.8 % 31/37", "0.7 × 3 + 0.3 × 4",
        "16 of 360 test images were misclassified. All are shown",
        "In the folder where the run was started: pocketvit train --config runs/digits-000/config.yaml",
        "It was started with: pocketvit train --seed 0", "warmup_passes: 3", "versions.torch 2.10.0",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.tags.count("svg") == 5
    assert page.tags.count("img") == 32 + 16


def test_the_advice_on_running_it_again_works_as_written(make_run, undrawn):
    run = make_run("my run", command="my_script.py --fast")
    env = json.loads((run / "env.json").read_text())
    (run / "env.json").write_text(json.dumps(env | {"code": {"mine.py": "/home/me/mine.py"}, "folder": "runs/a b"}))
    text = page_of(run).text
    assert "pocketvit train --config 'runs/a b/config.yaml' --allow-code It was started from Python: my_s" in text
    del env["folder"]  # a run of an earlier version
    (run / "env.json").write_text(json.dumps(env))
    assert f"pocketvit train --config '{run}/config.yaml' It" in page_of(run).text


def test_the_title_names_the_data_beside_the_recipe(make_run, undrawn):
    run = make_run()
    assert "<h1>digits</h1>" in page_of(run).html
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("source: digits", "source: /home/me/pets"))
    page = page_of(run)
    assert "<h1>digits on pets</h1>" in page.html and "<title>digits on pets, seed 0: 95.6" in page.html


def test_classes_stand_on_a_common_axis(make_run):
    styles = page_of(make_run()).values("style")
    # 31 of 37: its interval reaches down to 68.9 %, so the axis starts at 60 %; overall 344 of 360.
    low, high = ((bound - 0.6) / 0.4 * 100 for bound in wilson_interval(31, 37))
    assert f"left:{100 * (31 / 37 - 0.6) / 0.4:.2f}%" in styles
    assert any(re.fullmatch(rf"left:{low:.2f}%;right:{100 - high:.2f}%", style) for style in styles)
    assert f"--overall:{100 * (344 / 360 - 0.6) / 0.4:.2f}%" in styles


def test_the_report_may_be_written_before_the_result(make_run):
    run = make_run()
    after = write_report(run).read_bytes()
    result = RunResult.read(run / "result.json")
    (run / "result.json").unlink()
    assert write_report(run, result).read_bytes() == after


def test_equal_runs_give_equal_bytes(make_run):
    first, second = write_report(make_run("first")), write_report(make_run("second"))
    assert first.read_bytes() == second.read_bytes() == write_report(first.parent).read_bytes()
    assert sorted(path.name for path in first.parent.iterdir()) == [
        "config.yaml", "env.json", "metrics.jsonl", "predictions.npz", "report.html", "result.json", "samples.npz",
    ]  # fmt: skip


def test_the_page_needs_nothing_beside_it(make_run):
    path = write_report(make_run())
    page = Page(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 400_000
    assert "//" not in re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page.html)
    assert all(source.startswith("data:image/") for source in page.values("src"))
    assert all(link.startswith(("#", "data:")) for link in page.values("href"))
    assert not {"script", "iframe", "object", "base"} & set(page.tags)
    assert any(value.startswith("default-src 'none'") for value in page.values("content"))


def test_every_name_inside_the_page_is_unique_and_every_reference_is_met(make_run):
    page = page_of(make_run())
    names = Counter(page.values("id"))
    assert max(names.values()) == 1
    references = {link[1:] for link in page.values("href") if link.startswith("#")}
    references |= set(re.findall(r"url\(#([^)]+)\)", page.html))
    assert references and references <= set(names)


@pytest.mark.parametrize("place", ["class", "caption", "command", "recipe", "device", "config", "env"])
def test_what_comes_from_the_run_is_escaped(make_run, place):
    fields = {place: EVIL} if place in ("command", "recipe", "device") else {}
    run = make_run(class_names=[EVIL, *"123456789"] if place == "class" else None, **fields)
    if place == "caption":
        replace_arrays(run / "samples.npz", train_captions=np.array([EVIL] * 32))
    if place == "config":
        (run / "config.yaml").write_text(f'recipe: "{EVIL}"\n')
    if place == "env":
        (run / "env.json").write_text(json.dumps({"commit": None, "note": EVIL}))
    page = page_of(run)
    assert EVIL in page.text
    assert "script" not in page.tags


def test_a_validation_split_is_shown_as_such(make_run):
    curve = [{"images": 1000 * n, "train_s": 100.0 * n, "accuracy": 0.9, "split": "val"} for n in range(1, 5)]
    test = {"images": 4000, "train_s": 400.0, "accuracy": 0.95, "split": "test"}
    page = page_of(make_run(val_accuracy=0.9123, best_test_accuracy=None, curve=[*curve, test]))
    assert "Validation accuracy 91.2 % on held-out training images" in page.text
    assert "Best evaluation" not in page.text
    for words in ("validation set", "test set", "95.0 % on the test set at the end", "minutes"):
        assert words in page.text


@pytest.mark.parametrize(("split", "name"), [("test", "test set"), ("val", "validation set")])
def test_accuracy_and_loss_of_both_kinds_of_images_are_shown(make_run, split, name):
    run = make_run()
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("{lr:", "{label_smoothing: 0.1, lr:"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [
        line | {"train_accuracy": 0.9} | ({f"{split}_loss": 0.125} if "test_accuracy" in line else {}) for line in lines
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = page_of(run)
    assert page.tags.count("svg") == 5
    assert page.html.count(">training images, augmented</text>") == 3, "in both plots of accuracy and that of loss"
    assert f"Training and {name.removesuffix(' set')} loss 0.637 in the last pass, 0.125 on the {name}" in page.text
    assert page.text.count("a mixed image counts as its larger part") == 1
    # -0.91 ln 0.91 - 9 · 0.01 ln 0.01, the entropy of the smoothed targets
    assert "With label smoothing 0.1, even a perfect model has a training loss of 0.500" in page.text
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "objective: {teacher: runs/a}\n")
    assert "label smoothing" not in page_of(run).text, "half of the loss is against what the teacher says"
    assert "label smoothing" not in page_of(make_run("older")).text


def test_a_single_look_at_the_test_set_is_not_the_best_of_several(make_run, undrawn):
    run = make_run()
    result = RunResult.read(run / "result.json")
    assert "Best evaluation" in page_of(run).text
    assert "Best evaluation" not in page_of(run, replace(result, curve=result.curve[-1:])).text


def test_optional_parts_may_be_missing(make_run):
    run = make_run(curve=[], best_test_accuracy=None)
    (run / "samples.npz").unlink()
    page = page_of(run)
    assert page.tags.count("svg") == 3 and page.tags.count("img") == 0
    for words in ("Training images", "Worst errors", "First layer", "Best evaluation", "Accuracy by images"):
        assert words not in page.text


def test_a_run_without_errors(make_run):
    run = make_run(test_accuracy=1.0)
    with np.load(run / "predictions.npz") as predictions:
        logits = 20 * np.eye(10, dtype=np.float32)[predictions["labels"]]
    replace_arrays(run / "predictions.npz", logits=logits)
    replace_arrays(
        run / "samples.npz", error_images=np.zeros((0, 8, 8, 3), np.uint8), error_indices=np.zeros(0, np.int64)
    )
    page = page_of(run)
    assert "every test image was classified correctly" in page.text
    assert "95 % interval 98.9 % to 100.0 %" in page.text
    assert "Worst errors" not in page.text


def test_a_worst_error_names_its_image_once(make_run, undrawn):
    """By its file; runs of before files were kept, and sets without names, have the position."""
    run = make_run()
    with np.load(run / "predictions.npz") as predictions:
        indices = predictions["indices"]
    with np.load(run / "samples.npz") as samples:
        worst = samples["error_indices"]
    captions = page_of(run).text.split("Worst errors")[-1]
    assert captions.count(f"image {indices[worst[0]]}") == 1
    replace_arrays(run / "predictions.npz", files=np.array([f"test/{i}.png" for i in range(360)]))
    captions = page_of(run).text.split("Worst errors")[-1]
    assert captions.count(f"test/{worst[0]}.png") == 1 and f"image {indices[worst[0]]}" not in captions


def test_many_classes_are_a_picture_and_a_list(make_run):
    run = make_run()
    labels = np.repeat(np.arange(120), 3)
    logits = 9 * np.eye(120, dtype=np.float32)[labels]
    logits[::3, 7] = 10  # a third of each class is predicted as class 7
    class_names = np.array([f"c{k}" for k in range(120)])
    replace_arrays(run / "predictions.npz", logits=logits, labels=labels, class_names=class_names)
    page = page_of(run)
    assert "Confusion matrix of 120 classes" in page.values("alt")
    assert "table" in page.tags and page.values("scope").count("col") == 0  # only the environment's table
    assert "Worst classes first; the best 20 are left out" in page.text
    assert "c0 predicted as c7 1 33.3 % of its class" in page.text


def test_the_first_layer_is_shown_where_the_run_wrote_it(make_run):
    run = make_run()
    filters = np.linspace(-1, 1, 48 * 4 * 4 * 3).reshape(48, 4, 4, 3)
    np.savez(run / "figures.npz", whitening_filters=filters, position_similarity=np.eye(16))
    page = page_of(run)
    assert "48 patch filters" in page.text and "16 positions" in page.text
    assert {"Whitening filters", "Position similarity"} <= set(page.values("alt"))
    assert "max-width:480px" in page.values("style"), "four maps a row do not fill the page"


def write_attention(run: Path, rows: list[int], **arrays) -> None:
    image = np.zeros((len(rows), 8, 8, 3), np.uint8)
    maps = np.random.default_rng(0).random((2, len(rows), 2, 2))
    held = {"attention_rows": np.array(rows, np.int64), "attention_images": image, "attention_maps": maps}
    np.savez(run / "figures.npz", **held | arrays)


def test_attention_is_shown_on_right_and_wrong_images(make_run, undrawn):
    run = make_run()
    with np.load(run / "predictions.npz") as held:
        predicted, labels = held["logits"].argmax(axis=1), held["labels"]
    right, wrong = (np.flatnonzero((predicted == labels) == hit)[:3].tolist() for hit in (True, False))
    write_attention(run, [*right, *wrong[:2]])
    page = page_of(run)
    assert page.values("class").count("look pixelated") == 3 and page.values("class").count("look wrong pixelated") == 2
    assert page.values("alt").count("gradient-weighted map") == page.values("alt").count("rollout") == 5
    text = page.text.split("Wrong, highest loss first")[1]
    assert re.match(rf" {predicted[wrong[0]]} [\d.]+ % is {labels[wrong[0]]} {predicted[wrong[1]]} ", text)
    assert "least" in page.text and "#attention" in page.values("href")
    write_attention(run, right)
    assert "Wrong, highest loss first" not in page_of(run).text


def test_a_model_without_attention_maps_says_so_in_one_sentence(make_run, undrawn):
    run = make_run()
    assert "#attention" not in page_of(run).values("href"), "a run of before there were any"
    np.savez(run / "figures.npz", attention_refused=np.array(EVIL))
    page = page_of(run)
    assert f"There are no attention maps: {EVIL}." in page.text and "script" not in page.tags


def test_low_rank_projections_show_how_much_of_their_rank_is_used(make_run):
    run = make_run()
    assert "Low-rank" not in page_of(run).text
    values = np.tile([10.0, 1.0, 0.5, 0.1], (3, 1))  # squares 100, 1, 0.25, 0.01: two have 99.7 %, one 98.8 %
    np.savez(run / "figures.npz", singular_values_q=values, singular_values_v=np.ones((3, 2)))
    page = page_of(run)
    assert "the largest 2 of 4 of the queries and 2 of 2 of the values have 99 %" in page.text
    assert ">queries</text>" in page.html and ">values</text>" in page.html and ">keys</text>" not in page.html


def test_filters_and_positions_are_explained(make_run, undrawn):
    run, filters = make_run(), np.linspace(-1, 1, 32 * 12).reshape(32, 2, 2, 3)
    np.savez(run / "figures.npz", patch_filters=filters, position_similarity=np.eye(16))
    page = page_of(run)
    assert (
        "The 32 strongest patterns of the trained filters" in page.text
        and "noise is left over from the random start" in page.text
    )
    assert "colors from −1 to 1" in page.values("alt")
    replace_arrays(run / "figures.npz", whitening_filters=filters)
    assert "After whitening, fine ones have the greatest weights" in page_of(run).text


def test_files_of_two_runs_are_noticed(make_run, undrawn):
    assert "of the same run?" not in page_of(make_run("whole")).text
    assert "The stored predictions give 95.6 %" in page_of(make_run("mixed", test_accuracy=0.9)).text


def test_images_that_are_measured_and_trained_on_are_told(make_run, undrawn):
    lines = ["3 of the 9 validation images are among the training images", EVIL]
    page = page_of(make_run(cautions=lines))
    assert page.attributes.count(("class", "warning")) == 2
    assert all(f"{line}." in page.text for line in lines) and "script" not in page.tags
    assert ("class", "warning") not in page_of(make_run("older")).attributes


def test_missing_files_are_all_named(make_run):
    run = make_run()
    (run / "env.json").unlink()
    (run / "result.json").unlink()
    with pytest.raises(InputError, match=r"has no env\.json, result\.json: a report needs"):
        write_report(run)
    with pytest.raises(InputError, match=r"has no config\.yaml, env\.json, metrics\.jsonl, predictions\.npz"):
        write_report(run / "nowhere")


def test_a_page_that_cannot_be_written_is_one_line(make_run, capsys):
    run = make_run()
    (run / "report.html").mkdir()
    with pytest.raises(SystemExit) as left:
        main(["report", str(run)])
    assert left.value.code == 2
    why = "Is a directory; earlier files are intact"
    assert capsys.readouterr().err == f"pocketvit: cannot write {run}/report.html: {why}\n"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "config.yaml is not YAML": lambda run: (run / "config.yaml").write_text("a: [1"),
    "config.yaml contains no named fields": lambda run: (run / "config.yaml").write_text("- 1"),
    "result.json is not JSON": lambda run: cut(run / "result.json"),
    "env.json contains a list": lambda run: (run / "env.json").write_text("[]"),
    "result.json lacks test_accuracy, val_accuracy": lambda run: (run / "result.json").write_text("{}"),
    "metrics.jsonl is empty": lambda run: (run / "metrics.jsonl").write_text(""),
    "metrics.jsonl line 2 is not JSON": lambda run: (run / "metrics.jsonl").write_text(
        '{"pass": 1, "images": 1, "loss": 1, "lr": 1, "train_s": 1}\n{"pass"'
    ),
    "metrics.jsonl line 1 lacks images, lr": lambda run: (run / "metrics.jsonl").write_text('{"pass": 1, "loss": 1}'),
    "predictions.npz cannot be read": lambda run: cut(run / "predictions.npz"),
    "predictions.npz lacks the arrays labels": lambda run: np.savez(
        run / "predictions.npz", logits=np.zeros((1, 2)), indices=np.zeros(1), class_names=np.array(["a", "b"])
    ),
    "predictions.npz: logits of shape": lambda run: replace_arrays(run / "predictions.npz", logits=np.zeros((9, 10))),
    "predictions.npz: labels from 10 to 10": lambda run: replace_arrays(
        run / "predictions.npz", labels=np.full(360, 10)
    ),
    "samples.npz cannot be read": lambda run: (run / "samples.npz").write_bytes(b"no archive"),
    "samples.npz: error_images is float64": lambda run: replace_arrays(
        run / "samples.npz", error_images=np.zeros((1, 8, 8, 3))
    ),
    "samples.npz: train_captions or": lambda run: replace_arrays(run / "samples.npz", train_captions=np.array(["a"])),
    "samples.npz: error_indices from": lambda run: replace_arrays(
        run / "samples.npz", error_indices=np.full(16, 360)
    ),
    "figures.npz: whitening_filters has shape": lambda run: np.savez(
        run / "figures.npz", whitening_filters=np.zeros((3, 4, 4))
    ),
    "figures.npz: position_similarity has shape": lambda run: np.savez(
        run / "figures.npz", position_similarity=np.zeros((3, 4))
    ),
    "config.yaml is not YAML: KeyError": lambda run: (run / "config.yaml").write_text("a: !!bool x"),
    "env.json cannot be read: maximum recursion": lambda run: (run / "env.json").write_text("[" * 100_000),
    "result.json cannot be read: Exceeds the limit": lambda run: (run / "result.json").write_text("1" * 5_000),
    "metrics.jsonl line 1: loss is [1]; expected a finite number": lambda run: (run / "metrics.jsonl").write_text(
        '{"pass": 1, "images": 1, "loss": [1], "lr": 1, "train_s": 1}\n'
    ),
    "predictions.npz: labels is float64": lambda run: replace_arrays(run / "predictions.npz", labels=np.zeros(360)),
    "predictions.npz: labels has shape ()": lambda run: replace_arrays(run / "predictions.npz", labels=np.array(1)),
    "predictions.npz: class_names is int64": lambda run: replace_arrays(
        run / "predictions.npz", class_names=np.arange(10)
    ),
    "predictions.npz: logits contains numbers that are not finite": lambda run: replace_arrays(
        run / "predictions.npz", logits=np.full((360, 10), np.nan)
    ),
    "samples.npz: train_captions is int64": lambda run: replace_arrays(
        run / "samples.npz", train_captions=np.arange(40)
    ),
    "samples.npz: error_images is uint8 (16, 0, 8, 3)": lambda run: replace_arrays(
        run / "samples.npz", error_images=np.zeros((16, 0, 8, 3), np.uint8)
    ),
    "samples.npz: error_indices is float64": lambda run: replace_arrays(
        run / "samples.npz", error_indices=np.zeros(16)
    ),
    "figures.npz: attention_rows from 360 to 360": lambda run: write_attention(run, [360]),
    "figures.npz: attention_maps has shape (1,": lambda run: write_attention(run, [0], attention_maps=np.ones((1, 1, 2, 2))),
    "figures.npz: attention_images is uint8 (1, 8, 8, 4)": lambda run: write_attention(
        run, [0], attention_images=np.zeros((1, 8, 8, 4), np.uint8)
    ),
    "figures.npz has attention_maps, but not": lambda run: np.savez(
        run / "figures.npz", attention_maps=np.ones((2, 1, 2, 2))
    ),
    "figures.npz: attention_refused has shape (1,)": lambda run: np.savez(
        run / "figures.npz", attention_refused=np.array(["no"])
    ),
    "figures.npz: singular_values_q has shape (0, 4)": lambda run: np.savez(
        run / "figures.npz", singular_values_q=np.ones((0, 4))
    ),
    "figures.npz: position_similarity is <U1": lambda run: np.savez(
        run / "figures.npz", position_similarity=np.array([["a"]])
    ),
}  # fmt: skip


def test_a_configuration_of_another_form_is_shown_as_it_is(make_run):
    run = make_run()
    (run / "config.yaml").write_text("data: [1]\n")
    assert "data: [1]" in write_report(run).read_text()


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> dict[str, Path]:
    """One run folder for all damages; made by the first test that needs it."""
    return {}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_file_is_one_clear_line(make_run, tmp_path_factory, whole_run, message):
    if not whole_run:
        whole_run["run"] = shutil.copytree(make_run(), tmp_path_factory.mktemp("whole") / "run")
    run = shutil.copytree(whole_run["run"], tmp_path_factory.mktemp("damaged") / "run")
    DAMAGES[message](run)
    with pytest.raises(InputError) as caught:
        write_report(run)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_the_report_works_without_torch():
    code = "import sys, pocketvit.report; print(sorted({'torch', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
