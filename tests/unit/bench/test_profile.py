"""Reading a trace, with one made by hand that shows what a GPU's holds, and the command on a tiny model."""

import gzip
import json

import pytest
from matplotlib.figure import Figure
from PIL import Image

from pocketvit.bench.picture import NAME_CHARACTERS, _phase_bar, short_name
from pocketvit.bench.profile import _of_one_step
from pocketvit.bench.table import profile_table
from pocketvit.bench.trace import Item, Kernel, kernels, phase_ms, work_items
from pocketvit.cli import main
from pocketvit.config import override
from pocketvit.errors import InputError
from pocketvit.recipes import recipe


def event(cat, name, ts, dur, tid=1, **args):
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


RANGES = [
    event("user_annotation", "data", 0, 100),
    event("user_annotation", "forward", 100, 100),
    event("user_annotation", "backward", 200, 100),
    event("user_annotation", "optimizer", 300, 100),
    event("user_annotation", "ProfilerStep#3", 0, 500),
]


def test_a_kernel_belongs_to_the_phase_that_launched_it():
    events = [
        *RANGES,
        event("cuda_runtime", "cudaMemcpyAsync", 50, 2, correlation=1),
        event("cuda_driver", "cuLaunchKernelEx", 150, 2, correlation=2),
        event("cuda_runtime", "cudaLaunchKernel", 250, 2, tid=2, correlation=3),  # autograd's own thread
        event("cuda_driver", "cuLaunchKernelEx", 350, 2, correlation=4),
        event("cuda_runtime", "cudaLaunchKernel", 450, 2, correlation=5),
        event("cpu_op", "aten::mm", 150, 20),
        event("gpu_memcpy", "Memcpy HtoD", 900, 1_000, tid=7, correlation=1),  # all run long after their launch
        event("kernel", "attention", 2_000, 3_000, tid=7, correlation=2),
        event("kernel", "matmul", 5_000, 5_000, tid=7, correlation=3),
        event("kernel", "adamw", 10_000, 2_000, tid=7, correlation=4),
        event("gpu_memset", "Memset", 12_000, 500, tid=7, correlation=5),
    ]
    items = work_items(events)
    assert phase_ms(items) == {"data": 1, "forward": 3, "backward": 5, "optimizer": 2, "other": 0.5}
    assert [k.name for k in kernels(items)] == ["matmul", "attention", "adamw", "Memcpy HtoD", "Memset"]


def test_an_operators_time_leaves_out_those_that_it_calls():
    events = [
        *RANGES,
        event("cpu_op", "aten::linear", 100, 60),
        event("cpu_op", "aten::addmm", 110, 40),
        event("cpu_op", "aten::copy_", 115, 10),
        event("cpu_op", "aten::gelu", 160, 20),
        event("cpu_op", "elsewhere", 105, 30, tid=2),
        event("cpu_op", "aten::mm", 210, 50),
    ]
    times = {k.name: (k.ms, k.phase) for k in kernels(work_items(events))}
    assert times == {
        "aten::linear": (0.02, "forward"),
        "aten::addmm": (0.03, "forward"),
        "aten::copy_": (0.01, "forward"),
        "aten::gelu": (0.02, "forward"),
        "elsewhere": (0.03, "forward"),
        "aten::mm": (0.05, "backward"),
    }


def test_runs_add_up_and_the_phase_is_that_of_most():
    items = [Item("mm", "forward", 1.0), Item("mm", "backward", 2.0), Item("gelu", "forward", 0.5)]
    assert kernels([*items, items[0], items[0]]) == [Kernel("mm", "forward", 5, 4), Kernel("gelu", "forward", 0.5, 1)]


def test_a_chunks_data_is_shared_by_all_its_steps():
    items = _of_one_step([Item("augment", "data", 100.0), Item("mm", "forward", 10.0)], steps=5, chunk_steps=50)
    assert items == [Item("augment", "data", 2.0, 1 / 50), Item("mm", "forward", 2.0, 1 / 5)]


def test_long_names_keep_both_ends():
    assert short_name("aten::mm") == "aten::mm"
    name = short_name("triton_poi_fused_" + "x" * 200 + "_backward_3")
    assert len(name) == NAME_CHARACTERS and name.startswith("triton_poi_fused_") and name.endswith("_backward_3")


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """A folder that `pocketvit profile` wrote."""
    folder = tmp_path_factory.mktemp("profile") / "out"
    flags = ["--model.width", "16", "--model.depth", "1", "--model.num-heads", "2", "--train.device", "cpu"]
    with pytest.raises(SystemExit) as left, pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETVIT_COMMIT", "0123abc")  # a copy of the source without git has none
        main(["profile", "digits", *flags, "--batch-size", "8", "--out", str(folder)])
    assert not left.value.code
    return folder


def test_the_command_says_what_it_does_before_it_takes_minutes(monkeypatch, capsys):
    def stop(config, out):
        raise InputError("here")

    monkeypatch.setattr("pocketvit.bench.profile.profile", stop)
    with pytest.raises(SystemExit):
        main(["profile", "digits", "--batch-size", "8"])
    assert capsys.readouterr().err == "profiling digits with batches of 8 images …\npocketvit: here\n"


def test_the_command_finds_every_phase(profiled):
    summary = json.loads((profiled / "profile.json").read_text())
    assert sum(summary["phases_ms"].values()) == pytest.approx(summary["busy_ms"])
    assert all(summary["phases_ms"][phase] > 0 for phase in ("data", "forward", "backward", "optimizer"))
    assert len(summary["kernels"]) == 10 and summary["step_ms"] > 0
    times = [kernel["ms"] for kernel in summary["kernels"]]
    assert times == sorted(times, reverse=True)
    for key in ("device", "versions", "commit", "command", "num_params", "how"):
        assert summary[key]


def test_work_beyond_a_steps_time_is_explained(profiled):
    summary = json.loads((profiled / "profile.json").read_text())
    assert "which the profiler slows down, so they may exceed a step without it; data is" in summary["how"]
    assert "ms from one step to the next without the profiler. Sums over operators" in profile_table(summary)


def test_the_command_writes_a_trace_and_a_picture(profiled):
    with gzip.open(profiled / "trace.json.gz") as file:
        assert json.load(file)["traceEvents"]
    with Image.open(profiled / "profile.png") as picture:
        assert picture.size[0] > 800


def test_short_phases_have_a_time_in_the_picture():
    """A legend of `data 0 ms` would say nothing of a small model's step."""
    axes = Figure().subplots()
    _phase_bar(axes, {"data": 0.195, "forward": 3.835, "backward": 9.068})
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["data 0.2 ms", "forward 3.8 ms", "backward 9.1 ms"]


def test_the_ranges_are_in_the_step_itself():
    """The phases come from `TrainStep`, so that what is profiled is what trains."""
    import torch
    from torch.profiler import ProfilerActivity

    from pocketvit.bench.synthetic import first_chunk, synthetic_trainer

    config = override(recipe("digits"), {"model.width": 16, "model.depth": 1, "model.num_heads": 2, "batch_size": 4})
    trainer = synthetic_trainer(config, torch.device("cpu"), 8)
    trainer.step.set_chunk(first_chunk(trainer))
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        trainer.step()
    assert {"forward", "backward", "optimizer"} <= {e.key for e in profiler.key_averages()}
