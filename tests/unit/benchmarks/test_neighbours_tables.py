"""The table of other papers' ideas, from made results."""

from dataclasses import asdict

import pytest
from synthetic_results import synthetic_result

from benchmarks.neighbours_tables import neighbours, neighbours_in_short
from pocketvit.data.dataset import CIFAR10_FINGERPRINT
from pocketvit.files import write_json
from pocketvit.studies.definition.choose import find_study
from pocketvit.studies.definition.jobs import study_jobs

GAINS = {"mimetic": 0.02, "linear": -0.03}
DIGEST = "0123456789abcdef"


@pytest.fixture
def results(tmp_path):
    """Three seeds of every row, some far from the baseline."""
    folder = tmp_path / "results"
    for _ in range(2):  # a distilled run has a key once its teacher has a result
        for job in study_jobs(find_study("neighbours"), folder, lambda data: CIFAR10_FINGERPRINT):
            accuracy = 0.95 + GAINS.get(job.cell.row, 0) + 0.0005 * job.cell.seed
            made = synthetic_result(
                config_hash=job.key.rpartition("-s")[0], seed=job.cell.seed, data_fingerprint=CIFAR10_FINGERPRINT,
                val_accuracy=accuracy, test_accuracy=accuracy - 0.01, test_accuracy_tta=accuracy, images_seen=13_500_000,
                images_total=27_000_000 if job.cell.row == "distilled" else None, kernels="persistent", model_digest=DIGEST,
            )  # fmt: skip
            content = {key: value for key, value in asdict(made).items() if key not in ("file", "extra")}
            path = folder / f"{job.cell.name}.json"
            path.parent.mkdir(exist_ok=True)
            write_json(path, content)
    return folder


def test_every_row_has_its_source_and_its_figures(results):
    lines = {
        line.split(" | ")[0].strip("| `"): line for line in neighbours(results).splitlines() if line.startswith("| `")
    }
    assert list(lines) == [
        *(name for name in lines if name not in ("conv-stem", "depthwise")),
        "conv-stem",
        "depthwise",
    ]
    assert {row.name for row in find_study("neighbours").rows} == lines.keys()
    assert "95.05 ± 0.05" in lines["muon"] and "94.05 ± 0.05" in lines["muon"]
    assert "helps (+2.00" in lines["mimetic"] and "over +5" in lines["mimetic"] and "13.5 M" in lines["mimetic"]
    assert "27.0 M" in lines["distilled"] and "missing" not in lines["distilled"]


def test_the_sentence_names_what_is_told(results):
    said = neighbours_in_short(results)
    assert said.startswith("Helps: mimetic initialization. Hurts: linear attention. For 16 others")


def test_without_results_it_says_so(tmp_path):
    assert neighbours_in_short(tmp_path) == "Not measured yet."
