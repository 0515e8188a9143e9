"""What a study writes down: numbers where there are runs, words where there are none, and every name as it stands."""

import csv

import pytest
from made_study import ERROR, made_cells, made_study

from pocketvit.report.latex import latex_table, latex_text
from pocketvit.report.tables import ABSENT, markdown_table, markdown_text
from pocketvit.studies import compare
from pocketvit.studies.findings import accuracies, findings, noisy_rows
from pocketvit.studies.outputs import notes, table_row, write_outputs

SPECIAL = r"a_b & 50% #1 {x} $y$ ~^\ <i> | [1] *z*"


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def unfinished():
    study = made_study()
    return study, made_cells(study, failed=("whitening-s2", "muon-s0", "muon-s1", "muon-s2"), missing=("mla-q-s1",))


def test_every_file_is_written_and_the_same_again(unfinished, tmp_path):
    files = write_outputs(*unfinished, tmp_path / "out")
    assert [file.name for file in files] == ["table.md", "table.tex", "table.csv", "cells.csv", "study.html"]
    again = write_outputs(*unfinished, tmp_path / "again")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


def test_rows_say_what_the_statistics_say(unfinished):
    study, cells = unfinished
    found = {finding.row: finding for finding in findings(study, cells)}
    expected = compare(accuracies(cells), study.compare)
    assert found["mla-qkv"].comparison == expected["mla-qkv"] and found["mla-qkv"].kind == "hurts"
    assert found["mla-q"].kind == "equal" and found["muon"].kind == "untold" and found["baseline"].kind is None
    row = table_row(found["mla-qkv"])
    assert row["n"] == "3" and row["against"] == "baseline" and row["p"].startswith("0.") or row["p"] == "< 0.001"
    assert row["difference"] == f"−{-100 * expected['mla-qkv'].difference:.2f}"
    assert row["verdict"].startswith("hurts") and row["training time"].replace("\xa0", " ") == "3 min 23 s"


def test_what_did_not_finish_is_never_a_number(unfinished):
    found = {finding.row: finding for finding in findings(*unfinished)}
    muon = table_row(found["muon"])
    assert muon.pop("n") == "0 of 3 (3 failed)" and muon.pop("verdict") == "failed"
    assert muon.pop("row") == "muon" and muon.pop("against") == "baseline"
    assert set(muon.values()) == {ABSENT}
    assert table_row(found["whitening"])["n"] == "2 of 3 (1 failed)"
    assert table_row(found["mla-q"])["n"] == "2 of 3 (1 missing)"


def test_a_study_without_any_result_is_all_dashes(tmp_path):
    study = made_study()
    cells = made_cells(study, missing=tuple(cell.name for cell in study.cells()))
    table = write_outputs(study, cells, tmp_path)[0].read_text()
    assert table.count("0 of 3 (3 missing)") == 5 and "nan" not in table and "None" not in table


def test_rows_that_are_compared_with_none_have_no_columns_for_it(tmp_path):
    study = made_study(baseline=None)
    head = write_outputs(study, made_cells(study), tmp_path)[0].read_text().splitlines()[0]
    assert "verdict" not in head and "best look" in head and "images/s" in head


def test_csv_holds_every_figure_in_full(unfinished, tmp_path):
    study, cells = unfinished
    write_outputs(study, cells, tmp_path)
    rows = {row["row"]: row for row in read_csv(tmp_path / "table.csv")}
    expected = compare(accuracies(cells), study.compare)["mla-qkv"]
    assert float(rows["mla-qkv"]["difference"]) == expected.difference
    assert float(rows["mla-qkv"]["ci_low"]) == expected.interval[0]
    assert rows["muon"]["mean"] == rows["muon"]["p_holm"] == "" and rows["muon"]["num_failed"] == "3"
    runs = read_csv(tmp_path / "cells.csv")
    assert len(runs) == 15
    failed = next(run for run in runs if run["row"] == "whitening" and run["seed"] == "2")
    assert failed["error"] == ERROR and failed["test_accuracy"] == ""


def test_failures_stand_in_the_markdown_with_their_reason(unfinished, tmp_path):
    text = write_outputs(*unfinished, tmp_path)[0].read_text()
    assert "whitening, seed 2 failed: RuntimeError: loss is nan at step 1,204 in \\<script\\>alert" in text
    assert "<script>" not in text


def test_a_row_that_diverges_is_set_apart_and_named():
    """Its scatter of tens of points would hide every other difference."""
    study = made_study()
    cells = made_cells(study)
    assert not noisy_rows(accuracies(cells))
    calm = findings(study, cells)
    for cell in cells:
        if cell.row == "muon":
            cell.result["test_accuracy"] = (0.3, 0.9, 0.6)[cell.seed]
    assert noisy_rows(accuracies(cells)) == ["muon"]
    found = {finding.row: finding for finding in findings(study, cells)}
    assert found["mla-qkv"].kind == "hurts" and found["muon"].kind == "untold"
    calm_error = next(finding.comparison.stderr for finding in calm if finding.row == "mla-qkv")
    assert found["mla-qkv"].comparison.stderr < 3 * calm_error
    assert any(note.endswith("their own: muon.") for note in notes(list(found.values())))


def test_markdown_is_escaped():
    table = markdown_table([{"a": markdown_text(SPECIAL)}], ["a"])
    assert r"a\_b \& 50% \#1 {x} \$y\$ \~^\\ \<i\> \| \[1\] \*z\*" in table


def test_latex_is_escaped():
    assert latex_text("a_b & 50% #1 {x}") == r"a\_b \& 50\% \#1 \{x\}"
    assert latex_text("$ ~ ^ \\ < ± −1") == (
        r"\$ \textasciitilde{} \textasciicircum{} \textbackslash{} $<$ $\pm$ $-$1"
    )
    table = latex_table([{"a": "[x]", "b": "1\n2"}], ["a", "b"], wide=["b"])
    assert table.splitlines()[0] == r"\begin{tabular}{lp{5cm}}"
    assert r"{[}x] & 1 2 \\" in table  # a bare [ after a line break is an argument of it
