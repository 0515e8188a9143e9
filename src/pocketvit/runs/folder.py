"""The run folder.

A run folder contains config.yaml, code/ and weights/ (user-defined code and trained models that it names, if any),
env.json, metrics.jsonl (a line a pass), checkpoint/, model.safetensors, predictions.npz, samples.npz, figures.npz (if
there is something to show), report.html and, written last, result.json: a run without it did not finish.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from pocketvit.config import RunConfig, code_of, config_hash, load_config, override, save_config
from pocketvit.config.hashing import earlier_hashes, revised
from pocketvit.config.weights import FOLDER as WEIGHTS_FOLDER
from pocketvit.data.sources import lasting_source
from pocketvit.errors import InputError
from pocketvit.files import read_bytes, read_json, write_atomically, write_json
from pocketvit.lock import locked
from pocketvit.runs.metrics import whole_line
from pocketvit.runs.provenance import environment
from pocketvit.runs.result import result_at
from pocketvit.usercode import FOLDER as CODE_FOLDER

RUNS = Path("runs")  # where run folders are created by default

_ENV = dict.fromkeys(("command", "started", "folder", "data_fingerprint", "config_hash"), str) | {
    "seed": int,
    "code": dict,
    "time_budget": dict,
}
"""The keys of env.json that a resumed run needs."""


class RunFolder:
    """One run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.env = path / "env.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoint"
        self.model = path / "model.safetensors"
        self.predictions = path / "predictions.npz"
        self.samples = path / "samples.npz"
        self.figures = path / "figures.npz"
        self.report = path / "report.html"
        self.result = path / "result.json"

    @classmethod
    def of(cls, config: RunConfig) -> "RunFolder":
        """The folder for a run: `out`, or the next free runs/<recipe>-<nnn>, which is created at once.

        Raises:
            InputError: it cannot be created.
        """
        return cls(config.out or make_next_free(RUNS, config.recipe))

    def begin(self, config: RunConfig, data_fingerprint: str) -> None:
        """Claim the existing folder for a run, by the rule for resuming runs.

        An unfinished run with the same config hash and seed, on the same data, is resumed, and with more passes also a
        finished one, whose result is set aside; another config or other data are refused.

        Raises:
            InputError: refused, or the folder cannot be used.
        """
        self.check_unfinished(config)
        if self.is_extended_by(config):
            self._check_same_run(without_extension(config), data_fingerprint)  # a refused run stays as it is
            if self.result.exists():
                self.result.rename(f"{self.result}.{config.schedule.extended[-2]}-passes")
            save_config(with_lasting_data(config), self.config)
        if self.config.exists():
            self._check_same_run(config, data_fingerprint)
            return
        try:
            strangers = [
                p for p in self.path.iterdir() if p.suffix != ".partial" and p.name not in (CODE_FOLDER, WEIGHTS_FOLDER)
            ]
        except OSError as error:
            raise _unusable(self.path, error) from error
        if strangers:
            raise InputError(f"{self.path} is not empty and contains no run; choose another --out")
        save_config(with_lasting_data(config), self.config)

    def _check_same_run(self, config: RunConfig, data_fingerprint: str) -> None:
        """Refuse to resume the folder's run if it is another one."""
        held = load_config(self.config, allow_code=True)  # only to compare it; the code of `config` will run
        env = self.read_env()
        if env.get("data_fingerprint", data_fingerprint) != data_fingerprint:
            raise InputError(
                f"{self.path} contains a run on other data than data.source={config.data.source} has now; choose another --out"
            )
        saved = (config_hash(held, data_fingerprint), held.seed)
        earlier = earlier_hashes(held, data_fingerprint)
        oldest = [saved[0], *earlier][-1] if env else saved[0]  # the schema of a run that does not record it
        began = (env.get("config_hash", oldest), env.get("seed", saved[1]))
        if began[0] in earlier:
            raise InputError(
                f"{self.path} contains a run from before {' and '.join(revised(held))} was changed, which cannot be resumed; "
                "choose another --out"
            )
        if began not in (saved, (config_hash(without_extension(held), data_fingerprint), held.seed)):
            raise InputError(
                f"{self.config} was changed after its run began; change it back to resume, or start another run: "
                f"pocketvit train --config {quote(str(self.config))}"
            )
        if (config_hash(config, data_fingerprint), config.seed) == saved:
            return
        if code_of(held) != code_of(config):
            raise InputError(
                f"{self.path} contains a run with other code; resume with its copy by --resume {quote(str(self.path))} "
                "--allow-code, or choose another --out"
            )
        raise InputError(f"{self.path} contains a run with another config or seed; choose another --out")

    def check_unfinished(self, config: RunConfig) -> None:
        """Refuse a folder whose run is finished, unless the configuration gives it more passes.

        Raises:
            InputError: it is, or its result is damaged.
        """
        if self.result.exists() and not self.is_extended_by(config):
            if result_at(self.result) is None:
                raise InputError(f"{self.result} is damaged; remove it to resume the run")
            raise InputError(
                f"{self.path} contains a finished run; for a new one, choose another --out or remove it; to train it longer: "
                f"pocketvit train --resume {quote(str(self.path))} --schedule.passes {2 * config.schedule.passes}"
            )

    def is_extended_by(self, config: RunConfig) -> bool:
        """Whether a configuration is that of the folder's run with more passes."""
        if not config.schedule.extended or not self.config.exists():
            return False
        held = load_config(self.config, allow_code=True)  # only to compare it
        return override(held, {"out": config.out}) == without_extension(config)

    @contextlib.contextmanager
    def locked(self, say: Callable[[str], None]) -> Iterator[None]:
        """Create the folder if necessary, and lock it.

        Args:
            say: is told if this must wait for another process.
        Raises:
            InputError: another process uses it, or it cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self.path, error) from error
        with locked(self.path, f"another process uses {self.path}; choose another --out", say):
            yield

    def write_env(
        self, config: RunConfig, device_name: str, data_fingerprint: str, measured: dict[str, Any]
    ) -> dict[str, Any]:
        """Write env.json, and return its content; a resumed run keeps command, time, folder and time_budget of its first start.

        Args:
            measured: for `schedule.time_budget`, if the run begins with one.
        """
        held = self.read_env()
        kept = {key: held[key] for key in ("command", "started", "folder", "time_budget") if key in held}
        env = environment(device_name) | {"folder": str(self.path)} | measured | kept
        env |= {
            "code": self.code_origins(config),
            "data_source": config.data.source,
            "data_fingerprint": data_fingerprint,
        }
        env |= {"config_hash": config_hash(config, data_fingerprint), "seed": config.seed}
        write_json(self.env, env)
        return env

    def read_env(self) -> dict[str, Any]:
        """The valid content of env.json; empty if it cannot be read."""
        with contextlib.suppress(InputError):
            return {key: value for key, value in read_json(self.env).items() if isinstance(value, _ENV.get(key, ()))}
        return {}

    def code_origins(self, config: RunConfig) -> dict[str, str]:
        """The original paths of the user-defined code when the run began, by file name."""
        known = self.read_env().get("code", {})
        return {code.path.name: str(known.get(code.path.name, code.path)) for code in code_of(config).values()}

    def code_notes(self, config: RunConfig) -> list[str]:
        """A line on each piece of user-defined code, and whether its original has changed."""
        lines, origins = [], self.code_origins(config)
        for field, code in code_of(config).items():
            origin, line = Path(origins[code.path.name]), f"{field} is {code.name} in {code.path}"
            if not os.path.isfile(origin):  # or it cannot be accessed, where Path.is_file may raise
                line += f"; its original {origin} no longer exists"
            elif not code.found_in(origin):
                line += f"; its original {origin} has changed since"
            lines.append(line)
        return lines

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl and sync it, so that a checkpoint never counts a pass without its line."""
        try:
            with open(self.metrics, "a") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self.metrics}: {error.strerror}") from error

    def cut_metrics(self, passes: int) -> list[int]:
        """Remove the lines that a killed run wrote after its last checkpoint, and damaged ones.

        Args:
            passes: done at the checkpoint.
        Returns:
            the passes whose lines are missing.
        """
        try:
            content = read_bytes(self.metrics) if self.metrics.exists() else b""
        except OSError as error:
            raise InputError(f"cannot read {self.metrics}: {error.strerror}; remove it to resume the run") from error
        lines = {held["pass"]: line for line in content.splitlines(keepends=True) if (held := whole_line(line))}
        kept = {number: lines[number] for number in range(1, passes + 1) if number in lines}
        if (whole := b"".join(kept.values())) != content:
            write_atomically(self.metrics, whole)
        return [number for number in range(1, passes + 1) if number not in kept]


def without_extension(config: RunConfig) -> RunConfig:
    """The configuration before its run was last given more passes, if ever."""
    if not config.schedule.extended:
        return config
    *before, passes, _ = config.schedule.extended
    return override(config, {"schedule.passes": passes, "schedule.extended": tuple(before)})


def with_lasting_data(config: RunConfig) -> RunConfig:
    """The configuration with data paths that mean the same in another directory."""
    cache = config.data.cache_dir
    lasting = {
        "data.source": lasting_source(config.data.source),
        "data.cache_dir": cache if cache is None else Path(cache).absolute(),
    }
    return override(config, lasting)


def make_next_free(parent: Path, name: str) -> Path:
    """Create parent/name-000, or the first free name after it, even if processes start at the same moment.

    Raises:
        InputError: it cannot be created.
    """
    path = parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for n in itertools.count():
            path = parent / f"{name}-{n:03d}"
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                break
    except OSError as error:
        raise _unusable(path, error) from error
    return path


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot create the run folder {path}: {error.strerror}; choose another --out")
