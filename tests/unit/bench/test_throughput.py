"""`pocketvit bench` on a tiny model: what is in its result, and what a failed measurement leaves of it."""

import dataclasses
import errno
import json
import os

import numpy as np
import pytest
import torch

from pocketvit.bench import modes, roofline, start, throughput
from pocketvit.bench.clock import Timing
from pocketvit.bench.synthetic import shape_of, synthetic_trainer
from pocketvit.bench.table import speed_line, speed_table
from pocketvit.bench.throughput import Row, bench
from pocketvit.cli import main
from pocketvit.config import override, save_config
from pocketvit.errors import InputError
from pocketvit.recipes import recipe

TINY = {"model.width": 16, "model.depth": 1, "model.num_heads": 2, "train.device": "cpu"}
FLAGS = [part for name, value in TINY.items() for part in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small products and copies, short repeats."""
    monkeypatch.setattr(roofline, "MATRIX_SIZE", {"cpu": 128})
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(modes, "PASS_IMAGES", {"cpu": 0})
    monkeypatch.setattr(modes, "REPEAT_S", 0.005)


@pytest.fixture
def tiny():
    return override(recipe("digits"), TINY)


def test_every_batch_size_has_its_three_modes(tiny):
    seen = []
    sizes, repeats = np.array([4, 8]), np.int64(2)
    result = bench(tiny, batch_sizes=sizes, repeats=repeats, starts=False, update=lambda r: seen.append(speed_line(r)))
    assert json.loads(json.dumps(result)) == result, "it can be written as it is"
    assert [(row["batch_size"], row["mode"]) for row in result["rows"]] == [
        (size, mode) for size in (4, 8) for mode in ("forward", "step", "recipe")
    ]
    assert len(seen) == len(result["load_averages"]) == 2 and seen[1].startswith("batch 8, eager: forward ")
    for key in ("device", "versions", "num_params", "num_gpus", "precision", "commit", "command", "started"):
        assert key in result
    assert (result["num_gpus"], result["repeats"], result["start"]) == (0, 2, None)
    for row in result["rows"]:
        assert row.keys() == {field.name for field in dataclasses.fields(Row)}
        assert 0 < row["images_per_s_min"] <= row["images_per_s"] <= row["images_per_s_max"]
        assert row["batch_ms"] == pytest.approx(row["batch_size"] / row["images_per_s"] * 1e3)
        assert row["error"] is None and row["peak_memory_gib"] is None and row["threads"] == 1
        assert row["not_fused"], "the fused kernels need a GPU, and the row says so"
        assert (row["flop_floor_ms"] is None) == (row["mode"] == "recipe")


def test_training_can_be_measured_alone(tiny):
    said = []
    result = bench(
        tiny, batch_sizes=(4, 8), repeats=1, forward=False, starts=False, update=lambda r: said.append(speed_line(r))
    )
    assert [row["mode"] for row in result["rows"]] == ["step", "recipe"] * 2
    assert all("forward" not in line and line.count("images") < 3 for line in said)
    assert "forward, images/s" not in speed_table(result) and "| 8 | eager |" in speed_table(result)


def test_the_variants_stand_side_by_side_at_each_batch_size(tiny):
    result = bench(tiny, batch_sizes=(4, 8), variants=("fused", "eager"), repeats=1, starts=False)
    assert [(r["batch_size"], r["variant"]) for r in result["rows"][::3]] == [
        (4, "fused"), (4, "eager"), (8, "fused"), (8, "eager"),
    ]  # fmt: skip
    table = speed_table(result)
    assert f"| 4 | fused (blocks not fused: {result['rows'][0]['not_fused']}) |" in table and "| 4 | eager |" in table


@pytest.mark.parametrize("broken", ["time_forward", "time_training"])
@pytest.mark.parametrize("buried", [False, True])
def test_out_of_memory_is_a_row_and_the_others_go_on(tiny, monkeypatch, broken, buried):
    measure = getattr(throughput, broken)

    def run_out(config, device, repeats):
        if config.batch_size != 8:
            return measure(config, device, repeats)
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            if buried:
                raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(throughput, broken, run_out)
    result = bench(tiny, batch_sizes=(4, 8, 16), repeats=1, starts=False)
    failed = {(row["batch_size"], row["mode"]) for row in result["rows"] if row["error"] == "out of memory"}
    assert failed == {(8, mode) for mode in (("forward",) if broken == "time_forward" else ("step", "recipe"))}
    assert all((row["images_per_s"] is None) == bool(row["error"]) for row in result["rows"])
    assert "out of memory" in speed_table(result)


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny, monkeypatch):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(throughput, "time_forward", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        bench(tiny, batch_sizes=(4,), repeats=1, starts=False)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"variants": ("eeger",)}, "unknown variant 'eeger'; did you mean eager?"),
        ({"repeats": 0}, "repeats=0: must be at least 1"),
        ({"batch_sizes": (8, -1)}, "batch_sizes=-1: must be at least 1"),
    ],
)
def test_bad_input(tiny, asked, words):
    with pytest.raises(InputError, match=words.replace("?", r"\?")):
        bench(tiny, **asked)


def test_speeds_have_their_median_and_ends():
    fields = throughput._measured(Timing((0.5, 0.1, 0.2)), 10, None, roofline.Rates(1, 1))
    assert fields == {"images_per_s": 50, "images_per_s_min": 20, "images_per_s_max": 100, "batch_ms": 200}


def test_the_table_holds_medians_ends_and_shares():
    common = {"variant": "fused", "batch_size": 256, "peak_memory_gib": 0.5}
    speeds = {"images_per_s": 129_000.4, "images_per_s_min": 128_000, "images_per_s_max": 130_000, "batch_ms": 2.0}
    row = Row(mode="step", flop_floor_ms=0.5, byte_floor_ms=0.1, **common, **speeds)
    rows = [dataclasses.asdict(dataclasses.replace(row, mode=mode)) for mode in ("forward", "step", "recipe")]
    result = {
        "device": "a GPU", "versions": {"torch": "2"}, "precision": "bf16", "recipe": "paper", "num_params": 2_697_610,
        "flop_per_image": {"training": 1.125e9}, "rates": {"matrix_flop_per_s": 8e14, "copy_bytes_per_s": 3e12},
        "start": {"batch_size": 256, "cold_s": 19.0, "warm_s": 9.0, "warm_s_min": 8.0, "warm_s_max": 9.5},
        "load_averages": [0.5, 2.0], "repeats": 5, "rows": rows,
    }  # fmt: skip
    table = speed_table(result)
    assert "| 256 | fused | 129,000 (128,000 – 130,000) |" in table
    assert "| 2.00 | 25.0% | 5.0% | 0.50 | 0.50 |" in table
    assert "2,697,610 parameters, 1.125 GFLOP" in table and "800 TFLOP/s" in table and "3,000 GB/s" in table
    assert (
        "19.0 s with an empty compile cache, 9.0 s (8.0 – 9.5) with a filled one" in table
        and "Load average 0.5 – 2.0" in table
    )


def test_the_process_that_is_timed_takes_a_step(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(start, "NUM_IMAGES", {"cpu": 4})
    save_config(override(tiny, {"batch_size": 2}), tmp_path / "config.yaml")
    start.main(tmp_path / "config.yaml")
    assert capsys.readouterr().out == "done\n"


def test_the_process_that_is_timed_runs_own_code(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(start, "NUM_IMAGES", {"cpu": 4})
    (tmp_path / "mine.py").write_text("def falling(progress):\n    return 1 - progress\n")
    config = override(tiny, {"batch_size": 2, "schedule.name": f"{tmp_path / 'mine.py'}:falling"})
    save_config(config, tmp_path / "config.yaml")
    start.main(tmp_path / "config.yaml")
    assert capsys.readouterr().out == "done\n"


@pytest.mark.parametrize("only_on_a_gpu", [{"train.kernels": "fused"}, {"data.keep": "gpu"}])
def test_the_model_alone_needs_no_gpu(tiny, only_on_a_gpu):
    model = modes.plain_model(override(tiny, only_on_a_gpu))
    assert model.training and (model.image_size, model.num_classes) == ((8, 8), 10)
    assert modes.plain_model(override(tiny, {"train.kernels": "reference"})).kernels == "reference"


@pytest.mark.long
def test_a_start_is_timed_in_a_process_of_its_own(tiny, monkeypatch):
    monkeypatch.setattr(start, "REPEATS", 1)
    times = start.start_times(override(tiny, {"batch_size": 2}))
    assert all(
        0.2 < times[f"{name}_s_min"] <= times[f"{name}_s"] <= times[f"{name}_s_max"] for name in ("cold", "warm")
    )


def test_a_start_is_timed_several_times_each_with_a_cache_of_its_own(tiny, monkeypatch):
    caches, seconds = [], iter([9.0, 2.0, 7.0, 1.0, 8.0, 3.0])

    def run(file, environment):
        caches.append(environment["TRITON_CACHE_DIR"])
        return next(seconds)

    monkeypatch.setattr(start, "_seconds", run)
    ends = {"cold_s_min": 7.0, "cold_s_max": 9.0, "warm_s_min": 1.0, "warm_s_max": 3.0}
    assert start.start_times(tiny) == {"cold_s": 8.0, "warm_s": 2.0} | ends
    assert caches[0] == caches[1] != caches[2] == caches[3] != caches[4] == caches[5]


def test_a_start_that_fails_costs_no_measurement(tiny, monkeypatch):
    def fail(file, environment):
        raise RuntimeError("the measured start failed: a trace\ntorch.OutOfMemoryError: too large")

    monkeypatch.setattr(start, "_seconds", fail)
    said = []
    result = bench(tiny, batch_sizes=(4,), repeats=1, update=lambda r: said.append(speed_line(r)))
    assert result["rows"][0]["images_per_s"] > 0 and result["start"].keys() == {"batch_size", "error"}
    why = "not measured: torch.OutOfMemoryError: too large."
    assert said[-1].endswith(why) and why in speed_table(result)


def test_own_code_that_prints_is_no_failed_start(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho hello\necho done\n")
    python.chmod(0o755)
    monkeypatch.setattr(start.sys, "executable", str(python))
    assert 0 < start._seconds(tmp_path / "config.yaml", dict(os.environ)) < 10


def test_a_start_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="(?s)the measured start failed: .*cannot read config"):
        start._seconds(tmp_path / "no.yaml", dict(os.environ))


def test_what_was_changed_in_the_recipe_is_said(tiny):
    result = bench(override(tiny, {"seed": 3, "data.resize": 12}), batch_sizes=(4,), repeats=1, starts=False)
    changed = {"data.resize": "12", "model.width": "16", "model.depth": "1", "model.num_heads": "2"}
    assert result["changed"] == changed
    assert "digits with model.width=16, model.depth=1" in speed_table(result)
    assert "synthetic images of 12 × 12 pixels in 10 classes" in speed_table(result)


def test_images_are_as_those_of_the_data(tmp_path):
    images = np.zeros((40, 12, 8, 3), np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=np.arange(40) % 4)
    own = override(recipe("paper"), {"data.source": str(tmp_path / "own.npz")})
    trainer = synthetic_trainer(override(own, TINY | {"batch_size": 2}), torch.device("cpu"), 2)
    assert trainer.splits.train.images.shape == (2, 12, 8, 3) and trainer.model.num_classes == 4
    for source, shape in [("digits", (8, 8, 10)), ("cifar10", (32, 32, 10)), ("cifar100", (32, 32, 100))]:
        assert shape_of(override(own, {"data.source": source}).data) == shape
    with pytest.raises(InputError, match="nowhere"):
        shape_of(override(own, {"data.source": str(tmp_path / "nowhere")}).data)


@pytest.mark.parametrize(
    ("flags", "sizes"),
    [(["--batch-size", "6"], {6}), (["--batch_size=6"], {6}), (["--batch-size=6", "--batch-sizes", "4,8"], {4, 8})],
)
def test_the_batch_size_of_a_run_is_measured_where_no_others_are_asked_for(flags, sizes, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(
            ["bench", "digits", *FLAGS, *flags, "--repeats", "1", "--no-starts", "--out", str(tmp_path / "speed.json")]
        )
    assert {row["batch_size"] for row in json.loads((tmp_path / "speed.json").read_text())["rows"]} == sizes


def test_the_command(capsys, tmp_path):
    file = tmp_path / "new" / "speed.json"
    with pytest.raises(SystemExit) as left:
        main(["bench", "digits", *FLAGS, "--batch-sizes", "4", "--repeats", "1", "--no-starts", "--out", str(file)])
    out, err = capsys.readouterr()
    assert not left.value.code
    assert "| 4 | eager |" in out and err.startswith("batch 4, eager: forward ")
    result = json.loads(file.read_text())
    assert (result["recipe"], len(result["rows"])) == ("digits", 3)


def test_a_disk_that_is_full_costs_no_measurement_that_was_written(capsys, tmp_path, monkeypatch):
    file, syncs = tmp_path / "speed.json", iter(range(99))

    def sync(descriptor):
        if next(syncs) >= 2:  # the first result, and the folder that it is in
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(SystemExit) as left:
        main(["bench", "digits", *FLAGS, "--batch-sizes", "4,8", "--repeats", "1", "--no-starts", "--out", str(file)])
    assert left.value.code == 2
    assert f"cannot write {file}: No space left on device" in capsys.readouterr().err
    assert {row["batch_size"] for row in json.loads(file.read_text())["rows"]} == {4}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "--batch-sizes", "32,x"], "--batch-sizes 32,x: must be whole numbers separated by commas"),
        (["bench", "--model.widht", "4"], "unknown flag '--model.widht'; did you mean --model.width?"),
        (["bench", "papper"], "unknown recipe 'papper'"),
        (["bench", "--out", "/proc/nowhere/x.json"], "cannot write /proc/nowhere/x.json"),
        (["profile", "digits", "--train.device", "cpu", "--out", "/proc/x"], "cannot make the folder /proc/x"),
    ],
)
def test_bad_arguments_are_one_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    err = capsys.readouterr().err
    assert left.value.code == 2 and words in err.splitlines()[-1] and "Traceback" not in err
