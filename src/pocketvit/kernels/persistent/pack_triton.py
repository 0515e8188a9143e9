"""Write the weights of all layers as tiles, in the order of `layout.TILES`."""

import triton
import triton.language as tl

LAYERS = [f"{part}_{layer}_layer" for layer in ("qkv", "proj", "fc1", "fc2") for part in "wb"]


@triton.jit(do_not_specialize=LAYERS)
def pack_kernel(w_qkv, b_qkv, w_proj, b_proj, w_fc1, b_fc1, w_fc2, b_fc2,
                w_qkv_layer, b_qkv_layer, w_proj_layer, b_proj_layer, w_fc1_layer, b_fc1_layer, w_fc2_layer, b_fc2_layer,
                table, numbers, biases):  # fmt: skip
    """A tile per program: program (i, l) writes the i-th of layer l. A layer's tensors lie `…_layer` numbers behind those
    of the layer before it.

    table (tiles, 6) holds `Tile.entry`; numbers (L, tiles, ·) and biases (L, tiles, ·) are the same memory, as bf16 and as
    float32. Within a sub-tile, the eight numbers of piece c of row r lie at piece c ^ (r % 8).
    """
    tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    layer = tl.program_id(1)
    entry = table + tl.program_id(0) * 6
    weight, transposed, width = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)
    start, step, first = tl.load(entry + 3), tl.load(entry + 4), tl.load(entry + 5)
    w, own, branch = w_qkv + layer * w_qkv_layer, b_qkv + layer * b_qkv_layer, b_proj + layer * b_proj_layer
    if weight == 1:
        w = w_proj + layer * w_proj_layer
    elif weight == 2:
        w, own, branch = w_fc1 + layer * w_fc1_layer, b_fc1 + layer * b_fc1_layer, b_fc2 + layer * b_fc2_layer
    elif weight == 3:
        w = w_fc2 + layer * w_fc2_layer
    down = tl.arange(0, 64)[:, None]
    right = tl.arange(0, 64)[None, :]
    for i in tl.static_range(3):
        x = tl.load(w + start + i * step + down * width + right)
        if transposed != 0:
            x = tl.trans(x)
        to = tile * 12800 + i * 4096 + down * 64 + ((right // 8) ^ (down % 8)) * 8 + right % 8
        tl.store(numbers + to, x.to(numbers.dtype.element_ty))
    if (weight == 0 or weight == 2) and transposed == 0:
        at = tl.arange(0, 256)
        of_rows = tl.load(own + first + at, mask=at < 64, other=0.0)
        of_branch = tl.load(branch + at - 64, mask=at >= 64, other=0.0)
        tl.store(biases + tile * 6400 + 6144 + at, of_rows + of_branch)
