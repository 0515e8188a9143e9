"""What Python and the CUDA sources share: the order of weight tiles, and sizes in bytes.

A tile is a 64 × 192 piece of a weight W or of its transpose ("rows"), or a 192 × 64 piece ("columns"): three sub-tiles of
64 × 64 in bf16, behind which lie 64 biases of a tile's rows and the 192 biases of what its branch of the block returns, in
float32. The kernels take the tiles of a layer one after the other, so their order in memory is that of their use.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pocketvit.kernels.attention import SOFTMAX
from pocketvit.kernels.block_weights import BlockPlan

WIDTH, HIDDEN_WIDTH, NUM_HEADS = 192, 384, 12
TOKENS = range(49, 73)  # numbers of tokens that there are kernels for: 7 to 9 groups of eight
SUB_TILE_BYTES = 64 * 64 * 2
TILE_BYTES = 3 * SUB_TILE_BYTES + 256 * 4
STAGES = 3  # tiles in shared memory at a time
QKV, PROJ, FC1, FC2 = range(4)
COLUMNS = (WIDTH, WIDTH, WIDTH, HIDDEN_WIDTH)  # of the four weights of a layer


class Tile(NamedTuple):
    """Where a tile lies in a weight."""

    weight: int
    transposed: bool  # it is a piece of the weight's transpose
    row: int  # first row, of the transpose if it is one
    column: int
    rows: bool  # 64 × 192; else 192 × 64

    def entry(self) -> tuple[int, ...]:
        """For the packing kernel: weight, transposed, columns, place of the first number, distance of sub-tiles, row."""
        down, right = (1, COLUMNS[self.weight]) if self.transposed else (COLUMNS[self.weight], 1)
        step = 64 * (right if self.rows else down)
        return self.weight, self.transposed, COLUMNS[self.weight], self.row * down + self.column * right, step, self.row


def rows(weight: int, row: int, transposed: bool = False) -> Tile:
    """64 rows of all 192 columns."""
    return Tile(weight, transposed, row, 0, True)


def columns(weight: int, column: int, transposed: bool = False) -> Tile:
    """All 192 rows of 64 columns."""
    return Tile(weight, transposed, 0, column, False)


def forward_tiles() -> list[Tile]:
    """A layer's, as `forward.cu` takes them."""
    tiles = []
    for heads in range(0, WIDTH, 64):
        tiles += [rows(QKV, part * WIDTH + heads) for part in range(3)] + [columns(PROJ, heads)]
    for hidden in range(0, HIDDEN_WIDTH, 128):
        pair = hidden, hidden + 64
        tiles += [rows(FC1, h) for h in pair] + [columns(FC2, h) for h in pair]
    return tiles


def backward_tiles() -> list[Tile]:
    """A layer's, as `backward.cu` takes them."""
    tiles = []
    for hidden in range(0, HIDDEN_WIDTH, 64):
        tiles += [rows(FC1, hidden), rows(FC2, hidden, transposed=True), columns(FC1, hidden, transposed=True)]
    tiles += [rows(PROJ, heads, transposed=True) for heads in range(0, WIDTH, 64)]
    for heads in (128, 0, 64):  # the last heads' gradients are still in shared memory
        tiles += [columns(QKV, part * WIDTH + heads, transposed=True) for part in range(3)]
    return tiles


TILES = [*forward_tiles(), *backward_tiles()]  # of a layer, as they lie in memory
BACKWARD = len(forward_tiles())  # the first of backward's


def shared_bytes(num_tokens: int, chunks: int, factors: int, barriers: int) -> int:
    """Shared memory of a block of threads that takes two images.

    Args:
        num_tokens: N of an image.
        chunks: of an image, (N rounded up to eights, 64) each.
        factors: numbers that a norm keeps of a token.
        barriers: of an image, beside those of the ring of tiles.
    """
    padded = -(-num_tokens // 8) * 8
    image = chunks * padded * 128 + (8 + factors) * padded * 4 + barriers * 8
    return STAGES * (TILE_BYTES + 2 * 8) + 2 * image


class Kernel(NamedTuple):
    """One of the three kernels."""

    source: str
    name: str
    threads: int  # of a block
    shared_bytes: Callable[[int], int]  # shared memory of a block, given the number of tokens of an image


FORWARD_KERNEL = Kernel("forward.cu", "vit_forward", 384, partial(shared_bytes, chunks=7, factors=2, barriers=0))
BACKWARD_KERNEL = Kernel("backward.cu", "vit_backward", 384, partial(shared_bytes, chunks=8, factors=4, barriers=6))
WEIGHTS_KERNEL = Kernel("weights.cu", "vit_weights", 512, lambda _: 4 * (6 * BOX_TOKENS * 128 + 2 * 8) + 12 * 64 * 4)
BOX_TOKENS = 64  # tokens that the weights' gradients take at a time


def steps_of(num_images: int, num_tokens: int, taken: int, num_layers: int) -> int:
    """Of the weights' gradients: BOX_TOKENS tokens of a tile each."""
    whole, last = (-(-num_images * tokens // BOX_TOKENS) for tokens in (num_tokens, taken))
    return (8 * num_layers - 5) * whole + 5 * last


def pairs_of(num_images: int, multiprocessors: int) -> int:
    """How many blocks of threads take two images; the others take one, which is faster where all fit at once.

    A block of threads fills a multiprocessor. Two images in one take less than twice the time of one.
    """
    rounds = num_images // (2 * multiprocessors)
    left = num_images - 2 * multiprocessors * rounds
    return rounds * multiprocessors + (left // 2 if left > multiprocessors else 0)


def uncovered(num_tokens: int, plan: BlockPlan) -> str | None:
    """None if the kernels support such blocks; else the reason why not."""
    if (plan.width, plan.hidden_width) != (WIDTH, HIDDEN_WIDTH):
        sizes = f"a width of {WIDTH} and an MLP of {HIDDEN_WIDTH}, not {plan.width} and {plan.hidden_width}"
        return f"the persistent kernels are made for {sizes}"
    if (plan.num_heads, plan.num_kv_heads) != (NUM_HEADS, NUM_HEADS):
        return f"the persistent kernels are made for {NUM_HEADS} heads with keys of their own"
    if plan.mixer is not SOFTMAX:
        return "the persistent kernels are made for softmax attention"
    if not plan.centred:
        return "the persistent kernels are made for LayerNorm"
    if num_tokens not in TOKENS:
        return f"the persistent kernels are made for {TOKENS.start} to {TOKENS.stop - 1} tokens, not {num_tokens}"
    return None
