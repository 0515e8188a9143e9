"""Each tracker for real: a run that is stopped and resumed, read back by the tracker's own reader."""

import json
import os
import signal
import struct
from dataclasses import replace
from pathlib import Path

import pytest

import pocketvit
from pocketvit.config import override
from pocketvit.studies import parse_study
from pocketvit.studies.definition.jobs import study_jobs
from pocketvit.studies.execution.launch import launch
from pocketvit.training import Stopped

pytestmark = pytest.mark.long
STEPS = [6, 12, 18]  # three passes of six


class InterruptOnce(pocketvit.SilentReporter):
    """Stops the run in its second pass, after its first evaluation."""

    def __init__(self):
        self.left, self.lines = 9, []

    def advance(self, steps):
        self.left -= steps
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)

    def note(self, line):
        self.lines.append(line)


@pytest.fixture
def run(small_in, tmp_path, monkeypatch):
    """Trains with a tracker, stopped once and resumed; returns the result and what was said."""
    for name in ("HOME", "TRACKIO_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_ERROR_REPORTING", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    passes = {"schedule.passes": 3, "train.eval_every_passes": 1, "model.depth": 1}
    config = override(small_in(tmp_path), passes)

    def run(name):
        tracker = pytest.importorskip(name)
        ended = tracker.teardown if name == "wandb" else lambda: None  # its service, as at the end of a process
        reporter = InterruptOnce()
        with pytest.raises(Stopped):
            pocketvit.train(config, pocketvit.tracked(name, reporter, group="study/row"))
        ended()
        result = pocketvit.train(config, pocketvit.tracked(name, reporter, group="study/row"))
        ended()
        assert not [line for line in reporter.lines if "failed" in line]
        return result, reporter.lines

    return run


def logged(result, key):
    """What the run itself logged, by step."""
    lines = (result.run_folder / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line[key] for line in map(json.loads, lines)}


def test_tensorboards_own_reader_opens_the_log(run):
    result, said = run("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(result.run_folder / "tensorboard"))
    log.Reload()
    for key in ("loss", "lr", "test_accuracy", "train_accuracy", "images_per_s"):
        points = {event.step: event.value for event in log.Scalars(key)}
        assert len(log.Scalars(key)) == 3 and points == pytest.approx(logged(result, key)), key
    assert log.Scalars("result/test_accuracy")[-1].value == pytest.approx(result.test_accuracy)
    texts = {tag: log.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in log.Tags()["tensors"]}
    assert "    model.width: 32" in texts["config/text_summary"]
    assert str(result.run_folder / "report.html") in texts["report/text_summary"]
    assert f'"test_accuracy": {result.test_accuracy}' in texts["result/text_summary"]
    assert "_hparams_/session_start_info" in log.summary_metadata
    assert f"tensorboard: tensorboard --logdir {result.run_folder.parent}" in said


def wandb_records(path: Path) -> list:
    """The records of a .wandb file: a LevelDB log of protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, records, part = path.read_bytes(), 7, [], b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768  # padding at the end of a block
        _, length, kind = struct.unpack_from("<IHB", content, place)
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(part))
            part = b""
    return records


def test_an_offline_run_of_wandb_is_whole_on_disk(run):
    result, said = run("wandb")
    files = sorted(result.run_folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1, "both parts are of one run"
    records = [record for file in files for record in wandb_records(file)]
    first = next(record.run for record in records if record.HasField("run"))
    assert (first.display_name, first.run_group, first.project) == ("study/row-s0", "study/row", "pocketvit")
    config = {item.key: json.loads(item.value_json) for item in first.config.update}
    assert config["model.width"] == 32 and config["optim.lr"] == 2e-3
    history = [
        {
            item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records
        if record.HasField("history")
    ]
    points = {row["_step"]: row["test_accuracy"] for row in history if "test_accuracy" in row}
    assert points == logged(result, "test_accuracy")
    summary = {
        ".".join(item.nested_key) or item.key: json.loads(item.value_json)
        for record in records
        if record.HasField("summary")
        for item in record.summary.update
    }
    assert summary["result/test_accuracy"] == result.test_accuracy
    [page] = result.run_folder.glob("wandb/offline-run-*/files/media/html/*.html")
    assert page.read_bytes() == (result.run_folder / "report.html").read_bytes()
    ends = [record.exit.exit_code for record in records if record.HasField("exit")]
    assert ends == [1, 0]
    assert f"wandb: wandb sync {result.run_folder}/wandb/offline-run-*" in said


def test_an_mlflow_sqlite_store_is_read_back(run, tmp_path):
    result, _ = run("mlflow")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    [experiment] = [found for found in client.search_experiments() if found.name == "pocketvit"]
    [found] = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("study/row-s0", "FINISHED")
    assert found.data.params["model.width"] == "32" and found.data.params["optim.lr"] == "0.002"
    assert found.data.metrics["result/test_accuracy"] == result.test_accuracy
    history = client.get_metric_history(found.info.run_id, "test_accuracy")
    assert {metric.step: metric.value for metric in history} == logged(result, "test_accuracy")
    files = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert files == {"report.html", "result.json"}
    assert (tmp_path / "mlruns").is_dir()


def test_trackio_keeps_the_run_on_this_machine(run):
    result, said = run("trackio")
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    [found] = trackio.Api().runs("pocketvit")
    assert found.name == "study/row-s0" and found.config["model.width"] == 32
    logs = SQLiteStorage.get_logs("pocketvit", found.name, run_id=found.id)
    assert {row["step"]: row["test_accuracy"] for row in logs if "test_accuracy" in row} == logged(
        result, "test_accuracy"
    )
    [last] = [row for row in logs if "result/test_accuracy" in row]
    assert last["result/test_accuracy"] == result.test_accuracy and last["report"]["file_path"].endswith(".html")
    assert "trackio: trackio show --project pocketvit" in said


def test_runs_of_a_study_share_a_new_mlflow_store(tmp_path, monkeypatch, synthetic_set):
    """Two that create its tables at once break it; here two begin together."""
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    base = {"data.source": str(synthetic_set), "schedule.passes": 1, "schedule.warmup_passes": 0, "model.depth": 1}
    base |= {"train.device": "cpu", "batch_size": 16}
    study = parse_study({"recipe": "digits", "base": base, "seeds": 2, "rows": {"row": {}}}, "study")
    jobs = study_jobs(study, tmp_path / "study", lambda data: "0" * 32)
    cells = [launch(replace(job, track=("mlflow", "study/row"))) for job in jobs]
    assert [cell.wait(300) for cell in cells] == [0, 0]
    logs = [job.log.read_text() for job in jobs]
    assert all("mlflow: mlflow ui" in log and "failed" not in log for log in logs), logs
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("pocketvit").experiment_id])
    assert {run.info.run_name for run in runs} == {f"study/row-s{seed}" for seed in range(2)}
    assert {run.info.status for run in runs} == {"FINISHED"}
