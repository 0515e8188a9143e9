"""User-defined optimizers, tested on two small parameters before they get the model's.

They must meet the requirements of a captured training step (see `capturable`): take the learning rate from a tensor
that changes, and keep all state in tensors that keep their place (docs/own-idea.md).
"""

from typing import Any

import torch
from torch import Tensor

from pocketvit.config import OptimConfig
from pocketvit.errors import InputError
from pocketvit.optim.state import create_state
from pocketvit.randomness import seeded
from pocketvit.usercode import Code

START = 0.5
PROBE_LR = 0.01


def make_optimizer(code: Code, groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    """The user's optimizer, with its groups.

    Raises:
        InputError: it is not an optimizer, or has lost a parameter or the learning rate of a group.
    """
    given = {id(parameter) for group in groups for parameter in group["params"]}
    optimizer = code.call(groups=groups, config=config)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"{code} makes a {type(optimizer).__name__}; it must make a torch.optim.Optimizer")
    kept = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    if set(kept) != given or len(kept) != len(given):
        raise InputError(f"{code} updates {len(kept)} parameters of {len(given)}; it must take all groups as they are")
    for group in optimizer.param_groups:
        if "peak_lr" not in group or not isinstance(group["lr"], Tensor):
            raise InputError(f"{code} replaces the groups' lr or peak_lr; it must take all groups as they are")
    return optimizer


class _Trial:
    """The user's optimizer on a matrix and a vector."""

    def __init__(self, code: Code, config: OptimConfig) -> None:
        self.code = code
        self.parameters = [torch.full((4, 3), START), torch.full((4,), START)]
        group = {"params": self.parameters, "lr": torch.zeros(()), "peak_lr": config.lr}
        self.optimizer = make_optimizer(code, [group | {"weight_decay": config.weight_decay}], config)
        self.lr = self.optimizer.param_groups[0]["lr"]

    def step(self, lr: float) -> dict[tuple[int, str], int]:
        """Take a step, always with the same random numbers; returns the address of each tensor of the optimizer's `state`."""
        self.lr.fill_(lr)
        for parameter in self.parameters:
            parameter.grad = torch.linspace(-1, 2, parameter.numel()).reshape(parameter.shape)
        with seeded(0):
            self.code.guard(self.optimizer.step, "fails in step()")
        state = self.optimizer.state
        if any(all(key is not parameter for parameter in self.parameters) for key in state):
            raise InputError(
                f"{self.code} has an entry in self.state that belongs to no parameter; keep state per parameter"
            )
        found = {(i, name): value for i, p in enumerate(self.parameters) for name, value in state[p].items()}
        for (_, name), value in found.items():
            if not isinstance(value, Tensor):
                raise InputError(f"{self.code} keeps {name!r} as a {type(value).__name__}; keep it in a tensor")
        return {key: value.data_ptr() for key, value in found.items()}

    def moved(self) -> bool:
        """Whether any weight has changed since the start."""
        return any((parameter != START).any() for parameter in self.parameters)


@torch.no_grad()
def check_optimizer(code: Code, config: OptimConfig) -> None:
    """Test some steps on a matrix and a vector.

    Raises:
        InputError: it fails, moves at learning rate 0 or not at all, or its state is not in fixed tensors
            of `state` that start at zero.
    """
    trial = _Trial(code, config)
    places = trial.step(lr=0.0)
    if trial.moved():
        raise InputError(f"{code} moves weights at learning rate 0; multiply its steps by group['lr'], a tensor")
    if trial.step(PROBE_LR) != places or trial.step(PROBE_LR) != places:
        raise InputError(f"{code} makes new state tensors in later steps; change those of the first step in place")
    if not all(parameter.isfinite().all() for parameter in trial.parameters):
        raise InputError(f"{code} makes weights that are not finite")
    if not trial.moved():
        raise InputError(f"{code} does not move the weights; change them in place, by group['lr']")
    _check_resumes(trial, config)
    _check_starts(code, config)


def _check_starts(code: Code, config: OptimConfig) -> None:
    """Refuse an optimizer that starts differently if its state already exists, at zero, as in a run."""
    begun, fresh = (_Trial(code, config) for _ in range(2))
    create_state([begun.optimizer])
    _check_step(
        begun,
        fresh,
        "has state that does not start at zero, or counts the step at learning rate 0 that a run begins with; keep all "
        "state in tensors of self.state[parameter] that start at zero",
    )


def _check_resumes(trial: _Trial, config: OptimConfig) -> None:
    """Refuse an optimizer that continues differently from a checkpoint, which only has the weights and `state`."""
    resumed = _Trial(trial.code, config)
    create_state([resumed.optimizer])
    for new, old in zip(resumed.parameters, trial.parameters, strict=True):
        new.copy_(old)
        for name, value in resumed.optimizer.state[new].items():
            value.copy_(trial.optimizer.state[old][name])
    _check_step(
        resumed,
        trial,
        "continues differently in a resumed run, which only has its self.state[parameter]; keep all state there, "
        "in tensors",
    )


def _check_step(a: _Trial, b: _Trial, why: str) -> None:
    """Refuse an optimizer whose next step does not bring two trials to the same weights, with the reason."""
    a.step(PROBE_LR)
    b.step(PROBE_LR)
    if not all(map(torch.equal, a.parameters, b.parameters)):
        raise InputError(f"{a.code} {why}")
