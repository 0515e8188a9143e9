"""Lion refuses what it cannot use; its arithmetic is tested in tests/reference."""

import pytest
import torch

from pocketvit.errors import InputError
from pocketvit.optim.lion import Lion


@pytest.mark.parametrize("betas", [(1.0, 0.99), (0.9, -0.1), (0.9, float("nan"))])
def test_betas_out_of_range_are_refused(betas):
    with pytest.raises(InputError, match="betas"):
        Lion([torch.nn.Parameter(torch.ones(2))], lr=0.1, betas=betas)
