"""Packages of experiment trackers that keep what they are told in memory, by the rules of the real ones.

What the real ones make of a run is in `test_trackers`, which needs them.
"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any


def module(name: str, **members: Any) -> ModuleType:
    """A module of a name with such members."""
    made = ModuleType(name)
    made.__dict__.update(members)
    return made


class TensorBoard:
    """Event files by folder: of a curve the values by step, of a text the last one."""

    def __init__(self, monkeypatch) -> None:
        self.curves: dict[str, dict[str, dict[int | None, float]]] = {}
        self.texts: dict[str, dict[str, str]] = {}
        self.summaries: list[Any] = []
        self.open: list[Any] = []
        here = self

        class SummaryWriter:
            """Its reader leaves out points from `purge_step` on that are older than the writer."""

            def __init__(self, folder: str, purge_step: int | None = None) -> None:
                self.curves = here.curves.setdefault(folder, {})
                self.texts = here.texts.setdefault(folder, {})
                self.file_writer = SimpleNamespace(add_summary=here.summaries.append)
                for name, points in self.curves.items():
                    kept = {step: value for step, value in points.items() if purge_step is None or step < purge_step}
                    self.curves[name] = kept
                here.open.append(self)

            def add_scalar(self, name: str, value: float, step: int | None = None) -> None:
                self.curves.setdefault(name, {})[step] = value

            def add_text(self, name: str, text: str) -> None:
                self.texts[name] = text

            def close(self) -> None:
                here.open.remove(self)

        def hparams(config: dict[str, Any], numbers: dict[str, float]) -> list[Any]:
            assert all(isinstance(value, bool | int | float | str) for value in config.values())
            return [config, numbers]

        whole = module("torch.utils.tensorboard", SummaryWriter=SummaryWriter)
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", whole)
        summary = module("torch.utils.tensorboard.summary", hparams=hparams)
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.summary", summary)


class MLflow:
    """Stores by address; a parameter keeps its first value, and a name belongs to one experiment."""

    def __init__(self, monkeypatch) -> None:
        self.experiments: list[str] = []
        self.runs: list[Any] = []
        self.addresses: set[str] = set()
        here = self

        class MlflowClient:
            def __init__(self, address: str) -> None:
                here.addresses.add(address)

            def get_experiment_by_name(self, name: str) -> Any:
                known = name in here.experiments
                return SimpleNamespace(experiment_id=here.experiments.index(name)) if known else None

            def create_experiment(self, name: str) -> int:
                assert name not in here.experiments
                here.experiments.append(name)
                return len(here.experiments) - 1

            def create_run(self, experiment: int, run_name: str, tags: dict[str, str]) -> Any:
                run = {"experiment": here.experiments[experiment], "name": run_name, "tags": tags, "status": "RUNNING"}
                here.runs.append(SimpleNamespace(**run, params={}, metrics={}, files=[], statuses=[]))
                return SimpleNamespace(info=SimpleNamespace(run_id=str(len(here.runs) - 1)))

            def update_run(self, run: str, status: str) -> None:
                here.runs[int(run)].statuses.append(status)

            set_terminated = update_run

            def log_batch(self, run: str, params: tuple = (), metrics: tuple = ()) -> None:
                for name, value in params:
                    assert here.runs[int(run)].params.setdefault(name, value) == value, "it has another value"
                for name, value, when, step in metrics:
                    assert when > 1e12, "in milliseconds"
                    here.runs[int(run)].metrics.setdefault(name, {})[step] = value

            def log_artifact(self, run: str, path: str) -> None:
                here.runs[int(run)].files.append(path)

        monkeypatch.setitem(sys.modules, "mlflow", module("mlflow", MlflowClient=MlflowClient))
        entities = module("mlflow.entities", Metric=lambda *values: values, Param=lambda *values: values)
        monkeypatch.setitem(sys.modules, "mlflow.entities", entities)


class Trackio:
    """Runs in their order. One of a known name is another run, unless it may be resumed."""

    def __init__(self, monkeypatch) -> None:
        self.runs: list[Any] = []
        here = self

        def init(project: str, *, name: str, group: str | None, config: dict, resume: str, embed: bool) -> Any:
            print("how to show the runs")
            found = [run for run in here.runs if (run.project, run.name) == (project, name) and resume == "allow"]
            if not found:
                logs: list[Any] = []
                about = {"project": project, "name": name, "group": group, "config": config, "embed": embed}
                run = SimpleNamespace(**about, logs=logs, ended=0)
                run.log = lambda values, step=None: logs.append((step, values))
                here.runs.append(run)
                found = [run]
            here.current = found[-1]
            return here.current

        def finish() -> None:
            print("finished")
            here.current.ended += 1

        whole = module("trackio", init=init, finish=finish, Html=lambda text: ("html", text))
        monkeypatch.setitem(sys.modules, "trackio", whole)
