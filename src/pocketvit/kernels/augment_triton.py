"""The Triton kernel behind `pocketvit.augment.augment`: one operation on every image of a pass, equal to Pillow's.

One program owns an image. Its row of the table says which operation it gets, so a branch never divides a warp, and
images that get different operations need not be sorted. A new level is a function of the source image, the operation
and its argument; only contrast (the mean), autocontrast and equalize (the histograms) look at the whole image first.
What an operation reads, it reads from the image as it is after flip and crop, which are only arithmetic on the
address. So moving and the first operation are one launch, and each further operation is another one: a program
cannot index its own registers, and memory between two launches is cheap beside a training step.

The arithmetic is that of the reference, `pocketvit.augment.pillow_ops`, step by step: float32 for Pillow's C floats, float64
for its doubles, 16.16 fixed point for rotation, whole numbers elsewhere. It must be compiled without fused
multiply-adds, which round once where Pillow rounds twice.

An image is taken as a row of H·W·3 bytes, `BLOCK` of them at a time. `moved` is how to read it: a pointer to its
first byte, whether it is mirrored, and by how many rows and columns the crop is off the center.

Shapes: B images, H W pixels; the three colors come last.
"""

import triton
import triton.language as tl

SHEAR_X = tl.constexpr(1)
SHEAR_Y = tl.constexpr(2)
TRANSLATE_X = tl.constexpr(3)
TRANSLATE_Y = tl.constexpr(4)
ROTATE = tl.constexpr(5)
COLOR = tl.constexpr(6)
CONTRAST = tl.constexpr(7)
BRIGHTNESS = tl.constexpr(8)
SHARPNESS = tl.constexpr(9)
POSTERIZE = tl.constexpr(10)
SOLARIZE = tl.constexpr(11)
AUTOCONTRAST = tl.constexpr(12)
EQUALIZE = tl.constexpr(13)
INVERT = tl.constexpr(14)

FILL = tl.constexpr(128)  # the gray level of pixels outside the source image


@triton.jit
def _read(moved, y, x, color, H: tl.constexpr, W: tl.constexpr):
    """Levels at row y and column x of the flipped and cropped image, int32; black where the crop left the image."""
    image, flip, down, right = moved
    row = y + down
    column = x + right
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
    column = tl.where(flip != 0, W - 1 - column, column)
    return tl.load(image + (row * W + column) * 3 + color, mask=inside, other=0).to(tl.int32)


@triton.jit
def _luma(moved, y, x, H: tl.constexpr, W: tl.constexpr):
    """Pillow's conversion to gray in 16-bit fixed point, int32."""
    red = _read(moved, y, x, 0, H, W)
    green = _read(moved, y, x, 1, H, W)
    blue = _read(moved, y, x, 2, H, W)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


# --- What needs the whole image. ---


@triton.jit
def _mean_luma(moved, H: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr):
    """The image's mean luma, rounded half up."""
    total = tl.zeros([BLOCK], tl.int32)
    for start in range(0, H * W, BLOCK):
        pixel = start + tl.arange(0, BLOCK)
        total += tl.where(pixel < H * W, _luma(moved, pixel // W, pixel % W, H, W), 0)
    return (2 * tl.sum(total, 0) + H * W) // (2 * H * W)


@triton.jit
def _histograms(moved, H: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr):
    """How often each level occurs in each color, int32, (4, 256); the fourth row is for what is past the end."""
    counts = tl.zeros([1024], tl.int32)
    for start in range(0, H * W * 3, BLOCK):
        byte = start + tl.arange(0, BLOCK)
        level = _read(moved, byte // (W * 3), byte // 3 % W, byte % 3, H, W)
        counts += tl.histogram(tl.where(byte < H * W * 3, byte % 3 * 256 + level, 1023), 1024)
    return tl.reshape(counts, [4, 256])


@triton.jit
def _stretched(counts):
    """Autocontrast's new levels, int32, (4, 256): the darkest becomes 0 and the brightest 255."""
    level = tl.arange(0, 256)[None, :]
    low = tl.min(tl.where(counts > 0, level, 255), 1)[:, None]
    high = tl.max(tl.where(counts > 0, level, 0), 1)[:, None]
    scale = 255.0 / tl.maximum(high - low, 1).to(tl.float64)
    new = level.to(tl.float64) * scale - low.to(tl.float64) * scale
    return tl.where(high > low, tl.minimum(tl.maximum(new, 0.0), 255.0).to(tl.int32), level)


@triton.jit
def _equalized(counts, PIXELS: tl.constexpr):
    """Equalize's new levels, int32, (4, 256): each is about as frequent as the others."""
    level = tl.arange(0, 256)[None, :]
    high = tl.max(tl.where(counts > 0, level, 0), 1)[:, None]
    brightest = tl.sum(tl.where(level == high, counts, 0), 1)[:, None]
    step = (PIXELS - brightest) // 255
    below = tl.cumsum(counts, 1) - counts
    new = tl.minimum((step // 2 + below) // tl.maximum(step, 1), 255)
    return tl.where(step > 0, new, level)


# --- New levels, of a block of bytes: color `color` at row y and column x. ---


@triton.jit
def _sheared(moved, op, factor, y, x, color, H: tl.constexpr, W: tl.constexpr):
    """Shear: four taps of Pillow's bicubic interpolation along the axis that moves, in float64."""
    sideways = op == SHEAR_X
    along = tl.where(sideways, x, y)
    across = tl.where(sideways, y, x)
    length = tl.where(sideways, W, H)
    source = (along.to(tl.float64) + 0.5) + factor * (across.to(tl.float64) + 0.5)
    inside = (source >= 0.0) & (source < length.to(tl.float64))
    source -= 0.5
    left = tl.floor(source)
    t = source - left
    tap = left.to(tl.int32)
    a = _tap(moved, sideways, tap - 1, length, y, x, color, H, W)
    b = _tap(moved, sideways, tap, length, y, x, color, H, W)
    c = _tap(moved, sideways, tap + 1, length, y, x, color, H, W)
    d = _tap(moved, sideways, tap + 2, length, y, x, color, H, W)
    new = t * (b - a + d - c).to(tl.float64)
    new = (new + (2 * (a - b) + c - d).to(tl.float64)) * t
    new = (new + (c - a).to(tl.float64)) * t
    new = tl.minimum(tl.maximum(new + b.to(tl.float64), 0.0), 255.0)
    return tl.where(inside, new.to(tl.int32), FILL)


@triton.jit
def _tap(moved, sideways, tap, length, y, x, color, H: tl.constexpr, W: tl.constexpr):
    """The level at place `tap` of the pixel's own row or column, or at the nearest end."""
    tap = tl.minimum(tl.maximum(tap, 0), length - 1)
    return _read(moved, tl.where(sideways, y, tap), tl.where(sideways, tap, x), color, H, W)


@triton.jit
def _shifted(moved, op, pixels, y, x, color, H: tl.constexpr, W: tl.constexpr):
    """Translation: the nearest pixel at a distance that may be a fraction."""
    sideways = op == TRANSLATE_X
    length = tl.where(sideways, W, H)
    source = tl.floor((tl.where(sideways, x, y).to(tl.float64) + 0.5) + pixels).to(tl.int32)
    new = _read(moved, tl.where(sideways, y, source), tl.where(sideways, source, x), color, H, W)
    return tl.where((source >= 0) & (source < length), new, FILL)


@triton.jit
def _fixed_point(number):
    """A number in units of 1/65536, rounded half up."""
    return tl.floor(number * 65536.0 + 0.5).to(tl.int32)


@triton.jit
def _rotated(moved, cos, sin, y, x, color, H: tl.constexpr, W: tl.constexpr):
    """Rotation about the center: the nearest pixel, found in Pillow's steps of 1/65536 pixel."""
    x0 = _fixed_point(cos * (0.5 - W / 2) + sin * (0.5 - H / 2) + W / 2)
    y0 = _fixed_point(cos * (0.5 - H / 2) - sin * (0.5 - W / 2) + H / 2)
    column = (x0 + _fixed_point(cos) * x + _fixed_point(sin) * y) >> 16
    row = (y0 + _fixed_point(-sin) * x + _fixed_point(cos) * y) >> 16
    inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
    return tl.where(inside, _read(moved, row, column, color, H, W), FILL)


@triton.jit
def _smoothed(moved, y, x, color, H: tl.constexpr, W: tl.constexpr):
    """The kernel (1 1 1, 1 5 1, 1 1 1) / 13, rounded; border pixels as they are."""
    level = _read(moved, y, x, color, H, W)
    total = 4 * level
    for down in tl.static_range(-1, 2):
        for right in tl.static_range(-1, 2):
            total += _read(moved, y + down, x + right, color, H, W)
    border = (y == 0) | (y == H - 1) | (x == 0) | (x == W - 1)
    return tl.where(border, level, (2 * total + 13) // 26)


@triton.jit
def _enhanced(moved, op, factor, grey, y, x, color, H: tl.constexpr, W: tl.constexpr):
    """Blend with an image that lacks the property, in float32; `grey` is the mean gray for contrast, and 0 for brightness."""
    start = tl.zeros_like(x) + grey
    if op == COLOR:
        start = _luma(moved, y, x, H, W)
    elif op == SHARPNESS:
        start = _smoothed(moved, y, x, color, H, W)
    difference = (_read(moved, y, x, color, H, W) - start).to(tl.float32)
    new = difference * factor.to(tl.float32) + start.to(tl.float32)
    return tl.minimum(tl.maximum(new, 0.0), 255.0).to(tl.int32)


@triton.jit
def _relevelled(moved, op, value, table, y, x, color, H: tl.constexpr, W: tl.constexpr):
    """Posterize, solarize, invert, or look up in `table`, (1024,); or no operation."""
    level = _read(moved, y, x, color, H, W)
    if op == POSTERIZE:
        lost = 8 - value.to(tl.int32)
        level = (level >> lost) << lost
    elif op == SOLARIZE:
        level = tl.where(level < tl.ceil(value).to(tl.int32), level, 255 - level)
    elif op == INVERT:
        level = 255 - level
    elif (op == AUTOCONTRAST) | (op == EQUALIZE):
        level = tl.gather(table, color * 256 + level, 0)
    return level


@triton.jit
def stage_kernel(images, out, words, numbers, H: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr):
    """Give image b of `images`, uint8 (B, H, W, 3), what row b of the table says, and write it to `out`.

    A row is `pocketvit.kernels.augment_ops.ROW`, seen as eight int32 `words` and as four float64 `numbers`.
    """
    b = tl.program_id(0).to(tl.int64)  # offsets into a large batch pass 2**31
    word = words + b * 8
    op = tl.load(word + 3)
    value = tl.load(numbers + b * 4 + 2)  # of rotation the cosine
    sin = tl.load(numbers + b * 4 + 3)
    moved = (images + b * (H * W * 3), tl.load(word), tl.load(word + 1), tl.load(word + 2))

    grey = 0
    table = tl.zeros([1024], tl.int32)
    if op == CONTRAST:
        grey = _mean_luma(moved, H, W, BLOCK)
    elif op == AUTOCONTRAST:
        table = tl.reshape(_stretched(_histograms(moved, H, W, BLOCK)), [1024])
    elif op == EQUALIZE:
        table = tl.reshape(_equalized(_histograms(moved, H, W, BLOCK), H * W), [1024])

    for start in range(0, H * W * 3, BLOCK):
        byte = start + tl.arange(0, BLOCK)
        y = byte // (W * 3)
        x = byte // 3 % W
        color = byte % 3
        if (op == SHEAR_X) | (op == SHEAR_Y):
            new = _sheared(moved, op, value, y, x, color, H, W)
        elif (op == TRANSLATE_X) | (op == TRANSLATE_Y):
            new = _shifted(moved, op, value, y, x, color, H, W)
        elif op == ROTATE:
            new = _rotated(moved, value, sin, y, x, color, H, W)
        elif (op >= COLOR) & (op <= SHARPNESS):
            new = _enhanced(moved, op, value, grey, y, x, color, H, W)
        else:
            new = _relevelled(moved, op, value, table, y, x, color, H, W)
        tl.store(out + b * (H * W * 3) + byte, new.to(tl.uint8), mask=byte < H * W * 3)
