"""The command line: what it understands, and one clear line with exit code 2 for what it does not."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from predictions import predict_files
from rich.cells import cell_len

from pocketvit.cli import COMMANDS, main, parse_train
from pocketvit.cli.data import CheckArguments
from pocketvit.cli.parsing import MEANT, check_flags, flags_of, parse_command
from pocketvit.cli.study import StudyArguments
from pocketvit.config import flatten, load_config, override, save_config
from pocketvit.config.data import READING
from pocketvit.errors import InputError
from pocketvit.recipes import photos, recipe
from pocketvit.studies.definition.choose import builtin_studies
from pocketvit.studies.execution.local import gpu_slots
from pocketvit.training.run import slow_note

TINY = ["--schedule.passes", "2", "--schedule.warmup-passes", "1", "--train.device", "cpu"]


def run(arguments, capsys):
    """Exit code, output and error output of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    printed = capsys.readouterr()
    return left.value.code or 0, printed.out, printed.err


@pytest.fixture
def place(monkeypatch, tmp_path):
    """An empty working directory, and a data home of this test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETVIT_DATA", str(tmp_path / "data"))


def test_the_recipe_may_be_left_out():
    assert parse_train([]) == recipe("digits")
    assert parse_train(["--seed", "3"]).seed == 3
    assert parse_train(["--optim.lr", "2e-3", "--model.num-cls-tokens", "2"]).model.num_cls_tokens == 2
    assert parse_train(["paper", "--batch-size=128"]).batch_size == 128


def test_images_of_ones_own_take_the_recipe_photos(place):
    images(Path("pets"), [20, 30, 40] * 8)
    config = parse_train(["--data", "pets", "--optim.lr", "3e-3"])
    assert (config.recipe, config.data.resize, config.data.fit, config.optim.lr) == ("photos", 32, "crop", 3e-3)
    assert config == override(
        photos(round(24 * 0.8), [(20, 20), (30, 30), (40, 40)]), {"data.source": "pets", "optim.lr": 3e-3}
    )
    assert parse_train(["photos", "--data=pets"]) == parse_train(["--data=pets"])
    assert parse_train(["digits", "--data", "pets"]).recipe == parse_train(["--data", "digits"]).recipe == "digits"
    for side in (28, 40, 96, 100):  # the patches fit whatever side is asked for
        model = parse_train(["--data", "pets", "--resize", str(side)]).model
        assert (side - model.patch_size) % model.patch_stride == 0 and 16 <= (side // model.patch_stride - 1) ** 2 <= 81
    images(Path("icons"), [28] * 12)
    assert parse_train(["--data", "icons"]).data.resize is None
    assert parse_train(["--data", "icons", "--data.test-frac", "0.5"]).batch_size == 4


def test_photos_warm_up_for_a_part_of_any_run(place):
    images(Path("pets"), [20] * 24)
    short = parse_train(["--data", "pets", "--schedule.passes", "3"])
    assert (short.recipe, short.schedule.warmup_steps(20)) == ("photos", 3), "a twentieth of 60 steps"
    chosen = ["--schedule.passes", "30", "--schedule.warmup-passes", "2"]
    asked = override(recipe("photos"), {"schedule.passes": 30, "schedule.warmup_passes": 2})
    for config in (parse_train(["--data", "pets", *chosen]), parse_train(["photos", *chosen]), asked):
        assert config.schedule.warmup_steps(20) == 40, "passes that were asked for are not overruled"
    both = {"schedule.warmup_passes": 2, "schedule.warmup_frac": 0.5}
    assert override(recipe("photos"), both).schedule.warmup_frac == 0.5


def test_a_time_budget_takes_the_place_of_the_recipes_passes_and_passes_that_of_a_files(place):
    timed = parse_train(["digits", "--schedule.time_budget", "30s"])
    assert timed == override(recipe("digits"), {"schedule.time_budget": "30s"})
    images(Path("pets"), [20] * 24)
    assert parse_train(["--data", "pets", "--schedule.time-budget=1h"]).schedule.budget_s == 3600
    save_config(timed, Path("timed.yaml"))
    assert parse_train(["--config", "timed.yaml"]).schedule.time_budget == "30s"
    assert parse_train(["--config", "timed.yaml", "--schedule.time-budget", "none"]) == recipe("digits")
    assert parse_train(["--config", "timed.yaml", "--schedule.passes", "60"]) == recipe("digits")


def test_photos_scale_with_the_set():
    small, large = photos(100), photos(10_000)
    assert small.batch_size < large.batch_size and small.schedule.passes > large.schedule.passes
    assert 0 < large.schedule.warmup_passes < small.schedule.warmup_passes < small.schedule.passes / 10
    assert photos(10, [(200, 300)]).data.resize == 64 and photos(10, [(64, 64)]).data.resize is None


def test_short_forms():
    config = parse_train(["--data", "cifar10", "--out", "there", "--seed", "7"])
    assert (config.data.source, config.out, config.seed) == ("cifar10", Path("there"), 7)
    assert parse_train(["--data=x"]).data.source == "x"


def test_none_lists_and_switches():
    config = parse_train(["--model.q-rank", "64", "--augment.skip-ops", "rotate", "color", "--train.compile", "False"])
    assert (config.model.q_rank, config.augment.skip_ops) == (64, ("rotate", "color"))
    assert config.train.compile is False
    for word in ("none", "None", "NONE"):
        config = parse_train(["--train.compile", word, "--model.q-rank", word, "--optim.betas", word, "--out", word])
        assert config == recipe("digits"), word
    assert parse_train(["--augment.policy", "none", "--data.format", "none"]).augment.policy == "none"


def test_a_run_may_be_labelled():
    assert parse_train(["paper", "--recipe", "mine"]) == replace(recipe("paper"), recipe="mine")


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    """No shell replaces it in --out=~/runs, nor does YAML: a folder called ~ came into being."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_train(["--out=~/run", "--data.cache-dir=~/cache"]).out == tmp_path / "run"
    assert override(recipe("digits"), {"data.cache_dir": "~/cache"}).data.cache_dir == tmp_path / "cache"
    assert parse_command(StudyArguments, ["digits", "--out=~/study"], "").out == tmp_path / "study"
    save_config(recipe("paper"), tmp_path / "config.yaml")
    assert parse_train(["--config=~/config.yaml"]) == recipe("paper")
    assert parse_train(["--resume=~"]).out == tmp_path
    (tmp_path / "idea.py").write_text("def square(progress): ...")
    assert parse_train(["--schedule.name", "~/idea.py:square"]).schedule.name.path == tmp_path / "idea.py"


def test_a_saved_config_is_rerun_exactly(tmp_path):
    config = parse_train(["paper", "--seed", "5", "--out", str(tmp_path / "run"), "--model.v-rank", "8"])
    save_config(config, tmp_path / "config.yaml")
    again = parse_train(["--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")])
    assert again == config
    assert parse_train(["--config", str(tmp_path / "config.yaml")]).out is None, "a rerun gets a folder of its own"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "unknown command 'trian'; did you mean train?"),
        (["train", "papper"], "unknown recipe 'papper'; did you mean paper?"),
        (["train", "--optim.lrr", "1"], "unknown flag '--optim.lrr'; did you mean --optim.lr?"),
        (["train", "--optim.learning-rate", "1"], "unknown flag '--optim.learning-rate'; did you mean --optim.lr?"),
        (["train", "--epochs=9"], "unknown flag '--epochs'; did you mean --schedule.passes?"),
        (["train", "--max-time", "1h"], "unknown flag '--max-time'; did you mean --schedule.time-budget?"),
        (
            ["train", "--schedule.passes=9", "--schedule.time_budget", "1m"],
            "give only one of --schedule.passes and --schedule.time-budget",
        ),
        (["train", "--resume", "x", "--schedule.time-budget=1m"], "no other flags, such as --schedule.time-budget=1m"),
        (["train", "--pretrained"], "unknown flag '--pretrained'; did you mean --init-from?"),
        (["bench", "--grad_clip", "1"], "unknown flag '--grad-clip'; did you mean --optim.grad-clip?"),
        (["train", "--max_grad_norm", "1"], "unknown flag '--max-grad-norm'; did you mean --optim.grad-clip?"),
        (["train", "--num_workers", "4"], "unknown flag '--num-workers'; images are decoded once and augmented in"),
        (["train", "--optim.lr", "-1"], "optim.lr=-1.0: must be greater than 0"),
        (["train", "--data", "cifra10"], "did you mean"),
        (["train", "--data", "/no/such/folder"], "does not exist"),
        (["train", "--data", "cifar10"], "cifar10 is not downloaded yet; run: pocketvit data get cifar10"),
        (["train", "--data", ".", "--data.format", "parkuet"], "parquet"),
        (["train", "--optim.lr", "fast"], "--optim.lr"),
        (["train", "--train.device", "tpu"], "--train.device"),
        (["train", "--model.q-rank", "x"], "--model.q-rank takes none or a whole number, not 'x' (see pocketvit train"),
        (["train", "--optim.betas", "0.9"], "--optim.betas takes none or two numbers, not '0.9' (see pocketvit"),
        (
            ["train", "--schedule.passes", "2.5"],
            "--schedule.passes takes a whole number, not '2.5' (see pocketvit train",
        ),
        (["train", "--optim.lr", "1,5e-3"], "--optim.lr takes a number, not '1,5e-3' (see pocketvit train"),
        (["train", "--optim.betas"], "--optim.betas takes none or two numbers, not nothing"),
        (["train", "--seed"], "--seed takes a whole number, not nothing"),
        (["train", "--data.keep", "ram"], "--data.keep takes auto, gpu, host or disk, not 'ram'"),
        (["train", "--optim.lr", "inf"], "optim.lr=inf: must be a number within ±1000000"),
        (["train", "--model.heads", "4"], "'--model.heads'; did you mean --model.num-heads or --model.head?"),
        (
            ["train", "--seed", "1", "paper"],
            "paper belongs to no flag; a recipe comes first: pocketvit train RECIPE --",
        ),
        (["train", "--recipe", "paper"], "--recipe is only a label; to train paper, use: pocketvit train paper"),
        (["eval"], "RUN is missing: Run folder. (see pocketvit eval --help)"),
        (["eval", "nowhere", "--dat", "x"], "unknown flag '--dat'; did you mean --data?"),
        (["eval", "nowhere", "--device", "gpu"], "--device"),
        (["predict", "a.png"], "the model is missing; before the images, give a run folder, a model.safetensors, or"),
        (["predict", "a.png"], "pocketvit predict cifar10 a.png"),
        (["eval", "cifar10", "--csv", "--json"], "give only one of --json and --csv"),
        (["predict", "cifar10"], "give at least one image file"),
        (["train", "--init-from", "cifar1"], "a model that comes with PocketViT: cifar10"),
        (["predict", "a.png", "--run", "nowhere", "--device", "gpu"], "--device"),
        (["bench", "--repeat", "1"], "unknown flag '--repeat'; did you mean --repeats?"),
        (["train", "--model.patch-size", "3"], "model.patch_size=3 does not divide images of 8 × 8 pixels"),
        (["train", "--model.num-heads", "5"], "model.width=64 is not divisible by model.num_heads=5"),
        (["train", "--batch-size", "5000"], "batch_size=5000 is more than the 1437 training images"),
        (["train", "--config", "no.yaml"], "cannot read config no.yaml"),
        (
            ["train", "--resume", "nowhere"],
            "--resume nowhere: no run there; start one by: pocketvit train --out nowhere",
        ),
        (["train", "paper", "--config", "c.yaml"], "give only one of RECIPE, --config FILE.yaml and --resume DIR"),
        (["train", "--resume", "x", "--seed", "1"], "takes no other flags"),
        (["train", "--config"], "--config needs a value"),
        (["eval", "nowhere"], "no trained model at nowhere"),
        (["predict", "--run", "nowhere"], "give at least one image file"),
        (["predict", "a.png", "--run", "nowhere"], "no trained model at nowhere"),
        (["predict", "a.png", "--run", "nowhere", "--top", "-1"], "--top=-1: must be at least 1"),
        (["predict", ".", "--run", "nowhere"], "no trained model at nowhere"),
        (["predict", "a.png", "--run", "nowhere", "--csv", "--json"], "give only one of --json, --jsonl and --csv"),
        (["report", "nowhere"], "nowhere"),
        (["explain", "nowhere", "a.png"], "no trained model at nowhere"),
        (["runs"], "runs: no such folder"),
        (["runs", "--sort", "best"], "--sort"),
        (["compare", "nowhere"], "give at least two run folders"),
        (["compare", "nowhere", "there"], "nowhere has no config.yaml"),
        (["explain", "nowhere"], "give at least one image file"),
        (["study", "digit"], "unknown study 'digit'; did you mean digits?"),
        (["study", "no.yaml"], "cannot read study no.yaml"),
        (["study", "digits", "--time-limit", "9x"], "--time-limit 9x: write hours, minutes or seconds, such as 9m"),
        (["study", "digits", "--only", "one-clz"], "unknown row 'one-clz'; did you mean one-cls?"),
        (["study", "digits", "--only", ""], "unknown row ''; known: one-cls, two-cls"),
        (["study", "digits", "--time-limit", ""], "--time-limit '': write hours, minutes or seconds, such as 9m"),
        (["study", "digits", "--gpus", ""], "--gpus '': "),
        (["study", "digits", "--seeds", "0"], "seeds=0: must be in [1, 3333]"),
        (["study", "digits", "--results", "resluts"], "--results resluts: no such folder; its runs would be repeated"),
        (["study", "digits", "--sedes", "3"], "unknown flag '--sedes'; did you mean --seeds?"),
        (["data", "get"], "NAME is missing"),
        (["data", "get", "cifra10"], "did you mean"),
        (["data", "check", "/no/such"], "does not exist"),
        (["data", "check", "digits", "--resize", "1000000000"], "data.resize=1000000000: must be in [1, 4096]"),
        (["data", "lsit"], "did you mean data list?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, capsys, place, tmp_path):
    code, out, err = run(arguments, capsys)
    assert code == 2
    assert words in err
    assert err.startswith("pocketvit: ") and err.count("\n") == 1
    assert not out
    assert not (tmp_path / "runs").exists(), "nothing is left behind"


def test_hints_name_flags_that_exist():
    known = {f"--{name.replace('_', '-')}" for name in flatten(recipe("digits"))}
    assert {*re.findall(r"--[a-z.-]+", " ".join(MEANT.values()))} <= known
    with pytest.raises(InputError, match="known: --run$"):
        check_flags(["--epochs"], ["--run"])


def test_results_that_may_not_be_read_are_not_taken_for_none(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    code, _, err = run(["study", "digits", "--results", tmp_path, "--out", tmp_path / "out"], capsys)
    assert code == 2 and "cannot be read; its runs would be repeated" in err


def test_what_may_not_be_read_is_said(capsys, monkeypatch):
    def refused(arguments):
        raise PermissionError(13, "Permission denied", "theirs/config.yaml")

    monkeypatch.setitem(COMMANDS, "report", refused)
    assert run(["report", "theirs"], capsys) == (2, "", "pocketvit: cannot use theirs/config.yaml: Permission denied\n")


def test_letters_that_the_terminal_does_not_know_end_nothing():
    """The help has an ×, what a data set holds as well."""
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    for words in (["train", "--help"], ["data", "check", "digits"]):
        shown = subprocess.run([sys.executable, "-m", "pocketvit", *words], env=env, capture_output=True, check=True)
        assert b"?" in shown.stdout and not shown.stderr


def into_full_disk(words, **options):
    with open("/dev/full", "w") as full:
        return subprocess.run(words, stdout=full, check=False, **options)


def into_closed_pipe(words, **options):
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(words, stdout=write, check=False, **options)
    finally:
        os.close(write)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.parametrize(
    ("command", "into", "why"),
    [
        ("train", into_full_disk, "No space left on device"),
        ("train", into_closed_pipe, "Broken pipe"),
        ("study", into_full_disk, "No space left on device"),
        ("library", into_closed_pipe, "Broken pipe"),
    ],
    ids=["train on a full disk", "train in a closed pipe", "study", "library"],
)
def test_output_that_cannot_be_written_ends_no_training(tmp_path, command, into, why):
    study, out = tmp_path / "study.yaml", tmp_path / "out"
    study.write_text(
        "{recipe: digits, seeds: 1, base: {schedule.passes: 1, schedule.warmup_passes: 0, train.device: cpu}, "
        "rows: {a: {}}}"
    )
    called = f"import pocketvit, pocketvit.cli as c; pocketvit.train(c.parse_train({['--out', str(out), *TINY]}))"
    words = {
        "train": ["-m", "pocketvit", "train", "--out", out, *TINY],
        "study": ["-m", "pocketvit", "study", study, "--out", out],
        "library": ["-c", called],
    }
    done = into([sys.executable, *words[command]], stderr=subprocess.PIPE, text=True)
    assert done.stderr == f"pocketvit: stdout cannot be written ({why}); continuing without it\n"
    assert done.returncode == 0 and list(out.glob("**/result.json"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_where_nothing_can_be_said_nothing_is(tmp_path):
    words = [sys.executable, "-m", "pocketvit", "train", "--out", tmp_path / "run", *TINY]
    assert into_full_disk(words, stderr=subprocess.STDOUT).returncode == 0
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 4 TB")]
)
def test_too_little_memory_is_said(error, capsys, monkeypatch):
    def fail(arguments):
        raise error

    monkeypatch.setitem(COMMANDS, "train", fail)
    code, _, err = run(["train"], capsys)
    assert (code, err) == (2, "pocketvit: out of memory; use a smaller model, smaller batches or smaller images\n")
    monkeypatch.setitem(COMMANDS, "train", lambda arguments: exec("raise RuntimeError('another')"))
    with pytest.raises(RuntimeError, match="another"):
        main(["train"])


@pytest.mark.skipif(sys.platform != "linux", reason="the message depends on the machine")
def test_an_absent_gpu_is_said(capsys, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = run(["train", "--train.device", "cuda"], capsys)
    assert (code, err) == (
        2,
        "pocketvit: train.device=cuda, but this machine has no cuda device; use train.device=auto\n",
    )


def test_a_cpu_is_said_to_take_days_before_the_data_are_asked_for(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETVIT_DATA", str(tmp_path))
    code, out, err = run(["train", "paper", "--train.device", "cpu"], capsys)
    assert code == 2 and "pocketvit data get cifar10" in err
    assert re.search(r"takes roughly \S+ (days|hours) on this CPU \(\d+ threads?, estimated at", out)
    assert "pocketvit train digits" in out
    with monkeypatch.context() as narrow:
        narrow.setattr("torch.get_num_threads", lambda: 2)
        slow = slow_note(recipe("paper"), torch.device("cpu"), 50_000, (32, 32))
        assert "roughly 1.1 days" in slow and "estimated at 155 images/s" in slow, (
            "measured: 166 (results/speed/cpu.json)"
        )
        repeated = override(recipe("paper"), {"model.depth": 3, "model.block_repeats": 3})
        assert slow_note(repeated, torch.device("cpu"), 50_000, (32, 32)) == slow
        assert slow_note(recipe("digits"), torch.device("cpu"), 1_500, (8, 8)) is None
        assert slow_note(recipe("paper"), torch.device("cuda"), 50_000, (32, 32)) is None
        timed = override(recipe("paper"), {"schedule.time_budget": "10m"})
        assert slow_note(timed, torch.device("cpu"), 50_000, (32, 32)) is None


def test_train_eval_predict_report(capsys, tmp_path, monkeypatch):
    """The road a user takes, on the embedded digits."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run(["train", *TINY], capsys)
    assert "\nrecipe: digits\n" in out, "it was not named"
    assert code == 0, err
    assert "run folder: runs/digits-000" in out and "test accuracy" in out
    assert "best of" not in out, "there was one look at the test set"
    result = json.loads(Path("runs/digits-000/result.json").read_text())
    assert result["recipe"] == "digits"
    assert load_config(Path("runs/digits-000/config.yaml")).schedule.passes == 2

    code, out, _ = run(["eval", "runs/digits-000", "--device", "cpu"], capsys)
    assert code == 0 and f"test accuracy {result['test_accuracy']:.2%} on 360 images" in out
    for command in (["eval", "runs"], ["predict", "x.png", "--run", "runs"], ["report", "runs"]):
        code, _, err = run(command, capsys)
        assert (code, err) == (
            2,
            "pocketvit: runs is a folder of runs; give one, such as the latest, runs/digits-000\n",
        ), command

    Image.fromarray(np.full((20, 30), 200, np.uint8)).save("grey.png")
    code, out, _ = run(["predict", "grey.png", "--run", "runs/digits-000", "--json"], capsys)
    entry = json.loads(out)[0]
    assert code == 0 and entry["file"] == "grey.png"
    assert abs(sum(entry["probabilities"].values()) - 1) < 1e-5
    assert predict_files("runs/digits-000", []) == []
    code, out, _ = run(["predict", "grey.png", "--run", "runs/digits-000", "--top", "2"], capsys)
    assert code == 0 and out.startswith("grey.png  ") and out.count("%") == 2

    Path("runs/digits-000/report.html").unlink()
    code, out, _ = run(["report", "runs/digits-000"], capsys)
    assert code == 0 and Path(out.strip()).exists()

    code, _, err = run(["train", "--out", "runs/digits-000", *TINY], capsys)
    assert code == 2 and "finished run" in err
    code, out, _ = run(["train", *TINY], capsys)
    assert code == 0 and "runs/digits-001" in out


def images(folder, sizes, classes=("ant", "bee"), first=0):
    """<class>/<number>.png in a grey of its own, numbered from `first`, of these sizes, the classes in turn."""
    for number, side in enumerate(sizes, first):
        path = folder / classes[number % len(classes)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side), 10 * number, np.uint8)).save(path)


@pytest.fixture
def pets_run(capsys, place, undrawn):
    """The folder of a short run on own images, `pets`, 8 x 8 in two classes; what was printed."""
    images(Path("pets"), [8] * 20)
    code, out, err = run(["train", "digits", "--data", "pets", "--batch-size", "8", *TINY], capsys)
    assert code == 0, err
    return Path("runs/digits-000"), out


def test_eval_says_what_was_decided_on_the_data(pets_run, capsys):
    folder, printed = pets_run
    code, out, _ = run(["eval", folder, "--device", "cpu"], capsys)
    note = "pets has no test split: 4 of its 20 images are held out for testing (0.2 of each class, seed 0)"
    assert code == 0 and note in out and note in printed
    assert "20 images in gray, repeated in the three channels" in out


def evaluated(folder, data, capsys):
    """What `eval --data` printed."""
    code, out, err = run(["eval", folder, "--data", data, "--device", "cpu"], capsys)
    assert code == 0, err
    return out


def test_all_images_of_other_data_without_a_test_split_are_measured(pets_run, capsys):
    folder, _ = pets_run
    images(Path("more"), [8] * 24)
    images(Path("one-a-class"), [8] * 2)
    np.savez("more.npz", images=np.zeros((9, 8, 8), np.uint8), labels=np.array(["ant", "bee", "bee"] * 3))
    for data, count in (("more", 24), ("one-a-class", 2), ("more.npz", 9)):
        out = evaluated(folder, data, capsys)
        note = f"{data.removesuffix('.npz')} has no test split: all its images are test images"
        assert note in out and f" on {count} images" in out and "held out" not in out


def test_of_the_runs_own_data_the_images_held_out_are_measured_wherever_they_lie(pets_run, capsys):
    folder, _ = pets_run
    shutil.copytree("pets", "copy")
    for data in ("pets", "copy"):
        out = evaluated(folder, data, capsys)
        assert f"{data} has no test split: 4 of its 20 images are held out" in out and " on 4 images" in out


def test_other_data_with_a_test_split_are_measured_on_it(pets_run, capsys):
    images(Path("split/train"), [8] * 12)
    images(Path("split/test"), [8] * 6)
    out = evaluated(pets_run[0], "split", capsys)
    assert " on 6 images" in out and "test split" not in out


@pytest.fixture(params=[0, 0.3])
def split_run(request, capsys, place, undrawn):
    """The folder of a short run on `set`, 12 images to train on, the same but those held out for validation, and 6 to test on."""
    images(Path("set/train"), [8] * 12)
    images(Path("set/test"), [8] * 6, first=12)
    code, out, err = run(
        ["train", "digits", "--data", "set", "--batch-size", "4", "--data.val-frac", request.param, *TINY], capsys
    )
    assert code == 0, err
    assert "among" not in out
    return Path("runs/digits-000")


def test_training_images_are_not_measured_without_a_word(split_run, capsys):
    caution = f"CAUTION: {split_run} was trained on these very images: on new images its accuracy may be far lower"
    shutil.copytree("set/train", "copy")
    for data in ("set/train", "copy"):
        assert evaluated(split_run, data, capsys).splitlines()[0] == caution
    for data in ("set", "set/test"):
        assert "CAUTION" not in evaluated(split_run, data, capsys)
    assert "CAUTION" not in run(["eval", split_run, "--device", "cpu"], capsys)[1]


def test_single_training_images_are_not_measured_without_a_word(split_run, capsys):
    """Those that were trained on count, not those held out; known as long as the run's own data are there."""
    images(Path("mixed"), [8] * 20)
    num_trained = 12 if load_config(split_run / "config.yaml").data.val_frac == 0 else 8
    caution = (
        f"CAUTION: {num_trained} of the 20 images are among those that {split_run} was trained on, pixel for pixel"
    )
    assert evaluated(split_run, "mixed", capsys).startswith(caution)
    images(Path("relabelled"), [8] * 12, classes=("bee", "ant"))
    assert "CAUTION" not in evaluated(split_run, "relabelled", capsys), "another label is another image"
    shutil.move("set", "elsewhere")
    assert "CAUTION" not in evaluated(split_run, "mixed", capsys)
    assert "trained on these very images" in evaluated(split_run, "elsewhere/train", capsys)
    result = json.loads((split_run / "result.json").read_text())
    del result["train_fingerprint"]
    (split_run / "result.json").write_text(json.dumps(result))
    assert "CAUTION" not in evaluated(split_run, "elsewhere/train", capsys), "an older result does not say"
    images(Path("set/train"), [8] * 14)
    assert "CAUTION" not in evaluated(split_run, "mixed", capsys), "these are others than it was trained on"


def test_test_images_that_are_trained_on_are_told(capsys, place):
    images(Path("set/train"), [8] * 12)
    images(Path("set/test"), [8] * 6, first=9)
    line = "3 of the 6 test images are among the training images, pixel for pixel and with the same label"
    code, out, err = run(["train", "digits", "--data", "set", "--batch-size", "4", *TINY], capsys)
    assert code == 0 and f"{line}: on new images the accuracy may be lower\n" in out
    assert line in Path("runs/digits-000/report.html").read_text()
    assert line in run(["data", "check", "set"], capsys)[1]
    assert run(["eval", "runs/digits-000", "--device", "cpu"], capsys)[1].startswith(
        "CAUTION: 3 of the 6 images are among"
    )


@pytest.mark.parametrize("change", ["one removed", "one replaced"])
def test_changed_data_are_measured_only_on_demand(pets_run, capsys, change):
    """With an image less another split is held out, of images that were trained on."""
    folder, _ = pets_run
    if change == "one removed":
        Path("pets/ant/0.png").unlink()
    else:
        Image.fromarray(np.full((8, 8), 77, np.uint8)).save("pets/bee/1.png")
    code, out, err = run(["eval", folder, "--device", "cpu"], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    pets = Path("pets").resolve()
    assert f"{pets} has changed since {folder} was trained on it" in err
    assert err.endswith(f"give --data with a separate test set, or --data {pets} to use it anyway\n")
    for data in ("pets", pets):
        out = evaluated(folder, data, capsys)
        caution = f"CAUTION: {data} has changed since {folder} was trained on it: these may be training images"
        assert out.splitlines()[0] == caution and "all its images are test images" in out
    images(Path("other"), [8] * 4)
    assert "changed" not in evaluated(folder, "other", capsys)


def test_data_that_have_gone_elsewhere_are_asked_for(pets_run, capsys):
    """As of a run folder that was copied from another machine."""
    run_folder, _ = pets_run
    shutil.move("pets", "animals")
    code, _, err = run(["eval", run_folder], capsys)
    assert code == 2 and err == (
        f"pocketvit: {Path('pets').resolve()}, which {run_folder} was trained on, no longer exists; say where it is now with "
        "--data SOURCE\n"
    )
    code, out, _ = run(["eval", run_folder, "--data", "animals"], capsys)
    assert code == 0 and "on 4 images" in out and "CAUTION" not in out


def test_changed_data_that_do_not_fit_the_model_are_refused_for_that(pets_run, capsys):
    for sizes, classes, why in ([12] * 20, ("ant", "bee"), "12 × 12 pixels"), ([8] * 24, ("ant", "bee", "cat"), "3 cl"):
        shutil.rmtree("pets")
        images(Path("pets"), sizes, classes)
        code, _, err = run(["eval", pets_run[0], "--device", "cpu"], capsys)
        assert code == 2 and why in err and "changed" not in err


def test_a_run_without_its_result_is_not_measured(pets_run, capsys):
    """Without it nothing says which images are training images."""
    folder, _ = pets_run
    (folder / "result.json").unlink()
    for data in ([], ["--data", "pets"]):
        code, _, err = run(["eval", folder, *data, "--device", "cpu"], capsys)
        assert code == 2 and err.count("\n") == 1
        assert f"{folder} has no result.json, which says what it was trained on; give the whole run folder" in err
        assert f"or finish it: pocketvit train --resume {folder}" in err
    shutil.rmtree(folder / "checkpoint")  # as in an exported model
    assert "whole run folder, or use pocketvit.evaluate in Python" in run(["eval", folder], capsys)[2]


def test_json_for_machines_keeps_every_letter(capsys, place):
    images(Path("pets"), [8] * 20, ("käfer", "wespe"))
    assert run(["train", "digits", "--data", "pets", "--batch-size", "8", *TINY], capsys)[0] == 0
    code, out, _ = run(["eval", "runs/digits-000", "--device", "cpu", "--json"], capsys)
    scores = json.loads(out)
    assert code == 0 and scores["images"] == 4 and set(scores["per_class"]) == {"käfer", "wespe"}
    assert scores["accuracy"] == sum(scores["per_class"].values()) / 2
    assert "4 of its 20 images are held out" in scores["notes"][-1] and '"käfer"' in out
    code, out, _ = run(["predict", "pets/käfer/0.png", "--run", "runs/digits-000", "--json"], capsys)
    assert code == 0 and '"käfer"' in out and '"pets/käfer/0.png"' in out


def test_photos_says_what_it_chose(capsys, place, monkeypatch):
    images(Path("pets"), [20, 30] * 8)
    code, out, err = run(["train", "--data", "pets", *TINY], capsys)
    assert code == 0, err
    assert out.startswith("recipe photos on pets: images resized to 32 × 32 (crop), batches of 8, 2 passes\n")
    assert "\nrun folder: runs/photos-000\n" in out and "16 images resized to 32 × 32 (bicubic, crop)" in out
    saved = load_config(Path("runs/photos-000/config.yaml"))
    assert (saved.recipe, saved.data.resize, saved.data.fit) == ("photos", 32, "crop")

    monkeypatch.setattr("pocketvit.training.budget.MEASURE_S", 1e-9)
    code, out, err = run(["train", "--data", "pets", "--schedule.time-budget", "0.000001s"], capsys)
    assert code == 2 and out.startswith(
        "recipe photos on pets: images resized to 32 × 32 (crop), batches of 8, passes for 0.000001s\n"
    )
    assert "schedule.time_budget=0.000001s is too short: one pass takes" in err


def test_names_in_chinese_and_korean_align(capsys, place):
    """A terminal shows their letters two columns wide."""
    names = ["猫", "고양이", "cat"]
    images(Path("animals"), [8] * 24, names)
    run(["train", "digits", "--data", "animals", "--batch-size", "8", *TINY], capsys)
    _, out, err = run(["eval", "runs/digits-000", "--device", "cpu"], capsys)
    shown = [line for line in out.splitlines() if line.strip().startswith(tuple(names))]
    assert len(shown) == 3 and len({*map(cell_len, shown)}) == 1, (out, err)
    _, out, _ = run(["data", "check", "animals"], capsys)
    assert len({cell_len(line) for line in out.splitlines() if line.startswith((*names, "class "))}) == 1, out
    files = [next(Path("animals", name).iterdir()) for name in names]
    _, out, _ = run(["predict", *files, "--run", "runs/digits-000", "--top", "1"], capsys)
    assert len({cell_len(re.match(r"\S+ +", line)[0]) for line in out.splitlines()}) == 1, out


def test_every_answer_says_which_file_it_is_of(pets_run, capsys):
    folder, _ = pets_run
    code, out, _ = run(["eval", folder, "--device", "cpu", "--csv"], capsys)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and len(rows) == len({row["file"] for row in rows}) > 0
    assert all(row["file"] == f"{row['label']}/{Path(row['file']).name}" for row in rows)
    assert all((Path("pets") / row["file"]).is_file() for row in rows)
    with np.load(folder / "predictions.npz") as kept:
        assert kept["files"].tolist() == [row["file"] for row in rows]
        best = kept["class_names"][kept["logits"].argmax(axis=1)]
    assert best.tolist() == [row["prediction"] for row in rows]
    page = (folder / "report.html").read_text()
    assert all((row["file"] in page) for row in rows if row["label"] != row["prediction"])
    (answer,) = predict_files(folder, [Path("pets") / rows[0]["file"]], device="cpu")
    assert abs(answer["probabilities"][rows[0]["prediction"]] - float(rows[0]["probability"])) < 1e-4


def test_what_evals_refusals_advise_works(pets_run, capsys):
    images(Path("mixed"), [8, 8, 9, 9] * 3)
    images(Path("large"), [12] * 12)
    for data, advice in (
        ("mixed", "--data.resize N"),
        ("large", "large has images of 12 × 12 pixels, but the model takes 8 × 8 pixels; --data.resize 8 resizes them"),
    ):
        command = ["eval", pets_run[0], "--data", data, "--device", "cpu"]
        code, _, err = run(command, capsys)
        assert code == 2 and advice in err and err.count("\n") == 1
        code, out, _ = run([*command, "--data.resize", "8"], capsys)
        assert code == 0 and "test accuracy" in out and "resized to 8 × 8" in out
    assert run([*command, "--resize", "8"], capsys)[0] == 0


def test_eval_says_how_other_classes_differ(pets_run, capsys):
    images(Path("more"), [8] * 12, ("ant", "bee", "cat"))
    images(Path("other"), [8] * 12, ("ant", "cow"))
    for data, words in (
        (
            "more",
            "has 3 classes, but the model was trained on 2; the first difference is class 2 (from 0): 'cat' in more",
        ),
        (
            "other",
            "has 2 classes, but the model was trained on 2; the first difference is class 1 (from 0): 'cow' in ot",
        ),
    ):
        code, _, err = run(["eval", pets_run[0], "--data", data, "--device", "cpu"], capsys)
        assert code == 2 and words in err
        assert ("missing" if data == "more" else "'bee'") + " in the model" in err


def test_a_broken_image_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(["train", *TINY], capsys)
    Path("bad.png").write_bytes(b"not an image")
    code, _, err = run(["predict", "bad.png", "--run", "runs/digits-000"], capsys)
    assert code == 2 and "bad.png" in err and err.count("\n") == 1


@pytest.fixture
def many(pets_run, monkeypatch, tmp_path):
    """A run, and a folder of two images, two that cannot be read and two that are not taken for images."""
    run = pets_run[0].absolute()
    folder = tmp_path / "many"
    (folder / "inner").mkdir(parents=True)
    (folder / "empty").mkdir()
    for name in ("a.png", "inner/b.jpg"):
        Image.new("RGB", (9, 7), (200, 0, 0)).save(folder / name)
    (folder / "c.png").write_bytes(b"not an image")
    (folder / "d.png").write_bytes(b"")
    (folder / "notes.txt").write_text("?")
    (folder / ".hidden.png").write_bytes(b"")
    monkeypatch.chdir(folder)
    return run


def test_many_files_are_predicted_and_the_bad_ones_named(many, capsys):
    code, out, err = run(["predict", ".", "empty", "none.png", "--run", many, "--csv"], capsys)
    assert code == 3
    assert [row["file"] for row in csv.DictReader(io.StringIO(out))] == ["a.png", "inner/b.jpg"]
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["c.png", "d.png", "empty", "none.png"]
    code, out, err = run(["predict", "inner", "a.png", "--run", many, "--jsonl"], capsys)
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "") and [line["file"] for line in lines] == ["inner/b.jpg", "a.png"]
    assert lines == predict_files(many, ["inner", "a.png"], device="cpu")
    assert run(["predict", "empty", "c.png", "--run", many, "--json"], capsys)[:2] == (2, "[]\n")


def test_names_that_a_terminal_would_obey_are_escaped_in_every_form(place, capsys):
    name = "\x1b[2J\npocketvit: done"
    images(Path(name), [8] * 6)
    (Path(name) / name).mkdir()
    Path(name).rename("inner")
    Path("set").mkdir()
    Path("inner").rename(Path("set", name))
    images(Path("set/b"), [8] * 6)
    bad = Path("set", name, f"{name}.png")
    bad.write_bytes(b"no image")
    printed = [*run(["data", "check", "set"], capsys)]
    train = ["train", "digits", "--data", "set", "--data.skip-unreadable", "True", "--batch-size", "4", *TINY]
    printed += run(train, capsys)
    folder = "runs/digits-000"
    for form in ([], ["--csv"], ["--json"]):
        printed += run(["eval", folder, "--device", "cpu", *form], capsys)
    for form in ([], ["--csv"], ["--json"], ["--jsonl"]):
        printed += run(["predict", "set", bad, "--run", folder, *form], capsys)
    printed += run(["explain", folder, "set/b", bad, "--out", "seen"], capsys)
    text = "\n".join(map(str, printed))
    assert text.count(r"\x1b[2J\npocketvit: done") > 20 and "\x1b" not in text and "\npocketvit: done" not in text


def test_more_files_than_fit_in_one_batch(many, capsys, monkeypatch):
    monkeypatch.setattr("pocketvit.inference.evaluate.AT_A_TIME", 2)
    names = ["a.png", "c.png", "d.png", "c.png", "inner/b.jpg", "a.png", "d.png"]
    code, out, err = run(["predict", *names, "--run", many], capsys)
    assert (code, err.count("\n")) == (3, 4)
    assert [line.split()[0] for line in out.splitlines()] == ["a.png", "inner/b.jpg", "a.png"]


@pytest.mark.parametrize("content", [b"a.png\n\ninner\n", Path("a.png")], ids=["names", "an image"])
def test_predict_reads_standard_input(many, capsys, monkeypatch, content):
    image = isinstance(content, Path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.read_bytes() if image else content)))
    code, out, err = run(["predict", "-", "--run", many, "--csv"], capsys)
    assert (code, err) == (0, "")
    assert [row["file"] for row in csv.DictReader(io.StringIO(out))] == (["-"] if image else ["a.png", "inner/b.jpg"])


def test_runs_and_compare_show_each_run(pets_run, capsys):
    first, _ = pets_run
    second = first.parent / "走る\x1b[2J"
    shutil.copytree(first, second)
    third = first.parent / "open"
    shutil.copytree(first, third)
    (third / "result.json").unlink()
    code, out, _ = run(["runs", "--sort", "name"], capsys)
    header, *lines = out.splitlines()
    assert code == 0 and [line.split()[0] for line in lines] == ["runs/digits-000", "runs/open", r"runs/走る\x1b[2J"]
    ends = {cell_len(line[: line.index("digits", 14)]) for line in lines}
    assert ends == {header.index("recipe")}, "the columns are aligned"
    assert "unfinished" in lines[1] and "\x1b" not in out
    held = json.loads(run(["runs", "--json", "--sort", "accuracy"], capsys)[1])
    assert {one["state"] for one in held} == {"finished", "unfinished"} and len(held) == 3
    code, out, _ = run(["compare", first, second, "--out", "page.html"], capsys)
    assert code == 0 and "only digits-000 0; McNemar's exact p = 1" in out and "page: page.html" in out
    assert "\x1b" not in out and Path("page.html").is_file()


def test_a_table_whose_reader_is_gone_is_no_failure(pets_run):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pocketvit", "runs", str(pets_run[0].parent)]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_explain_shows_what_predict_predicts(many, capsys):
    code, out, err = run(["explain", many, ".", "none.png", "--out", "seen", "--device", "cpu"], capsys)
    assert code == 3 and [line.split(":")[1].strip() for line in err.splitlines()] == ["c.png", "d.png", "none.png"]
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:-2]] == ["a.png", "inner/b.jpg"]
    assert lines[-2:] == ["page: seen/explain.html", "picture: seen/explain.png"]
    _, predicted, _ = run(["predict", "a.png", "--run", many, "--top", "1"], capsys)
    assert lines[0] == predicted.strip()
    page = Path("seen/explain.html").read_text()
    assert page.count("<section") == 2 and page.count("head 4 of a.png") == 1 and many.name in page
    assert run(["explain", many, "c.png"], capsys)[:2] == (2, "")
    assert run(["explain", many / "model.safetensors", "a.png"], capsys)[0] == 0
    assert Path("explain", f"{many.name}-000", "explain.png").is_file()


def test_data_list_and_check(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("POCKETVIT_DATA", str(tmp_path))
    code, out, _ = run(["data", "list"], capsys)
    assert code == 0 and "digits" in out and "pocketvit data get cifar10" in out
    assert (
        "licence: for non-commercial use only; to train: pocketvit train paper --data svhn --augment.policy svhn" in out
    )
    code, out, _ = run(["data", "check", "digits"], capsys)
    assert code == 0 and "1,437 training and 360 test images of 8 × 8 pixels in 10 classes" in out
    assert "CIFAR" not in out


def test_a_check_has_no_flag_without_effect():
    assert set(flags_of(CheckArguments)) == {
        f"--{name.replace('_', '-')}" for name in ("source", "format", "test_frac", "split_seed", "cache_dir", *READING)
    }


def test_check_holds_out_as_a_run_would(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("POCKETVIT_DATA", str(tmp_path / "data"))
    images(tmp_path / "pets", [8] * 12)
    check = ["data", "check", tmp_path / "pets"]
    assert "10 training and 2 test images" in run(check, capsys)[1]
    assert "6 training and 6 test images" in run([*check, "--test-frac", "0.5"], capsys)[1]
    assert "seed 3)" in run([*check, "--data.split-seed", "3"], capsys)[1]
    code, _, err = run([*check, "--keep", "disk"], capsys)
    assert code == 2 and "unknown flag '--keep'" in err, "it would have no effect"


def test_check_lists_every_broken_image(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("POCKETVIT_DATA", str(tmp_path / "data"))
    images(tmp_path / "pets", [8] * 6)
    for name in ("ant/0.png", "bee/3.png"):
        (tmp_path / "pets" / name).write_bytes(b"no image")
    code, out, err = run(["data", "check", tmp_path / "pets"], capsys)
    assert (code, out) == (2, "") and err.startswith("pocketvit: 2 images of") and err.count("\n") == 3


def test_what_the_refusal_of_mixed_sizes_advises_works(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("POCKETVIT_DATA", str(tmp_path / "data"))
    for number, side in enumerate([8, 8, 9, 8]):
        path = tmp_path / "images" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side), 40 * number, np.uint8)).save(path)
    check = ["data", "check", tmp_path / "images"]
    code, _, err = run(check, capsys)
    assert code == 2 and "--data.resize N" in err
    code, out, _ = run([*check, "--data.resize", "8"], capsys)
    assert code == 0 and "8 × 8 pixels in 2 classes" in out


def test_a_plan_counts_on_the_devices_that_the_study_would_take(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETVIT_DATA", str(tmp_path))
    monkeypatch.setattr("pocketvit.studies.execution.local.find_slots", lambda gpus, _: gpu_slots(gpus or list("012")))
    for flags, devices in (([], 3), (["--gpus", "0,1"], 2), (["--engine", "ray"], 1)):
        code, out, _ = run(["study", "paper-table3", "--plan", *flags], capsys)
        assert code == 0 and f" on {devices} × NVIDIA H200." in out


def test_help_version_and_module_form(capsys):
    code, out, _ = run(["--help"], capsys)
    assert code == 0 and "pocketvit COMMAND" in out and "digits, paper or minute" in out
    for flag in ("-h", "--help", "help"):
        assert run([flag], capsys)[:2] == (0, out)
        code, about_data, _ = run(["data", flag], capsys)
        assert code == 0 and about_data.startswith("usage: pocketvit data COMMAND"), "data alone is several commands"
        assert all(f"\n  {name} " in about_data for name in COMMANDS if name.startswith("data "))
        assert "train" not in about_data and "pocketvit data COMMAND --help" in about_data
    for command in ("train", "data", "data get"):
        assert run(["help", *command.split()], capsys) == run([*command.split(), "--help"], capsys)
    assert run(["help", "trian"], capsys)[2] == "pocketvit: unknown command 'trian'; did you mean train?\n"
    code, out, _ = run(["--version"], capsys)
    assert code == 0 and out.startswith("pocketvit ")
    for command in COMMANDS:
        code, out, _ = run([*command.split(), "--help"], capsys)
        assert code == 0 and f"usage: pocketvit {command}" in out
    code, out, _ = run(["train", "--help"], capsys)
    assert all(flag in out for flag in ("--data SOURCE", "--config FILE.yaml", "--resume DIR", "--allow-code"))
    described = run(["study", "--help"], capsys)[1]
    assert [name for name in builtin_studies() if name not in described] == []
    done = subprocess.run([sys.executable, "-m", "pocketvit", "nope"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("pocketvit: unknown command 'nope'")


def test_parse_errors_are_input_errors():
    with pytest.raises(InputError):
        parse_train(["nope"])
