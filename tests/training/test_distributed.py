"""One run on several processes is the run of one, but for rounding."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import worker_processes
from safetensors.torch import load_file
from training_cases import TRICKS
from worker_processes import gradients, left_by_the_first, outcome, start_members, stopped_at, together

import pocketvit
from pocketvit.config import override
from pocketvit.data import open_splits
from pocketvit.errors import InputError
from pocketvit.kernels.gradient_memory import room_for
from pocketvit.loading.loader import TrainLoader
from pocketvit.runs.result import RunResult
from pocketvit.training import train
from pocketvit.training.distributed import ALONE, Processes, _meet

SIZES = [2, 3]
"""Numbers of processes; a batch of 16 does not divide by the second."""


def curve(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("batch_size", [5, 6, 7, 16, 17, 256])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_cover_a_batch_in_mirror_pairs(batch_size, size):
    shares = [Processes(rank, size).share(batch_size) for rank in range(size)]
    assert sorted(np.concatenate(shares)) == list(range(batch_size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 2
    for share in shares:
        np.testing.assert_array_equal(share[::-1], batch_size - 1 - share)


def test_one_process_takes_the_batch_as_it_is():
    np.testing.assert_array_equal(ALONE.share(7), np.arange(7))


def test_a_batch_too_small_for_the_processes_is_refused():
    Processes(1, 3).share(5)
    with pytest.raises(InputError, match="batch_size=4 is too small for 3 processes; use at least 5"):
        Processes(0, 3).share(4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize(("size", "batch_size", "clip"), [(1, 16, None), (2, 16, None), (3, 16, 0.1), (2, 17, None)])
def test_gradients_equal_those_of_one_process(small, tmp_path, size, batch_size, clip, dtype, tolerance):
    config = override(small, {"batch_size": batch_size, "optim.grad_clip": clip})
    losses, rows = gradients(config, dtype)
    assert clip is None or rows.norm(dim=1).allclose(rows.new_tensor(clip), rtol=1e-4), "of the whole gradient"
    in_pieces = override(config, {"train.micro_batch": 3 if batch_size == 17 else None})
    for other_losses, other_rows in together(size, tmp_path, gradients, in_pieces, dtype):
        torch.testing.assert_close(other_losses, losses, rtol=tolerance, atol=0)
        error = (other_rows - rows).norm(dim=1) / rows.norm(dim=1)
        assert error.max() < tolerance


def test_what_is_logged_is_summed_with_the_gradients_in_one_exchange(monkeypatch):
    exchanged = []
    monkeypatch.setattr(dist, "all_reduce", lambda flat: exchanged.append(len(flat)) or flat.mul_(2))
    weight = torch.nn.Parameter(torch.ones(2, 3))
    unused, loss = torch.nn.Parameter(torch.ones(5)), (3 * weight).sum()
    loss.backward()
    sums = Processes(0, 2).sum_gradients([unused, weight], [loss, torch.tensor(5.0)])
    assert [float(value) for value in sums] == [36, 10] and not any(value.requires_grad for value in sums)
    assert torch.equal(weight.grad, torch.full((2, 3), 6.0)) and unused.grad is None
    assert exchanged == [8]


def test_gradients_in_an_optimizers_array_are_summed_there(monkeypatch):
    """With what is logged behind them, nothing copied; but only if the array holds all gradients."""
    flat = pytest.importorskip("pocketvit.optim.flat", reason="needs Triton")
    exchanged = []
    monkeypatch.setattr(dist, "all_reduce", lambda array: exchanged.append(array) or array.mul_(2))
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in ((3,), (4, 4))]
    optimizer = flat.AdamW(weights)
    optimizer.offer_gradient_memory()
    for weight in weights:
        weight.grad = room_for(weight).fill_(3)
    places = [weight.grad.data_ptr() for weight in weights]
    sums = Processes(0, 2).sum_gradients(iter(weights), [torch.tensor(4.0, requires_grad=True), torch.tensor(5.0)])
    assert [float(value) for value in sums] == [8, 10] and not any(value.requires_grad for value in sums)
    assert all((weight.grad == 6).all() for weight in weights)
    assert [weight.grad.data_ptr() for weight in weights] == places
    assert [len(array) for array in exchanged] == [21] and exchanged[0].data_ptr() == optimizer._gradients[0].data_ptr()
    other = torch.nn.Parameter(torch.ones(2))
    other.grad = torch.ones(2)
    assert [float(value) for value in Processes(0, 2).sum_gradients([*weights, other], [sums[0]])] == [16]
    assert all((weight.grad == 12).all() for weight in weights) and len(exchanged[1]) == 22


def test_the_compared_batches_are_plain_cut_and_mixed(small):
    """What the test above relies on: its batches see all three."""
    loader = TrainLoader(
        open_splits(small.data).train,
        data=small.data,
        augment=small.augment,
        seed=small.seed,
        batch_size=16,
        device=torch.device("cpu"),
    )
    kinds = {(float(inside) == 1, float(outside) == 1) for inside, outside in loader.plan(0).mix[:, :2]}
    assert kinds == {(True, True), (False, True), (False, False)}


@pytest.mark.parametrize("values", [{}, {"data.repeats": "batch"}, TRICKS], ids=["fresh", "batch", "tricks"])
def test_a_run_on_more_processes_ends_where_one_does(small, tmp_path, values):
    base = override(small, {"schedule.passes": 3, "optim.ema_decay": 0.9, **values})
    alone = train(base)
    assert (alone.num_processes, alone.num_gpus) == (1, 0)
    for size in SIZES:
        config = override(base, {"out": tmp_path / f"on-{size}"})
        results = together(size, tmp_path, train, config)
        assert all(result == results[0] for result in results)
        assert RunResult.read(config.out / "result.json") == results[0]
        assert results[0].run_folder == config.out
        assert (results[0].num_processes, results[0].num_gpus) == (size, 0)
        assert results[0].images_seen == alone.images_seen
        assert results[0].config_hash == alone.config_hash
        np.testing.assert_allclose(curve(config.out), curve(base.out), rtol=1e-4)
        mine, theirs = load_file(config.out / "model.safetensors"), load_file(base.out / "model.safetensors")
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-2, atol=1e-3)


def test_a_signal_to_one_process_stops_all_after_the_same_step(small, tmp_path):
    straight, stopped = (override(small, {"out": tmp_path / name}) for name in ("straight", "stopped"))
    together(2, tmp_path, train, straight)
    told = together(2, tmp_path, stopped_at, stopped, 1, 15)
    assert told[0] == told[1]
    assert f"--resume {stopped.out}" in told[0][1]
    assert [path.name.split(".")[0] for path in (stopped.out / "checkpoint").glob("*")].count("step-000000016") == 1
    together(2, tmp_path, train, stopped)
    assert curve(stopped.out) == curve(straight.out)
    ours, theirs = load_file(stopped.out / "model.safetensors"), load_file(straight.out / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_the_first_process_refuses_ends_all_and_is_said_once(small, tmp_path):
    small.out.mkdir()
    (small.out / "thesis.txt").write_text("mine")
    first, second = together(2, tmp_path, outcome, small)
    assert first.startswith("InputError") and "is not empty" in first
    assert second == "SystemExit: 2"


def test_what_dead_processes_left_in_the_store_is_not_believed():
    """torchrun keeps its store over restarts: a name, a question of this rank and the answer to it are still there."""
    store = dist.HashStore()
    for key, value in {"start": "old", "old/1": "old question", "old/old question": "here"}.items():
        store.set(key, value)
    with ThreadPoolExecutor() as pool:
        second = pool.submit(_meet, store, 1, 2)
        time.sleep(0.2)
        assert not second.done()
        first = _meet(store, 0, 2)
        first.set("address", "new")
        assert second.result(timeout=60).get("address") == b"new"


def test_a_process_that_waits_for_one_that_has_left_ends(tmp_path):
    members = start_members(2, tmp_path, left_by_the_first)
    for process in members:
        process.join(300)
    assert [process.exitcode for process in members] == [0, 1]
    assert [(tmp_path / f"answer-{rank}-of-2.pt").exists() for rank in range(2)] == [True, False]


def test_torchrun_needs_a_run_folder(small, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="torchrun needs --out DIR"):
        train(override(small, {"out": None}))
    assert train(small).num_processes == 1


def test_only_one_file_touches_process_groups():
    package = Path(pocketvit.__file__).parent
    touching = [path.name for path in package.rglob("*.py") if "torch.distributed" in path.read_text()]
    assert touching == ["distributed.py"]
    assert worker_processes.CONTEXT.get_start_method() == "forkserver"
