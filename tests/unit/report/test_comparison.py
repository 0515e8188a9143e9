"""Runs compared on a page: what differs, and whether it can be chance."""

import re
from math import comb

import numpy as np
import pytest

from pocketvit.errors import InputError
from pocketvit.report.comparison import MOST_RUNS, McNemar, compare, render, summary, write_comparison


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.split("<main>")[1])).replace("\xa0", " ")


def turn(run, count: int, *, to_right: bool) -> None:
    """Make that many of the first images right or wrong."""
    with np.load(run / "predictions.npz") as held:
        content = dict(held)
    right = content["logits"].argmax(axis=1) == content["labels"]
    rows = np.flatnonzero(right != to_right)[:count]
    for row in rows:
        label = int(content["labels"][row])
        content["logits"][row] = np.eye(10)[label if to_right else (label + 1) % 10]
    np.savez(run / "predictions.npz", **content)


def edit(run, name: str, before: str, after: str) -> None:
    content = (run / name).read_text()
    assert before in content
    (run / name).write_text(content.replace(before, after))


@pytest.mark.parametrize(("one", "other"), [(0, 0), (3, 0), (1, 8), (20, 11), (5, 5), (0, 40)])
def test_mcnemar_is_the_binomial_written_out(one, other):
    total = one + other
    as_uneven = [k for k in range(total + 1) if comb(total, k) <= comb(total, one)]
    assert McNemar(one, other).p == pytest.approx(sum(comb(total, k) for k in as_uneven) / 2**total)


def test_the_page_says_what_differs(make_run):
    first, second = make_run("first"), make_run("second", seed=1)
    turn(second, 9, to_right=True)
    turn(second, 1, to_right=False)
    edit(second, "config.yaml", "lr: 0.002", "lr: 0.004")
    edit(second, "config.yaml", "passes: 30,", "passes: 30, name: linear,")
    found = compare([first, second])
    assert (found[1].test.only_first, found[1].test.only_second) == (1, 9)
    text = text_of(render(found))
    assert "first 95.6 % 92.9 % to 97.2 %" in text and "second 97.8 %" in text
    assert "+2.22 9 1 0.021" in text
    assert "optim.lr 0.002 0.004" in text and "schedule.name — linear" in text and "model.width" not in text
    for title in ("Accuracy by images seen on the test set", "Accuracy by training time", "Training loss"):
        assert title in text
    assert summary(found)[2] == (
        "second against first: only second has 9 right, only first 1; McNemar's exact p = 0.0215"
    )


def test_classes_with_the_greatest_differences_come_first(make_run):
    first, second = make_run("first"), make_run("second")
    with np.load(second / "predictions.npz") as held:
        content = dict(held)
    content["logits"][content["labels"] == 7] = np.eye(10)[0]
    np.savez(second / "predictions.npz", **content)
    text = text_of(render(compare([first, second])))
    table = text[text.index("Single classes differ") :]
    assert re.search(r"class images first second 7 \d+ \d+\.\d % 0\.0 % −\d+\.\d+ 0 \d+", table)


@pytest.mark.parametrize("other", ["labels", "files", "data", "changed", "memory"])
def test_without_the_same_test_images_there_is_no_test(make_run, other):
    first, second = make_run("first"), make_run("second")
    with np.load(second / "predictions.npz") as held:
        content = dict(held)
    if other == "labels":
        content["labels"] = np.roll(content["labels"], 1)
    elif other == "files":
        content["files"] = np.array([f"{k}.png" for k in range(360)])
    else:
        edit(second, "result.json", '"data_fingerprint": "', '"data_fingerprint": "0')
    if other == "data":
        edit(second, "config.yaml", "source: digits", "source: /data/other")
    if other == "memory":
        edit(first, "config.yaml", "source: digits", "source: memory")
        edit(second, "config.yaml", "source: digits", "source: memory")
    if other == "changed":
        for run in (first, second):
            edit(run, "result.json", '"data_fingerprint": "', '"train_fingerprint": "1", "data_fingerprint": "')
    np.savez(second / "predictions.npz", **content)
    found = compare([first, second])
    assert found[1].test is None and "different test images" in text_of(render(found))
    assert "so McNemar's test cannot be made" in summary(found)[2]


def test_resized_images_of_the_same_source_are_the_same(make_run):
    first, second = make_run("first"), make_run("second")
    edit(second, "result.json", '"data_fingerprint": "', '"data_fingerprint": "0')
    for fingerprint, run in enumerate((first, second)):
        edit(run, "result.json", '"data_f', f'"train_fingerprint": "{fingerprint}", "data_f')
    assert compare([first, second])[1].test == McNemar(0, 0)


def test_what_cannot_be_compared_is_refused(make_run, tmp_path):
    first = make_run("first")
    with pytest.raises(InputError, match="a run is given twice"):
        compare([first, tmp_path / "." / "first"])
    with pytest.raises(InputError, match="nowhere has no config.yaml"):
        compare([first, tmp_path / "nowhere"])
    with pytest.raises(InputError, match=f"give at most {MOST_RUNS}"):
        compare([tmp_path / str(k) for k in range(MOST_RUNS + 1)])


def test_runs_of_other_classes_and_evil_names_make_a_page(make_run, tmp_path):
    evil = "<script>alert(1)</script>"
    first, second = make_run("first"), make_run("second", class_names=[evil, *"bcdefghij"])
    edit(second, "config.yaml", "source: digits", f'source: "{evil}"')
    page = write_comparison(tmp_path / "new" / "page.html", compare([first, second])).read_text()
    assert "<script" not in page and "The runs have different classes" in page
