"""Crash-safe checkpoints.

A checkpoint is one safetensors file in the run's `checkpoint/` folder: all tensors of the step's state, and the run's
progress in its metadata. Its name contains the step and the first digits of the file's SHA-256. It is written under a
temporary name, synced and renamed, so a file with its final name is complete. If the disk damages it later, the digest
shows it: the file is renamed to `….damaged`, and the checkpoint before it is used. The last two are kept. Hashing and
writing take a tenth of a second or more and are done by a thread during training.
"""

import contextlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Annotated, get_args

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pocketvit.config.training import Kernels
from pocketvit.errors import InputError
from pocketvit.files import digest_of, read_bytes, utf8_name, write_atomically
from pocketvit.runs.result import Fraction, Natural, Number, Positive, take_fields

KEEP = 2


@dataclass(frozen=True)
class Progress:
    """The progress of a run."""

    pass_index: Natural  # the pass that the next step belongs to, from 0
    step_in_pass: Natural  # the next step within it
    train_s: Positive  # seconds of training so far
    kernels: Annotated[Kernels, "a kind of kernels", lambda value: value in get_args(Kernels)] = (
        "fused"  # kernels of the blocks; older versions had one kind and did not record it
    )
    best_pass: Natural = 0  # of the weights that `train.patience` keeps; 0 for none
    best_accuracy: Fraction = 0.0  # on the held-out images then, or their mAP
    total_s: Number = 0.0  # seconds since the run began; older versions did not record it


class CheckpointWriter:
    """Writes a run's checkpoints in a thread, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.written: Future[Path] | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown()

    def save(self, step: int, state: dict[str, Tensor], progress: Progress) -> None:
        """Begin to write the state after `step` steps; the arguments may change as soon as this returns.

        Raises:
            InputError: the checkpoint before it could not be written.
        """
        self.wait()
        copy = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}
        self.written = self.thread.submit(write_checkpoint, self.folder, step, copy, progress)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
            InputError: no space left, or the folder cannot be written; earlier checkpoints are kept.
        """
        if self.written is not None:
            written, self.written = self.written, None
            written.result()


def write_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], progress: Progress) -> Path:
    """Write the state after `step` steps, then drop all but the last two checkpoints.

    Raises:
        InputError: no space left, or the folder cannot be written; earlier checkpoints are kept.
    """
    content = save(tensors, metadata={"progress": json.dumps(asdict(progress))})
    target = folder / f"step-{step:09d}.{digest_of(content)}.safetensors"
    write_atomically(target, content)
    for old in list_checkpoints(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    for torn in folder.glob("*.partial"):  # left by a run that was killed while it saved
        torn.unlink(missing_ok=True)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    return sorted(folder.glob("step-*.*.safetensors"), reverse=True)


def load_checkpoint(folder: Path, most: float = inf) -> tuple[tuple[dict[str, Tensor], Progress] | None, list[str]]:
    """The newest intact checkpoint. Damaged ones are renamed, so that they do not count as one of those to keep.

    Args:
        folder: of the checkpoints.
        most: bytes of a checkpoint; a larger one is not read.
    Returns:
        its tensors on the CPU and the run's progress, or None if no checkpoint is intact; and a line on each damaged one.
    Raises:
        InputError: one cannot be read now, although it may be intact.
    """
    said: list[str] = []
    paths = list_checkpoints(folder)
    for path in paths:
        try:
            return _read_checkpoint(path, most), said
        except _Damaged as damage:
            with contextlib.suppress(OSError):  # if this fails, the next checkpoint fails as well
                path.rename(path.with_name(path.name + ".damaged"))
            left = (
                "using the one before it" if path != paths[-1] else "there is no earlier one, so the run starts again"
            )
            said.append(f"checkpoint {path.name} is damaged ({damage}); {left}")
    return None, said


class _Damaged(Exception):
    """What is wrong with a checkpoint."""


def _read_checkpoint(path: Path, most: float) -> tuple[dict[str, Tensor], Progress]:
    """A checkpoint's tensors, on the CPU, and the run's progress."""
    try:
        if digest_of(read_bytes(path, most)) != path.name.split(".")[1]:
            raise _Damaged("its checksum differs")
        with utf8_name(path) as name, safe_open(name, framework="pt") as file:
            held = json.loads(file.metadata()["progress"])  # of older versions it held more
            progress = Progress(**take_fields("progress", Progress, held))
            return {name: file.get_tensor(name) for name in file.keys()}, progress  # noqa: SIM118
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _Damaged("it cannot be read") from error
