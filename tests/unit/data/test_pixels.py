"""Images of every kind to RGB, against Pillow where it has a rule of its own."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from pocketvit.config import DataConfig
from pocketvit.data.pixels import PLAIN, Conversions, Fitter, decode, grey16_to_rgb, resize, to_rgb
from pocketvit.errors import InputError

COLOUR = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def saved(image: Image.Image, format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP"])
def test_lossless_colour_is_unchanged(format):
    content = saved(Image.fromarray(COLOUR), format, lossless=True)
    assert np.array_equal(decode(content, "x"), COLOUR)


def test_grey_is_repeated():
    image = decode(saved(Image.fromarray(GREY), "PNG"), "x")
    assert image.shape == (5, 7, 3) and all(np.array_equal(image[..., c], GREY) for c in range(3))


def test_black_and_white():
    image = decode(saved(Image.fromarray(GREY > 99), "PNG"), "x")
    assert np.array_equal(image[..., 2], np.where(GREY > 99, 255, 0))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled(format):
    values = np.arange(0, 65536, 8, dtype=np.uint16).reshape(64, 128)
    image = decode(saved(Image.fromarray(values), format), "x")
    assert np.array_equal(image[..., 0], np.rint(values / 257)) and np.array_equal(image[..., 0], image[..., 2])


def test_16_bit_ends_and_middles():
    assert grey16_to_rgb(np.array([[0, 128, 129, 65406, 65407, 65535]]), Conversions())[0, :, 0].tolist() == [
        0,
        0,
        1,
        254,
        255,
        255,
    ]


@pytest.mark.parametrize("value", [-1, 65536])
def test_more_than_16_bits_is_refused(value):
    with pytest.raises(InputError, match="do not fit into 16 bits"):
        to_rgb(Image.fromarray(np.full((2, 2), value, dtype=np.int32)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_composited_over_black(mode):
    rgba = np.random.default_rng(1).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    image = Image.fromarray(rgba).convert(mode) if mode != "PA" else Image.fromarray(rgba).convert("LA").convert("PA")
    colour = np.asarray(image.convert("RGBA")).astype(float)
    assert np.array_equal(to_rgb(image), np.rint(colour[..., :3] * colour[..., 3:] / 255))


def test_transparent_palette_entry_becomes_black():
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert to_rgb(image).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    assert decode(saved(image, "PNG", transparency=1), "x").tolist() == [[[255, 0, 0], [0, 0, 0], [0, 0, 255]]]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB"])
def test_other_colour_spaces_as_pillow_does(mode):
    image = Image.frombytes(mode, (7, 5), np.random.default_rng(2).bytes(35 * (4 if mode == "CMYK" else 3)))
    assert np.array_equal(to_rgb(image), np.asarray(image.convert("RGB")))


def test_photo_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held with its right side up
    assert np.array_equal(decode(saved(Image.fromarray(COLOUR), "PNG", exif=exif), "x"), np.rot90(COLOUR, -1))


def test_first_picture_of_an_animation():
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    assert decode(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), "x")[0, 0, 0] == 10


def test_floating_point_is_refused():
    content = saved(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF")
    with pytest.raises(InputError, match=r"^cats/1.tif: the scale of floating-point pixels"):
        decode(content, "cats/1.tif")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_image_is_named(format):
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    content = saved(picture, format)
    with pytest.raises(InputError, match=r"^shard, row 7: .*(truncated|corrupt).*; replace or remove it$") as caught:
        decode(content[: len(content) * 2 // 3], "shard, row 7")
    assert "\n" not in str(caught.value)


def test_corrupt_png_is_named():
    content = bytearray(saved(Image.fromarray(COLOUR), "PNG"))
    content[60] ^= 255
    with pytest.raises(InputError, match="^x: the image is truncated or corrupt"):
        decode(bytes(content), "x")


@pytest.mark.parametrize(("content", "what"), [(b"", "empty"), (b"hello", "not in a supported image format")])
def test_no_image_is_named(content, what):
    with pytest.raises(InputError, match=f"^x: .*{what}.*; replace or remove it$"):
        decode(content, "x")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="^gone.png: cannot be read: No such file or directory$"):
        decode(tmp_path / "gone.png", "gone.png")


def test_mixed_sizes_name_both_and_offer_resize():
    fitter = Fitter()
    fitter.fit(np.zeros((4, 4, 3), np.uint8), "image{}".format, 0)
    with pytest.raises(
        InputError, match=r"image0 has 4 × 4 pixels but image1 has 5 × 4 pixels \(width × height\): .*--data\.resize N"
    ):
        fitter.fit(np.zeros((4, 5, 3), np.uint8), "image{}".format, 1)


def test_resize_is_pillows_bicubic():
    fitter = Fitter(DataConfig(resize=6))
    resized, fits = fitter.fit(COLOUR, str, 0), fitter.fit(np.zeros((6, 6, 3), np.uint8), str, 1)
    assert np.array_equal(resized, np.asarray(Image.fromarray(COLOUR).resize((6, 6), Image.Resampling.BICUBIC)))
    assert fits.shape == (6, 6, 3) and fitter.notes() == ("1 image resized to 6 × 6 (bicubic)",)
    fitter.fit(COLOUR, str, 2)
    assert fitter.notes() == ("2 images resized to 6 × 6 (bicubic)",)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_other_fits_are_pillows(fit):
    config = DataConfig(resize=6, fit=fit, background="white")
    wanted = getattr(ImageOps, {"crop": "fit"}.get(fit, fit))
    more = {"color": "white"} if fit == "pad" else {}
    expected = wanted(Image.fromarray(COLOUR), (6, 4), Image.Resampling.BICUBIC, **more)
    assert np.array_equal(resize(COLOUR, (4, 6), config), np.asarray(expected))
    fitter = Fitter(config)
    fitter.fit(COLOUR, str, 0)
    assert fitter.notes() == (f"1 image resized to 6 × 6 (bicubic, {fit})",)


@pytest.mark.parametrize("bits", [8, 12])
def test_16_bit_files_that_hold_fewer_bits_are_named_and_scaled_on_request(bits):
    grey, found = np.arange(2**bits, dtype=np.uint16)[None], Conversions()
    few = grey16_to_rgb(grey, found)
    flag = f"--data.value-range 0 {2**bits - 1}"
    (note,) = found.notes("auto")[1:]
    levels = f"so only {len(np.unique(few))} of 256 levels are used; {flag} uses them all"
    assert note.endswith(f"is {2**bits - 1:,} of 65,535 and the least 0, {levels}")
    scaled, said = DataConfig(value_range=(0, 2**bits - 1)), Conversions()
    expected = np.floor(grey / (2**bits - 1) * 255 + 0.5)
    assert np.array_equal(grey16_to_rgb(grey, said, scaled)[..., 1], expected)
    assert said.notes(scaled.value_range) == (
        f"1 image in 16-bit gray, 0 to {2**bits - 1} spread over 0 to 255 in the three channels",
    )


def test_values_far_from_0_are_spread_over_all_levels():
    found, other = Conversions(), Conversions()
    grey16_to_rgb(np.arange(15_000, 15_500, dtype=np.uint16)[None], found)
    grey16_to_rgb(np.arange(15_400, 16_001, dtype=np.uint16)[None], other)
    found.join(other)
    assert found.notes("auto")[-1].endswith(
        "so only 5 of 256 levels are used; --data.value-range 15000 16000 uses them all"
    )


def test_values_outside_the_range_are_cut_off():
    grey = np.array([[0, 100, 150, 200, 65535]], np.uint16)
    assert grey16_to_rgb(grey, Conversions(), DataConfig(value_range=(100, 200)))[0, :, 0].tolist() == [
        0,
        0,
        128,
        255,
        255,
    ]
    with pytest.raises(
        InputError, match=r"^data.value_range=\(200, 100\): must satisfy 0 <= least < greatest <= 65535$"
    ):
        DataConfig(value_range=(200, 100))


def test_a_drawing_in_the_color_of_the_background_is_named():
    ink = np.zeros((4, 4, 4), np.uint8)
    ink[1, :, 3] = 255
    for config, lost in ((PLAIN, True), (DataConfig(background="white"), False)):
        found = Conversions()
        rgb = to_rgb(Image.fromarray(ink), found, config)
        assert (rgb[0] == (0 if lost else 255)).all() and (rgb[1] == 0).all()
        assert ("became a single color; try --data.background white" in found) == lost
