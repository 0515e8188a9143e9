"""PyTorch's AdamW without the wrapper that keeps `torch.compile` (Dynamo) out of it, and with cautious decay."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from pocketvit.config import OptimConfig
from pocketvit.optim.build import param_groups
from pocketvit.optim.capturable import agreeing, without_dynamo

STEP = torch.no_grad()(without_dynamo(torch.optim.AdamW.step))


class AdamW(torch.optim.AdamW):
    """PyTorch's AdamW, with the same numbers.

    A group's `cautious_decay`, if it has one, is a weight decay for the entries that agree with their update in sign;
    see `pocketvit.optim.capturable.descend`. Its `weight_decay` is for all entries.
    """

    add_param_group = without_dynamo(Optimizer.add_param_group)
    zero_grad = without_dynamo(Optimizer.zero_grad)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the closure's loss, if there is a closure."""
        cautious = [group for group in self.param_groups if group.get("cautious_decay")]
        before = [[param.clone() for param in group["params"]] for group in cautious]
        loss = STEP(self, closure)
        for group, params in zip(cautious, before, strict=True):
            momenta = [self.state[param]["exp_avg"] for param in group["params"]]  # an update has their signs
            decayed = agreeing(params, momenta)
            torch._foreach_mul_(decayed, group["lr"] * group["cautious_decay"])
            torch._foreach_sub_(group["params"], decayed)
        return loss


def build(
    config: OptimConfig,
    named: dict[str, nn.Parameter],
    scales: Mapping[str, float],
    *,
    fused: bool,
    kind: type[torch.optim.Adam] = AdamW,
) -> list[Optimizer]:
    """AdamW or Adam for these parameters, on a GPU by one kernel if wanted."""
    groups, betas = param_groups(config, named, config.lr, scales), config.betas or (0.9, 0.999)
    if fused:
        from pocketvit.optim import flat  # needs Triton

        flat_kind = getattr(flat, kind.__name__)
        return [flat_kind(groups, lr=0.0, betas=betas, cautious=config.cautious_decay)]
    if config.cautious_decay:
        groups = [group | {"cautious_decay": group["weight_decay"], "weight_decay": 0.0} for group in groups]
    on_cuda = next(iter(named.values())).is_cuda
    return [kind(groups, betas=betas, fused=True, capturable=on_cuda)]
