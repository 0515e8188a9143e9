"""Where the time of a training pass goes, on made images of CIFAR-10's size.

    python benchmarks/train_step.py [--field value ...]      (fields as for `pocketvit train paper`)

Prints the seconds until the first step, then the median milliseconds of a step, of a pass's augmentation on the
device and of drawing a pass on the CPU, and the images/s that follow. Device work is timed with device events.
"""

import statistics
import sys
import time

STARTED = time.perf_counter()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from pocketvit.cli import parse_train  # noqa: E402
from pocketvit.data import Split, Splits  # noqa: E402
from pocketvit.training.device import choose_device, device_name, peak_memory_gib  # noqa: E402
from pocketvit.training.progress import Silent  # noqa: E402
from pocketvit.training.trainer import Trainer  # noqa: E402


def made_splits(size: int = 50_000) -> Splits:
    """Random pixels and labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
    train = Split(images, rng.integers(0, 10, size))
    return Splits(train, None, train.take(np.arange(100)), tuple("abcdefghij"), "made", ())


def event_ms(work, repeats: int) -> float:
    """Median milliseconds of `work` on the device, between device events."""
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def main() -> None:
    config = parse_train(["paper", *sys.argv[1:]])
    device = choose_device("cuda")
    trainer = Trainer(config, made_splits(), device, Silent())
    began = time.perf_counter()
    plan, keep = trainer.plan(0)
    draw_ms = (time.perf_counter() - began) * 1e3
    steps = trainer.loader.steps_per_pass
    work = trainer.load(plan, keep, 0, steps)
    trainer.step.set_chunk(work.chunk, work.keep)
    trainer.step()
    torch.cuda.synchronize()
    ready_s = time.perf_counter() - STARTED

    def all_steps() -> None:
        trainer.step.position.zero_()
        for _ in range(steps):
            trainer.step()

    trainer.load(plan, keep, 0, steps)
    augment_ms = event_ms(lambda: trainer.load(plan, keep, 0, steps), 5)
    pass_ms = event_ms(all_steps, 5)

    def overlapped() -> None:
        trainer.step.set_chunk(work.chunk, work.keep)
        all_steps()
        trainer.load(plan, keep, 0, steps)

    both_ms = event_ms(overlapped, 5)
    step_ms = pass_ms / steps
    images = steps * config.batch_size
    print(f"{device_name(device)}, torch {torch.__version__}, batch {config.batch_size}")
    print(f"import to first step {ready_s:.1f} s; drawing a pass on the CPU {draw_ms:.0f} ms (in another thread)")
    print(f"step {step_ms:.3f} ms = {config.batch_size / step_ms * 1e3:,.0f} images/s without augmentation")
    print(f"augmentation alone {augment_ms:.1f} ms a pass; with the steps {both_ms:.0f} ms a pass")
    print(f"training {images / both_ms * 1e3:,.0f} images/s")
    print(f"peak memory {peak_memory_gib(device):.2f} GiB, last loss {trainer.step.losses[:steps].mean():.3f}")


if __name__ == "__main__":
    main()
