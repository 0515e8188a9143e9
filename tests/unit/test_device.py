"""Which device a run gets and what it is called; operations that repeat, for as long as they are wanted."""

import os

import pytest
import torch

from pocketvit import device as devices
from pocketvit.device import (
    WORKSPACE,
    choose_device,
    device_name,
    fitting_threads,
    largest_batch,
    peak_memory_gib,
    repeating,
    watch_memory,
)
from pocketvit.errors import InputError


def test_a_device_that_there_is_not_is_refused_by_name():
    with pytest.raises(InputError, match="^device='gpu': must be one of auto, cuda, mps, cpu$"):
        choose_device("gpu")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize(("num_threads", "words"), [(1, "(1 thread)"), (2, "(2 threads)")])
def test_the_processor_is_named_with_its_threads(monkeypatch, num_threads, words):
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    assert device_name(torch.device("cpu")).endswith(words)


def state() -> tuple:
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark, os.environ.get(WORKSPACE)


@pytest.mark.parametrize("workspace", [None, ":16:8", "other"])
def test_everything_is_set_and_the_modes_are_put_back(monkeypatch, workspace):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setenv(WORKSPACE, workspace or "")  # put back after the test
    if workspace is None:
        monkeypatch.delenv(WORKSPACE)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    *modes, _ = state()
    set_to = ":16:8" if workspace == ":16:8" else ":4096:8"
    with pytest.raises(KeyError), repeating(True, "cuda"):
        assert state() == (True, True, False, set_to)
        raise KeyError
    assert state() == (*modes, set_to)


def test_a_second_run_of_the_process_repeats_as_well(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setenv(WORKSPACE, "")
    with repeating(True, "cuda"):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with repeating(True, "cuda"):
        assert state()[0]


def test_nothing_changes_where_it_is_not_wanted():
    before = state()
    with repeating(False, "cuda"):
        assert state() == before


def test_too_late_for_cublas_is_refused_but_not_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.delenv(WORKSPACE, raising=False)
    before = state()
    with pytest.raises(InputError, match="needs CUBLAS_WORKSPACE_CONFIG=:4096:8"), repeating(True, "auto"):
        pass
    assert state() == before
    with repeating(True, "cpu"):
        assert state()[0]
    assert state() == before


@pytest.mark.parametrize(("room", "fits"), [(100_000, 9_488), (400, 28), (130, 0)])
def test_the_largest_batch_is_found_from_the_smallest_too(monkeypatch, room, fits):
    """A step that takes 100 bytes and 10 an image, on a GPU with so many bytes; 5 % are kept free."""

    def peak(_run, batch_size, _device):
        if 100 + 10 * batch_size > room:
            raise torch.cuda.OutOfMemoryError
        return 100 + 10 * batch_size

    monkeypatch.setattr(devices, "_peak_memory", peak)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (room, room))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)
    assert largest_batch(lambda batch_size: None, torch.device("cuda", 0)) == fits


def test_the_peak_of_memory_is_counted_anew_without_what_others_hold(monkeypatch):
    held, peak = 3 * 2**30, [40 * 2**30]
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: held)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.append(held))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak[-1])
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert watch_memory(gpu) == 0 and len(peak) == 1, "CUDA has not started: PyTorch would refuse the question"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert watch_memory(gpu) == held
    assert peak_memory_gib(gpu, held) == 0
    peak.append(5 * 2**30)
    assert peak_memory_gib(gpu, held) == 2
    assert watch_memory(torch.device("cpu")) == 0 and peak_memory_gib(torch.device("cpu")) is None


@pytest.mark.parametrize(("numbers", "count"), [(20_480, 1), (69_632, 2), (139_264, 3), (3_194_880, 3)])
def test_a_small_model_gets_few_threads(monkeypatch, numbers, count):
    given = [3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: given[-1])
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with fitting_threads(torch.device("cpu"), numbers):
        assert given[-1] == count
    assert given[-1] == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with fitting_threads(torch.device("cpu"), numbers):
        assert given[-1] == 3, "who sets it decides"
