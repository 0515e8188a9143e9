"""Time the two designs of the blocks' kernels against each other, in one call: python -m benchmarks.persistent FOLDER

blocks.json: a stack of blocks, forward and backward in a CUDA graph, in microseconds, and each kernel of one replay.
steps.json: whole training steps and whole recipes on synthetic images, as `pocketvit bench` measures them.
"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cases"))
from block_cases import Case, random_inputs  # noqa: E402

from pocketvit.bench.modes import time_training  # noqa: E402
from pocketvit.bench.synthetic import first_chunk, synthetic_trainer  # noqa: E402
from pocketvit.config import override  # noqa: E402
from pocketvit.kernels.blocks_ops import FusedBlocks  # noqa: E402
from pocketvit.kernels.persistent.blocks import PersistentBlocks  # noqa: E402
from pocketvit.recipes import recipe  # noqa: E402

LAYERS = 9
CASES = [(65, 1, batch) for batch in (32, 64, 128, 256, 512, 1024, 2048)]
CASES += [(tokens, taken, batch) for tokens, taken in ((50, 1), (49, 49), (64, 64)) for batch in (256, 1024)]
KINDS = {"fused": FusedBlocks, "persistent": PersistentBlocks}
OVERLAPPING = {"model.patch_size": 8, "model.patch_stride": 4}
MODELS = {
    "paper": ("paper", {}, (256, 128, 1024)),
    "minute": ("minute", {}, (512, 1024)),
    "49 tokens": ("paper", OVERLAPPING | {"model.pool": "mean", "model.num_cls_tokens": 0}, (512, 1024)),
}


def captured(work) -> torch.cuda.CUDAGraph:
    """The work as a CUDA graph, after running it twice."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        work()
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def microseconds(graph: torch.cuda.CUDAGraph, repeats: int = 15, replays: int = 10) -> float:
    """Microseconds per replay: the median over repeats of the mean over consecutive replays."""
    for _ in range(5):
        graph.replay()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / replays)
    return statistics.median(times)


def by_kernel(graph: torch.cuda.CUDAGraph) -> dict[str, float]:
    """Microseconds of each kernel in one replay, the longest first."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        graph.replay()
        torch.cuda.synchronize()
    total = defaultdict(float)
    for event in seen.events():
        total[event.name.split("(")[0].split("<")[0][-40:]] += event.device_time
    return {name: round(time, 1) for name, time in sorted(total.items(), key=lambda pair: -pair[1]) if time}


def measured(kind: str, tokens: int, taken: int, batch: int, *, tanh: bool = False) -> dict:
    """Time a stack of blocks, forward and both directions, each in a graph."""
    case = Case(batch, tokens, 192, 12, 2, taken, num_layers=LAYERS, tanh=tanh)
    inputs = random_inputs(case, "cuda", torch.bfloat16)
    leaves = [leaf.requires_grad_() for leaf in inputs.leaves]

    def forward():
        with torch.no_grad():
            return KINDS[kind].apply(inputs.x, inputs.keep, case.plan, False, *inputs.weights)

    def both():
        out = KINDS[kind].apply(inputs.x, inputs.keep, case.plan, True, *inputs.weights)
        return torch.autograd.grad(out, leaves, inputs.dout)

    graph = captured(both)
    row = {"kernels": kind, "tokens": tokens, "taken": taken, "batch_size": batch, "gelu": "tanh" if tanh else "erf"}
    row |= {"forward_us": round(microseconds(captured(forward)), 1), "both_us": round(microseconds(graph), 1)}
    return row | {"by_kernel_us": by_kernel(graph)}


def blocks() -> list[dict]:
    """Measure all cases, printing one line per case."""
    rows = []
    for tokens, taken, batch in CASES:
        for tanh in (False, True) if batch == 256 else (False,):
            rows += [measured(kind, tokens, taken, batch, tanh=tanh) for kind in KINDS]
            before, after = rows[-2:]
            print(tokens, taken, batch, "tanh" if tanh else "erf", "forward", before["forward_us"], after["forward_us"],
                  "both", before["both_us"], after["both_us"], f"{before['both_us'] / after['both_us']:.2f}",
                  list(after["by_kernel_us"].items())[:5], flush=True)  # fmt: skip
    return rows


def steps(repeats: int) -> list[dict]:
    """Of all models and batch sizes, printed as they come."""
    rows = []
    for name, (recipe_name, values, batch_sizes) in MODELS.items():
        for batch in batch_sizes:
            for kind in KINDS:
                settings = {"batch_size": batch, "train.kernels": kind, "train.device": "cuda"}
                config = override(recipe(recipe_name), values | settings)
                timings = time_training(config, torch.device("cuda", 0), repeats)
                row = {"model": name, "kernels": kind, "batch_size": batch}
                for mode, timing in timings.items():
                    row[f"{mode}_images_per_s"] = round(batch / timing.median_s)
                    row[f"{mode}_us"] = [round(second * 1e6, 1) for second in sorted(timing.seconds)]
                rows.append(row)
                print({name: value for name, value in row.items() if not name.endswith("_us")}, flush=True)
    return rows


def step_kernels() -> dict[str, float]:
    """Microseconds of each kernel in one step of the paper's recipe."""
    config = override(recipe("paper"), {"train.kernels": "persistent", "train.device": "cuda"})
    trainer = synthetic_trainer(config, torch.device("cuda", 0), 16 * config.batch_size)
    trainer.step.set_chunk(first_chunk(trainer))
    trainer.step()
    torch.cuda.synchronize()
    return by_kernel(trainer.step.graph)


def main() -> None:
    """Measure what is named after the folder, or all."""
    folder, *names = sys.argv[1:]
    card = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in names or ("steps", "blocks"):
        content = {"rows": steps(3), "step_kernels_us": step_kernels()} if name == "steps" else {"rows": blocks()}
        command = {"command": f"python -m benchmarks.persistent {folder} {name}"}
        (Path(folder) / f"{name}.json").write_text(json.dumps(card | command | content, indent=1) + "\n")


if __name__ == "__main__":
    main()
