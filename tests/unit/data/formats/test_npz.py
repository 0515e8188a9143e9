"""NumPy archives."""

import numpy as np
import pytest

from pocketvit.data.formats import npz
from pocketvit.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def save(path, **arrays):
    np.savez(path / "set.npz", **arrays)
    return path / "set.npz"


def test_train_and_test(tmp_path):
    path = save(
        tmp_path,
        train_images=IMAGES,
        train_labels=LABELS,
        test_images=IMAGES[:2],
        test_labels=LABELS[:2],
        class_names=np.array(["x", "y", "z"]),
    )
    decoded = npz.read(path)
    assert np.array_equal(decoded.train.images, IMAGES) and decoded.train.labels.tolist() == LABELS.tolist()
    assert np.array_equal(decoded.test.images, IMAGES[:2]) and decoded.class_names == ("x", "y", "z")


def test_keras_form(tmp_path):
    path = save(tmp_path, x_train=IMAGES, y_train=LABELS[:, None], x_test=IMAGES[:1], y_test=LABELS[:1, None])
    decoded = npz.read(path)
    assert decoded.train.labels.tolist() == LABELS.tolist() and len(decoded.test) == 1
    assert decoded.class_names == ("0", "1", "2")


def test_class_names_may_be_bytes(tmp_path):
    path = save(tmp_path, images=IMAGES, labels=LABELS, class_names=np.char.encode(["ä", "y", "z"], "utf-8"))
    assert npz.read(path).class_names == ("ä", "y", "z")


def test_unsplit_with_class_names_as_labels(tmp_path):
    decoded = npz.read(save(tmp_path, images=IMAGES, labels=np.array(list("bacabc"))))
    assert decoded.test is None and decoded.train.labels.tolist() == [1, 0, 2, 0, 1, 2]


def test_images_of_every_form(tmp_path):
    grey16 = RNG.integers(0, 65536, (6, 4, 5), dtype=np.uint16)
    rgba = RNG.integers(0, 256, (6, 4, 5, 4), dtype=np.uint8)
    expected = {
        "grey": (IMAGES[..., 0], IMAGES[..., :1]),
        "grey with a channel": (IMAGES[..., :1], IMAGES[..., :1]),
        "16 bits": (grey16, np.rint(grey16 / 257)[..., None]),
        "16 bits with a channel": (grey16[..., None], np.rint(grey16 / 257)[..., None]),
        "alpha": (rgba, np.rint(rgba[..., :3].astype(float) * rgba[..., 3:] / 255)),
        "bool": (IMAGES[..., 0] > 99, np.where(IMAGES[..., :1] > 99, 255, 0)),
    }
    for form, (images, rgb) in expected.items():
        decoded = npz.read(save(tmp_path, images=images, labels=LABELS))
        assert np.array_equal(decoded.train.images, np.broadcast_to(rgb, (6, 4, 5, 3))), form
        what = "in 16-bit gray" if "16" in form else "with alpha" if form == "alpha" else "in gray"
        assert len(decoded.notes) == 1 and decoded.notes[0].startswith(f"6 images {what}, "), form


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": LABELS}, "contains the arrays a: expected train_images"),
        ({"images": IMAGES, "labels": LABELS[:5]}, r"images is \(6, 4, 5, 3\) but labels is \(5,\)"),
        ({"images": IMAGES.astype("U3"), "labels": LABELS}, "images is <U3: expected uint8.*; make images uint8$"),
        (
            {"images": IMAGES.transpose(0, 3, 1, 2), "labels": LABELS},
            "not .N, H, W. or .*images.transpose.0, 2, 3, 1.$",
        ),
        ({"images": IMAGES[:, :0], "labels": LABELS}, "not .N, H, W. or"),
        ({"images": IMAGES, "labels": LABELS + 1}, r", labels\[2\]: label 3, but only 3 different labels occur"),
        ({"images": IMAGES, "labels": LABELS / 2}, "neither an integer nor a class name"),
        ({"images": IMAGES, "labels": LABELS, "class_names": np.array(["x"])}, r", labels\[1\]: label 1 is outside"),
        *(
            ({"images": IMAGES, "labels": LABELS, "class_names": np.array(names)}, f": class_names {message}")
            for names, message in (
                ("x", r"is <U1 \(\): save one text for each class"),
                ([["x", "y", "z"]], r"is <U1 \(1, 3\): save one text"),
                ([7, 8, 9], r"is int64 \(3,\): save one text"),
                (["x", "y", "x"], "has 'x' 2 times: give every class a different name"),
                ([b"x", b"x", b"y"], "has 'x' 2 times"),
            )
        ),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": np.array([], "U1")},
            " has an empty list of class names: name every class, or leave the list out$",
        ),
        ({"images": IMAGES, "labels": LABELS.astype(object)}, "contains pickled objects: .*allow_pickle"),
    ],
)
def test_wrong_content_is_named(tmp_path, arrays, message):
    path = save(tmp_path, **arrays)
    with pytest.raises(InputError, match=f"^{path}.*{message}"):
        npz.read(path)


@pytest.mark.parametrize(
    ("images", "remedy"),
    [
        (IMAGES / 255, "values run from 0 to 1: use (images * 255).round().astype('uint8')"),
        (IMAGES.astype(np.float32), "values run from 0 to 255: use images.round().astype('uint8')"),
        (IMAGES.astype(np.int64), "values run from 0 to 255: use images.round().astype('uint8')"),
        (IMAGES / 255 - 1, "values run from -1 to 0: scale them to 0 … 255, as uint8"),
        (IMAGES * np.uint16(257), "values run from 0 to 65535: use (images / 257).round().astype('uint8')"),
        (IMAGES[..., 0] * np.float16("nan"), "values run from nan to nan: scale them to 0 … 255, as uint8"),
    ],
)
def test_the_refusal_of_another_type_says_what_would_work(tmp_path, images, remedy):
    with pytest.raises(InputError) as refused:
        npz.read(save(tmp_path, images=images, labels=LABELS))
    assert f"images is {images.dtype}: expected uint8, bool, or uint16 gray; {remedy}" in str(refused.value)
    assert "\n" not in str(refused.value)
    if "use " in remedy:
        mended = eval(remedy.partition("use ")[2], {"images": images})
        assert np.array_equal(npz.read(save(tmp_path, images=mended, labels=LABELS)).train.images, IMAGES)


def test_a_test_label_without_training_images_is_named(tmp_path):
    """Also where the file lists no classes."""
    test = {"test_images": IMAGES, "test_labels": LABELS}
    path = save(tmp_path, train_images=IMAGES[:2], train_labels=LABELS[:2], **test)
    with pytest.raises(InputError) as refused:
        npz.read(path)
    why = "class 2 has no training images; add some, or remove its test images"
    assert str(refused.value) == f"{path}, test_labels[2]: {why}"


@pytest.mark.parametrize(("there", "missing"), [("test_images", "test_labels"), ("val_labels", "val_images")])
def test_half_a_split_is_refused(tmp_path, there, missing):
    content = IMAGES if "images" in there else LABELS
    path = save(tmp_path, train_images=IMAGES, train_labels=LABELS, **{there: content})
    with pytest.raises(InputError) as refused:
        npz.read(path)
    assert str(refused.value) == f"{path} contains {there} but no {missing}: add {missing}, or remove {there}"


def test_arrays_that_are_not_used_are_named(tmp_path):
    names = {"class_names": np.array(["x", "y", "z"])}
    path = save(tmp_path, images=IMAGES, labels=LABELS, **names)
    assert npz.read(path).notes == ()
    path = save(tmp_path, images=IMAGES, labels=LABELS, ids=LABELS, **names)
    assert npz.read(path).notes == ("1 array is ignored, such as ids: not part of a data set with images and labels",)
    test = {"test_images": IMAGES, "test_labels": LABELS}
    path = save(tmp_path, images=IMAGES, labels=LABELS, **test)
    decoded = npz.read(path)
    assert decoded.test is None
    assert decoded.notes == (
        "2 arrays are ignored, such as test_images: not part of a data set with images and labels",
    )


@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_truncated_file_is_named(tmp_path, kept):
    path = save(tmp_path, images=IMAGES, labels=LABELS)
    size = int(kept * path.stat().st_size)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=f"^{path} is truncated: it ends at byte {size:,}; copy"):
        npz.read(path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "npy"])
def test_another_file_with_its_suffix_is_no_npz(tmp_path, content):
    path = tmp_path / "set.npz"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        npz.read(path)
    assert str(refused.value) == f"{path} is not an .npz file; write one with numpy.savez, from arrays without objects"


def test_corrupt_file_is_named(tmp_path):
    path = save(tmp_path, images=IMAGES, labels=LABELS)
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{path} is corrupt or contains pickled objects"):
        npz.read(path)


@pytest.mark.parametrize("order", "<>")
def test_letters_beyond_unicode_are_refused(tmp_path, order):
    """NumPy makes texts of them that break Python, such as its UTF-8."""
    names = np.array(["a", "b", "c"]).astype(f"{order}U1")
    assert npz.read(save(tmp_path, images=IMAGES, labels=LABELS, class_names=names)).class_names == ("a", "b", "c")
    names.view(f"{order}u4")[1] = 0x110000
    with pytest.raises(InputError, match="class_names contains letters that do not exist"):
        npz.read(save(tmp_path, images=IMAGES, labels=LABELS, class_names=names))


def test_empty_split_is_named(tmp_path):
    empty = {"test_images": IMAGES[:0], "test_labels": LABELS[:0]}
    path = save(tmp_path, train_images=IMAGES, train_labels=LABELS, **empty)
    with pytest.raises(InputError, match=f"^the test split of {path} has no images"):
        npz.read(path)
