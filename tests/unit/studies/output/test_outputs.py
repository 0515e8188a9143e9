"""What a study writes down: numbers where there are runs, words where there are none, and every name as it stands."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_study import ERROR, SPEED, changed, result_of, synthetic_cells, synthetic_study

from pocketvit.runs.balance import TRY
from pocketvit.studies import compare
from pocketvit.studies.analysis.findings import accuracies, caveats, findings, held_out_in_vain, noisy_rows
from pocketvit.studies.execution.live import verdict_table
from pocketvit.studies.output import outputs
from pocketvit.studies.output.latex import latex_table, latex_text
from pocketvit.studies.output.outputs import notes, table_row
from pocketvit.studies.output.page import study_page
from pocketvit.tables import ABSENT, markdown_table, markdown_text

SPECIAL = r"a_b & 50% #1 {x} $y$ ~^\ <i> | [1] *z*"


def write_outputs(study, cells, folder):
    """All files of a study with these cells."""
    return outputs.write_outputs(study, findings(study, cells), folder)


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def printed(table):
    """What a terminal of 200 columns shows, by line."""
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return console.file.getvalue().splitlines()


@pytest.fixture
def unfinished():
    study = synthetic_study()
    return study, synthetic_cells(
        study, failed=("whitening-s2", "muon-s0", "muon-s1", "muon-s2"), missing=("mla-q-s1",)
    )


def test_every_file_is_written_and_the_same_again(unfinished, tmp_path):
    files = write_outputs(*unfinished, tmp_path / "out")
    assert [file.name for file in files] == ["table.md", "table.tex", "table.csv", "cells.csv", "study.html"]
    again = write_outputs(*unfinished, tmp_path / "again")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


def test_rows_say_what_the_statistics_say(unfinished):
    study, cells = unfinished
    found = {finding.row: finding for finding in findings(study, cells)}
    expected = compare(accuracies(cells, "test_accuracy"), study.compare)
    assert found["mla-qkv"].comparison == expected["mla-qkv"] and found["mla-qkv"].kind == "hurts"
    assert found["mla-q"].kind == "equal" and found["muon"].kind == "failed" and found["baseline"].kind is None
    row = table_row(found["mla-qkv"])
    assert row["n"] == "3" and row["against"] == "baseline" and row["p"].startswith("0.") or row["p"] == "< 0.001"
    assert row["difference"] == f"−{-100 * expected['mla-qkv'].difference:.2f}"
    assert row["verdict"].startswith("hurts") and row["training time"].replace("\xa0", " ") == "3 min 23 s"


HELD_OUT = {"data.val_frac": 0.1}


def held_out_cells(study):
    """With validation accuracies that are another order of the rows than the test accuracies."""
    return [
        changed(cell, val_accuracy=round(1.8 - cell.result.test_accuracy, 4), best_test_accuracy=None)
        for cell in synthetic_cells(study)
    ]


def test_rows_that_hold_out_the_same_images_are_compared_on_these(tmp_path):
    """So that the test images choose nothing; their accuracy stands beside it."""
    study = synthetic_study(base=HELD_OUT)
    cells = held_out_cells(study)
    found = {finding.row: finding for finding in findings(study, cells)}
    assert found["mla-qkv"].comparison == compare(accuracies(cells, "val_accuracy"), study.compare)["mla-qkv"]
    assert found["mla-qkv"].kind == "helps" and found["muon"].kind == "hurts"
    markdown, latex, table, *_, page = (file.read_text() for file in write_outputs(study, cells, tmp_path))
    head, _, baseline = markdown.splitlines()[:3]
    assert head.split(" | ")[2:6] == ["accuracy (%)", "std", "test (%)", "against"]
    accuracy, test = (100 * found["baseline"].accuracy.mean, 100 * found["baseline"].test.mean)
    assert f"| {accuracy:.2f} | " in baseline and f" | {test:.2f} | " in baseline and accuracy != test
    for text in (markdown, page):
        assert "Accuracy: on the validation images" in text and "the test images decide nothing here" in text
    assert "Accuracy on the validation images" in latex
    record = next(csv.DictReader(io.StringIO(table)))
    assert record["measure"] == "val_accuracy"
    assert (100 * float(record["mean"]), 100 * float(record["test_mean"])) == pytest.approx((accuracy, test))
    assert f"{100 * cells[0].result.val_accuracy:.2f}" in page
    header, line, *_ = printed(verdict_table(study, list(found.values())))
    assert "validation accuracy" in header and f"{accuracy:.2f}" in line


def test_a_row_that_diverges_on_the_held_out_images_alone_is_set_apart(tmp_path):
    study = synthetic_study(base=HELD_OUT)
    cells = held_out_cells(study)
    cells = [changed(cell, val_accuracy=(0.3, 0.9, 0.6)[cell.seed]) if cell.row == "muon" else cell for cell in cells]
    found = findings(study, cells)
    assert any(note.endswith("by their own spread: muon.") for note in notes(study, found))
    page = study_page(study, found, [table_row(finding) for finding in found], [], [], [], tmp_path)
    assert re.search("<dt>Spread over seeds</dt><dd>[^<]+<span>[^<]+ without muon</span>", page)


def test_rows_that_hold_out_images_in_vain_are_named_and_words_fit_the_measure(tmp_path):
    rows = {"baseline": {}, "mla-q": {"model.q_rank": 64, **HELD_OUT}}
    study = synthetic_study(rows=rows)
    cells = held_out_cells(study)
    found = findings(study, cells)
    (said,) = caveats(study, found)
    assert said.startswith("Rows are compared on the test images") and said.endswith(
        "fewer images all the same: mla-q."
    )
    files = {file.name: file.read_text() for file in write_outputs(study, cells, tmp_path)}
    assert all(said in files[name] for name in ("table.md", "table.tex", "study.html"))
    study = synthetic_study(base=HELD_OUT, rows={"baseline": {}, "mla-q": {"model.q_rank": 64}})
    cells = held_out_cells(study)
    cells[1] = changed(cells[1], data_fingerprint="0" * 16)
    (said,) = caveats(study, findings(study, cells))
    assert said.endswith("come from the validation images: mla-q.")


@pytest.mark.parametrize(
    ("base", "row", "measure"),
    [
        ({}, {}, "test_accuracy"),
        (HELD_OUT, {}, "val_accuracy"),
        ({}, HELD_OUT, "test_accuracy"),
        (HELD_OUT, {"data.val_frac": 0.2}, "test_accuracy"),
        (HELD_OUT, {"data.split_seed": 1}, "test_accuracy"),
    ],
)
def test_the_measure_is_one_that_all_rows_have_on_the_same_images(base, row, measure):
    study = synthetic_study(base=base, rows={"baseline": {}, "other": {"model.depth": 3, **row}})
    assert study.measure == measure
    held_out = [name for name, frac in (("baseline", base), ("other", base | row)) if "data.val_frac" in frac]
    said = [line.rpartition(": ")[2] for line in held_out_in_vain(study)]
    assert said == ([f"{', '.join(held_out)}."] if held_out and measure == "test_accuracy" else [])


@pytest.mark.parametrize(("base", "measure"), [({}, "test_accuracy"), (HELD_OUT, "val_accuracy")])
def test_a_row_alone_has_a_measure_as_well(base, measure):
    assert synthetic_study(base=base, rows={"baseline": {}}).measure == measure


def test_images_that_are_measured_and_trained_on_are_told_once(unfinished, tmp_path):
    study, cells = unfinished
    told = [changed(cell, cautions=("3 of the 9 test images are <among> the training images",)) for cell in cells]
    assert caveats(study, findings(study, told)) == ["3 of the 9 test images are <among> the training images."]
    files = {file.name: file.read_text() for file in write_outputs(study, told, tmp_path)}
    assert all("3 of the 9 test images" in files[name] for name in ("table.md", "table.tex", "study.html"))
    assert "<among>" not in files["study.html"]


def test_uneven_classes_and_those_never_recognized_are_told(unfinished, tmp_path):
    study, cells = unfinished
    uneven = {"balanced_accuracy": 0.25, "majority_share": 0.857}
    told = [changed(cell, **uneven) for cell in cells]
    told = [changed(cell, classes_at_zero=("cat", "dog")) if cell.row == "whitening" else cell for cell in told]
    said = {line.partition(",")[0]: line for line in caveats(study, findings(study, told))}
    assert said["Row whitening"] == (
        "Row whitening, at worst: balanced accuracy 25.00% (mean over classes; the largest class has 85.70% of the test images); "
        "CAUTION: no test image of these classes is classified correctly (0 %): cat, dog"
        f"{TRY}."
    )
    assert "at worst: balanced accuracy 25.00%" in said["Row baseline"] and "CAUTION" not in said["Row baseline"]
    files = {file.name: file.read_text() for file in write_outputs(study, told, tmp_path)}
    assert all("cat, dog" in files[name] and "25.00" in files[name] for name in ("table.md", "table.tex", "study.html"))


def test_studies_of_several_classes_an_image_are_told_by_map(tmp_path):
    study = synthetic_study(base={"objective.name": "multilabel"})
    curves = {cell.name: result_of(cell.row, cell.seed).curve for cell in study.cells()}
    cells = [
        changed(cell, test_map=0.5 + 0.1 * (cell.row == "muon") + 0.01 * cell.seed,
                curve=tuple(replace(p, map=p.accuracy / 2) for p in curves[f"{cell.row}-s{cell.seed}"]))
        for cell in synthetic_cells(study)
    ]  # fmt: skip
    files = {file.name: file.read_text() for file in write_outputs(study, cells, tmp_path)}
    assert (
        "| mAP (%)" in files["table.md"] and "mAP (the mean over classes of average precision): on" in files["table.md"]
    )
    assert "best evaluation" not in files["table.md"] and "accuracy" not in files["table.md"].lower()
    assert "mAP (\\%)" in files["table.tex"] and "61.00" in files["table.tex"]
    assert "mAP by images seen" in files["study.html"] and "ccuracy" not in files["study.html"].partition("</style>")[2]
    assert read_csv(tmp_path / "cells.csv")[0]["test_map"] == "0.5"
    assert read_csv(tmp_path / "table.csv")[0]["measure"] == "test_map"


def test_half_of_what_uneven_classes_need_says_nothing(unfinished):
    study, cells = unfinished
    told = [changed(cell, balanced_accuracy=0.25 if cell.seed else None, majority_share=0.857) for cell in cells]
    assert all("25.00% (mean over classes" in line for line in caveats(study, findings(study, told)))


def test_a_difference_between_data_sets_is_said_to_be_one(unfinished, tmp_path):
    """The row on easier data "helps"."""
    study, cells = unfinished
    moved = [changed(cell, data_fingerprint="0" * 16) if cell.row == "whitening" else cell for cell in cells]
    assert caveats(study, findings(study, cells)) == []
    (said,) = caveats(study, findings(study, moved))
    assert said.startswith("These rows use other data than the row they are compared with")
    assert said.endswith("test images: whitening.")
    files = {file.name: file.read_text() for file in write_outputs(study, moved, tmp_path)}
    assert all(said in files[name] for name in ("table.md", "table.tex", "study.html"))


def test_what_did_not_finish_is_never_a_number(unfinished):
    found = {finding.row: finding for finding in findings(*unfinished)}
    muon = table_row(found["muon"])
    assert muon.pop("n") == "0 of 3 (3 failed)" and muon.pop("verdict") == "failed"
    assert muon.pop("row") == "muon" and muon.pop("against") == "baseline"
    assert set(muon.values()) == {ABSENT}
    assert table_row(found["whitening"])["n"] == "2 of 3 (1 failed)"
    assert table_row(found["mla-q"])["n"] == "2 of 3 (1 missing)"


def test_a_study_without_any_result_is_all_dashes(tmp_path):
    study = synthetic_study()
    cells = synthetic_cells(study, missing=tuple(cell.name for cell in study.cells()))
    table = write_outputs(study, cells, tmp_path)[0].read_text()
    assert table.count("0 of 3 (3 missing)") == 5 and "nan" not in table and "None" not in table


def test_rows_that_are_compared_with_none_have_no_columns_for_it(tmp_path):
    study = synthetic_study(baseline=None)
    head = write_outputs(study, synthetic_cells(study), tmp_path)[0].read_text().splitlines()[0]
    assert "verdict" not in head and "best evaluation" in head and "images/s" in head


def test_csv_holds_every_figure_in_full(unfinished, tmp_path):
    study, cells = unfinished
    write_outputs(study, cells, tmp_path)
    rows = {row["row"]: row for row in read_csv(tmp_path / "table.csv")}
    expected = compare(accuracies(cells, "test_accuracy"), study.compare)["mla-qkv"]
    assert float(rows["mla-qkv"]["difference"]) == expected.difference
    assert float(rows["mla-qkv"]["ci_low"]) == expected.interval[0]
    assert rows["muon"]["mean"] == rows["muon"]["p_holm"] == "" and rows["muon"]["num_failed"] == "3"
    runs = read_csv(tmp_path / "cells.csv")
    assert len(runs) == 15
    failed = next(run for run in runs if run["row"] == "whitening" and run["seed"] == "2")
    assert failed["error"] == ERROR and failed["test_accuracy"] == ""


def test_a_runs_folder_is_found_by_its_row_and_seed_in_a_shell(unfinished, tmp_path):
    study, cells = unfinished
    cells[0] = replace(cells[0], folder=Path("runs/made/de82639bc008-s0"))
    write_outputs(study, cells, tmp_path)
    lines = [line.split(",")[:4] for line in (tmp_path / "cells.csv").read_text().splitlines()]
    assert lines[:2] == [["row", "seed", "state", "folder"], ["baseline", "0", "done", "runs/made/de82639bc008-s0"]]


def test_failures_stand_in_the_markdown_with_their_reason(unfinished, tmp_path):
    text = write_outputs(*unfinished, tmp_path)[0].read_text()
    assert "whitening, seed 2 failed: RuntimeError: loss is nan at step 1,204 in \\<script\\>alert" in text
    assert "<script>" not in text


def test_a_row_that_diverges_is_set_apart_and_named():
    """Its scatter of tens of points would hide every other difference."""
    study = synthetic_study()
    cells = synthetic_cells(study)
    assert not noisy_rows(accuracies(cells, "test_accuracy"))
    calm = findings(study, cells)
    cells = [changed(cell, test_accuracy=(0.3, 0.9, 0.6)[cell.seed]) if cell.row == "muon" else cell for cell in cells]
    assert noisy_rows(accuracies(cells, "test_accuracy")) == ["muon"]
    found = {finding.row: finding for finding in findings(study, cells)}
    assert found["mla-qkv"].kind == "hurts" and found["muon"].kind == "untold"
    calm_error = next(finding.comparison.stderr for finding in calm if finding.row == "mla-qkv")
    assert found["mla-qkv"].comparison.stderr < 3 * calm_error
    assert any(note.endswith("by their own spread: muon.") for note in notes(study, list(found.values())))


@pytest.mark.parametrize("num_rows", [2, 3])
def test_in_a_small_study_as_well(num_rows):
    """One diverging row of two or three; its own comparison keeps its spread."""
    rows = {"a": {0: 0.930, 1: 0.934, 2: 0.931}, "b": {0: 0.935, 1: 0.937, 2: 0.936}}
    rows = dict(list(rows.items())[: num_rows - 1]) | {"wild": {0: 0.3, 1: 0.9, 2: 0.6}}
    assert noisy_rows(rows) == ["wild"]
    pairs = dict.fromkeys([row for row in rows if row != "a"], "a")
    found = compare(rows, pairs, apart=noisy_rows(rows))
    own = compare({row: rows[row] for row in ("a", "wild")}, {"wild": "a"})["wild"]
    assert found["wild"].df == pytest.approx(2) and found["wild"].p == pytest.approx(own.p)
    if num_rows == 3:
        alone = compare({row: rows[row] for row in "ab"}, {"b": "a"})["b"]
        assert (found["b"].stderr, found["b"].interval) == (pytest.approx(alone.stderr), pytest.approx(alone.interval))


def test_several_rows_that_diverge_do_not_hide_each_other():
    calm = {name: {0: 0.930 + k / 1000, 1: 0.934 + k / 900, 2: 0.931} for k, name in enumerate("abc")}
    wild = {"x": {0: 0.1, 1: 0.9, 2: 0.5}, "y": {0: 0.8, 1: 0.2, 2: 0.9}}
    assert noisy_rows(wild | calm) == ["x", "y"]
    assert noisy_rows(wild) == [] and noisy_rows({}) == [] and noisy_rows({"a": {0: 0.9}}) == []


def test_rows_that_end_alike_by_chance_make_no_other_one_noisy():
    """Among 360 test images two seeds may agree to the image, and then no ratio of variances means anything."""
    image = 1 / 360
    rows = {"a": {0: 350 * image, 1: 350 * image}, "b": {0: 349 * image, 1: 349 * image}}
    assert noisy_rows(rows | {"c": {0: 347 * image, 1: 351 * image}}) == []
    assert noisy_rows(rows | {"c": {0: 36 * image, 1: 351 * image}}) == ["c"]
    assert noisy_rows({"a": {0: 0.9, 1: 0.9}, "b": {0: 0.9, 1: 0.9}}) == []


def test_times_are_not_compared_between_one_hardware_and_another(monkeypatch):
    study = synthetic_study()
    cells = synthetic_cells(study)
    for number, cell in enumerate(cells):
        if cell.row == "muon" or (cell.row, cell.seed) == ("whitening", 2):
            cells[number] = changed(cell, device="NVIDIA H200", train_s=1.0, images_per_s=9e9, peak_memory_gib=99.0)
    found = {finding.row: finding for finding in findings(study, cells)}
    assert found["whitening"].images_per_s == SPEED["whitening"] and found["whitening"].peak_memory_gib == 1.61
    muon = found["muon"]
    assert muon.accuracy.num_seeds == 3 and (muon.train_s, muon.images_per_s, muon.peak_memory_gib) == (None,) * 3
    drawn = {}
    monkeypatch.setattr("pocketvit.studies.output.page.study_curves", lambda *given: drawn.update(given[3]) or [])
    study_page(study, list(found.values()), [{}] * len(found), [], [], [], Path())
    curves = {row: [cell.result.curve for cell in cells if cell.row == row] for row in found}
    assert drawn["whitening"] == curves["whitening"][:2] and not drawn["muon"]
    assert drawn["baseline"] == curves["baseline"] and len(drawn["baseline"]) == 3
    said = "Times and memory are those on NVIDIA H100 80GB HBM3; other runs were trained on other "
    assert said + "hardware (4 on NVIDIA H200)." in notes(study, list(found.values()))
    assert not any("hardware" in note for note in notes(study, findings(study, synthetic_cells(study))))


def test_the_bootstrap_stands_beside_the_t_interval_from_eight_seeds_on(tmp_path):
    study = synthetic_study(seeds=9)
    cells = synthetic_cells(study, failed=("mla-q-s1", "mla-q-s2"))
    expected = compare(accuracies(cells, "test_accuracy"), study.compare)
    low, high = expected["muon"].bootstrap
    files = {file.name: file.read_text(encoding="utf-8") for file in write_outputs(study, cells, tmp_path)}
    row = {row["row"]: row for row in read_csv(tmp_path / "table.csv")}
    assert (float(row["muon"]["bootstrap_low"]), float(row["muon"]["bootstrap_high"])) == (low, high)
    assert row["mla-q"]["bootstrap_low"] == row["baseline"]["bootstrap_high"] == ""
    text = f"+{100 * low:.2f} … +{100 * high:.2f}"
    assert text in files["table.md"] and text in files["study.html"]
    assert text.replace("…", r"\dots{}") in files["table.tex"]
    for name in ("table.md", "study.html"):
        assert "bootstrap CI" in files[name] and "p and the verdict come from t" in files[name]


def test_below_eight_seeds_nothing_is_said_of_the_bootstrap(tmp_path):
    for file in write_outputs(synthetic_study(), synthetic_cells(synthetic_study()), tmp_path):
        text = file.read_text(encoding="utf-8").lower()
        assert "bootstrap" not in (text.splitlines()[0].replace("bootstrap_", "") if file.suffix == ".csv" else text)


def test_what_would_have_been_seen_is_explained_where_it_is_said(unfinished, tmp_path):
    files = {file.name: file.read_text(encoding="utf-8") for file in write_outputs(*unfinished, tmp_path)}
    for name in ("table.md", "study.html"):
        assert "which difference the study would have detected with 80 % power" in files[name]
    assert (
        r"n.s. (x): not significant; a difference of x would have been detected with 80 \% power" in files["table.tex"]
    )
    study = synthetic_study(rows={"baseline": {}, "muon": {"optim.name": "muon"}})
    assert not any("would have detected" in note for note in notes(study, findings(study, synthetic_cells(study))))


def test_the_latex_table_is_as_wide_as_a_page(tmp_path):
    study = synthetic_study(seeds=9)
    cells = synthetic_cells(study, failed=("mla-q-s1", "mla-q-s2"))
    write_outputs(study, cells, tmp_path)
    text = (tmp_path / "table.tex").read_text()
    head, *body = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if " & " in line]
    assert head == ["row", "n", r"accuracy (\%)", "difference", "bootstrap", "p", "verdict", "time"]
    row = next(row for row in body if row[0] == "mla-q")
    assert row[1] == "7/9" and row[4] == "---" and row[6].startswith("n.s. (0.")
    assert r"Difference to baseline: in points" in text and "n: finished runs of those planned" in text
    # A4 has room for about 95 characters of this size.
    printed = text.replace(r"$\pm$", "±").replace(r"\dots{}", "…").replace("$", "")
    printed = re.sub(r"\\phantom\{([^}]*)\}", r"\1", printed)  # as wide as what it leaves room for
    columns = zip(*[line.split(" & ") for line in printed.splitlines() if " & " in line], strict=True)
    assert sum(max(map(len, column)) + 2 for column in columns) < 105


def test_the_latex_table_names_the_reference_of_each_row_where_there_are_several(tmp_path):
    study = synthetic_study(compare={"mla-qkv": "mla-q"})
    write_outputs(study, synthetic_cells(study), tmp_path)
    text = (tmp_path / "table.tex").read_text()
    assert " & against & difference & " in text and "Difference: in points" in text
    write_outputs(synthetic_study(baseline=None), synthetic_cells(study), tmp_path)
    text = (tmp_path / "table.tex").read_text()
    assert r"row & n & accuracy (\%) & time \\" in text and "ifference" not in text


def test_markdown_is_escaped():
    table = markdown_table([{"a": markdown_text(SPECIAL)}], ["a"])
    assert r"a\_b \& 50% \#1 {x} \$y\$ \~^\\ \<i\> \| \[1\] \*z\*" in table


def test_latex_is_escaped():
    assert latex_text("a_b & 50% #1 {x}") == r"a\_b \& 50\% \#1 \{x\}"
    assert latex_text("$ ~ ^ \\ < ± −1") == (r"\$ \textasciitilde{} \textasciicircum{} \textbackslash{} $<$ $\pm$ $-$1")
    table = latex_table([{"a": "[x]", "b": "1\n2"}], ["a", "b"])
    assert table.splitlines()[0] == r"\begin{tabular}{ll}"
    assert r"{[}x] & 1 2 \\" in table  # a bare [ after a line break is an argument of it


def test_figures_stand_below_each_other_in_latex():
    """As far as LaTeX is told: right-aligned, with room for the digits that the shorter ones lack."""
    rows = [
        {"row": "a", "n": "3", "acc": "94.10 ± 0.04", "p": "0.012", "d": "+0.5"},
        {"row": "b", "n": "2/3", "acc": "9.32 ± 12.50", "p": "< 0.001", "d": "−12.5"},
        {"row": "c", "n": "1", "acc": "93.00", "p": "0.34", "d": "—"},
    ]
    lines = latex_table(rows, ["row", "n", "acc", "p", "d"]).splitlines()
    assert lines[:3] == [r"\begin{tabular}{lrrrr}", r"\toprule", r"row & n & acc & p & d \\"]
    assert lines[3] == r"\midrule" and lines[7:] == [r"\bottomrule", r"\end{tabular}"]
    assert lines[4] == r"a & 3 & 94.10 $\pm$ \phantom{0}0.04 & 0.012 & +0.5 \\"
    assert lines[5] == r"b & 2/3 & 9.32 $\pm$ 12.50 & $<$ 0.001 & $-$12.5 \\"
    assert lines[6] == r"c & 1 & 93.00\phantom{ $\pm$ 12.50} & 0.34\phantom{0} & --- \\"
