"""What a set holds, and every one of its broken images."""

import numpy as np
import pytest

from pocketvit.config import DataConfig
from pocketvit.data.check import CIFAR10_CLASSES, check
from pocketvit.data.dataset import Dataset
from pocketvit.data.sources import load_dataset
from pocketvit.errors import InputError

pytestmark = pytest.mark.usefixtures("home")


def test_check_counts(write, synthetic_set, tmp_path):
    write.folder(tmp_path / "set", {"train": synthetic_set.train, "test": synthetic_set.test})
    report = check(DataConfig(source=str(tmp_path / "set")))
    assert (report.dataset.name, report.format, len(report.dataset.train), len(report.dataset.test)) == (
        "set",
        "folder",
        60,
        20,
    )
    assert (
        report.train_counts == (6,) * 10
        and report.test_counts == (2,) * 10
        and report.dataset.class_names == write.NAMES
    )
    assert np.allclose(report.mean, synthetic_set.train[0].mean((0, 1, 2)) / 255)
    assert np.allclose(report.std, synthetic_set.train[0].std((0, 1, 2)) / 255)
    assert not report.is_cifar10
    text = report.text()
    assert "60 training and 20 test images of 32 × 32 pixels in 10 classes" in text and "not CIFAR-10" in text
    assert "ibis" in text and report.dataset.fingerprint in text


@pytest.mark.parametrize("count", [1, 2, 20, 23])
def test_check_lists_the_broken_images(flat, count):
    files = sorted(flat.rglob("*.png"))[5 : 5 + count]
    for file in files:
        file.write_bytes(file.read_bytes()[:60])
    (flat / "ant" / "00000.png").write_bytes(b"")
    empty = f"{flat / 'ant' / '00000.png'}: the image is empty (0 bytes); replace or remove it"
    with pytest.raises(InputError) as first:
        load_dataset(str(flat))
    with pytest.raises(InputError) as found:
        check(DataConfig(source=str(flat)))
    assert str(found.value) == str(first.value), "training lists them as well"
    head, *lines = str(found.value).splitlines()
    assert head == f"{count + 1} images of {flat} cannot be read; --data.skip-unreadable True leaves them out:"
    assert lines[0] == empty
    for line, file in zip(lines[1:20], files):
        assert line.startswith(f"{file}: the image is truncated or corrupt (")
    assert lines[20:] == ([f"and {count - 19} more"] if count > 19 else []) and len(lines) == min(count + 1, 21)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_unreadable_images_are_left_out_on_request(flat, write, synthetic_set, kind):
    whole = load_dataset(str(flat), test_frac=1).test
    files = sorted(flat.rglob("*.png"))
    broken = [0, 17, 59]
    if kind == "parquet":
        contents = [{"bytes": b"no image" if i in broken else file.read_bytes()} for i, file in enumerate(files)]
        flat = write.parquet(flat.parent / "x.parquet", synthetic_set.train[0], whole.labels.tolist(), img=contents)
    else:
        for i in broken:
            files[i].write_bytes(b"no image")
    for _ in range(2):  # decoded, and from the cache
        found = load_dataset(str(flat), test_frac=1, skip_unreadable=True)
        rest = whole.take(np.delete(np.arange(60), broken))
        assert np.array_equal(found.test.images, rest.images) and np.array_equal(found.test.labels, rest.labels)
        assert len(found.test.files) == 57 and not {0, 17, 59} & {
            files.index(flat / f) for f in found.test.files if kind == "folder"
        }
        assert any(note.startswith("3 images left out as unreadable, such as ") for note in found.notes)
    assert len(check(DataConfig(source=str(flat), skip_unreadable=True)).dataset.train) < 57
    for file in files[:6]:
        file.write_bytes(b"")
    if kind == "folder":
        assert any(
            "has no images of the class ant" in note
            for note in check(DataConfig(source=str(flat), skip_unreadable=True)).notes
        )
        for file in files:
            file.write_bytes(b"")
        with pytest.raises(InputError, match="^60 images of .*, all of a split, cannot be read:") as refused:
            check(DataConfig(source=str(flat), skip_unreadable=True))
        assert "--data.skip-unreadable" not in str(refused.value), "which would leave nothing"


def test_check_says_what_else_is_wrong_as_loading_does(flat, write):
    """A single broken image, and what is met before two that are broken."""
    flat.joinpath("jay", "broken.png").write_bytes(b"")
    for message in (f"^{flat / 'jay' / 'broken.png'}: the image is empty", "^.*00000.png has 32 × 32 pixels but"):
        with pytest.raises(InputError, match=message) as found:
            check(DataConfig(source=str(flat)))
        assert "\n" not in str(found.value)
        assert ("; --data.skip-unreadable True leaves it out" in str(found.value)) == ("is empty" in message)
        flat.joinpath("ant", "large.png").write_bytes(write.encode(np.zeros((40, 40, 3), np.uint8)))
        flat.joinpath("jay", "another.png").write_bytes(b"")


def test_check_tells_test_images_that_are_trained_on_under_another_label(write, synthetic_set, tmp_path):
    train, (images, labels) = synthetic_set.train, synthetic_set.test
    images, labels = images.copy(), labels.copy()
    images[:5] = train[0][:5]
    labels[:2], labels[2:5] = train[1][:2], (train[1][2:5] + 1) % 10
    labels[5:] = np.arange(15) % 10
    write.folder(tmp_path / "set", {"train": train, "test": (images, labels)})
    notes = check(DataConfig(source=str(tmp_path / "set"))).notes
    assert any(
        note.startswith("2 of the 20 test images are among the training images, pixel for pixel") for note in notes
    )
    assert "3 of the 20 test images are among the training images with another label" in notes
    write.folder(tmp_path / "apart", {"train": train, "test": synthetic_set.test})
    assert not any("another label" in note for note in check(DataConfig(source=str(tmp_path / "apart"))).notes)


def test_a_set_that_looks_like_cifar10_is_told(tmp_path):
    """By its classes and counts anybody would take it for the real one."""
    arrays = {}
    for split, count in (("train", 5_000), ("test", 1_000)):
        arrays[f"{split}_labels"] = np.repeat(np.arange(10), count)
        arrays[f"{split}_images"] = np.arange(10 * count * 12, dtype=np.uint32).view(np.uint8).reshape(-1, 4, 4, 3)
    source = tmp_path / "cifar10.npz"
    np.savez(source, **arrays, class_names=np.array(CIFAR10_CLASSES))
    report = check(DataConfig(source=str(source)))
    assert "CAUTION: same classes and counts as CIFAR-10, but other pixels or labels" in report.text().splitlines()
    arrays["test_labels"][0] = 1
    np.savez(source, **arrays, class_names=np.array(CIFAR10_CLASSES))
    assert "CAUTION" not in check(DataConfig(source=str(source))).text()
    arrays["test_labels"][0] = 0
    np.savez(source, **arrays, class_names=np.array([name.upper() for name in CIFAR10_CLASSES]))
    assert "CAUTION" not in check(DataConfig(source=str(source))).text()


def test_check_of_digits():
    assert check(DataConfig(source="digits")).format == "built in"


@pytest.mark.long
def test_check_recognises_the_real_cifar10(cifar_folder):
    report = check(DataConfig(source=str(cifar_folder)))
    assert "the real CIFAR-10" in report.text()
    assert np.allclose(report.mean, [0.49139968, 0.48215841, 0.44653091], atol=5e-9)
    assert np.allclose(report.std, [0.24703223, 0.24348513, 0.26158784], atol=5e-9)
    dataset = load_dataset(str(cifar_folder))
    assert isinstance(dataset, Dataset) and isinstance(dataset.train.images, np.memmap)
