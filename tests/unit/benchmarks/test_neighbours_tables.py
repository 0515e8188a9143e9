"""The table of other papers' ideas, from made results."""

from dataclasses import asdict
from zlib import crc32

import pytest
from synthetic_results import synthetic_result

from benchmarks.neighbours_tables import ALL, CONVOLUTIONAL, IDEAS, costs, neighbours_in_short, outcomes
from pocketvit.data.dataset import CIFAR10_FINGERPRINT
from pocketvit.files import write_json
from pocketvit.studies.definition.choose import find_study
from pocketvit.studies.definition.jobs import study_jobs

GAINS = {"mimetic": 0.02, "linear": -0.03}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three seeds of every row, some far from the baseline."""
    return written(tmp_path_factory.mktemp("all") / "results")


def written(folder, rows=ALL, seeds=(0, 1, 2)):
    """Results of some rows and seeds."""
    for _ in range(2):  # a distilled run has a key once its teacher has a result
        for job in study_jobs(find_study("neighbours"), folder, lambda data: CIFAR10_FINGERPRINT):
            if job.cell.row not in rows or job.cell.seed not in seeds:
                continue
            accuracy = 0.95 + GAINS.get(job.cell.row, 0) + 0.0005 * job.cell.seed
            made = synthetic_result(
                config_hash=job.key.rpartition("-s")[0], seed=job.cell.seed, data_fingerprint=CIFAR10_FINGERPRINT,
                val_accuracy=accuracy, test_accuracy=accuracy - 0.01, test_accuracy_tta=accuracy, images_seen=13_500_000,
                images_total=27_000_000 if job.cell.row == "distilled" else None, kernels="persistent",
                model_digest=f"{crc32(job.cell.name.encode()):016x}",
            )  # fmt: skip
            content = {key: value for key, value in asdict(made).items() if key not in ("file", "extra")}
            path = folder / f"{job.cell.name}.json"
            path.parent.mkdir(exist_ok=True)
            write_json(path, content)
    return folder


def lines_of(table):
    """The lines of a table by row."""
    return {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}


def test_every_row_has_its_source_and_its_figures(results):
    lines, convolutional = (lines_of(outcomes(results, ideas)) for ideas in (IDEAS, CONVOLUTIONAL))
    assert list(convolutional) == ["conv-stem", "depthwise"], "a class of their own"
    lines |= convolutional
    assert {row.name for row in find_study("neighbours").rows} == lines.keys()
    assert all("](https://" in line or "2024)" in line or "2025)" in line for line in lines.values())
    assert "95.05 ± 0.05" in lines["muon"]
    assert "+2.00 (+1." in lines["mimetic"] and "helps (+2.00" in lines["mimetic"] and "over +5" in lines["mimetic"]
    assert "missing" not in lines["distilled"]
    dear = lines_of(costs(results))
    assert dear.keys() == lines.keys()
    assert "94.05 ± 0.05" in dear["muon"] and "13.5 M" in dear["mimetic"] and "27.0 M" in dear["distilled"]
    assert "Holm" in costs(results) and " parameters." not in costs(results), "each row says how many it has"


def test_the_readme_shows_the_largest_differences(results):
    said = neighbours_in_short(results)
    shown = said.splitlines()[2:7]
    assert "mimetic initialization" in shown[0] and "linear attention" in shown[4] and shown[4].count("−3.00") == 2
    assert "The 5 largest of 19 differences, in points on held-out images, where `muon` has 95.05 ± 0.05 %." in said
    assert "ot measured yet" not in said


def test_one_seed_of_a_few_rows_reads_well(tmp_path):
    some = written(tmp_path / "results", rows=("muon", "mimetic", "sincos", "depthwise"), seeds=(0,))
    said = neighbours_in_short(some)
    assert "| mimetic initialization (" in said and "| sincos | +2.00 | 1 of 3 (2 missing) | cannot be told" in said
    assert said.splitlines()[-1] == (
        "Differences, in points on held-out images, where `muon` has 95.00 %. Not measured yet: 16 ideas."
    )
    assert lines_of(costs(some)).keys() == {"muon", "sincos", "mimetic", "depthwise"}
    assert "not measured yet" in lines_of(outcomes(some, IDEAS))["linear"]


def test_without_results_it_says_so(tmp_path):
    assert neighbours_in_short(tmp_path) == "No difference is measured yet; 19 ideas are open."
    assert costs(tmp_path) == "Not measured yet."
    assert outcomes(tmp_path, CONVOLUTIONAL).count("not measured yet") == 2
