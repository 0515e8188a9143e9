"""The experiment trackers; see `tracking.py`. Each is imported when its run begins."""

import contextlib
import io
import logging
import os
import sys
import time
import uuid
from collections.abc import Iterator
from importlib import import_module
from netrc import netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pocketvit.training.tracking import Tracker

PROJECT = "pocketvit"
"""The project, or experiment, of all runs."""


class TensorBoard(Tracker):
    """Event files in the run folder's `tensorboard`."""

    writer: Any = None

    def begin(self, config: dict[str, Any]) -> None:
        """Check that TensorBoard is there; the files begin with the first step."""
        import_module("torch.utils.tensorboard")
        self.config, self.done_steps = config, 0
        self.where = f"tensorboard --logdir {self.folder.parent}"

    def start(self, total_steps: int, done_steps: int) -> None:
        """Training begins or resumes."""
        self.done_steps = done_steps

    def _open(self) -> Any:
        """The writer; points of an interrupted run beyond where it resumes do not count."""
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            purged = self.done_steps + 1 if self.done_steps else None
            self.writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=purged)
            text = "\n".join(
                f"    {name}: {value}" for name, value in self.config.items()
            )  # indented: code in Markdown
            self.writer.add_text("config", text)
        return self.writer

    def log(self, values: dict[str, float], step: int) -> None:
        """Add a point to each curve."""
        writer = self._open()
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def conclude(self, numbers: dict[str, float], result: Path, report: Path | None) -> None:
        """Add the result as text and for the tab of hyperparameters, and the report's path."""
        from torch.utils.tensorboard.summary import hparams

        writer = self._open()
        writer.add_text("result", "\n".join(f"    {line}" for line in result.read_text(encoding="utf-8").splitlines()))
        if report:
            writer.add_text("report", str(report.absolute()))
        for summary in hparams(self.config, numbers):
            writer.file_writer.add_summary(summary)
        for name, value in numbers.items():
            writer.add_scalar(name, value)

    def closed(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()


class WandB(Tracker):
    """Weights & Biases; in the run folder's `wandb` for a later `wandb sync`, unless the user is logged in."""

    def begin(self, config: dict[str, Any]) -> None:
        """Begin the run, offline unless logged in or `WANDB_MODE` says otherwise."""
        if not _logged_in():
            os.environ.setdefault("WANDB_MODE", "offline")
        if os.environ.get("WANDB_MODE") == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # crash reports are sent offline as well
        import wandb

        self.wandb = wandb
        settings = wandb.Settings(silent=True, console="off", disable_code=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self.kept("wandb", lambda: uuid.uuid4().hex[:8]),
            name=self.name,
            group=self.group,
            dir=str(self.folder),
            config=config,
            resume="allow",
            settings=settings,
        )
        offline = f"wandb sync {self.folder}/wandb/offline-run-*"
        self.where = offline if self.run.offline else str(self.run.url)

    def log(self, values: dict[str, float], step: int) -> None:
        """Add a point to each curve."""
        self.run.log(values, step=step)

    def conclude(self, numbers: dict[str, float], result: Path, report: Path | None) -> None:
        """Add the result to the summary, and the report as a page."""
        if report:
            self.run.log({"report": self.wandb.Html(str(report), inject=False)})
        self.run.summary.update(numbers)

    def closed(self) -> None:
        """End the run; without a result, it has failed."""
        if hasattr(self, "run"):
            self.run.finish(exit_code=0 if self.done else 1)


class MLflow(Tracker):
    """An MLflow store: that of `MLFLOW_TRACKING_URI`, by default `mlflow.db` in the current directory."""

    def begin(self, config: dict[str, Any]) -> None:
        """Create the run, or continue it."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # how the store is made
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd() / 'mlflow.db'}")
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        with _alone(uri):
            self.client, self.metric = MlflowClient(uri), Metric
            self.id = self.kept("mlflow", lambda: self._create(experiment))
        self.client.update_run(self.id, status="RUNNING")
        params = [Param(name, str(value)) for name, value in config.items() if name != "out"]  # it may have moved
        self.client.log_batch(self.id, params=params)
        self.where = f"mlflow ui --backend-store-uri {uri}" if uri.startswith("sqlite") else uri

    def _create(self, experiment: str) -> str:
        """A new run in an experiment, which is created if absent."""
        found = self.client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self.client.create_experiment(experiment)
        tags = {"pocketvit.group": self.group} if self.group else {}
        return self.client.create_run(number, run_name=self.name, tags=tags).info.run_id

    def log(self, values: dict[str, float], step: int) -> None:
        """Add a point to each curve."""
        now = round(1000 * time.time())
        self.client.log_batch(self.id, metrics=[self.metric(name, value, now, step) for name, value in values.items()])

    def conclude(self, numbers: dict[str, float], result: Path, report: Path | None) -> None:
        """Add the result's numbers as metrics, and both files."""
        self.log(numbers, 0)
        for path in filter(None, (result, report)):
            self.client.log_artifact(self.id, str(path))

    def closed(self) -> None:
        """End the run; without a result, it has failed."""
        if hasattr(self, "id"):
            self.client.set_terminated(self.id, "FINISHED" if self.done else "FAILED")


class Trackio(Tracker):
    """Trackio, on this machine unless `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL` says otherwise."""

    def begin(self, config: dict[str, Any]) -> None:
        """Begin the run, or continue it."""
        import trackio

        self.trackio = trackio
        with contextlib.redirect_stdout(io.StringIO()):  # it says in eight lines how to show the runs
            resume = "allow" if self.resumed else "never"  # never: another run of this name is another run
            name = self.kept("trackio", lambda: self.name)
            self.run = trackio.init(PROJECT, name=name, group=self.group, config=config, resume=resume, embed=False)
        self.where = f"trackio show --project {PROJECT}"

    def log(self, values: dict[str, float], step: int) -> None:
        """Add a point to each curve."""
        self.run.log(values, step=step)

    def conclude(self, numbers: dict[str, float], result: Path, report: Path | None) -> None:
        """Add the result's numbers, and the report as a page."""
        page = {"report": self.trackio.Html(report.read_text(encoding="utf-8"))} if report else {}
        self.run.log(numbers | page)

    def closed(self) -> None:
        """Write what is left."""
        if hasattr(self, "run"):
            with contextlib.redirect_stdout(io.StringIO()):
                self.trackio.finish()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "trackio": Trackio}


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Inside, no other run uses the SQLite file: two that create its tables at once would break it."""
    if not uri.startswith("sqlite:///") or sys.platform == "win32":
        yield
        return
    import fcntl

    with open(uri.removeprefix("sqlite:///"), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _logged_in() -> bool:
    """Whether Weights & Biases has a key of the user, without importing it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        with contextlib.suppress(Exception):  # no such file, or one that cannot be read: W&B would find no key either
            if path and netrc(os.path.expanduser(path)).authenticators(host):
                return True
    return False
