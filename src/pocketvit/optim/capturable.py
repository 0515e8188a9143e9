"""The base of Lion and Muon: an update that can be captured in a CUDA graph.

A replayed graph repeats the same kernels on the same memory, and Python does not run again. So whatever changes from
step to step must be in a tensor that keeps its place. The learning rate is a 0-dim tensor that the training loop
overwrites before each step; momenta are created once, as zeros, and changed only in place; no decision depends on
a tensor's value. The list operations (`torch._foreach_*`) update all parameters with a few kernels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from pocketvit.config.checks import Bounds, plain


def without_dynamo(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of PyTorch's optimizers behind a wrapper that keeps `torch.compile` out of it, if there is one.

    The wrapper loads PyTorch's compiler on first use, three to six seconds at the start of every run, even if
    nothing is compiled. Nothing here is ever compiled.
    """
    return getattr(method, "__wrapped__", method)


class CapturableOptimizer(Optimizer):
    """An optimizer whose learning rate and state are tensors that keep their place in memory.

    A subclass implements `_update`. All state tensors have the type of their parameter.

    Args:
        params: parameters, or groups of them, as in any `torch.optim.Optimizer`.
        lr: learning rate. A number becomes a 0-dim float32 tensor in each group's "lr"; a float32 tensor that is on
            the parameters' device is kept, so that several groups can share one.
        weight_decay: decoupled weight decay, multiplied by the learning rate when applied.
        cautious: decay a weight only where its update does not make it larger; see `descend`.
        hyper: other values that the subclass keeps in its groups.
    Raises:
        InputError: a negative learning rate or weight decay, or betas outside of [0, 1).
    """

    def __init__(
        self, params: ParamsT, lr: float | Tensor, weight_decay: float, *, cautious: bool = False, **hyper: Any
    ) -> None:
        Bounds(0).check("lr", float(lr))
        Bounds(0).check("weight_decay", weight_decay)
        for beta in hyper.get("betas", ()):
            Bounds(0, 1, open_right=True).check("betas", beta)
        hyper |= {"lr": lr, "weight_decay": weight_decay, "cautious": cautious}
        super().__init__(params, {name: plain(value) for name, value in hyper.items()})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, and put its learning rate on the device of its parameters."""
        without_dynamo(Optimizer.add_param_group)(self, param_group)
        group = self.param_groups[-1]
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=group["params"][0].device)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or make them zero."""
        without_dynamo(Optimizer.zero_grad)(self, set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient; returns the closure's loss, if there is a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._update(params, [param.grad for param in params], group)
        return loss

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a saved state into the tensors in use, so that a captured graph continues from it.

        State that the saved optimizer did not have, because it had not taken a step, becomes zero.
        """
        state_in_use, lr_in_use = self.state, [group["lr"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, lr in zip(self.param_groups, lr_in_use, strict=True):
            group["lr"] = lr.fill_(group["lr"])
            group.setdefault("cautious", False)  # PyTorch's own and older ones have none
        for param, tensors in state_in_use.items():
            loaded = self.state[param]
            for name, tensor in tensors.items():
                loaded[name] = tensor.copy_(loaded[name]) if name in loaded else tensor.zero_()

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        """Change `params` in place, given their gradients and the hyper-parameters of their group."""
        raise NotImplementedError

    def _buffers(self, params: list[Tensor], name: str) -> list[Tensor]:
        """The state tensor `name` of each parameter; zeros the first time."""
        for param in params:
            if name not in self.state[param]:
                self.state[param][name] = torch.zeros_like(param)
        return [self.state[param][name] for param in params]


def descend(
    params: list[Tensor],
    directions: list[Tensor] | tuple[Tensor, ...],
    lr: Tensor,
    weight_decay: float,
    cautious: bool = False,
) -> None:
    """params -= lr · (directions + weight_decay · params), in place; `directions` is used as scratch space.

    The decay is added to the direction before a single subtraction, so the parameters are rounded once per step; scaling them
    by 1 - lr · weight_decay first, as usual, would round them twice, and also that factor.

    Cautious decay leaves out the entries whose direction and parameter have opposite signs. Source: Chen et al. 2025,
    https://arxiv.org/abs/2510.12402

    """
    if weight_decay:
        decayed = agreeing(params, directions) if cautious else params
        torch._foreach_add_(directions, decayed, alpha=weight_decay)
    torch._foreach_mul_(directions, lr)
    torch._foreach_sub_(params, directions)


def agreeing(params: list[Tensor], directions: list[Tensor] | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The parameters, with zeros where the direction's sign is the opposite one."""
    kept = torch._foreach_sign(directions)
    torch._foreach_mul_(kept, torch._foreach_sign(params))  # -1, 0 or 1; a product of the numbers could underflow
    torch._foreach_add_(kept, 1)
    torch._foreach_clamp_max_(kept, 1)
    torch._foreach_mul_(kept, params)
    return kept
