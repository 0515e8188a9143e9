"""What runs were trained on: the times of different hardware are not to be mixed into one mean."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_THREADS = re.compile(r" \(\d+ threads?\)$")


class Hardware(NamedTuple):
    """What a number of runs were trained on."""

    usual: str | None
    """That of most of them, as `machine` names it; of several the first run's. None without a run."""
    others: dict[str, int]
    """How many were trained on anything else, by what that was."""

    def counts(self, result: Mapping[str, Any] | None) -> bool:
        """Whether a run's times and memory count beside the others': it is there, and was trained on the usual hardware."""
        return result is not None and machine(result) == self.usual

    def said_of_others(self) -> str:
        """The others in words."""
        return ", ".join(f"{n} on {name}" for name, n in self.others.items())


def hardware(results: Iterable[Mapping[str, Any]]) -> Hardware:
    """Count what runs were trained on, given what is in their result.json."""
    counted = Counter(map(machine, results))
    (usual, _), *others = counted.most_common() or [(None, 0)]
    return Hardware(usual, dict(others))


def device(result: Mapping[str, Any]) -> str:
    """What a run was trained on, with the number of GPUs if there were several."""
    number = result.get("num_gpus") or 0
    return (f"{number} × " if number > 1 else "") + str(result.get("device"))


def machine(result: Mapping[str, Any]) -> str:
    """The device alone: without its number, and without the threads, of which a small model takes fewer."""
    return _THREADS.sub("", str(result.get("device")))
