"""The kernel of `BatchMaker.fused`, whose reference is `BatchMaker.finish` on a batch taken before."""

import triton
import triton.language as tl


@triton.jit
def _pixels(images, boxes, means, stds, image, row, column, channel, live,
            HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """Some numbers of an image, normalized, and the channel's mean inside the image's box."""
    at = ((image * HEIGHT + row) * WIDTH + column) * CHANNELS + channel
    mean = tl.load(means + channel, mask=live, other=0.0)
    x = tl.load(images + at, mask=live, other=0).to(tl.float32) / 255.0
    x = (x - mean) / tl.load(stds + channel, mask=live, other=1.0)
    top, left = tl.load(boxes + image * 4), tl.load(boxes + image * 4 + 1)
    bottom, right = top + tl.load(boxes + image * 4 + 2), left + tl.load(boxes + image * 4 + 3)
    inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    return tl.where(inside, mean, x)


@triton.jit
def batch_kernel(images, labels, boxes, mix, position, means, stds, out, targets, B,
                 HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, CLASSES: tl.constexpr,
                 CLASSES_PADDED: tl.constexpr, SMOOTHING: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """BLOCK numbers of one mixed image per program; its target is left to the image's first program."""
    j = tl.program_id(0)
    step = tl.load(position)
    own, partner = step * B + j, step * B + B - 1 - j
    mix += step * 7
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = at < CHANNELS * HEIGHT * WIDTH
    channel, row, column = at // (HEIGHT * WIDTH), at // WIDTH % HEIGHT, at % WIDTH
    x = _pixels(images, boxes, means, stds, own, row, column, channel, live, HEIGHT, WIDTH, CHANNELS)
    y = _pixels(images, boxes, means, stds, partner, row, column, channel, live, HEIGHT, WIDTH, CHANNELS)
    in_rows = (row >= tl.load(mix + 2)) & (row < tl.load(mix + 3))
    in_columns = (column >= tl.load(mix + 4)) & (column < tl.load(mix + 5))
    keep = tl.where(in_rows & in_columns, tl.load(mix), tl.load(mix + 1))
    mixed = keep * x + (1 - keep) * y
    tl.store(out + j.to(tl.int64) * (CHANNELS * HEIGHT * WIDTH) + at, mixed.to(out.dtype.element_ty), mask=live)
    if tl.program_id(1) == 0:
        k = tl.arange(0, CLASSES_PADDED)
        share = tl.load(mix + 6)
        mine = tl.where(k == tl.load(labels + own), 1 - SMOOTHING, 0.0) + SMOOTHING / CLASSES
        theirs = tl.where(k == tl.load(labels + partner), 1 - SMOOTHING, 0.0) + SMOOTHING / CLASSES
        tl.store(targets + j * CLASSES + k, share * mine + (1 - share) * theirs, mask=k < CLASSES)
