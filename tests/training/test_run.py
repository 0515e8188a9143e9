"""A run from end to end: what it leaves behind, and the one rule for starting again."""

import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from predictions import predict_files
from safetensors.torch import load_file
from training_cases import TRICKS

import pocketvit
from pocketvit.cli.train import result_text
from pocketvit.config import load_config, override
from pocketvit.config.hashing import REVISIONS
from pocketvit.errors import InputError
from pocketvit.inference.evaluate import evaluate_run
from pocketvit.inference.trained_model import load_model
from pocketvit.report.page import write_report
from pocketvit.runs.folder import RunFolder
from pocketvit.runs.result import RunResult
from pocketvit.training import Stopped, finish, train
from pocketvit.training.checkpoint import list_checkpoints, load_checkpoint, write_checkpoint
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

CLOCK = {"train_s", "images_per_s"}


class Interrupt(SilentReporter):
    """Sends this process a signal during one step."""

    def __init__(self, at_step, signum=signal.SIGINT):
        self.left, self.signum = at_step, signum

    def advance(self, steps):
        self.left -= steps
        if self.left == 0:
            os.kill(os.getpid(), self.signum)


class Heard(SilentReporter):
    """Keeps what a run says."""

    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


class Notes(Interrupt):
    """Keeps what a run says, and interrupts it after some steps."""

    def __init__(self):
        super().__init__(4)
        self.lines = []

    def note(self, line):
        self.lines.append(line)
        self.left = 4


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


def weights(folder):
    return load_file(folder / "model.safetensors")


def same_run(a, b):
    """Whether two finished runs are bit-identical but for the clock."""
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    same = all(torch.equal(left[name], right[name]) for name in left)
    assert same == ((a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes())
    return same and metrics(a) == metrics(b)


def test_a_run_learns_and_leaves_everything(small):
    result = train(small, started=time.perf_counter() - 100)
    folder = small.out
    assert RunResult.read(folder / "result.json") == result and result.run_folder == folder
    assert list(json.loads((folder / "result.json").read_text())) == [
        "test_accuracy", "val_accuracy", "best_test_accuracy", "images_per_s", "curve", "train_fingerprint", "cautions",
        "recipe", "seed", "config_hash", "data_fingerprint", "num_params", "num_processes", "num_gpus", "train_s",
        "images_seen", "peak_memory_gib", "device", "kernels", "model_digest", "versions", "commit", "command", "total_s",
    ]  # fmt: skip
    assert result.test_accuracy >= 0.9, "three colours are easy"
    assert [line["pass"] for line in metrics(folder)] == [1, 2, 3, 4, 5]
    assert [point.images for point in result.curve] == [2 * 96, 4 * 96, 5 * 96]
    evaluated = [line for line in metrics(folder) if "test_loss" in line]
    assert [line["pass"] for line in evaluated] == [2, 4, 5]
    with np.load(folder / "predictions.npz") as held:
        logits, labels = torch.from_numpy(held["logits"]), torch.from_numpy(held["labels"])
    wanted = -logits.double().log_softmax(1).gather(1, labels[:, None]).mean()
    assert evaluated[-1]["test_loss"] == pytest.approx(float(wanted))
    accuracies = [line["train_accuracy"] for line in metrics(folder)]
    assert len(accuracies) == 5 and 0 < accuracies[0] < accuracies[-1] <= 1
    assert result.best_test_accuracy == max(point.accuracy for point in result.curve)
    assert result.val_accuracy is None
    assert result.images_seen == 5 * 6 * 16
    assert result.images_per_s == result.images_seen / result.train_s
    assert result.num_params == sum(tensor.numel() for tensor in weights(folder).values())
    assert 0 < result.train_s < 100 < result.total_s, "what came before counts, such as importing torch"
    assert load_config(folder / "config.yaml") == small
    env = json.loads((folder / "env.json").read_text())
    assert env["versions"]["torch"] == torch.__version__.split("+")[0] or env["versions"]["torch"] == torch.__version__
    page = (folder / "report.html").read_text()
    assert page.count("<img") >= 5
    with np.load(folder / "figures.npz") as held:
        rows, hits = held["attention_rows"], logits.argmax(dim=1) == labels
        assert rows.tolist() == [int(((labels == k) & hits).nonzero()[0]) for k in range(3)] + rows[3:].tolist()
        assert not hits[rows[3:]].any() and len(rows[3:]) == min(6, int((~hits).sum()))
    assert page.count('<div class="look') == 1 + len(rows), "the list of correct ones, and each image"
    assert "Patch filters" in page and "Position similarity" in page


def test_train_says_how_it_goes_and_where_the_run_is(small, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = train(override(small, {"out": None}))
    assert result.run_folder == Path("runs/paper-000")
    assert load_model(result.run_folder).class_names == ("red", "green", "blue")
    said = capsys.readouterr().out
    assert said.startswith("run folder: runs/paper-000\n") and "\npass 2  loss " in said
    assert "\n3 classes (training + test images): red (32 + 10), green (32 + 10), blue (32 + 10)\npass 1" in said
    train(small, pocketvit.SilentReporter())
    assert not capsys.readouterr().out


def test_predictions_give_the_headline(small):
    result = train(small)
    with np.load(small.out / "predictions.npz", allow_pickle=False) as held:
        assert (held["logits"].argmax(1) == held["labels"]).mean() == result.test_accuracy
        assert held["class_names"].tolist() == ["red", "green", "blue"]
    assert evaluate_run(small.out, device="cpu")["accuracy"] == result.test_accuracy


def test_a_run_is_found_in_the_home_folder(small, tmp_path, monkeypatch):
    result = train(small)
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (16, 16), (160, 0, 0)).save(tmp_path / "red.png")
    run = f"~/{small.out.relative_to(tmp_path)}"
    assert load_model(run).class_names == ("red", "green", "blue")
    assert evaluate_run(run, device="cpu")["accuracy"] == result.test_accuracy
    (predicted,) = predict_files(run, ["~/red.png"], device="cpu")
    assert max(predicted["probabilities"], key=predicted["probabilities"].get) == "red"


def test_a_saved_model_stands_alone(small):
    train(small)
    model = load_model(small.out / "model.safetensors")
    assert model.class_names == ("red", "green", "blue")
    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[0, ..., 0], images[1, ..., 2] = 160, 160
    probabilities = model.probabilities(images)
    assert probabilities.argmax(1).tolist() == [0, 2]
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    with pytest.raises(InputError, match="trained on 16 × 16 pixels"):
        model.logits(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=f"model.safetensors is only a model, .* its run folder, {small.out}$"):
        evaluate_run(small.out / "model.safetensors", device="cpu")


def test_the_same_seed_gives_the_same_run_and_another_does_not(small, tmp_path):
    train(small)
    train(override(small, {"out": tmp_path / "again"}))
    assert same_run(small.out, tmp_path / "again")
    train(override(small, {"out": tmp_path / "other", "seed": 1}))
    assert not same_run(small.out, tmp_path / "other")


@pytest.fixture(scope="module", params=[{}, TRICKS], ids=["plain", "tricks"])
def kind(request) -> dict:
    """The values of a kind of run."""
    return request.param


@pytest.fixture(scope="module")
def undisturbed(kind, small_in, tmp_path_factory) -> Path:
    """The folder of a run of that kind that nothing stopped."""
    return train(override(small_in(tmp_path_factory.mktemp("undisturbed")), kind)).run_folder


@pytest.mark.parametrize("at_step", [1, 6, 15, 18], ids=lambda n: f"step{n}")
def test_a_stopped_run_resumes_bit_for_bit(small, undisturbed, at_step, kind):
    stopped = override(small, kind)
    with pytest.raises(Stopped, match=f"--resume {stopped.out}"):
        train(stopped, Interrupt(at_step))
    assert not (stopped.out / "result.json").exists()
    train(stopped)
    assert same_run(undisturbed, stopped.out)


def test_a_resumed_run_keeps_the_command_that_began_it(small, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/pocketvit", "train", "paper", "--seed", "0"])
    with pytest.raises(Stopped):
        train(small, Interrupt(3))
    began = json.loads((small.out / "env.json").read_text())
    began["started"] = "2020-01-01T00:00:00+00:00"
    (small.out / "env.json").write_text(json.dumps(began))
    monkeypatch.setattr(sys, "argv", ["/bin/pocketvit", "train", "--resume", str(small.out)])
    result = train(small)
    env = json.loads((small.out / "env.json").read_text())
    assert result.command == env["command"] == "pocketvit train paper --seed 0"
    assert env["started"] == began["started"]
    assert env["folder"] == began["folder"] == str(small.out)


def test_a_resumed_run_counts_the_time_of_all_its_parts(small):
    with pytest.raises(Stopped):
        train(small, Interrupt(3), started=time.perf_counter() - 100)
    with pytest.raises(Stopped):
        train(small, Interrupt(3))
    folder = small.out / "checkpoint"
    (state, progress), _ = load_checkpoint(folder)
    assert 100 < progress.total_s < 200
    for path in list_checkpoints(folder):
        path.unlink()
    write_checkpoint(folder, 6, state, replace(progress, train_s=50.0, total_s=0.0))  # as older versions wrote it
    result = train(small)
    assert 50 < result.train_s < result.total_s < 100 and result.beside_s == result.total_s - result.train_s


def test_a_crashed_run_goes_on_from_its_last_checkpoint(small, tmp_path):
    """The lines written after the checkpoint are dropped, so none is doubled."""

    class Crash(SilentReporter):
        def passed(self, line):
            if line["pass"] == 3:
                raise RuntimeError("power cut")

    train(small)
    crashed = override(small, {"out": tmp_path / "crashed"})
    with pytest.raises(RuntimeError):
        train(crashed, Crash())
    assert len(metrics(crashed.out)) == 3
    train(crashed)
    assert same_run(small.out, crashed.out)


def test_a_damaged_checkpoint_is_passed_over(small, tmp_path):
    class Ear(SilentReporter):
        lines: list = []

        def note(self, line):
            self.lines.append(line)

    train(small)
    damaged = override(small, {"out": tmp_path / "damaged"})
    with pytest.raises(Stopped):
        train(damaged, Interrupt(27))
    newest, older = sorted((damaged.out / "checkpoint").iterdir(), reverse=True)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    train(damaged, Ear())
    assert any("is damaged" in line for line in Ear.lines)
    assert any("resuming from step 24" in line for line in Ear.lines), older
    assert same_run(small.out, damaged.out)


def test_without_a_usable_checkpoint_it_starts_over(small, tmp_path):
    train(small)
    torn = override(small, {"out": tmp_path / "torn"})
    with pytest.raises(Stopped):
        train(torn, Interrupt(27))
    for path in (torn.out / "checkpoint").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    ear = Notes()
    with pytest.raises(Stopped):
        train(torn, ear)
    assert len([line for line in ear.lines if "is damaged" in line]) == 2
    assert "so the run starts again" in ear.lines[-1]
    said = len(ear.lines)
    with pytest.raises(Stopped):
        train(torn, ear)
    assert any("resuming from step" in line for line in ear.lines[said:]), "what was saved after that is used"
    train(torn)
    assert same_run(small.out, torn.out)


def test_a_finished_run_another_config_and_a_strangers_folder_are_refused(small, tmp_path):
    with pytest.raises(Stopped):
        train(small, Interrupt(3))
    with pytest.raises(InputError, match="another config or seed"):
        train(override(small, {"seed": 3}))
    with pytest.raises(InputError, match="another config or seed"):
        train(override(small, {"optim.lr": 1e-4}))
    with pytest.raises(InputError, match=f"the run in {small.out} is not finished; .* --resume {small.out}$"):
        evaluate_run(small.out, device="cpu")
    train(small)
    with pytest.raises(InputError, match="contains a finished run; for a new one, choose another"):
        train(small)
    for content in ('{"torn', "{}", "[]", "7"):
        (small.out / "result.json").write_text(content)
        with pytest.raises(InputError, match=r"result.json is damaged; remove it to resume the run$"):
            train(small)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        train(override(small, {"out": tmp_path / "full"}))
    with pytest.raises(InputError, match=r"cannot create the run folder .*\.txt: File exists; choose another --out"):
        train(override(small, {"out": tmp_path / "full" / "thesis.txt"}))


@pytest.mark.parametrize(
    ("written", "changed"), [("  lr: 0.002", "  lr: 0.001"), ("  passes: 5", "  passes: 6"), ("seed: 0", "seed: 1")]
)
def test_a_run_whose_config_was_edited_does_not_go_on(small, written, changed):
    """It would end as a run of which some steps had another learning rate than its result says."""
    with pytest.raises(Stopped):
        train(small, Interrupt(8))
    file = small.out / "config.yaml"
    saved = file.read_text()
    assert f"\n{written}\n" in saved
    file.write_text(saved.replace(f"\n{written}\n", f"\n{changed}\n"))
    with pytest.raises(InputError, match=rf"config.yaml was changed after its run began; .* --config {file}$"):
        train(load_config(file))
    file.write_text(saved)
    assert train(load_config(file)).test_accuracy >= 0


def test_an_unfinished_run_by_an_earlier_method_does_not_go_on(small, monkeypatch):
    """Half of it would be by one method, half by another."""
    batch = override(small, {"data.repeats": "batch"})
    with monkeypatch.context() as before:
        before.delitem(REVISIONS, ("data.repeats", "batch"))
        with pytest.raises(Stopped):
            train(batch, Interrupt(8))
    said = f"^{small.out} contains a run from before data.repeats=batch was changed, which cannot be resumed; "
    said += "choose another --out$"
    with pytest.raises(InputError, match=said):
        train(batch)
    env = json.loads((small.out / "env.json").read_text())
    del env["config_hash"], env["seed"]  # as runs did that are older still
    (small.out / "env.json").write_text(json.dumps(env))
    with pytest.raises(InputError, match=said):
        train(batch)


def test_other_data_in_the_same_place_are_refused(small, synthetic_set, tmp_path):
    """What a run trains on may not change under it, whatever the file is called."""
    source = tmp_path / "mine.npz"
    source.write_bytes(synthetic_set.read_bytes())
    config = override(small, {"data.source": str(source)})
    with pytest.raises(Stopped):
        train(config, Interrupt(8))
    arrays = dict(np.load(synthetic_set))
    np.savez(source, **arrays | {"train_images": arrays["train_images"][::-1]})
    with pytest.raises(InputError, match="contains a run on other data than .*mine.npz has now; choose another --out"):
        train(config)
    source.write_bytes(synthetic_set.read_bytes())
    train(config)
    train(override(small, {"out": tmp_path / "straight"}))
    assert same_run(config.out, tmp_path / "straight")


def test_no_run_is_made_among_the_classes_of_its_data(small, tmp_path, monkeypatch):
    """The set could not be read again: it had a class without images, which is what the folder of the run looked like."""
    source = tmp_path / "mine"
    rng = np.random.default_rng(0)
    for name in ("flat/left", "flat/right", "parted/train/left", "parted/train/right", "parted/test/left"):
        (source / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(source / name / f"{number}.png")
    flat = override(small, {"data.source": str(source / "flat"), "batch_size": 4})
    parted = override(flat, {"data.source": str(source / "parted")})
    (tmp_path / "link").symlink_to(source / "flat")
    for config, out in (
        (flat, source / "flat" / "run"),
        (flat, tmp_path / "link" / "a" / "run"),
        (parted, source / "parted" / "train" / "run"),
    ):
        with pytest.raises(InputError, match=rf"^{out} would be among the class folders of .*; choose another --out$"):
            train(override(config, {"out": out}))
        assert not out.exists()
    monkeypatch.chdir(source / "flat")
    with pytest.raises(InputError, match="^runs would be among the class folders of "):
        train(override(flat, {"out": None, "data.source": "."}))
    assert not Path("runs").exists()
    train(override(parted, {"out": source / "parted" / "run"}))
    train(override(flat, {"out": source / "flat" / ".runs" / "run"}))
    train(override(flat, {"out": source / "run"}))


def test_names_where_python_takes_what_they_name_are_refused(small):
    with pytest.raises(InputError, match=r"^'digits' is not a configuration; make one with pocketvit.recipe\('dig"):
        train("digits")
    with pytest.raises(InputError, match=r"^'runs/a' is not a trained model; load one with pocketvit.load_model\("):
        pocketvit.evaluate("runs/a", pocketvit.load_dataset("digits"))
    train(small)
    with pytest.raises(InputError, match=r"^'digits' is not a data set; load it: pocketvit.load_dataset\("):
        pocketvit.evaluate(load_model(small.out), "digits")


def test_a_saved_config_finds_its_data_from_any_folder(small, synthetic_set, tmp_path, monkeypatch):
    monkeypatch.chdir(synthetic_set.parent)
    train(override(small, {"data.source": synthetic_set.name}))
    monkeypatch.chdir(tmp_path)
    assert evaluate_run(small.out, device="cpu")["images"] == 30
    again = load_config(small.out / "config.yaml")
    train(override(again, {"out": tmp_path / "again"}))
    assert same_run(small.out, tmp_path / "again")


def test_two_processes_never_share_a_run_folder(small, monkeypatch):
    import fcntl

    from pocketvit import lock

    with pytest.raises(Stopped):
        train(small, Interrupt(8))
    monkeypatch.setattr(lock, "WAIT_S", 0.1)
    other = os.open(small.out, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    ear = Notes()
    with pytest.raises(InputError, match=f"another process uses {small.out}; choose another --out"):
        train(small, ear)
    assert ear.lines == [f"waiting up to 0.1 s for another process to leave {small.out}"]
    os.close(other)
    assert train(small).images_seen == 5 * 96


def test_two_runs_that_start_at_once_have_a_folder_each(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without = override(small, {"out": None})
    assert [str(RunFolder.of(without).path) for _ in range(3)] == [f"runs/paper-00{n}" for n in range(3)]
    (tmp_path / "runs").rename("other")
    (tmp_path / "runs").symlink_to("nowhere")
    with pytest.raises(InputError, match="cannot create the run folder runs: File exists; choose another --out"):
        RunFolder.of(without)


def test_a_folder_whose_run_is_finished_is_refused_before_the_data_are_read(small):
    train(small)
    with pytest.raises(InputError, match="contains a finished run"):
        train(override(small, {"data.source": "no-such-file"}))


def test_a_worker_lost_after_the_result_was_written_costs_nothing(small, monkeypatch):
    """torchrun then starts all workers again."""
    result = train(small)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train(small) == result
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    with pytest.raises(InputError, match="contains a finished run"):
        train(small)


def test_the_peak_of_memory_is_the_runs(small, monkeypatch):
    """Not that of a larger run before it in the same process."""
    watched = []
    monkeypatch.setattr("pocketvit.training.run.watch_memory", lambda device: watched.append(device) or 7)
    monkeypatch.setattr(finish, "peak_memory_gib", lambda device, held=0: float(10 * len(watched) - held))
    assert train(small, SilentReporter()).peak_memory_gib == 3.0 and watched == [torch.device("cpu")]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_last_step_lets_the_run_finish(small, monkeypatch, signum):
    from pocketvit.report import page

    write = page.write_report

    def signalled(*arguments):
        os.kill(os.getpid(), signum)
        write(*arguments)

    monkeypatch.setattr(page, "write_report", signalled)
    result = train(small)
    assert RunResult.read(small.out / "result.json") == result


@pytest.mark.parametrize("every", [0, 2])
def test_a_run_that_could_not_finish_does_not_train_again(small, tmp_path, monkeypatch, every):
    config = override(small, {"train.checkpoint_every_passes": every})

    def full(*_, **arrays):
        raise InputError("No space left on device")

    with monkeypatch.context() as broken, pytest.raises(InputError, match="No space left"):
        broken.setattr("pocketvit.training.finish.write_arrays", full)
        train(config)
    never = Interrupt(1)
    result = train(config, never)
    assert never.left == 1 and result.images_seen == 5 * 96
    train(override(config, {"out": tmp_path / "straight"}))
    assert same_run(config.out, tmp_path / "straight")


def test_averages_over_flips_are_reported_apart(small, tmp_path):
    plain = override(small, {"data.val_frac": 0.25, "schedule.passes": 2, "out": tmp_path / "plain"})
    both = override(plain, {"train.flip_average": True, "out": tmp_path / "both"})
    without, result = train(plain), train(both)
    assert (result.test_accuracy, result.val_accuracy) == (without.test_accuracy, without.val_accuracy)
    keys = [set(json.loads((config.out / "result.json").read_text())) for config in (plain, both)]
    assert keys[1] - keys[0] == {"test_accuracy_tta", "val_accuracy_tta"}
    assert RunResult.read(both.out / "result.json") == result
    trained, data = load_model(both.out), pocketvit.load_dataset(small.data.source)
    logits = trained.logits(data.test.images), trained.logits(np.ascontiguousarray(data.test.images[:, :, ::-1]))
    wanted = (logits[0] + logits[1]) / 2
    assert not torch.equal(logits[0], wanted)
    torch.testing.assert_close(trained.logits(data.test.images, flip_average=True), wanted)
    assert result.test_accuracy_tta == float((wanted.argmax(1).numpy() == data.test.labels).mean())
    assert f"mirror averaged: {result.test_accuracy_tta:.2%}" in result_text(result)
    write_report(both.out)
    assert "mean logits of each image and its mirror image" in (both.out / "report.html").read_text()


def test_with_validation_the_test_set_is_used_once(small, tmp_path):
    result = train(override(small, {"data.val_frac": 0.25}))
    assert result.best_test_accuracy is None
    assert {point.split for point in result.curve} == {"val"}
    assert result.val_accuracy == result.curve[-1].accuracy
    assert not any("test_accuracy" in line for line in metrics(small.out))
    assert [line["pass"] for line in metrics(small.out) if "val_loss" in line] == [2, 4, 5]
    assert not any("test_loss" in line for line in metrics(small.out))
    assert result.images_seen == 5 * (72 // 16) * 16


@pytest.fixture
def poison(monkeypatch):
    """Makes a reporter that makes a weight infinite after a pass."""
    trainers = []

    class Watched(Trainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            trainers.append(self)

    class Poison(SilentReporter):
        def __init__(self, after_pass):
            self.after_pass = after_pass

        def passed(self, line):
            if line["pass"] == self.after_pass:
                torch.nn.init.constant_(trainers[-1].model.norm.weight, float("inf"))

    monkeypatch.setattr("pocketvit.training.run.Trainer", Watched)
    return Poison


def test_a_diverging_run_stops_and_keeps_its_checkpoint(small, poison):
    with pytest.raises(InputError, match=r"loss is not finite at step 18; .* \(the last good checkpoint is kept in "):
        train(small, poison(after_pass=3))
    assert [path.name.split(".")[0] for path in (small.out / "checkpoint").iterdir()] == ["step-000000012"]


def test_a_channel_that_is_the_same_everywhere_is_not_scaled(small, synthetic_set, tmp_path):
    arrays = dict(np.load(synthetic_set))
    arrays["train_images"][..., 2] = 7
    np.savez(tmp_path / "no-blue.npz", **arrays)
    heard = Heard()
    result = train(override(small, {"data.source": str(tmp_path / "no-blue.npz")}), heard)
    assert "blue: the same value in every pixel of the training images, so not scaled" in heard.lines
    assert load_model(result.run_folder).std[2] == 1 and 0 < min(load_model(result.run_folder).std[:2]) < 1


def test_predict_reads_an_image_as_the_run_read_its_own(small, tmp_path):
    """In the range, over the background and with the fit of the run's configuration."""
    drawing = np.zeros((8, 16, 4), np.uint8)
    drawing[2, :, 3] = 255
    Image.fromarray(drawing).save(tmp_path / "drawing.png")
    reading = {"data.background": "white", "data.fit": "pad", "data.resize": 32}
    run = train(override(small, reading)).run_folder
    (answer,) = predict_files(run, [tmp_path / "drawing.png"])
    white = Image.new("RGB", (16, 8), "white")
    white.paste((0, 0, 0), (0, 2, 16, 3))
    ImageOps.pad(white, (32, 32), Image.Resampling.BICUBIC, color="white").save(tmp_path / "as-read.png")
    assert answer["probabilities"] == predict_files(run, [tmp_path / "as-read.png"])[0]["probabilities"]


def test_weights_that_are_not_finite_are_never_saved(small, poison):
    """The loss of a step is that of the weights before it, so it does not tell."""
    with pytest.raises(InputError, match=r"weights are not finite at step 11; .* \(no checkpoint is in "):
        train(small, poison(after_pass=2))
    assert not list(small.out.glob("checkpoint/*"))


def test_what_compiles_is_rehearsed_off_the_clock_and_starts_from_where_it_was(small):
    from pocketvit.training.distributed import ALONE
    from pocketvit.training.run import prepare

    assert not prepare(override(small, {"train.compile": True}), ALONE, SilentReporter()).step.warm
    losses = []
    for rehearsed in (False, True):
        trainer = prepare(small, ALONE, SilentReporter())
        assert trainer.step.warm, "a plain step compiles nothing"
        trainer.step.warm = not rehearsed
        trainer.step.set_chunk(trainer.chunks.load(0, 0, 3))
        assert trainer.step.warm and trainer.step.losses.isnan().all()
        for _ in range(3):
            trainer.step()
        losses.append(trainer.step.losses[:3])
    assert torch.equal(*losses)


def test_what_is_captured_is_rehearsed_once(small, monkeypatch):
    """A second rehearsal would fall into the time of training."""
    from pocketvit.training import graphs
    from pocketvit.training.distributed import ALONE
    from pocketvit.training.run import prepare
    from pocketvit.training.step import TrainStep

    calls = []
    monkeypatch.setattr(TrainStep, "_run", lambda step: calls.append("run"))
    monkeypatch.setattr(graphs, "beside", nullcontext)
    monkeypatch.setattr(graphs, "captured", lambda _run, mode: "captured")
    trainer = prepare(override(small, {"train.compile": True}), ALONE, SilentReporter())
    trainer.step.cuda_graph = True
    chunk = trainer.chunks.load(0, 0, 3)
    for _ in range(2):
        trainer.step.set_chunk(chunk)
    assert calls == ["run"] * 3


def test_batch_repeats_show_each_image_three_times(small):
    result = train(override(small, {"data.repeats": "batch", "schedule.passes": 6}))
    assert result.images_seen == 6 * 96


def test_bf16_and_compile_can_be_asked_for_on_the_cpu(small):
    assert train(override(small, {"train.precision": "bf16"})).test_accuracy > 0.5


def test_the_result_is_written_whatever_the_report_does(small, monkeypatch):
    def fail(*_):
        raise RuntimeError("no fonts\nhere")

    monkeypatch.setattr("pocketvit.report.page.write_report", fail)
    heard = Heard()
    assert RunResult.read(train(small, heard).file).seed == small.seed
    assert f"there is no report (no fonts); make it with: pocketvit report {small.out}" in heard.lines


def test_names_that_are_no_utf_8_stop_nothing(small, synthetic_set, tmp_path):
    """A folder and classes called in Latin-1, as an old archive unpacks."""
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / name).mkdir()
    data, out = tmp_path / name / "set.npz", tmp_path / name / "run"
    np.savez(data, **{**np.load(synthetic_set), "class_names": np.array(["red", name, "blue"])})
    config = override(small, {"data.source": str(data), "out": out})
    with pytest.raises(Stopped):
        train(config, Interrupt(15))
    heard = Heard()
    train(replace(load_config(out / "config.yaml"), out=out), heard)
    assert any("resuming from step" in line for line in heard.lines)
    assert load_model(out).class_names == ("red", name, "blue")
    assert r"caf\udce9" in write_report(out).read_text()
    assert evaluate_run(out)["per_class"].keys() == {"red", name, "blue"}


def test_weight_decay_that_is_part_of_the_gradient_is_noted_where_it_is_large(small):
    from pocketvit.training.distributed import ALONE
    from pocketvit.training.run import prepare

    def said(**values):
        reporter = Heard()
        prepare(override(small, {f"optim.{name}": value for name, value in values.items()}), ALONE, reporter)
        return [line for line in reporter.lines if "optim.weight_decay" in line]

    (line,) = said(name="sgd")
    assert line.startswith("CAUTION: optim.weight_decay=0.05 is added to the gradient with optim.name=sgd")
    assert not said(name="adam", weight_decay=1e-4) and not said(name="lion")
