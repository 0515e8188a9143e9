"""Time what is left of a step beside the persistent kernels, in one call: python -m benchmarks.rest FILE [parts] [SIZE ...]

Each step of the paper's recipe is a CUDA graph on synthetic images. `before` leaves stem, head, norms and gathering to
PyTorch and the kernels of the fused blocks, `after` is what a run does. With `parts`, each of the four alone as well.
Batch sizes are 256, 128, 512 and 1,024 by default.
"""

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from pocketvit.bench.synthetic import first_chunk, synthetic_trainer
from pocketvit.config import override
from pocketvit.kernels.launch import Choice
from pocketvit.model import ViT
from pocketvit.model.folded import fold
from pocketvit.recipes import recipe
from pocketvit.training.trainer import Trainer

BATCH_SIZES = (256, 128, 512, 1024)
STEPS = 16
LARGE = ("vit_forward", "vit_backward", "vit_weights")
PARTS = ("stem", "head", "norms", "memory")


@contextmanager
def only(parts: tuple[str, ...]) -> Iterator[None]:
    """Inside, only these parts are as in a run."""

    def chosen(model: ViT, what: str, images: torch.Tensor, why_not) -> Choice:
        return choose(model, what, images, why_not) if what.split()[-1] in parts else Choice("reference", "not wanted")

    choose = ViT._beside
    with ExitStack() as left:
        left.enter_context(mock.patch.object(ViT, "_beside", chosen))
        if "norms" not in parts:
            left.enter_context(mock.patch("pocketvit.model.vit.fold_but_norms", lambda blocks: (fold(blocks), None)))
        if "memory" not in parts:
            left.enter_context(mock.patch("pocketvit.training.setup.offer_gradient_memory"))
        yield


def first_step(trainer: Trainer) -> None:
    """Let the next step be the first one of the chunk."""
    trainer.step.position.zero_()
    trainer.step.step.zero_()


def microseconds(trainer: Trainer, repeats: int = 15) -> list[float]:
    """Microseconds of a step, in rising order: each the mean over a chunk."""
    times = []
    for _ in range(repeats):
        first_step(trainer)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(STEPS):
            trainer.step()
        end.record()
        end.synchronize()
        times.append(round(start.elapsed_time(end) * 1e3 / STEPS, 1))
    return sorted(times)


def launches(trainer: Trainer) -> dict[str, list[float]]:
    """Number and microseconds of each kernel in one step, the longest first."""
    first_step(trainer)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        trainer.step()
        torch.cuda.synchronize()
    found = defaultdict(lambda: [0, 0.0])
    for event in seen.events():
        if event.device_time:
            of_kernel = found[event.name.split("(")[0].split("<")[0][-40:]]
            of_kernel[0] += 1
            of_kernel[1] = round(of_kernel[1] + event.device_time, 2)
    return dict(sorted(found.items(), key=lambda pair: -pair[1][1]))


def measured(name: str, parts: tuple[str, ...], batch: int) -> dict:
    """One variant at one batch size."""
    config = override(recipe("paper"), {"batch_size": batch, "train.kernels": "persistent", "train.device": "cuda"})
    with only(parts):
        trainer = synthetic_trainer(config, torch.device("cuda", 0), STEPS * batch)
        trainer.step.set_chunk(first_chunk(trainer))
        times, kernels = microseconds(trainer), launches(trainer)
        trainer.drop_graph()
    rest = {kernel: value for kernel, value in kernels.items() if kernel not in LARGE}
    row = {"variant": name, "batch_size": batch, "step_us": statistics.median(times), "step_us_all": times}
    row |= {"launches": sum(count for count, _ in kernels.values())}
    row |= {"rest_us": round(sum(time for _, time in rest.values()), 1), "kernels": kernels}
    print(name, batch, "step", row["step_us"], f"({times[0]} – {times[-1]})", "launches", row["launches"],
          "rest", row["rest_us"], list(rest.items())[:14], flush=True)  # fmt: skip
    return row


def main() -> None:
    """Measure all variants at all batch sizes and write them down."""
    file, *more = sys.argv[1:]
    variants = {"before": ()} | ({part: (part,) for part in PARTS} if "parts" in more else {}) | {"after": PARTS}
    sizes = [int(word) for word in more if word.isdigit()] or BATCH_SIZES
    rows = [measured(name, parts, batch) for batch in sizes for name, parts in variants.items()]
    command = f"python -m benchmarks.rest {' '.join(sys.argv[1:])}"
    content = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "command": command, "rows": rows}
    Path(file).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
