"""The first losses of small fixed runs: `python tests/golden/losses.py` writes those of this machine's kind of device.

From the same seed, older versions of PyTorch (2.10 and 2.11 at least) draw initial weights that differ from those of 2.14. Losses
with these have files of their own.

Each run is made several times, as other machines would: on the CPU with one thread and two, and with fewer kinds of instructions;
on a GPU, which repeats itself bit for bit, also in plain PyTorch. The file keeps the losses of the first, and for each run a
tolerance: the greatest relative difference of another one, times a `MARGIN`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "cases"))

from objective_cases import OBJECTIVES, save_teacher, with_teacher

HERE = Path(__file__).parent
STEPS = 20
MARGIN = {"cpu": 20, "cuda": 2}
"""For machines that are not at hand. On the CPU the runs differ by at most 2.3e-7, so 4e-6 are allowed; an epsilon of 1e-5
instead of 1e-6 in the norms changes the losses by 7e-5 or more, a warm-up that is longer by a step by 2e-4. Kernels differ more
than GPUs do."""
LEAST = 1e-6
"""The least tolerance, should all runs be alike: a few roundings of float32."""
NAMES = ("0", "1", "2")
SMALL = {
    "batch_size": 16, "model.width": 32, "model.depth": 2, "model.num_heads": 2, "optim.lr": 2e-3, "schedule.passes": 5,
    "schedule.warmup_passes": 1,
}  # fmt: skip
"""Of the runs with each objective: six steps a pass, so that the warm-up ends within them."""
RUNS = {
    "digits": {},
    "paper": {"batch_size": 4},
    "classification": SMALL,
    "multilabel": SMALL | {"objective.name": "multilabel"},
    **{name: SMALL | fields for name, fields in OBJECTIVES.items()},
}
"""The fields of each run that differ from those of `digits` and `paper`."""
PLAIN = {"train.kernels": "reference", "train.compile": False}
"""The fields with which plain PyTorch computes a run on a GPU."""
OTHERS = {
    "cpu": (
        ({"OMP_NUM_THREADS": "2"}, []),
        ({"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}, []),
        ({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}, []),
    ),
    "cuda": (({}, ["--plain"]),),
}
"""What the environment of the repeated runs sets, and the options they get, by the kind of device."""


def file_of(device: str) -> Path:
    """The file for a kind of device, and for the way in which this PyTorch draws from a truncated normal distribution."""
    import torch

    def seed() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    drawn = torch.nn.init.trunc_normal_(torch.empty(1), generator=seed())
    from_normal = torch.equal(drawn, torch.randn(1, generator=seed()))  # and drawn again where that is too far out
    return HERE / (f"{device}.json" if from_normal else f"{device}-from-uniform.json")


def made_images(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with waves and blocks by arithmetic on integers, the same everywhere: uint8 (N, H, W, 3), and labels (N,)."""
    n, y, x, c = np.ogrid[:count, :side, :side, :3]
    waves = (7 + n % 5) * x + (3 + n % 7) * y + 60 * c
    blocks = ((x // 4 + y // 4 + n) % (2 + c)) * 90
    labels = np.arange(count) % len(NAMES)
    return ((waves + blocks + 40 * n + 100 * (c == labels[:, None, None, None])) % 256).astype(np.uint8), labels


def losses(name: str, device: str, folder: Path, *, plain: bool = False) -> list[float]:
    """The losses of a run's first steps."""
    from pocketvit.config import override
    from pocketvit.data import Dataset, Split
    from pocketvit.recipes import recipe
    from pocketvit.training.distributed import ALONE
    from pocketvit.training.progress import SilentReporter
    from pocketvit.training.run import prepare

    teacher = save_teacher(folder / "teacher.safetensors", NAMES)
    config = override(recipe("digits" if name == "digits" else "paper"), with_teacher(RUNS[name], teacher))
    config = override(config, {"train.device": device, "data.cache_dir": folder} | (PLAIN if plain else {}))
    data = None if name == "digits" else made_images(*((64, 32) if name == "paper" else (96, 16))) * 2
    if name == "multilabel":
        has = np.arange(96)[:, None] >> np.arange(3) & 1 == 1  # from no class to all three, (N, K)
        data = Dataset("made", *[Split(data[0], has)] * 2, class_names=NAMES)
    trainer = prepare(config, ALONE, SilentReporter(), data)
    trainer.model.train()
    for step in range(STEPS):
        pass_index, first = divmod(step, trainer.loader.steps_per_pass)
        if step == 0 or first == 0:
            trainer.step.set_chunk(trainer.chunks.load(pass_index, 0, trainer.loader.steps_per_pass))
        trainer.step()
    return trainer.step.losses[:STEPS].tolist()


def repeated(device: str) -> Iterator[dict[str, list[float]]]:
    """All losses, first as they are kept, then on each of the `OTHERS`."""
    for variables, options in (({}, []), *OTHERS[device]):
        command = [sys.executable, __file__, "--device", device, "--print", *options]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
        yield json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def tolerances(device: str, kept: dict[str, list[float]], others: list[dict[str, list[float]]]) -> dict[str, float]:
    """The relative difference up to which the losses of each run are the same."""
    spread = {name: max(np.abs(np.divide(other[name], kept[name]) - 1).max() for other in others) for name in kept}
    return {name: max(float(f"{MARGIN[device] * apart:.0e}"), LEAST) for name, apart in spread.items()}


def main() -> None:
    """Write the file, or print the losses."""
    parser = argparse.ArgumentParser("python tests/golden/losses.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=OTHERS, default="cpu")
    parser.add_argument("--print", action="store_true", help="once, without writing")
    parser.add_argument("--plain", action="store_true", help="compute in plain PyTorch, also on a GPU")
    told = parser.parse_args()
    if told.print:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({name: losses(name, told.device, Path(folder), plain=told.plain) for name in RUNS}))
        return
    kept, *others = repeated(told.device)
    content = {"tolerances": tolerances(told.device, kept, others), "losses": kept}
    file_of(told.device).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
