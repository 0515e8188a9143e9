"""Tables from result files, and their places in a document."""

from dataclasses import replace
from pathlib import Path
from statistics import stdev

import pytest
from synthetic_results import synthetic_result

from benchmarks.run_tables import PublishedRow, replace_section, results_table, summary_row, update_readme
from pocketvit.errors import InputError
from pocketvit.report.text import NBSP
from pocketvit.runs.result import RunResult

PAPER = PublishedRow(
    name="the paper", best_test_accuracy=0.9365, train_s=4658, num_params=2_697_610, hardware="RTX 3090"
)


def of_seed(seed: int, accuracy: float = 0.934, **fields) -> RunResult:
    values = {
        "test_accuracy": accuracy, "train_s": 270.0 + seed, "images_per_s": 55_000.0, "peak_memory_gib": 1.9,
        "num_params": 2_697_610, "seed": seed, "config_hash": "abc", "data_fingerprint": "def", "device": "NVIDIA H100",
        "command": f"pocketvit train paper --seed {seed} --out runs/s{seed}",
    }  # fmt: skip
    return synthetic_result(**values | fields)


def write_study(folder: Path, **rows: list[RunResult]) -> Path:
    folder.mkdir()
    for row, results in rows.items():
        for result in results:
            replace(result, file=folder / f"{row}-s{result.seed}.json").write()
    return folder


def cells(table: str, row: int) -> list[str]:
    line = table.replace(NBSP, " ").splitlines()[2 + row]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_several_seeds_make_one_row_beside_the_paper(tmp_path):
    accuracies = [0.9341, 0.9372, 0.9350]
    results = [of_seed(s, a, best_test_accuracy=a + 0.001) for s, a in enumerate(accuracies)]
    table = results_table(write_study(tmp_path / "study", paper=results), published=[PAPER])
    assert cells(table, 0) == [
        "the paper", "1", "—", "93.65", "—", "1 h 18 min", "—", "2,697,610", "—", "RTX 3090", "—"
    ]  # fmt: skip
    spread = stdev(100 * a for a in accuracies)
    assert f"{spread:.2f}" == "0.16", "over n this would be 0.13"
    assert cells(table, 1) == [
        "paper", "3 (0, 1, 2)", "93.54 ± 0.16", "93.64 ± 0.16", "55,000", "4 min 31 s", "1.90", "2,697,610", "fused",
        "NVIDIA H100", "`pocketvit train paper --seed SEED`",
    ]  # fmt: skip
    assert "n − 1" in table


def test_times_are_those_on_the_hardware_of_most_runs():
    fast = {"device": "NVIDIA H200", "train_s": 100.0, "images_per_s": 150_000.0, "peak_memory_gib": 9.0}
    row = summary_row("baseline", [of_seed(0, 0.92, **fast), of_seed(1, 0.93), of_seed(2, 0.94)])
    assert row["test accuracy (%)"] == "93.00 ± 1.00", "of all runs"
    assert (row["images/s"], row["training time"].replace(NBSP, " "), row["memory (GiB)"]) == (
        "55,000",
        "4 min 32 s",
        "1.90",
    )
    assert row["hardware"] == "NVIDIA H100; not timed: 1 on NVIDIA H200"


def test_one_seed_shows_no_spread_and_its_own_command(tmp_path):
    table = results_table(write_study(tmp_path / "study", paper=[of_seed(4, num_gpus=2)]))
    assert cells(table, 0)[1:3] == ["1 (4)", "93.40"]
    assert cells(table, 0)[3] == "—", "a run with a validation split has no best look"
    assert cells(table, 0)[9:] == ["2 × NVIDIA H100", "`pocketvit train paper --seed 4`"]


def test_runs_with_other_kernels_make_a_row_of_their_own(tmp_path):
    """Also those of the same configuration in another study."""
    study = write_study(tmp_path / "study", paper=[of_seed(0), of_seed(1)])
    other = write_study(tmp_path / "other", baseline=[of_seed(2, 0.94, kernels="persistent", device="NVIDIA H200")])
    table = results_table(study, elsewhere={"paper": other.glob("baseline-s*.json")})
    rows = [[cells(table, row)[place] for place in (0, 1, 8, 9)] for row in (0, 1)]
    assert rows == [
        ["paper", "2 (0, 1)", "fused", "NVIDIA H100"], ["paper", "1 (2)", "persistent", "NVIDIA H200"]
    ]  # fmt: skip
    assert cells(results_table(write_study(tmp_path / "cpu", a=[of_seed(0, num_gpus=0)])), 0)[8] == "reference"


def test_given_commands_are_shown_and_set_the_order(tmp_path):
    study = write_study(tmp_path / "study", a=[of_seed(0)], b=[of_seed(0, config_hash="b")])
    table = results_table(study, commands={"b": "pocketvit train b", "a": "pocketvit train a"})
    assert [cells(table, row)[0] for row in (0, 1)] == ["b", "a"]
    assert cells(table, 0)[-1] == "`pocketvit train b`"


def test_a_study_is_read_by_row(tmp_path):
    lion = [of_seed(s, 0.92, config_hash="lion") for s in (0, 1)]
    study = write_study(tmp_path / "study", **{"paper": [of_seed(10), of_seed(2)], "paper-lion": lion})
    table = results_table(study)
    assert cells(table, 0)[:2] == ["paper", "2 (2, 10)"]
    assert cells(table, 1)[:3] == ["paper-lion", "2 (0, 1)", "92.00 ± 0.00"]
    assert len(table.splitlines()) == 2 + 2 + 2


def test_rows_of_several_studies_stand_in_one_table(tmp_path):
    studies = [write_study(tmp_path / name, **{name: [of_seed(0)]}) for name in ("paper", "digits")]
    table = results_table(*studies, commands={"paper": "pocketvit train paper"})
    assert [cells(table, row)[0] for row in (0, 1)] == ["paper", "digits"]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "no results"),
        ([of_seed(1), of_seed(1)], "one of the seeds \\[1, 1\\] is repeated"),
        ([of_seed(1), of_seed(2, config_hash="other")], "differ in config_hash"),
        ([of_seed(1), of_seed(2, data_fingerprint="other")], "differ in data_fingerprint"),
        ([of_seed(1), of_seed(2, kernels="persistent")], "differ in kernels"),
    ],
)
def test_runs_that_make_no_row_are_refused(results, message):
    with pytest.raises(InputError, match=f"row lion: .*{message}"):
        summary_row("lion", results)


def test_files_that_are_no_results_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: no results there"):
        results_table(tmp_path / "nowhere")
    study = write_study(tmp_path / "study", paper=[of_seed(1)])
    replace(of_seed(1), file=study / "paper-s2.json").write()
    with pytest.raises(InputError, match=r"paper-s2\.json contains the result of seed 1"):
        results_table(study)
    (study / "paper-s2.json").write_text("{")
    with pytest.raises(InputError, match=r"paper-s2\.json is not JSON"):
        results_table(study)
    (study / "paper-s2.json").rename(study / "summary.json")
    with pytest.raises(InputError, match=r"summary\.json is not named like a result"):
        results_table(study)


README = "# A\n<!-- results:one -->\nold\n<!-- /results:one -->\nmiddle\n<!-- results:two --><!-- /results:two -->\n"


def test_a_section_is_replaced_and_the_rest_kept():
    new = replace_section(README, "one", "| x |\n")
    assert new == README.replace("\nold\n", "\n| x |\n")
    assert replace_section(new, "one", "| x |") == new
    assert "two -->\n| y |\n<!-- /" in replace_section(README, "two", "| y |")


def test_a_readme_is_written_only_when_it_changes(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(README)
    assert update_readme(readme, "one", "new")
    assert "one -->\nnew\n<!-- /" in readme.read_text()
    assert not update_readme(readme, "one", "new")


@pytest.mark.parametrize("document", ["", README + README, README.replace("/results:one", "/results:two")])
def test_a_document_without_the_place_is_refused(tmp_path, document):
    readme = tmp_path / "README.md"
    readme.write_text(document)
    with pytest.raises(InputError, match=r"README\.md: no place for the table: expected one <!-- results:one -->"):
        update_readme(readme, "one", "new")
    assert readme.read_text() == document
