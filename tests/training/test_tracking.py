"""Reporters hear a run in its order; trackers hear it too, and whatever they do, the run goes on."""

import ast
import os
import re
import sys
import types
from pathlib import Path

import pytest
import tracker_packages

import pocketvit
from pocketvit.cli import dispatch
from pocketvit.cli.parsing import Tracker as Names
from pocketvit.config import config_hash, override
from pocketvit.errors import InputError
from pocketvit.runs.result import RunResult
from pocketvit.studies import parse_study
from pocketvit.studies.execution import runner
from pocketvit.studies.execution.launch import launch
from pocketvit.training import tracking
from pocketvit.training.trackers import TRACKERS, _logged_in
from pocketvit.training.tracking import Tracked, tracked

DOCUMENT = Path(__file__).parents[2] / "docs" / "tracking.md"


class Ear(pocketvit.Reporter):
    """Keeps the events of a run, and raises an error at one of them."""

    def __init__(self, fails_at=None, error=None):
        self.events, self.lines, self.fails_at, self.error = [], [], fails_at, error or OSError("no space left")

    def note(self, line):
        self.lines.append(line)

    def _hear(self, event, *what):
        self.events.append((event, what))
        if event == self.fails_at:
            raise self.error

    def opened(self, config, folder):
        self._hear("opened", config, folder)

    def start(self, total_steps, done_steps):
        self._hear("start", total_steps, done_steps)

    def advance(self, steps):
        self._hear("advance", steps)

    def passed(self, line):
        self._hear("passed", line)

    def stop(self):
        self._hear("stop")

    def finished(self, result):
        self._hear("finished", result)

    def closed(self):
        self._hear("closed")

    def names(self):
        """Events in their order, each once for several in a row."""
        names = [event for event, _ in self.events if event != "advance"]
        return [name for name, before in zip(names, [None, *names]) if name != before]


@pytest.fixture(scope="module")
def heard(small_in, tmp_path_factory):
    """A run of two passes, with what a reporter and two trackers hear: one that does not fail, and none that is told."""
    config = override(small_in(tmp_path_factory.mktemp("heard")), {"schedule.passes": 2, "model.depth": 1})
    ear, tracker = Ear(), Ear()
    result = pocketvit.train(config, Tracked(ear, tracker, "wandb"))
    return config, result, ear, tracker


def test_a_run_tells_everything_in_order(heard):
    config, result, ear, tracker = heard
    assert ear.names() == ["opened", "start", "passed", "stop", "finished", "closed"]
    events = dict(ear.events)
    assert events["opened"] == (config, config.out) and events["start"] == (12, 0)
    assert events["passed"][0]["pass"] == 2 and events["finished"] == (result,)
    assert result.file.exists() and (config.out / "report.html").exists()
    assert tracker.events == ear.events and ear.lines and not tracker.lines


@pytest.mark.parametrize("event", ["opened", "start", "passed", "finished", "closed"])
@pytest.mark.parametrize("error", [OSError("no\nspace left"), SystemExit(3)])
def test_a_tracker_that_fails_is_left_out_with_one_line(event, error, heard):
    """Whatever the run tells it next."""
    ear, tracker = Ear(), Ear(event, error)
    both = Tracked(ear, tracker, "wandb")
    for name, what in heard[2].events:
        getattr(both, name)(*what)
    assert ear.events == heard[2].events
    assert tracker.names()[-1] == event
    [line] = ear.lines
    assert line.startswith("CAUTION: wandb failed (") and line.endswith("); continuing without it") and "\n" not in line


def test_the_runs_own_reporter_may_stop_it():
    with pytest.raises(OSError, match="no space left"):
        Tracked(Ear("start"), Ear(), "wandb").start(1, 0)


def test_a_stopped_run_is_closed_but_not_finished(heard, tmp_path):
    config = override(heard[0], {"out": tmp_path / "stopped"})
    ear = Ear("passed", InputError("enough"))
    with pytest.raises(InputError, match="enough"):
        pocketvit.train(config, ear)
    assert ear.names() == ["opened", "start", "passed", "stop", "closed"]


class FakeRun:
    """What a tracker's package does with a run, written down."""

    offline, url = True, None

    def __init__(self):
        self.logged, self.summary, self.code = [], {}, None

    def log(self, values, step=None):
        self.logged.append((values, step))

    def finish(self, exit_code):
        self.code = exit_code


@pytest.fixture
def wandb(monkeypatch):
    """A package `wandb` that only remembers."""
    run = FakeRun()
    module = types.ModuleType("wandb")
    module.Settings, module.Html = dict, lambda path, inject: Path(path)
    module.init = lambda **options: run.__dict__.update(options) or run
    module.run = run
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_ERROR_REPORTING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    return module


def told(events, name="wandb", group=None):
    """A tracker that was told events."""
    ear = Ear()
    both = tracked(name, ear, group=group)
    for event, what in events:
        getattr(both, event)(*what)
    return ear


def test_a_tracker_gets_configuration_curves_result_and_report(wandb, heard, monkeypatch):
    monkeypatch.setattr(tracking, "write_json", lambda *_: None)
    config, result, ear, _ = heard
    said = told(ear.events, group="my-study/two").lines
    run = wandb.run
    assert said == [f"wandb: wandb sync {config.out}/wandb/offline-run-*"]
    assert run.config["model.width"] == 32 and run.config["model.q_rank"] == "None"
    assert (run.name, run.group, run.resume) == ("my-study/two-s0", "my-study/two", "allow")
    [(first, six), (second, twelve), (report, _)] = run.logged
    assert (six, twelve) == (6, 12) and "loss" in first and second["test_accuracy"] == result.test_accuracy
    assert not {"pass", "step"} & second.keys()
    assert report == {"report": config.out / "report.html"} and run.code == 0
    assert run.summary["result/test_accuracy"] == result.test_accuracy and "result/curve" not in run.summary


def test_a_run_without_a_result_has_failed_there(wandb, heard, monkeypatch):
    monkeypatch.setattr(tracking, "write_json", lambda *_: None)
    told([event for event in heard[2].events if event[0] != "finished"])
    assert wandb.run.code == 1


def test_a_resumed_run_continues_the_one_it_was(wandb, tmp_path, heard):
    opened = [("opened", (heard[0], tmp_path))]
    told(opened)
    first = wandb.run.id
    told(opened)
    assert wandb.run.id == first and len(first) == 8
    told([("opened", (heard[0], tmp_path.parent))])
    (tmp_path.parent / tracking.FILE).unlink()
    assert wandb.run.id != first


def test_wandb_is_offline_unless_the_user_is_logged_in(wandb, tmp_path, heard, monkeypatch):
    import os

    modes = []
    wandb.init = lambda **_: modes.append(os.environ.get("WANDB_MODE")) or wandb.run
    opened = [("opened", (heard[0], tmp_path))]
    told(opened)
    assert modes == ["offline"] and os.environ["WANDB_ERROR_REPORTING"] == "false"
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password " + 40 * "x")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    told(opened)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.com")
    assert modes[1:] == [None] and not _logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert _logged_in()


def in_two_parts(heard, folder, name):
    """A tracker that is told a run in a folder which stops after its second pass and resumes after its first; what was said."""
    config, result, ear, _ = heard
    first, second = (what[0] for event, what in ear.events if event == "passed")
    lost = second | {"loss": second["loss"] + 1}
    opened = ("opened", (config, folder))
    stopped = [opened, ("start", (12, 0)), ("passed", (first,)), ("passed", (lost,)), ("closed", ())]
    resumed = [opened, ("start", (12, 6)), ("passed", (second,)), ("finished", (result,)), ("closed", ())]
    said = [line for part in (stopped, resumed) for line in told(part, name, "my-study/two").lines]
    assert not [line for line in said if "failed" in line], said
    return {6: first["loss"], 12: second["loss"]}, said


def test_tensorboard_forgets_what_a_resumed_run_does_again(heard, tmp_path, monkeypatch):
    board, result = tracker_packages.TensorBoard(monkeypatch), heard[1]
    losses, said = in_two_parts(heard, tmp_path / "run", "tensorboard")
    [curves], [texts] = board.curves.values(), board.texts.values()
    assert [*board.curves] == [str(tmp_path / "run" / "tensorboard")] and not board.open
    assert curves["loss"] == losses and curves["result/test_accuracy"] == {None: result.test_accuracy}
    assert "\n    model.width: 32\n" in texts["config"] and f'    "seed": {result.seed},' in texts["result"]
    assert texts["report"] == str(result.run_folder / "report.html")
    config, numbers = board.summaries
    assert config["model.width"] == 32 and numbers["result/test_accuracy"] == result.test_accuracy
    assert said == [f"tensorboard: tensorboard --logdir {tmp_path}"] * 2
    told([("opened", (heard[0], tmp_path / "none")), ("closed", ())], "tensorboard")
    assert len(board.curves) == 1, "a run that ends before its first step leaves no file"


@pytest.mark.parametrize("address", [None, "http://127.0.0.1:5000"])
def test_mlflow_goes_on_with_the_run_that_stopped(address, heard, tmp_path, monkeypatch):
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(variable, address or "")
        if address is None or "TELEMETRY" in variable:
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    store, result = tracker_packages.MLflow(monkeypatch), heard[1]
    for folder in ("one", "two"):
        losses, said = in_two_parts(heard, tmp_path / folder, "mlflow")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true" and store.experiments == ["pocketvit"]
    wanted = address or f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert (
        store.addresses == {wanted} and said[0].endswith(wanted) and (tmp_path / "mlflow.db").exists() != bool(address)
    )
    assert len(store.runs) == 2, "one for each folder"
    for run in store.runs:
        assert (run.experiment, run.name) == ("pocketvit", "my-study/two-s0")
        assert run.tags == {"pocketvit.group": "my-study/two"}
        assert run.statuses == ["RUNNING", "FAILED", "RUNNING", "FINISHED"]
        assert run.params["model.width"] == "32" and "out" not in run.params
        assert run.metrics["loss"] == losses and run.metrics["result/test_accuracy"] == {0: result.test_accuracy}
        assert run.files == [str(result.file), str(result.run_folder / "report.html")]


def test_trackio_goes_on_with_the_run_that_stopped_and_with_no_other(heard, tmp_path, monkeypatch, capsys):
    store, result = tracker_packages.Trackio(monkeypatch), heard[1]
    for folder in ("one", "two"):
        losses, said = in_two_parts(heard, tmp_path / folder, "trackio")
    assert said == ["trackio: trackio show --project pocketvit"] * 2 and not capsys.readouterr().out
    assert [(run.name, run.group, run.embed, run.ended) for run in store.runs] == [
        ("my-study/two-s0", "my-study/two", False, 2)
    ] * 2, "one for each folder, though they have one name"
    for run in store.runs:
        assert {step: values["loss"] for step, values in run.logs if step} == losses
        [last] = [values for step, values in run.logs if step is None]
        assert last["result/test_accuracy"] == result.test_accuracy and run.config["model.width"] == 32
        assert last["report"] == ("html", (result.run_folder / "report.html").read_text())


def test_a_tracker_that_is_not_installed_is_refused_before_the_run(monkeypatch):
    monkeypatch.setattr("pocketvit.cli.parsing.find_spec", lambda _: None)
    install = "--track wandb needs wandb: pip install wandb, or all trackers: pip install 'pocketvit"
    for command in (["train", "digits"], ["study", "digits"]):
        with pytest.raises(InputError, match=re.escape(install)):
            dispatch([*command, "--track", "wandb"])
    with pytest.raises(InputError, match="--track comet: the trackers are tensorboard, wandb, mlflow, trackio"):
        dispatch(["train", "digits", "--track", "comet"])
    with pytest.raises(InputError, match="unknown tracker 'wandbb'; did you mean wandb?"):
        tracked("wandbb")
    assert Names.__args__ == tuple(TRACKERS)


def test_a_plan_is_not_tracked():
    with pytest.raises(InputError, match="a plan trains nothing"):
        dispatch(["study", "digits", "--plan", "--track", "wandb"])


def test_the_tracker_is_no_part_of_a_run(monkeypatch, heard):
    """`--track` is taken from the command line and reaches no field, so no hash."""
    given = []
    monkeypatch.setattr("pocketvit.cli.parsing.find_spec", lambda _: True)
    monkeypatch.setattr(
        "pocketvit.training.train", lambda config, reporter, started: given.append((config, reporter)) or heard[1]
    )
    dispatch(["train", "digits", "--track=wandb", "--seed", "3"])
    dispatch(["train", "digits", "--seed", "3"])
    assert config_hash(given[0][0], "0") == config_hash(given[1][0], "0") and given[0][0] == given[1][0]
    assert isinstance(given[0][1], Tracked) and given[1][1] is None


def test_a_studys_worker_is_told_the_tracker_and_the_row(tmp_path, monkeypatch):
    study = parse_study({"recipe": "digits", "base": {"train.device": "cpu"}, "rows": {"a": {}}}, "mine")
    monkeypatch.setattr(
        "pocketvit.studies.execution.launch.subprocess.Popen", lambda command, **_: commands.append(command)
    )
    commands = []
    monkeypatch.setattr(runner.Runner, "run", lambda self: [launch(job) for job in self.todo] and None)
    for track in ("wandb", None):
        runner.run_study(study, tmp_path / "out", track=track)
    assert commands[0][-4:] == ["--track", "wandb", "mine/a", "--code"] and "--track" not in commands[1]


def test_no_tracker_is_imported_unless_asked_for():
    """Nowhere in the package when a file is loaded; `test_imports.py` runs the command line."""
    trackers = {*TRACKERS, "torch.utils.tensorboard"}
    for path in Path(pocketvit.__file__).parent.rglob("*.py"):
        loaded = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {name for node in loaded for name in (getattr(node, "module", None), *(a.name for a in node.names))}
        assert not names & trackers, path


def test_the_callback_in_the_documentation_runs(heard, tmp_path, monkeypatch):
    """Ten lines, as its page says."""
    monkeypatch.chdir(tmp_path)
    [example] = re.findall(r"```python\n(import.*?)```", DOCUMENT.read_text(), re.DOTALL)
    lines = [line for line in example.splitlines() if line]
    assert len(lines) == 10
    config = override(heard[0], {"out": tmp_path / "run"})
    exec(example.replace('pocketvit.recipe("digits")', "config"), {"config": config})
    result = RunResult.read(tmp_path / "run" / "result.json")
    assert Path("curve.txt").read_text().splitlines()[-1] == f"12 {result.test_accuracy}"
