"""Muon's orthogonalisation, and the arguments that Muon refuses."""

import pytest
import torch

from pocketvit.errors import InputError
from pocketvit.optim.muon import LR_ADJUSTMENTS, Muon, newton_schulz, orthogonalize


def matrices(*shapes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_singular_vectors_stay_and_values_come_near_one():
    matrix = matrices((16, 24))[0].double()
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    strengths = u.mT @ newton_schulz(matrix[None], 5, torch.float64)[0] @ vh.mT  # (n, n)
    assert values.max() / values.min() > 5
    assert 0.65 < strengths.diagonal().min() and strengths.diagonal().max() < 1.25
    torch.testing.assert_close(strengths, torch.diag(strengths.diagonal()), rtol=0, atol=1e-9)


def test_a_batch_equals_its_matrices_one_by_one():
    shapes = [(6, 4), (4, 6), (5, 5), (6, 4), (4, 6), (3, 7), (1, 1), (5, 5)]
    given = matrices(*shapes)
    kept = [matrix.clone() for matrix in given]
    together = orthogonalize(given, 5, torch.float32)
    for matrix, copy, result in zip(given, kept, together, strict=True):
        assert result.shape == matrix.shape and result.is_contiguous()
        torch.testing.assert_close(result, orthogonalize([matrix], 5, torch.float32)[0])
        assert torch.equal(matrix, copy)


def test_a_transposed_matrix_gives_the_transposed_result():
    matrix = matrices((6, 4))[0]
    upright, lying = orthogonalize([matrix, matrix.mT.contiguous()], 5, torch.float32)
    torch.testing.assert_close(upright, lying.mT)


def test_a_zero_gradient_gives_a_zero_step():
    assert not orthogonalize([torch.zeros(3, 4)], 5, torch.bfloat16)[0].any()


def test_results_keep_their_type():
    assert orthogonalize(matrices((3, 4)), 5, torch.bfloat16)[0].dtype == torch.float32


def test_lr_adjustments():
    assert LR_ADJUSTMENTS["original"](768, 192) == 2.0
    assert LR_ADJUSTMENTS["original"](192, 768) == 1.0
    assert LR_ADJUSTMENTS["match_rms_adamw"](100, 400) == pytest.approx(4.0)
    assert LR_ADJUSTMENTS["match_rms_adamw"](400, 100) == pytest.approx(4.0)


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"\(192, 3, 4, 4\).*2-D"):
        Muon([torch.nn.Parameter(torch.ones(192, 3, 4, 4))])


@pytest.mark.parametrize(
    ("name", "value"), [("momentum", 1.0), ("momentum", -0.1), ("ns_steps", 0), ("adjust_lr_fn", "orignal")]
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        Muon([torch.nn.Parameter(torch.ones(2, 2))], **{name: value})
