"""AutoAugment's pixels against Pillow: every operation, level and sign, and whole batches of mixed operations.

As they stand the tests are of the plain twin. `test_augment_kernel` runs them again in Triton's interpreter, where
they are of the fused kernel; it is slow there, so they take fewer images and arguments.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from augment_cases import UNFUSED
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageEnhance, ImageOps

from pocketvit.augment.augment import ImageTable, augment
from pocketvit.augment.autoaugment import NUM_DRAWS, OPS, POLICIES, OpTable, arguments, resolve
from pocketvit.kernels.launch import INTERPRETED
from pocketvit.randomness import Stream, uniform

GREY = (128, 128, 128)
SIZES = [(28, 28), (2, 5)] if INTERPRETED else [(8, 8), (32, 20), (7, 33), (96, 64), (2, 5), (3, 1), (1, 1)]


@pytest.fixture(autouse=True)
def one_block_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the interpreter a block's size hardly matters, but their number does."""
    if INTERPRETED:
        monkeypatch.setattr("pocketvit.kernels.augment_ops.BLOCK", 4096)


def some(items: Sequence, count: int) -> Sequence:
    """All of the items; in the interpreter at most `count` of them, spread out."""
    return items[:: -(-len(items) // count)] if INTERPRETED else items


def affine(image: Image.Image, matrix: tuple[float, ...], resample: Image.Resampling) -> Image.Image:
    """Fill each output pixel (x, y) from (a·x + b·y + c, d·x + e·y + f), and with grey where that lies outside."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=GREY)


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, value: image,
    "shear_x": lambda image, value: affine(image, (1, value, 0, 0, 1, 0), Image.Resampling.BICUBIC),
    "shear_y": lambda image, value: affine(image, (1, 0, 0, value, 1, 0), Image.Resampling.BICUBIC),
    "translate_x": lambda image, value: affine(image, (1, 0, value, 0, 1, 0), Image.Resampling.NEAREST),
    "translate_y": lambda image, value: affine(image, (1, 0, 0, 0, 1, value), Image.Resampling.NEAREST),
    "rotate": lambda image, value: image.rotate(value, Image.Resampling.NEAREST, fillcolor=GREY),
    "color": lambda image, value: ImageEnhance.Color(image).enhance(value),
    "contrast": lambda image, value: ImageEnhance.Contrast(image).enhance(value),
    "brightness": lambda image, value: ImageEnhance.Brightness(image).enhance(value),
    "sharpness": lambda image, value: ImageEnhance.Sharpness(image).enhance(value),
    "posterize": lambda image, value: ImageOps.posterize(image, int(value)),
    "solarize": lambda image, value: ImageOps.solarize(image, value),
    "autocontrast": lambda image, value: ImageOps.autocontrast(image),
    "equalize": lambda image, value: ImageOps.equalize(image),
    "invert": lambda image, value: ImageOps.invert(image),
}
"""How the reference applies each operation: what the paper's code asks of Pillow."""

ANY_VALUE = {
    "shear": st.floats(-0.5, 0.5),
    "translate": st.integers(-15 * 64, 15 * 64).map(lambda n: n / 64),
    "rotate": st.integers(-36_000, 36_000).map(lambda n: n / 100),
    "posterize": st.integers(1, 8),
    "solarize": st.floats(0, 256),
}
"""Arguments beyond the ten levels, by the first word of the operation's name; factors of enhancement otherwise."""


def with_pillow(op: str, images: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Apply one operation to each image with Pillow, uint8 (B, H, W, 3)."""
    return np.stack([PILLOW[op](Image.fromarray(image), value) for image, value in zip(images, values, strict=True)])


def one_operation(op: str, values: np.ndarray) -> OpTable:
    """The same operation for every image, each with its own value."""
    return OpTable(np.full((len(values), 1), OPS.index(op), np.int8), np.array(values, dtype=np.float64)[:, None])


def with_ours(images: torch.Tensor, table: OpTable) -> np.ndarray:
    """Apply operations to the batch with our code, uint8 (B, H, W, 3), neither flipped nor cropped."""
    count = len(images)
    unmoved = {"flip": np.zeros(count, bool), "shift": np.zeros((count, 2), int), "erase": np.zeros((count, 4), int)}
    fused = INTERPRETED and not np.isin(table.op, list(UNFUSED)).any()
    return augment(images, ImageTable(ops=table, **unmoved), kernels="fused" if fused else "reference").numpy()


def assert_equal(op: str, images: np.ndarray, values: np.ndarray) -> None:
    """Compare bit for bit; a shear may be one level off in one pixel of a thousand.

    On x86-64 shears are equal too. Elsewhere Pillow may be compiled with fused multiply-add, which rounds differently.
    """
    images = np.ascontiguousarray(images)
    before = images.copy()
    result = with_ours(torch.from_numpy(images), one_operation(op, values))
    expected = with_pillow(op, images, values)
    np.testing.assert_array_equal(images, before, err_msg=f"{op} changed its input")
    assert result.dtype == np.uint8
    if op.startswith("shear"):
        difference = np.abs(result.astype(int) - expected)
        assert difference.max() <= 1
        assert np.count_nonzero(difference) <= 1e-3 * difference.size
    else:
        np.testing.assert_array_equal(result, expected)


def extreme_images() -> np.ndarray:
    """Constant, two-valued, almost constant, saturated, narrow, graded and noisy images, uint8, (B, 32, 32, 3)."""
    rng = np.random.default_rng(0)
    ramp = np.arange(32 * 32).reshape(32, 32, 1) // 4
    images = [np.full((32, 32, 3), level) for level in (0, 1, 127, 128, 254, 255)]
    images += [np.broadcast_to([255, 0, 128], (32, 32, 3)), np.broadcast_to([0, 1, 255], (32, 32, 3))]
    images += [rng.choice(pair, (32, 32, 3)) for pair in ((0, 255), (0, 1), (254, 255), (100, 103), (7, 200))]
    for level, other, place in ((0, 255, (0, 0)), (255, 0, (31, 31)), (128, 129, (16, 5)), (90, 3, (0, 31))):
        images.append(np.full((32, 32, 3), level))
        images[-1][place] = other
    images += [np.broadcast_to(ramp, (32, 32, 3)), ramp * [1, 0, 0] + (255 - ramp) * [0, 1, 0]]
    images += [np.indices((32, 32)).sum(0)[..., None] % 2 * np.array([255, 255, 0])]
    noise = ((0, 255), (0, 255), (60, 70), (0, 20), (200, 255))
    images += [rng.integers(low, high + 1, (32, 32, 3)) for low, high in noise]
    return np.stack(images).astype(np.uint8)


def test_every_operation_has_a_reference() -> None:
    assert tuple(PILLOW) == OPS


def test_only_operations_without_levels_have_none() -> None:
    without = {op for op in OPS if not arguments(op, (32, 32)).any()}
    assert without == {"identity", "autocontrast", "equalize", "invert"}
    with pytest.raises(ValueError, match="the operation blur has no levels"):
        arguments("blur", (32, 32))


@pytest.mark.parametrize("level", some(range(10), 2))
@pytest.mark.parametrize("op", OPS)
def test_every_level_and_sign_on_real_images(op: str, level: int, real_images: np.ndarray) -> None:
    images = some(real_images, 1)
    for value in set(arguments(op, images.shape[1:3])[:, level]):
        assert_equal(op, images, np.full(len(images), value))


@pytest.mark.parametrize("op", OPS)
def test_extreme_images(op: str) -> None:
    images = some(extreme_images(), 8)
    for value in some(np.unique(arguments(op, images.shape[1:3])), 1):
        assert_equal(op, images, np.full(len(images), value))


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_other_sizes_each_image_with_its_own_value(op: str, shape: tuple[int, int]) -> None:
    values = some(arguments(op, shape).ravel(), 3)
    images = np.random.default_rng(1).integers(0, 256, (len(values), *shape, 3), dtype=np.uint8)
    assert_equal(op, images, values)


@pytest.mark.parametrize("op", OPS)
@settings(max_examples=2 if INTERPRETED else 25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_image_and_any_value(op: str, data: st.DataObject) -> None:
    images = data.draw(arrays(np.uint8, st.tuples(st.just(2), st.integers(1, 12), st.integers(1, 12), st.just(3))))
    value = ANY_VALUE.get(op.split("_")[0], st.floats(0, 2))
    assert_equal(op, images, np.array([data.draw(value), data.draw(value)]))


def test_autocontrast_and_every_range_of_levels() -> None:
    """A table computed in float32, or with a rounded reciprocal, is off by a level in some of these."""
    ranges = [(0, high) for high in range(256)] + [(low, 255) for low in range(256)]
    low, high = np.array(some(ranges, 32)).T
    ramp = np.linspace(low, high, 256).round().astype(np.uint8).T  # (B, 256): every level of the range
    assert_equal("autocontrast", np.tile(ramp.reshape(-1, 16, 16, 1), 3), np.zeros(len(ramp)))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_mixed_batch_equals_one_image_at_a_time(policy: str, real_images: np.ndarray) -> None:
    images = some(np.concatenate([real_images, real_images[:, :, ::-1]]), 10)
    table = resolve(policy, uniform(3, Stream.IMAGE, 0, len(images), NUM_DRAWS), image_size=images.shape[1:3])
    assert_batch_equals_pillow(images, table)


def test_a_batch_of_all_pairs_of_operations(real_images: np.ndarray) -> None:
    op = some(np.stack(np.meshgrid(range(len(OPS)), range(len(OPS))), -1).reshape(-1, 2), 57)  # (225, 2)
    rng = np.random.default_rng(2)
    levels = np.stack([arguments(name, (24, 32)).ravel() for name in OPS])  # (15, 20)
    table = OpTable(op.astype(np.int8), levels[op, rng.integers(0, 20, op.shape)])
    images = np.resize(real_images[:, 4:28], (len(op), 24, 32, 3))
    assert_batch_equals_pillow(images, table)


def assert_batch_equals_pillow(images: np.ndarray, table: OpTable) -> None:
    """Compare our code with Pillow, image by image and stage by stage; sheared images as in `assert_equal`."""
    images = torch.from_numpy(images.copy())
    before = images.clone()
    result = with_ours(images, table)
    assert torch.equal(images, before)
    expected = np.empty_like(result)
    for i, image in enumerate(map(Image.fromarray, images.numpy())):
        for code, value in zip(table.op[i], table.value[i], strict=True):
            image = PILLOW[OPS[code]](image, value)
        expected[i] = image
    sheared = np.isin(table.op, [OPS.index("shear_x"), OPS.index("shear_y")]).any(axis=1)
    np.testing.assert_array_equal(result[~sheared], expected[~sheared])
    assert np.count_nonzero(result[sheared] != expected[sheared]) <= 1e-3 * result[sheared].size


def test_no_images() -> None:
    table = OpTable(np.zeros((0, 2), np.int8), np.zeros((0, 2)))
    assert with_ours(torch.zeros(0, 8, 8, 3, dtype=torch.uint8), table).shape == (0, 8, 8, 3)


def test_translation_rounds_to_whole_pixels() -> None:
    """At 32 pixels, levels 3, 7, 8 and 9 move by 5, 11, 13 and 15 pixels; a truncated shift would move by one less."""
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None], (10, 32, 32, 3)).copy()
    moved = with_ours(torch.from_numpy(ramp), one_operation("translate_x", arguments("translate_x", (32, 32))[1]))
    assert moved[:, 0, 0, 0].tolist() == [0, 2, 3, 5, 6, 8, 10, 11, 13, 15]
    assert moved[9, 0].max(axis=1).tolist() == [*range(15, 32), *[128] * 15]


def test_rotation_where_pillows_rounded_steps_show() -> None:
    """At these angles exact coordinates, or steps that are cut off instead of rounded, land on other pixels."""
    images = np.random.default_rng(3).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    assert_equal("rotate", images, np.array([10 / 3, 20, 45, 135]))
