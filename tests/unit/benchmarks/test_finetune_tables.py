"""The table of docs/starting.md, from made results."""

from dataclasses import asdict

from synthetic_results import synthetic_result

from benchmarks.finetune_tables import FILE, WHAT, finetuning
from pocketvit.files import write_json
from pocketvit.studies import load_study
from pocketvit.studies.definition.jobs import data_fingerprints, study_jobs

ACCURACY = {"finetune": 0.93, "photos": 0.97, "small": 0.9}


def test_rows_are_told_apart_and_missing_runs_are_counted(tmp_path):
    study, opened = load_study(FILE), data_fingerprints()
    for job in study_jobs(study, tmp_path, opened):
        if (job.cell.row, job.cell.seed) in [(row, seed) for row in ACCURACY for seed in (0, 1)]:
            accuracy = ACCURACY[job.cell.row] + 0.002 * job.cell.seed
            made = synthetic_result(
                config_hash=job.key.rpartition("-s")[0], seed=job.cell.seed, data_fingerprint=opened(job.cell.config.data),
                val_accuracy=accuracy, test_accuracy=accuracy - 0.01, images_seen=5_760,
            )  # fmt: skip
            content = {key: value for key, value in asdict(made).items() if key not in ("file", "extra")}
            write_json(tmp_path / f"{job.cell.name}.json", content)
    table = finetuning(tmp_path)
    lines = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
    assert [row.name for row in study.rows] == list(lines) == list(WHAT)
    assert "93.10 ± 0.14" in lines["finetune"] and "92.10 ± 0.14" in lines["finetune"]
    assert "helps (+4.00" in lines["photos"] and "hurts (−3.00" in lines["small"]
    assert "2 of 5 (3 missing)" in lines["small"] and "0 of 5" in lines["probe"]
    assert "5,760" in lines["small"] and "5,760" not in lines["probe"]
    assert "| images of digits |" in table, "other images are not counted: `cifar10` has seen 15 million"
