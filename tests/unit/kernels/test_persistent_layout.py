"""The order and form in which weights travel, sizes, and what blocks are covered: without a GPU."""

from dataclasses import replace

import pytest
import torch
from block_cases import Case, random_inputs
from interpreter import assert_green_in_the_interpreter, in_interpreter, natively
from torch import Tensor

from pocketvit.kernels.block_weights import BlockNorms, BlockWeights
from pocketvit.kernels.fold import fold_norm
from pocketvit.kernels.persistent import layout

PAPER = Case(2, 65, 192, 12, 2, 1, num_layers=2)


def test_a_block_of_threads_has_room():
    """227 KB of shared memory on a GPU of compute capability 9.0."""
    for tokens in layout.TOKENS:
        for kernel in (layout.FORWARD_KERNEL, layout.BACKWARD_KERNEL):
            assert kernel.shared_bytes(tokens) <= 227 * 1024


@pytest.mark.parametrize("images", [1, 2, 5, 128, 131, 132, 133, 256, 263, 264, 265, 300, 512, 1000, 1024, 2048])
def test_every_image_has_its_block_of_threads(images):
    pairs = layout.pairs_of(images, 132)
    blocks = images - pairs
    owned = [2 * b + i if b < pairs else pairs + b for b in range(blocks) for i in range(2 if b < pairs else 1)]
    assert sorted(owned) == list(range(images))
    assert -(-blocks // 132) == -(-images // 264), "no more rounds than in pairs"


def test_few_images_share_no_multiprocessor():
    assert layout.pairs_of(132, 132) == 0
    assert layout.pairs_of(256, 132) == 128
    assert layout.pairs_of(264 + 100, 132) == 132


def test_what_is_covered():
    plan = PAPER.plan
    for tokens in (49, 50, 64, 65, 72):
        assert layout.uncovered(tokens, plan) is None
    assert layout.uncovered(65, replace(plan, tanh=True, taken=65)) is None
    assert "tokens" in layout.uncovered(73, plan)
    assert "tokens" in layout.uncovered(48, plan)
    assert "width" in layout.uncovered(65, replace(plan, width=96))
    assert "MLP" in layout.uncovered(65, replace(plan, hidden_width=768))
    assert "heads" in layout.uncovered(65, replace(plan, num_heads=6))
    assert "heads" in layout.uncovered(65, replace(plan, num_kv_heads=1))
    assert "LayerNorm" in layout.uncovered(65, replace(plan, centred=False))


def swizzled(tile: Tensor) -> Tensor:
    """A sub-tile (64, 64) with the piece c of eight numbers of row r at piece c ^ (r % 8)."""
    out = torch.empty_like(tile)
    for r in range(64):
        for c in range(8):
            place = c ^ (r % 8)
            out[r, 8 * place : 8 * place + 8] = tile[r, 8 * c : 8 * c + 8]
    return out


def packed_plainly(w: BlockWeights) -> list[tuple[Tensor, Tensor | None]]:
    """Every tile's numbers (3, 64, 64) and biases (256,), written out in the order in which the kernels use them."""

    def rows(matrix, r, bias=None, branch=None):
        numbers = torch.stack([swizzled(matrix[r : r + 64, 64 * i : 64 * i + 64]) for i in range(3)])
        return numbers, None if bias is None else torch.cat([bias[r : r + 64], branch])

    def columns(matrix, c):
        return torch.stack([swizzled(matrix[64 * i : 64 * i + 64, c : c + 64]) for i in range(3)]), None

    tiles = []
    for qkv, b_qkv, proj, b_proj, fc1, b_fc1, fc2, b_fc2 in zip(*w, strict=True):
        for group in range(3):
            tiles += [rows(qkv, 192 * part + 64 * group, b_qkv, b_proj) for part in range(3)]
            tiles += [columns(proj, 64 * group)]
        for c in (0, 128, 256):
            tiles += [rows(fc1, c, b_fc1, b_fc2), rows(fc1, c + 64, b_fc1, b_fc2)]
            tiles += [columns(fc2, c), columns(fc2, c + 64)]
        for c in range(0, 384, 64):
            tiles += [rows(fc1, c, b_fc1, b_fc2), rows(fc2.T, c), columns(fc1.T, c)]
        tiles += [rows(proj.T, 64 * group) for group in range(3)]
        tiles += [columns(qkv.T, 192 * part + 64 * group) for group in (2, 0, 1) for part in range(3)]
    return tiles


@in_interpreter
def test_packed_weights():
    from pocketvit.kernels.persistent.blocks import pack

    """Of layers that lie apart, as in an optimizer's flat memory."""
    w = BlockWeights(*(t.bfloat16().float() for t in random_inputs(PAPER).weights))  # the interpreter does not round
    w = BlockWeights(*(torch.stack([t, torch.full_like(t, torch.nan)], 1)[:, 0] for t in w))
    tiles = pack(w).reshape(-1, layout.TILE_BYTES)
    wanted = packed_plainly(w)
    assert len(tiles) == len(wanted)
    for tile, (numbers, biases) in zip(tiles, wanted, strict=True):
        assert torch.equal(tile[: 3 * layout.SUB_TILE_BYTES].view(torch.bfloat16), numbers.bfloat16().flatten())
        if biases is not None:
            assert torch.equal(tile[3 * layout.SUB_TILE_BYTES :].view(torch.float32), biases)


def random_norms(width: int = 192) -> BlockNorms:
    """Of layers that lie apart, as in an optimizer's flat memory."""
    generator = torch.Generator().manual_seed(1)
    return BlockNorms(*(torch.randn(2, 3, width, generator=generator)[:, 1] for _ in range(4)))


@in_interpreter
def test_norms_are_merged_on_the_way_into_the_tiles():
    from pocketvit.kernels.persistent.blocks import pack

    w, norms = random_inputs(PAPER).weights, random_norms()
    merged = w._replace(
        w_qkv=w.w_qkv * norms.factor1[:, None],
        b_qkv=w.b_qkv + torch.einsum("lfd,ld->lf", w.w_qkv, norms.offset1),
        w_fc1=w.w_fc1 * norms.factor2[:, None],
        b_fc1=w.b_fc1 + torch.einsum("lfd,ld->lf", w.w_fc1, norms.offset2),
    )
    tiles = pack(w, norms).reshape(-1, layout.TILE_BYTES)
    for tile, (numbers, biases) in zip(tiles, packed_plainly(merged), strict=True):
        found = tile[: 3 * layout.SUB_TILE_BYTES].view(torch.bfloat16)
        torch.testing.assert_close(found.float(), numbers.flatten(), rtol=2**-7, atol=0)
        if biases is not None:
            found = tile[3 * layout.SUB_TILE_BYTES :].view(torch.float32)
            torch.testing.assert_close(found, biases, rtol=1e-5, atol=1e-5)


@in_interpreter
@pytest.mark.parametrize("in_place", [False, True])
def test_gradients_of_merged_weights_become_the_parameters(in_place):
    """Against autograd through the formulas in float64; in an array of gradients, and in memory of their own."""
    from pocketvit.kernels.persistent.blocks import unfold

    w, norms = random_inputs(PAPER).weights, random_norms()
    gap = 1000 if in_place else 0
    dw = BlockWeights(*(apart(torch.randn(t.shape, generator=torch.Generator().manual_seed(2)), gap) for t in w))
    leaves = [t.double().requires_grad_() for t in (w.w_qkv, norms.factor1, norms.offset1, w.w_fc1, norms.factor2,
                                                    norms.offset2)]  # fmt: skip
    outputs = [
        *fold_norm(leaves[0], w.b_qkv.double(), *leaves[1:3]),
        *fold_norm(leaves[3], w.b_fc1.double(), *leaves[4:]),
    ]
    wanted = torch.autograd.grad(outputs, leaves, [t.double() for t in (dw.w_qkv, dw.b_qkv, dw.w_fc1, dw.b_fc1)])
    kept = [t.clone() for t in (dw.b_qkv, dw.w_proj, dw.b_proj, dw.b_fc1, dw.w_fc2, dw.b_fc2)]
    dnorms = unfold(w, norms, dw)
    found = dw.w_qkv, dnorms.factor1, dnorms.offset1, dw.w_fc1, dnorms.factor2, dnorms.offset2
    for ours, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=2e-5)
    left = dw.b_qkv, dw.w_proj, dw.b_proj, dw.b_fc1, dw.w_fc2, dw.b_fc2
    assert all(torch.equal(a, b) for a, b in zip(left, kept, strict=True))


def apart(tensor: Tensor, gap: int) -> Tensor:
    """A tensor (L, ...) whose layers are contiguous, with NaN between them."""
    memory = torch.full((len(tensor), tensor[0].numel() + gap), torch.nan)
    place = memory[:, : tensor[0].numel()].view(tensor.shape)
    return place.copy_(tensor)


@natively
def test_packing_in_the_interpreter():
    assert_green_in_the_interpreter("unit/kernels/test_persistent_layout.py")
