"""AdamW without PyTorch's compile wrappers against PyTorch's own."""

import copy

import pytest
import torch
from torch import nn

from pocketvit.optim.adamw import AdamW, without_dynamo

STEPS = 5


@pytest.mark.parametrize("values", [{}, {"fused": True}, {"weight_decay": 0.3, "betas": (0.8, 0.95)}], ids=str)
def test_adamw_is_pytorchs_bit_for_bit(values):
    start = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate([(7, 5), (5,)])]
    results = []
    for kind in (AdamW, torch.optim.AdamW):
        params = [nn.Parameter(tensor.clone()) for tensor in start]
        optimizer = kind([{"params": params[:1], "lr": 0.02}, {"params": params[1:]}], lr=0.01, **values)
        for step in range(STEPS):
            sum((step + 1) * (param**2).sum() for param in params).backward()
            optimizer.step()
            optimizer.zero_grad()
            assert all(param.grad is None for param in params)
        results.append((params, copy.deepcopy(optimizer.state_dict())))
    (ours, our_state), (theirs, their_state) = results
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    torch.testing.assert_close(our_state["state"], their_state["state"], rtol=0, atol=0)
    assert our_state["param_groups"] == their_state["param_groups"]


def test_there_are_wrappers_to_go_behind():
    """Else this whole module could be deleted."""
    for method in (torch.optim.Optimizer.add_param_group, torch.optim.Optimizer.zero_grad, torch.optim.AdamW.step):
        assert without_dynamo(method) is not method
    assert without_dynamo(test_there_are_wrappers_to_go_behind) is test_there_are_wrappers_to_go_behind
