"""The scripts that measure on GPUs, as far as that can be seen without one."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import scipy.stats
from synthetic_results import result_content

from benchmarks.choices import choices_table
from pocketvit import create_model
from pocketvit.bench import modes, roofline
from pocketvit.config import config_hash, override
from pocketvit.data.dataset import CIFAR10_FINGERPRINT
from pocketvit.errors import InputError
from pocketvit.model.mixers import MIXERS
from pocketvit.recipes import recipe
from pocketvit.studies import load_study
from pocketvit.studies.definition.choose import find_study

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def speed() -> dict:
    """benchmarks/speed.py."""
    return runpy.run_path(str(BENCHMARKS / "speed.py"))


def test_speed_has_every_choice_of_the_design_space_that_changes_the_model(speed):
    assert all(override(recipe("paper"), values) for values in speed["CHOICES"].values())
    assert {f"mla-{form}" for form in ("q", "k", "qk", "kv", "qkv")} < speed["CHOICES"].keys()


def test_speed_measures_training_at_both_batch_sizes(speed, monkeypatch):
    monkeypatch.setattr(roofline, "MATRIX_SIZE", {"cpu": 128})
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(modes, "PASS_IMAGES", {"cpu": 0})
    monkeypatch.setattr(modes, "REPEAT_S", 0.005)
    tiny = {"model.width": 16, "model.depth": 1, "model.num_heads": 2, "train.device": "cpu"}
    result = speed["measure"](override(recipe("digits"), tiny), batch_sizes=(4, 8), repeats=1)
    assert [(row["batch_size"], row["variant"], row["mode"]) for row in result["rows"]] == [
        (size, "fused", mode) for size in (4, 8) for mode in ("step", "recipe")
    ]
    assert len(result["load_averages"]) == 2
    assert "not measured yet" not in choices_table({"tiny": result})


def test_a_file_of_speed_says_where_of_what_and_how(speed, monkeypatch, tmp_path):
    """And what has a file is not measured again."""
    row = {"batch_size": 256, "variant": "fused", "mode": "step", "images_per_s": 1e5}
    monkeypatch.setitem(
        speed["main"].__globals__, "measure", lambda config: {"command": "as it was run", "rows": [row]}
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["speed.py", "--only", "mla-q,heads3", "--out", str(tmp_path)])
    (tmp_path / "heads3.json").write_text("old")
    speed["main"]()
    content = json.loads((tmp_path / "mla-q.json").read_text())
    assert content["choice"] == {"model.q_rank": 64} and content["command"] == "as it was run"
    assert (tmp_path / "heads3.json").read_text() == "old"


@pytest.fixture(scope="module")
def scaling() -> dict:
    """benchmarks/scaling.py."""
    return runpy.run_path(str(BENCHMARKS / "scaling.py"))


def test_scaling_runs_each_seed_or_batch_size_on_each_number_of_gpus(scaling):
    def names(accuracy: bool) -> list[str]:
        return [name for name, *_ in scaling["runs"](accuracy, [1, 2, 4], [256, 1024], [0, 2])]

    assert names(accuracy=False) == ["1-256", "1-1024", "2-256", "2-1024", "4-256", "4-1024"]
    assert names(accuracy=True) == ["paper-2gpus-s0", "paper-2gpus-s2", "paper-4gpus-s0", "paper-4gpus-s2"]
    assert scaling["accuracy_config"](2) == override(recipe("paper"), {"seed": 2}), "the paper's run, nothing changed"
    assert scaling["speed_config"](1024).batch_size == 1024


def test_scaling_runs_under_torchrun_and_keeps_the_result(scaling, tmp_path):
    tiny = {"model.width": 16, "model.depth": 1, "model.num_heads": 2, "schedule.passes": 2, "train.device": "cpu"}
    config = override(recipe("digits"), tiny | {"schedule.warmup_passes": 0, "batch_size": 256})
    result = scaling["run"](2, config, tmp_path / "run")
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    seconds = result.extra["pass_train_s"]
    replace(result, file=tmp_path / "kept.json").write()
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept == written | {"batch_size": 256, "pass_train_s": seconds}
    assert written["num_processes"] == 2 and len(seconds) == 2
    assert sum(seconds) == pytest.approx(written["train_s"])


def test_scaling_makes_only_what_is_missing(scaling, monkeypatch, tmp_path):
    started = []

    def train(command, **how):
        started.append(" ".join(command))
        folder = Path(command[-1])
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"pass": 1, "images": 9, "loss": 1.0, "lr": 0.1, "train_s": 1.5}\n')
        (folder / "result.json").write_text(json.dumps(result_content(num_gpus=2)))

    monkeypatch.setattr(subprocess, "run", train)
    words = ["scaling.py", "--accuracy", "--gpus", "1,2", "--seeds", "0,1", "--data", "here", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    (tmp_path / "paper-2gpus-s0.json").write_text("old")
    scaling["main"]()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["paper-2gpus-s0.json", "paper-2gpus-s1.json"]
    assert len(started) == 1 and "--nproc-per-node=2 -m pocketvit train paper" in started[0]
    assert "--seed 1" in started[0] and "--data.source here" in started[0] and "passes" not in started[0]
    assert json.loads((tmp_path / "paper-2gpus-s1.json").read_text())["pass_train_s"] == [1.5]


# ---------------------------------------------------------------- tables


@pytest.fixture(scope="module")
def fast(benchmark_script):
    """benchmarks/fast_tables.py as a module."""
    return benchmark_script("fast_tables")


def write_runs(fast, results: Path, fused: list[float], reference: list[float]) -> None:
    """Runs with either kind of kernels, one a seed; and one on two GPUs, which does not count."""
    accuracies = {"fused": fused, "reference": reference}
    for cell in load_study(fast.KERNELS_FILE).cells():
        for num_gpus in (1, 2):
            if cell.seed < len(accuracies[cell.row]):
                accuracy = accuracies[cell.row][cell.seed] if num_gpus == 1 else 0.1
                content = result_content(
                    test_accuracy=accuracy, best_test_accuracy=accuracy, train_s=119.8, num_params=2_697_610,
                    device="H100", seed=cell.seed, num_gpus=num_gpus, peak_memory_gib=1.5, images_per_s=1e5,
                    config_hash=config_hash(cell.config, CIFAR10_FINGERPRINT),
                )  # fmt: skip
                path = results / f"gpus{num_gpus}" / f"{cell.row}-s{cell.seed}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(content))


def test_either_kind_of_kernels_is_compared_on_the_papers_run(fast):
    rows = {row.name: row for row in load_study(fast.KERNELS_FILE).rows}
    baseline = next(row.config for row in find_study("paper-table2").rows if row.name == "baseline")
    assert rows["fused"].config == baseline, "so that its runs are those of results/paper-baseline"
    assert rows["reference"].config == override(baseline, {"train.kernels": "reference"})
    assert {row.seeds for row in rows.values()} == {(0, 1, 2)}


@pytest.mark.parametrize(
    ("by", "where"),
    [
        (0.002, "0.24 points; the means differ by 0.20, which is within it"),
        (0.003, "0.23 points; the means differ by 0.30, which is beyond it"),
    ],
)
def test_the_means_of_both_kernels_stand_beside_a_binomial_deviation(fast, tmp_path, by, where):
    write_runs(fast, tmp_path, [0.940, 0.941, 0.939], [0.940 + by, 0.9405 + by, 0.9395 + by])
    table = fast.kernels_accuracy(tmp_path)
    assert "| `fused` | 94.00 ± 0.10 | 94.00 ± 0.10 | 3 | reference |" in table
    assert where in table and "not measured yet" not in table
    interval = f"| −{100 * by:.2f} | {-100 * by - 0.12:.2f} … {-100 * by + 0.12:+.2f} |".replace("-", "−")
    assert interval in table, "the paired t interval of +0.00, +0.05, -0.05 points around the mean"


def write_table2(results: Path, row: str, kernels: list[str | None], accuracies: list[float]) -> None:
    """Runs of a row of Table 2, one a seed, each with its kernels; None is what runs said before there was a choice."""
    cells = [cell for cell in find_study("paper-table2").cells() if cell.row == row]
    for cell, kind, accuracy in zip(cells, kernels, accuracies, strict=False):
        content = result_content(
            test_accuracy=accuracy, best_test_accuracy=accuracy, seed=cell.seed, kernels=kind, num_gpus=1,
            config_hash=config_hash(cell.config, CIFAR10_FINGERPRINT),
        )  # fmt: skip
        (results / f"{row}-s{cell.seed}.json").write_text(json.dumps(content))


def test_both_designs_of_kernels_are_compared_over_all_rows_that_have_both(fast, tmp_path):
    assert "Not measured yet" in fast.persistent_accuracy(tmp_path)
    both = [None, None, "persistent", "persistent", "persistent"]
    write_table2(tmp_path, "baseline", both, [0.940, 0.942, 0.944, 0.945, 0.946])
    write_table2(tmp_path, "mla-qkv", both, [0.930, 0.931, 0.929, 0.930, 0.928])
    write_table2(tmp_path, "whitening", both[1:3], [0.940, 0.950])
    table = fast.persistent_accuracy(tmp_path)
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:5]]
    assert [line[0] for line in lines] == ["`baseline`", "`mla-qkv`", "all of them"], "one run of a kind has no spread"
    assert lines[0][1:6] == ["94.10 ± 0.14", "2", "94.50 ± 0.10", "3", "+0.40"] and lines[1][5] == "−0.15"
    # variance: (2 + 2 + 0.5 + 2) 1e-6 of 6 degrees of freedom, t = 2.447; both rows weigh 1.2
    assert [line[6] for line in lines] == ["+0.17 … +0.63", "−0.38 … +0.08", "−0.04 … +0.29"]


def test_the_interval_of_one_row_is_students(fast):
    fused, persistent = [0.940, 0.942, 0.939], [0.944, 0.945, 0.941, 0.946]
    known = scipy.stats.ttest_ind(persistent, fused).confidence_interval()
    pair = [fused, persistent]
    assert fast._mean_difference([pair], [pair])[1] == pytest.approx((known.low, known.high))


@pytest.mark.parametrize("reference", [[], [0.94, 0.941]], ids=["none", "some"])
def test_what_lacks_of_either_kernels_runs_is_said(fast, tmp_path, reference):
    write_runs(fast, tmp_path, [0.940, 0.941, 0.939], reference)
    table = fast.kernels_accuracy(tmp_path)
    assert "within one binomial standard deviation is not measured yet." in table and "None" not in table
    assert f"{len(reference)} of 3 ({3 - len(reference)} missing)" in table


def test_speed_on_a_cpu_is_told_with_its_ratio_and_its_range(fast, tmp_path):
    speeds = {"ours": [80.0, 85.0, 90.0], "timm": [70.0, 75.0, 79.0]}
    ratios = {"ratio": 1.139, "ratio_min": 1.02, "ratio_max": 1.443}
    row = {"recipe": "paper", "batch_size": 64, "images_per_s": speeds} | ratios
    content = {"device": "CPU (2 threads)", "versions": {"torch": "2.14.1"}, "timm": "1.0.31", "rows": [row]}
    (tmp_path / "cpu.json").write_text(json.dumps(content))
    table = fast.cpu_speed(tmp_path / "cpu.json")
    assert "| paper | 64 | 85 | 75 | 1.14 (1.02 – 1.44) |" in table
    assert "CPU (2 threads), PyTorch 2.14.1, timm 1.0.31" in table and "3 alternating rounds" in table


def test_kernels_of_a_step_stand_beside_their_floors(fast, tmp_path):
    """At rates of one operation and one byte a µs, so that the table holds the counts themselves; by hand."""
    tokens, tail = 9 * 256 * 65, 9 * 256 * 65 - 256 * 64
    names = ("mlp_backward", "attention_backward", "block_tail", "norm_linear", "norm_linear_backward", "attention",
             "weight_gradients")  # fmt: skip
    kernels = [{"name": f"{name}_kernel", "ms": 0.1 * (1 + i)} for i, name in enumerate(names)]
    profile = {"kernels": kernels, "batch_size": 256, "busy_ms": 3.0, "phases_ms": {"data": 0.1}}
    (tmp_path / "profile.json").write_text(json.dumps(profile | {"device": "a GPU", "versions": {"torch": "2"}}))
    rates = {"matrix_flop_per_s": 1e6, "copy_bytes_per_s": 1e6}
    (tmp_path / "bench.json").write_text(json.dumps({"rates": rates}))
    table = fast.step_kernels(tmp_path / "profile.json", tmp_path / "bench.json")
    lines = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in table.splitlines()
             if line.startswith("| ")}  # fmt: skip
    assert list(lines)[2] == "`weight_gradients`", "the heaviest first"
    assert lines["`norm_linear`"][:3] == ["400", str(2 * tokens * 192 * 576), str(2 * tokens * 5 * 192)]
    assert lines["`block_tail`"][1:3] == [str(2 * tail * (192 * 192 + 2 * 192 * 384)), str(2 * tail * 4 * 192)]
    assert lines["all of these"][0] == "2800" and lines["everything else"][0] == "100"


def test_the_persistent_kernels_stand_beside_their_floors(fast, tmp_path):
    """As above; with the first token of an image, each needs less in the last of the blocks."""
    tokens, tail = 9 * 256 * 65, 9 * 256 * 65 - 256 * 64
    took = {"vit_forward": 30.0, "vit_backward": 40.0, "vit_weights": 20.0, "pack_kernel": 5.0, "adamw_kernel": 3.0}
    steps = {"gpu": "a GPU", "torch": "2", "rows": [], "step_kernels_us": took}
    for kernels, speed in (("fused", 100), ("persistent", 190)):
        steps["rows"].append({"model": "m", "batch_size": 1, "kernels": kernels, "recipe_images_per_s": speed})
    (tmp_path / "steps.json").write_text(json.dumps(steps))
    speed = {"device": "a GPU", "rates": {"matrix_flop_per_s": 1e6, "copy_bytes_per_s": 1e6}}
    (tmp_path / "speed.json").write_text(json.dumps(speed))
    table = fast.both_designs(tmp_path / "steps.json", tmp_path / "speed.json")
    lines = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in table.splitlines()
             if line.startswith("| ")}  # fmt: skip
    assert lines["m"] == ["1", "100", "190", "1.90"]
    attention, mlp = 65 * 192, 192 * 384
    forward = tokens * 2 * 192 * 192 + tail * (2 * 192 * 192 + 2 * attention + 2 * mlp)
    backward = tokens * 2 * 192 * 192 + tail * (2 * 192 * 192 + 5 * attention + 3 * mlp)
    assert lines["`vit_forward`"][:3] == ["30", str(2 * forward), str(2 * (tokens + tail) * 3 * 192)]
    assert lines["`vit_backward`"][:3] == ["40", str(2 * backward), str(2 * (tokens * 5 * 192 + tail * 9 * 192))]
    assert lines["`vit_weights`"][2] == str(2 * (tokens * 3 * 192 + tail * 9 * 192))
    assert lines["all of these"][0] == "90" and lines["everything else"][0] == "3"
    (tmp_path / "speed.json").write_text(json.dumps(speed | {"device": "another GPU"}))
    with pytest.raises(InputError, match="is of a GPU, .* of another GPU"):
        fast.both_designs(tmp_path / "steps.json", tmp_path / "speed.json")


def test_a_latent_is_kept_beside_what_is_made_of_it(benchmark_script):
    """Keys through a latent of R channels: R numbers more for each token, and nothing less."""
    activations = benchmark_script("activations")
    small = {"width": 32, "depth": 1, "num_heads": 2}
    plain = create_model("paper", **small)
    one, two = (activations.saved_bytes(plain, count) for count in (1, 2))
    assert 0 < one < two and activations.mib_per_image(plain) == (two - one) / 2**20
    low_rank = activations.mib_per_image(create_model("paper", k_rank=8, **small))
    assert (low_rank - activations.mib_per_image(plain)) * 2**20 == 4 * 8 * plain.tokens.num_tokens


def test_mixers_times_every_layer_at_each_number_of_tokens(monkeypatch, capsys):
    mixers = runpy.run_path(str(BENCHMARKS / "mixers.py"))
    main = mixers["main"]
    monkeypatch.setitem(main.__globals__, "GRIDS", (4, 6))
    monkeypatch.setattr(sys, "argv", ["mixers.py", "--device", "cpu", "--batch", "1"])
    main()
    _, head, *rows = capsys.readouterr().out.splitlines()
    assert "17 tokens" in head and "37 tokens" in head
    assert {row.split()[0] for row in rows} == set(MIXERS)
    assert all(float(ms) > 0 for row in rows for ms in row.split()[1:]) and all(len(row.split()) == 5 for row in rows)
