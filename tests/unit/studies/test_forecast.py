"""What `pocketvit study --plan` says, and where its figures are from."""

import json

from pocketvit.studies import parse_study
from pocketvit.studies.forecast import ASSUMED_STD, forecast
from pocketvit.studies.jobs import data_fingerprints, study_jobs
from pocketvit.studies.verdict import points

ROWS = {"plain": {}, "deep": {"model.depth": 6}}


def study():
    return parse_study({"recipe": "digits", "seeds": 4, "baseline": "plain", "rows": ROWS}, "test")


def write_result(job, path, **values):
    key, _, seed = job.key.rpartition("-s")
    run = {"config_hash": key, "seed": int(seed), "recipe": "digits", "device": "a [fast] one", "train_s": 10.0}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run | {"test_accuracy": 0.9, "total_s": 30.0, "images_per_s": 1437 * 6.0} | values))


def test_without_a_run_the_figures_are_assumed_and_said_to_be(tmp_path):
    said = "\n".join(forecast(study(), tmp_path, results=tmp_path / "none", num_devices=2))
    assert "8 runs of 2 rows, 480 passes" in said and "on 2 devices" in said
    assert "images/s assumed" in said
    assert f"Scatter over seeds: {points(ASSUMED_STD)} points, assumed; no run was measured yet." in said


def test_too_few_runs_for_the_scatter_are_said_to_be(tmp_path):
    jobs = study_jobs(study(), tmp_path, data_fingerprints())
    for job, accuracy in zip(jobs[:2] + jobs[4:6], (0.90, 0.91, 0.92, 0.95), strict=True):  # two seeds of each row
        write_result(job, tmp_path / "results" / f"{job.key}.json", test_accuracy=accuracy)
    said = "\n".join(forecast(study(), tmp_path, results=tmp_path / "results", num_devices=1))
    assert f"{points(ASSUMED_STD)} points, assumed; it cannot be told from 4 runs of this study." in said


def test_measured_speed_and_scatter_are_used(tmp_path):
    jobs = study_jobs(study(), tmp_path, data_fingerprints())
    for job, accuracy in zip(jobs, (0.90, 0.91, 0.92, 0.92, 0.90, 0.93, 0.91, 0.90), strict=True):
        write_result(job, tmp_path / "results" / f"{job.key}.json", test_accuracy=accuracy)
    said = "\n".join(forecast(study(), tmp_path, results=tmp_path / "results", num_devices=1))
    assert "about 4 min 0 s on 1 device" in said.replace("\N{NO-BREAK SPACE}", " ")  # 480 passes / 6 + 8 · 20 s
    assert "8,622 images/s, the median of 8 runs on a [fast] one" in said
    assert "measured on 8 runs of this study" in said and "8 of the runs are done already" in said


def test_runs_of_the_same_recipe_and_data_tell_the_speed(tmp_path):
    fingerprint = data_fingerprints()(study().rows[0].config.data)
    job = study_jobs(study(), tmp_path, lambda data: "other")[0]
    write_result(job, tmp_path / "results" / "a.json", data_fingerprint=fingerprint)
    write_result(job, tmp_path / "results" / "b.json", data_fingerprint="other", images_per_s=1.0)
    said = "\n".join(forecast(study(), tmp_path, results=tmp_path / "results", num_devices=1))
    assert "8,622 images/s, the median of 1 run" in said
