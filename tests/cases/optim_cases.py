"""The optimizers by name, and kernels of the flat ones against plain ones in float64, on memory that goes on behind them."""

import typing

import torch
from poison import poisoned_memory
from torch import Tensor, nn

from pocketvit.config import OptimConfig
from pocketvit.optim.lion import Lion

NAMES: tuple[str, ...] = typing.get_args(typing.get_args(typing.get_type_hints(OptimConfig)["name"])[0])
"""The values of `optim.name`, without the user's own."""

PLAIN = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "lion": Lion}
BEHIND = 2048
"""Numbers behind the flat arrays that must stay as they are; a program of the kernels takes 1,024."""
STEPS = 4


def lr_at(step: int) -> float:
    return 0.01 / (1 + step)


def assert_equals_float64(
    name: str, size: int, betas: tuple[float, float], weight_decay: float, device: str = "cpu", seed: int = 0
) -> None:
    """Steps on `size` numbers equal those of the plain optimizer in float64, and nothing behind them is touched."""
    from pocketvit.optim import flat  # needs Triton

    generator = torch.Generator().manual_seed(seed)
    start, *grads = (torch.randn(size, generator=generator) for _ in range(1 + STEPS))
    reference = nn.Parameter(start.double())
    theirs = PLAIN[name]([reference], lr=0.0, betas=betas, weight_decay=weight_decay)
    with poisoned_memory(device):
        ours = {"adamw": flat.AdamW, "adam": flat.Adam, "lion": flat.Lion}[name](
            [nn.Parameter(start.to(device))], lr=0.0, betas=betas, weight_decay=weight_decay
        )
        ((group,), ((_, moments),)) = ours.param_groups, ours._flat
        names = ("param", *moments)
        memory = {key: with_nan_behind(x) for key, x in zip(names, (start.to(device), *moments.values()), strict=True)}
        inside = {key: x[:size] for key, x in memory.items()}
        for step, grad in enumerate(grads):
            set_lr(theirs, lr_at(step))
            set_lr(ours, lr_at(step))
            reference.grad = grad.double()
            theirs.step()
            ours._update_flat(
                inside["param"], with_nan_behind(grad.to(device))[:size], {key: inside[key] for key in moments}, group
            )
    found = {key: x.double().cpu() for key, x in inside.items()}
    # The bias correction 1 − βᵗ keeps four digits in float32 where β is near 1.
    torch.testing.assert_close(found["param"], reference.detach(), rtol=1e-6, atol=1e-3 * lr_at(0))
    for key in moments:
        torch.testing.assert_close(found[key], theirs.state[reference][key], rtol=1e-5, atol=1e-6)
    assert (found["param"] - start).abs().max() > 0.02 * lr_at(0), "it has moved by far more than the tolerance"
    assert all(x[size:].isnan().all() for x in memory.values()), "written behind the last number"


def with_nan_behind(x: Tensor) -> Tensor:
    """A copy of x (size,) followed by NaN in the same memory, (size + BEHIND,)."""
    return torch.cat([x, torch.full((BEHIND,), torch.nan, device=x.device)])


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Ours keep the learning rate in a tensor, torch's in a float."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
