"""What a set holds, and every one of its broken images."""

import numpy as np
import pytest

from pocketvit.data.check import check
from pocketvit.data.dataset import Dataset
from pocketvit.data.sources import load_dataset
from pocketvit.errors import InputError

pytestmark = pytest.mark.usefixtures("home")


def test_check_counts(write, synthetic_set, tmp_path):
    write.folder(tmp_path / "set", {"train": synthetic_set.train, "test": synthetic_set.test})
    report = check(str(tmp_path / "set"))
    assert (report.name, report.format, report.num_train, report.num_test) == ("set", "folder", 60, 20)
    assert report.train_counts == (6,) * 10 and report.test_counts == (2,) * 10 and report.class_names == write.NAMES
    assert np.allclose(report.mean, synthetic_set.train[0].mean((0, 1, 2)) / 255)
    assert np.allclose(report.std, synthetic_set.train[0].std((0, 1, 2)) / 255)
    assert not report.is_cifar10
    text = report.text()
    assert "60 training and 20 test images of 32 × 32 pixels in 10 classes" in text and "not CIFAR-10" in text
    assert "ibis" in text and report.fingerprint in text


@pytest.mark.parametrize("count", [1, 2, 20, 23])
def test_check_lists_the_broken_images(flat, count):
    files = sorted(flat.rglob("*.png"))[5 : 5 + count]
    for file in files:
        file.write_bytes(file.read_bytes()[:60])
    (flat / "ant" / "00000.png").write_bytes(b"")
    empty = f"{flat / 'ant' / '00000.png'}: the image is empty (0 bytes); replace or remove it"
    with pytest.raises(InputError) as first:
        load_dataset(str(flat))
    assert str(first.value) == empty, "training stops at the first"
    with pytest.raises(InputError) as found:
        check(str(flat))
    head, *lines = str(found.value).splitlines()
    assert head == f"{count + 1} images of {flat} cannot be read:"
    assert lines[0] == empty
    for line, file in zip(lines[1:20], files):
        assert line.startswith(f"{file}: the image is truncated or corrupt (")
    assert lines[20:] == ([f"and {count - 19} more"] if count > 19 else []) and len(lines) == min(count + 1, 21)


def test_check_says_what_else_is_wrong_as_loading_does(flat, write):
    """A single broken image, and what is met before two that are broken."""
    flat.joinpath("jay", "broken.png").write_bytes(b"")
    for message in (f"^{flat / 'jay' / 'broken.png'}: the image is empty", "^.*00000.png has 32 × 32 pixels but"):
        with pytest.raises(InputError, match=message) as found:
            check(str(flat))
        assert "\n" not in str(found.value)
        flat.joinpath("ant", "large.png").write_bytes(write.encode(np.zeros((40, 40, 3), np.uint8)))
        flat.joinpath("jay", "another.png").write_bytes(b"")


def test_check_of_digits():
    assert check("digits").format == "built in"


@pytest.mark.long
def test_check_recognises_the_real_cifar10(cifar_folder):
    report = check(str(cifar_folder))
    assert "the real CIFAR-10" in report.text()
    assert np.allclose(report.mean, [0.49139968, 0.48215841, 0.44653091], atol=5e-9)
    assert np.allclose(report.std, [0.24703223, 0.24348513, 0.26158784], atol=5e-9)
    dataset = load_dataset(str(cifar_folder))
    assert isinstance(dataset, Dataset) and isinstance(dataset.train.images, np.memmap)
