"""A training step against the same worked out by hand: which images it takes, how, and where its results go."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_cases import Spread

from pocketvit.augment.batch import BatchMaker
from pocketvit.config import override
from pocketvit.data import Split, Splits
from pocketvit.errors import InputError
from pocketvit.loading.chunks import drop_path_factors
from pocketvit.objectives.classification import Classification
from pocketvit.randomness import Stream, uniform
from pocketvit.recipes import recipe
from pocketvit.training.distributed import ALONE
from pocketvit.training.evaluation import pass_line
from pocketvit.training.progress import SilentReporter
from pocketvit.training.step import batch_loss
from pocketvit.training.trainer import Trainer

B, STEPS, CLASSES, SMOOTHING = 8, 11, 3, 0.2
SET = Split(np.random.default_rng(0).integers(0, 256, (90, 16, 16, 3), dtype=np.uint8), np.arange(90) % CLASSES)


class Listener(nn.Module):
    """A model that keeps what it is called with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls: list[tuple[Tensor, Tensor | None, Tensor]] = []

    def forward(self, x: Tensor, keep: Tensor | None, dropout: Tensor | None = None) -> Tensor:
        logits = self.model(x, keep, dropout)
        self.calls.append((x.detach().clone(), keep, logits.detach().clone()))
        return logits


def started(*, listening: bool = True, **values: float) -> Trainer:
    """A run before its first step, its whole first pass at hand."""
    small = {"batch_size": B, "schedule.passes": 2, "schedule.warmup_passes": 1, "optim.label_smoothing": SMOOTHING}
    small |= {"model.width": 24, "model.num_heads": 2, "model.depth": 2, "augment.erase_prob": 0.5}
    config = override(recipe("paper"), small | {name.replace("__", "."): value for name, value in values.items()})
    trainer = Trainer(
        config, Splits(SET, None, SET, ("a", "b", "c"), "synthetic", ()), torch.device("cpu"), SilentReporter()
    )
    if listening:
        trainer.step.model = Listener(trainer.step.model)
    trainer.step.set_chunk(trainer.chunks.load(0, 0, STEPS))
    return trainer


@pytest.mark.parametrize(
    "mixed", [{}, {"augment__mixup_prob": 1.0, "augment__cutmix_prob": 0.0}], ids=["plain", "mixup"]
)
def test_every_step_takes_its_own_batch(mixed):
    plain = {"augment__mixup_prob": 0.0, "augment__cutmix_prob": 0.0}
    trainer = started(**plain | mixed)
    images, labels, erase, mix = (tensor.numpy() for tensor in trainer.step.chunk[:4])
    mean, std = (np.array(values, dtype=np.float64) for values in trainer.stats)
    for s in range(STEPS):
        trainer.step()
        x, _, logits = trainer.step.model.calls[s]
        here = slice(s * B, (s + 1) * B)
        wanted = (images[here] / 255 - mean) / std  # (B, H, W, C)
        for image, (top, left, height, width) in zip(wanted, erase[here], strict=True):
            image[top : top + height, left : left + width] = mean
        share = float(mix[s, 6])
        wanted = share * wanted + (1 - share) * wanted[::-1]
        np.testing.assert_allclose(x.numpy().transpose(0, 2, 3, 1), wanted, atol=1e-5)
        targets = np.full((B, CLASSES), SMOOTHING / CLASSES)
        targets[np.arange(B), labels[here]] += 1 - SMOOTHING
        targets = share * targets + (1 - share) * targets[::-1]
        scores = logits.double().numpy()
        log_probs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        assert float(trainer.step.losses[s]) == pytest.approx(-(targets * log_probs).sum() / B, rel=1e-5)
    assert (mix[:, 6] < 1).any() == bool(mixed)
    assert erase[:, 2].any()
    assert trainer.step.losses[STEPS:].isnan().all()


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_a_pass_has_the_accuracy_of_its_batches(cutmix):
    trainer = started(augment__cutmix_prob=cutmix, augment__mixup_prob=0.0)
    labels, mix = trainer.step.chunk.labels.view(STEPS, B).numpy(), trainer.step.chunk.mix.numpy()
    right = []
    for s in range(STEPS):
        trainer.step()
        wanted = labels[s] if mix[s, 6] > 0.5 else labels[s, ::-1]
        right.append((trainer.step.model.calls[s][2].numpy().argmax(1) == wanted).mean())
    assert (mix[:, 6] < 0.5).any() == bool(cutmix) and 0 < np.mean(right) < 1
    trainer.pass_index, trainer.train_s = 1, 1.0
    assert pass_line(trainer)["train_accuracy"] == pytest.approx(np.mean(right))


def test_a_run_that_an_older_version_began_goes_on_with_what_it_logged():
    trainer, other = started(listening=False), started(listening=False)
    for _ in range(4):
        trainer.step()
    old = {name: tensor.clone() for name, tensor in trainer.step.state().items() if name != "logged.train_accuracy"}
    other.step.load_state(old)
    assert other.step.logged["train_accuracy"].isnan().all()
    other.pass_index, other.train_s = 1, 1.0
    assert "train_accuracy" not in pass_line(other), "JSON knows no NaN"
    for _ in range(4, STEPS):
        trainer.step()
    other.step.logged["train_accuracy"][4:STEPS] = trainer.step.logged["train_accuracy"][4:STEPS]
    assert pass_line(other)["train_accuracy"] == pytest.approx(
        float(other.step.logged["train_accuracy"][4:STEPS].mean())
    )
    with pytest.raises(ValueError, match="state has other tensors: run.losses"):
        other.step.load_state({name: tensor for name, tensor in old.items() if name != "run.losses"})
    with pytest.raises(InputError, match="state has other tensors: run.losses"):
        other.step.load_state(old | {"run.losses": old["run.losses"][:1]})


def test_every_step_takes_its_own_stochastic_depth():
    trainer = started(model__drop_path=0.5)
    config = trainer.config.model
    draws = uniform(trainer.config.seed, Stream.DROP_PATH, 0, STEPS, config.depth * 2 * B)
    wanted = drop_path_factors(config, draws.reshape(STEPS, config.depth, 2, B))
    for s in range(STEPS):
        trainer.step()
        assert np.array_equal(trainer.step.model.calls[s][1].numpy(), wanted[s])
    assert (wanted == 0).any()


def test_every_step_takes_its_own_draws(monkeypatch):
    taken = []

    class Drawing(Classification):
        num_draws = 3

        def __call__(self, model, batch):
            taken.append(batch.draws.numpy())
            return super().__call__(model, batch)

    monkeypatch.setattr("pocketvit.training.setup.Classification", Drawing)
    trainer = started()
    for _ in range(STEPS):
        trainer.step()
    wanted = uniform(trainer.config.seed, Stream.OBJECTIVE, 0, STEPS, B * 3)
    np.testing.assert_array_equal(taken, wanted.reshape(STEPS, B, 3))


def test_without_stochastic_depth_every_branch_counts():
    trainer = started(model__drop_path=0.0)
    trainer.step()
    assert trainer.step.model.calls[0][1] is None


def test_every_step_has_its_own_learning_rate():
    trainer = started()
    wanted = 2e-3 * trainer.step.factors
    assert len(wanted.unique()) > STEPS
    for s in range(STEPS):
        trainer.step()
        for group in trainer.step.optimizers[0].param_groups:
            assert float(group["lr"]) == pytest.approx(float(wanted[s]), rel=1e-6)
    assert int(trainer.step.step) == STEPS


def test_an_objective_works_on_tokens_and_logs_what_it_lists(monkeypatch):
    plain = started(model__drop_path=0.0, optim__lr=1e-9)
    monkeypatch.setattr("pocketvit.training.setup.Classification", Spread)
    trainer = started(listening=False, model__drop_path=0.0, optim__lr=1e-9)
    for _ in range(STEPS):
        plain.step()
        trainer.step()
    spread, pixels = (trainer.step.logged[name][:STEPS] for name in ("spread", "pixels"))
    torch.testing.assert_close(trainer.step.losses[:STEPS], plain.step.losses[:STEPS] + 0.1 * spread)
    for s, (x, _, _) in enumerate(plain.step.model.calls):
        assert float(pixels[s]) == pytest.approx(float(x.abs().mean()), rel=1e-5)
    trainer.pass_index, trainer.train_s = 1, 1.0
    line = pass_line(trainer)
    means = [float(spread.mean()), float(pixels.mean())]
    assert [line["spread"], line["pixels"]] == pytest.approx(means)
    assert {"logged.spread", "logged.pixels"} <= trainer.step.state().keys(), "a stopped pass goes on with them"


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
@pytest.mark.parametrize("objective", [Classification, Spread])
def test_an_objective_compiles_in_one_piece_and_gives_the_same(monkeypatch, objective, drop_path):
    torch.compiler.reset()
    monkeypatch.setattr("pocketvit.training.setup.Classification", objective)
    compiled, pieces = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda *a, **k: pieces.append(k) or compiled(*a, **k, backend="eager"))
    losses = []
    for compile in (False, True):
        trainer = started(listening=False, model__drop_path=drop_path, train__compile=compile)
        for _ in range(2):
            trainer.step()
        losses.append(trainer.step.losses[:2])
    assert pieces == [{"fullgraph": True, "dynamic": False}]
    torch.testing.assert_close(*losses)


def test_micro_batches_compile_in_two_pieces_and_give_the_same(monkeypatch):
    """What makes the batch, and the objective, for each size of a piece; with dropout, whose integers wrap around."""
    torch.compiler.reset()
    compiled, pieces = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda *a, **k: pieces.append(k) or compiled(*a, **k, backend="eager"))
    losses = []
    for compile in (False, True):
        values = {"train__compile": compile, "train__micro_batch": 3, "model__dropout": 0.3}
        trainer = started(listening=False, **values)
        trainer.step()
        losses.append(trainer.step.losses[:1])
    assert pieces == [{"fullgraph": True, "dynamic": False}] * 2
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize(
    "values, kept",
    [
        ({}, torch.bfloat16),
        ({"model__stem": "conv"}, torch.bfloat16),
        ({"model__stem": "shifted"}, torch.float32),
        ({"objective__name": "mae"}, torch.float32),
        ({"objective__name": "dino"}, torch.float32),
    ],
)
def test_images_are_rounded_only_where_a_product_of_matrices_reads_them(monkeypatch, values, kept):
    """As if our kernels ran on the CPU."""
    found = []

    def fused(batches, chunk, position, dtype):
        found.append(dtype)
        return batches.finish(chunk.take(position))

    monkeypatch.setattr(BatchMaker, "fused", fused)
    monkeypatch.setattr("pocketvit.training.setup.batch_loss", lambda *a, **k: batch_loss(*a, **k | {"fused": True}))
    trainer = started(listening=False, train__precision="bf16", **values)
    trainer.step.backward()
    assert found == [kept]


@pytest.fixture
def captured(monkeypatch) -> list[str]:
    """Graphs that are captured, by their mode; a graph does its work on the memory it was captured with, as on a GPU."""
    modes = []

    def capture(work, *, mode):
        modes.append(mode)
        return SimpleNamespace(replay=work)

    monkeypatch.setattr("pocketvit.training.graphs.beside", nullcontext)
    monkeypatch.setattr("pocketvit.training.graphs.captured", capture)
    return modes


def test_a_captured_step_reads_every_chunk_from_the_memory_of_the_first(captured):
    """A longer chunk than the first is captured anew, and a shorter one is copied over its beginning."""
    plain, graphed = started(listening=False), started(listening=False)
    graphed.step.cuda_graph = True
    places = []
    for first, count in ((0, 3), (3, 2), (5, 4), (9, 2)):
        for trainer in (plain, graphed):
            trainer.step.set_chunk(trainer.chunks.load(0, first, count))
            for _ in range(count):
                trainer.step()
        places.append(graphed.step.chunk.images.data_ptr())
    assert captured == ["global"] * 2 and places[0] == places[1] != places[2] == places[3]
    assert int(graphed.step.step) == STEPS
    torch.testing.assert_close(graphed.step.state(), plain.step.state(), rtol=0, atol=0, equal_nan=True)


def test_a_step_with_communication_is_captured_beside_nccls_watchdog(captured):
    trainer = started(listening=False)
    trainer.step.cuda_graph = True
    trainer.step.processes = SimpleNamespace(size=2, sum_gradients=ALONE.sum_gradients)
    trainer.step.set_chunk(trainer.chunks.load(0, 0, 1))
    assert captured == ["thread_local"]


def test_a_loss_on_test_images_that_is_not_finite_is_left_out(monkeypatch):
    trainer = started()
    trainer.pass_index, trainer.train_s = 2, 1.0
    assert {"test_accuracy", "test_loss"} <= pass_line(trainer).keys()
    monkeypatch.setattr("pocketvit.training.evaluation.mean_loss", lambda *_: float("inf"))
    line = pass_line(trainer)
    assert "test_accuracy" in line and "test_loss" not in line, "JSON knows no infinity"
