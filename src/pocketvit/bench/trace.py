"""Evaluate a profiler's trace of a training step: the time of its phases, and its longest kernels.

A trace is the list of events that `torch.profiler` exports for Chrome and Perfetto. A phase is a range marked on the host
("data", and those of `TrainStep`). Work belongs to the phase in which the host launched it. On a GPU, work is kernels and
copies, each linked to its launch by a number; so a kernel of the backward pass counts as such, although autograd launches
it from another thread and it runs later. On the CPU, work is operators, without the time of the operators they call.
"""

import gzip
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PHASES = ("data", "forward", "backward", "optimizer")  # in the order of a step
OTHER = "other"  # the phase of work outside all ranges: counters, learning rates

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """One run of a kernel or of an operator."""

    name: str
    phase: str
    ms: float
    runs: float = 1.0  # less than one if several steps share it


@dataclass(frozen=True)
class Kernel:
    """All runs of a kernel, or of an operator on the CPU."""

    name: str
    phase: str  # the phase with most of its time
    ms: float  # of all runs together
    runs: float  # number of runs


def read_events(path: Path) -> list[Event]:
    """The events with a duration in a trace, a .json.gz file."""
    with gzip.open(path) as file:
        return [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]


def work_items(events: Sequence[Event]) -> list[Item]:
    """All work of the device: the GPU if it did any, else the CPU."""
    phase_at = _phases(events)
    launches = {
        event["args"]["correlation"]: event["ts"]
        for event in events
        if event.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in event["args"]
    }
    on_gpu = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    if on_gpu:
        asked = [launches.get(event["args"]["correlation"], event["ts"]) for event in on_gpu]
        return [Item(e["name"], phase_at(ts), e["dur"] / 1e3) for e, ts in zip(on_gpu, asked, strict=True)]
    operators = [event for event in events if event.get("cat") == "cpu_op"]
    return [Item(e["name"], phase_at(e["ts"]), us / 1e3) for e, us in zip(operators, _self_us(operators), strict=True)]


def _phases(events: Iterable[Event]) -> Callable[[float], str]:
    """A function from a time on the host to its phase."""
    ranges = sorted(
        (event["ts"], event["ts"] + event["dur"], event["name"])
        for event in events
        if event.get("cat") == "user_annotation" and event["name"] in PHASES
    )
    starts = [start for start, _, _ in ranges]

    def phase_at(ts: float) -> str:
        i = bisect_right(starts, ts) - 1
        return ranges[i][2] if i >= 0 and ts <= ranges[i][1] else OTHER

    return phase_at


def _self_us(operators: Sequence[Event]) -> list[float]:
    """Each operator's time without that of the operators it called, in microseconds."""
    self_us = [event["dur"] for event in operators]
    order = sorted(range(len(operators)), key=lambda i: (operators[i]["ts"], -operators[i]["dur"]))
    open_calls: dict[Any, list[int]] = defaultdict(list)
    for i in order:
        event, callers = operators[i], open_calls[operators[i]["tid"]]
        while callers and operators[callers[-1]]["ts"] + operators[callers[-1]]["dur"] <= event["ts"]:
            callers.pop()
        if callers:
            self_us[callers[-1]] -= event["dur"]
        callers.append(i)
    return self_us


def phase_ms(items: Iterable[Item]) -> dict[str, float]:
    """The work of each phase, in order, in milliseconds."""
    total: dict[str, float] = dict.fromkeys((*PHASES, OTHER), 0.0)
    for item in items:
        total[item.phase] += item.ms
    return total


def kernels(items: Iterable[Item]) -> list[Kernel]:
    """The work by kernel, the longest first."""
    by_name: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_name[item.name].append(item)
    found = []
    for name, items in by_name.items():
        by_phase = phase_ms(items)
        runs = sum(item.runs for item in items)
        found.append(Kernel(name, max(by_phase, key=by_phase.__getitem__), sum(by_phase.values()), runs))
    return sorted(found, key=lambda kernel: -kernel.ms)
