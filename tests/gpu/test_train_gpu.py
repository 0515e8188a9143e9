"""The compiled, captured step on a GPU against the plain one, and what happens when memory runs out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_cases import Spread

from pocketvit.config import load_config, override
from pocketvit.errors import InputError
from pocketvit.recipes import recipe
from pocketvit.training import train
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer

pytestmark = pytest.mark.gpu


def start(trainer):
    """Compile and capture on the first chunk; how many steps it has."""
    chunk = trainer.chunks.load(0, 0, trainer.loader.chunk_steps)
    trainer.step.set_chunk(chunk)
    return chunk.num_steps


def stepped(splits, *, steps=8, device="cuda", **values):
    """A small run after its first steps."""
    base = override(recipe("paper"), {"batch_size": 64, "model.width": 64, "model.depth": 2, "model.num_heads": 4})
    config = override(base, {"schedule.passes": 2, "schedule.warmup_passes": 1} | values)
    trainer = Trainer(config, splits, torch.device(device, 0 if device == "cuda" else None), SilentReporter())
    start(trainer)
    for _ in range(steps):
        trainer.step()
    return trainer


def losses(splits, *, steps=8, device="cuda", **values):
    """The losses of the first steps of a small run."""
    return stepped(splits, steps=steps, device=device, **values).step.losses[:steps].cpu()


def test_the_peak_of_memory_is_that_of_the_run_alone(small, tmp_path):
    """Whatever was trained before in the same process, but for cuBLAS's workspaces, which the first run takes."""
    sizes = {"first": {}, "again": {}, "large": {"model.width": 256, "model.depth": 6}, "last": {}}
    peaks = {
        name: train(
            override(small, {"out": tmp_path / name, "train.deterministic": False} | changes), SilentReporter()
        ).peak_memory_gib
        for name, changes in sizes.items()
    }
    assert peaks["last"] == pytest.approx(peaks["again"], rel=0.05) and peaks["large"] > 2 * peaks["again"]


def test_the_trial_of_a_time_budget_leaves_no_memory_behind(small, tmp_path):
    config = override(small, {"train.deterministic": False, "schedule.warmup_frac": 0.1})
    train(override(config, {"out": tmp_path / "first"}), SilentReporter())  # takes cuBLAS's workspaces
    timed = train(override(config, {"schedule.time_budget": "1s"}), SilentReporter())
    passes = load_config(small.out / "config.yaml").schedule.passes
    plain = train(override(config, {"out": tmp_path / "plain", "schedule.passes": passes}), SilentReporter())
    assert timed.config_hash == plain.config_hash and timed.images_seen == plain.images_seen
    assert timed.peak_memory_gib == pytest.approx(plain.peak_memory_gib, rel=0.05)


PLAIN = {"train.compile": False, "train.cuda_graph": False, "train.precision": "fp32"}


def test_gpu_equals_cpu_in_fp32(synthetic_splits):
    torch.testing.assert_close(
        losses(synthetic_splits, **PLAIN), losses(synthetic_splits, device="cpu", **PLAIN), rtol=2e-4, atol=2e-4
    )


def test_captured_equals_plain(synthetic_splits):
    captured = losses(synthetic_splits, **PLAIN | {"train.cuda_graph": True})
    torch.testing.assert_close(captured, losses(synthetic_splits, **PLAIN), rtol=1e-5, atol=1e-5)


def test_compiled_and_captured_in_bf16_stays_near_fp32(synthetic_splits):
    torch.testing.assert_close(losses(synthetic_splits), losses(synthetic_splits, **PLAIN), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [(PLAIN | {"train.cuda_graph": True}, 1e-5), ({"train.kernels": "reference"}, 2e-2), ({}, 2e-2)],
    ids=["captured", "compiled", "fused"],
)
def test_an_objective_on_tokens_and_what_it_logs_are_captured(synthetic_splits, monkeypatch, values, tolerance):
    monkeypatch.setattr("pocketvit.training.setup.Classification", Spread)
    plain, captured = (stepped(synthetic_splits, **given).step for given in (PLAIN, values))
    assert captured.graph is not None
    for log in ("losses", *captured.logged):
        found, wanted = (step.losses if log == "losses" else step.logged[log] for step in (captured, plain))
        torch.testing.assert_close(found[:8], wanted[:8], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [(PLAIN | {"train.cuda_graph": True}, 1 / 64), ({"train.kernels": "reference"}, 0.1), ({}, 0.1)],
    ids=["captured", "compiled", "fused"],
)
def test_training_accuracy_is_captured(synthetic_splits, values, tolerance):
    """One image of 64 may change sides by rounding, in bf16 several."""
    plain, captured = (stepped(synthetic_splits, **given).step.logged["train_accuracy"] for given in (PLAIN, values))
    torch.testing.assert_close(captured[:8], plain[:8], rtol=0, atol=tolerance + 1e-6)
    assert captured[:8].gt(0).any() and captured[8:].isnan().all()


def test_a_chunk_does_not_wait_for_the_gpu(synthetic_splits):
    config = override(recipe("paper"), {"batch_size": 64, "model.width": 64, "model.depth": 1, "model.num_heads": 4})
    trainer = Trainer(config, synthetic_splits, torch.device("cuda", 0), SilentReporter())
    plan = trainer.chunks.plan(0)
    steps = start(trainer)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step.set_chunk(trainer.loader.load(plan, 0, steps))
        for _ in range(steps):
            trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_out_of_memory_says_what_fits(synthetic_splits, monkeypatch, tmp_path):
    many = synthetic_splits.train.take(np.arange(4096) % 512)
    monkeypatch.setattr("pocketvit.training.run.open_splits", lambda *_: replace(synthetic_splits, train=many))
    values = {"batch_size": 4096, "train.compile": False, "train.cuda_graph": False, "out": tmp_path / "run"}
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.05)
    try:
        with pytest.raises(InputError, match="about batch_size=[0-9]+ would fit") as refused:
            train(override(recipe("paper"), values))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 64 <= int(str(refused.value).split("about batch_size=")[1].split()[0]) < 4096


def test_a_run_leaves_the_gpus_global_generator_alone(small):
    torch.cuda.manual_seed_all(1)
    expected = [float(torch.rand((), device="cuda")) for _ in range(2)]
    torch.cuda.manual_seed_all(1)
    found = [float(torch.rand((), device="cuda"))]
    train(override(small, {"train.deterministic": False}), SilentReporter())  # CUDA has started: too late for it
    found.append(float(torch.rand((), device="cuda")))
    assert found == expected
