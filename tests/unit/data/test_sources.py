"""Loading by name and by path."""

import tracemalloc

import numpy as np
import pytest

from pocketvit.data.dataset import Dataset
from pocketvit.data.sources import check, get, known_sources, load_dataset, name_of
from pocketvit.errors import InputError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A data home of this test's own."""
    monkeypatch.setenv("POCKETVIT_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def flat(write, made_set, tmp_path):
    """<class>/<image>, six images in each of ten classes."""
    return write.folder(tmp_path / "flowers", {"": made_set.train})


def test_digits_are_fixed():
    digits = load_dataset("digits")
    assert (len(digits.train), len(digits.test), digits.image_size, digits.num_classes) == (1437, 360, (8, 8), 10)
    assert np.bincount(digits.test.labels).tolist() == [36] * 10
    assert digits.fingerprint == load_dataset("digits", split_seed=7, test_frac=0.5).fingerprint
    assert digits.fingerprint == "eb0b28bda8687c0d0648259919bcd491"  # part of every result on digits


def test_digits_hold_scikit_learns_values():
    from sklearn.datasets import load_digits

    digits = load_dataset("digits")
    images = np.concatenate([digits.train.images, digits.test.images])
    assert images.max() == 255 and images.min() == 0
    values = np.rint(images[..., 0] / 255 * 16)
    expected = load_digits().images
    assert sorted(map(bytes, values.astype(np.uint8))) == sorted(map(bytes, expected.astype(np.uint8)))


def test_digits_can_be_resized(home):
    digits = load_dataset("digits", resize=16)
    assert digits.image_size == (16, 16) and "resized to 16 × 16" in digits.notes[0]
    assert not home.exists()  # nothing to cache


def test_flat_folder_gets_a_seeded_test_split(flat, made_set):
    first, again, other = (load_dataset(str(flat), test_frac=0.34, split_seed=seed) for seed in (0, 0, 1))
    assert first.name == "flowers" and len(first.train) == 40
    assert np.bincount(first.test.labels).tolist() == [2] * 10
    (note,) = first.notes
    assert note == "flowers has no test split: 20 of its 60 images are held out as one (0.34 of each class, seed 0)"
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_all_images_may_serve_as_test_split(flat, write, made_set):
    whole = load_dataset(str(flat), test_frac=1)
    assert (len(whole.train), len(whole.test), whole.image_size) == (0, 60, (32, 32))
    assert whole.notes == ("flowers has no test split: all its images serve as one",)
    write.folder(flat.parent / "set", {"train": made_set.train, "test": made_set.test})
    split = load_dataset(str(flat.parent / "set"), test_frac=1)
    assert (len(split.train), len(split.test)) == (60, 20)


def test_a_set_is_named_after_its_folder_or_file(flat, tmp_path, monkeypatch):
    (tmp_path / "a.tar.gz").touch()
    names = {"digits": "digits", "hf:owner/name": "hf:owner/name", "a.tar.gz": "a", "flowers": "flowers"}
    monkeypatch.chdir(tmp_path)
    assert {source: name_of(source) for source in names} == names
    for hidden in (".hid", "v1.2"):
        flat = flat.rename(tmp_path / hidden)
        assert load_dataset(hidden).name == hidden
    monkeypatch.chdir(flat)
    assert name_of(".") == "v1.2"


def test_carving_does_not_decode_again(flat, home):
    for seed in range(3):
        load_dataset(str(flat), split_seed=seed)
    assert len(list((home / "decoded").iterdir())) == 1


def test_changed_source_is_read_again(write, made_set, tmp_path):
    images, labels = made_set.train
    path = tmp_path / "set.npz"
    for count in (60, 50):
        np.savez(path, images=images[:count], labels=labels[:count])
        dataset = load_dataset(path)
        assert len(dataset.train) + len(dataset.test) == count and dataset.name == "set"


def test_cache_dir_is_used(flat, home, tmp_path):
    load_dataset(str(flat), cache_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "decoded").is_dir() and not home.exists()


@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_decoding_holds_few_images_at_a_time(write, tmp_path, form):
    """300 images of 192 KiB, never more than 5 MiB of them."""
    images, labels = [np.full((256, 256, 3), value, np.uint8) for value in range(0, 250, 50)] * 60, [0, 1, 1] * 100
    if form == "folder":
        path = write.folder(tmp_path / "set", {"train": (images[30:], labels[30:]), "test": (images[:30], labels[:30])})
    else:
        path = write.parquet(tmp_path / "set.parquet", images, labels)
    tracemalloc.start()
    try:
        dataset = load_dataset(path)
        assert tracemalloc.get_traced_memory()[1] < 5 * 2**20
    finally:
        tracemalloc.stop()
    assert len(dataset.train) + len(dataset.test) == 300 and dataset.image_size == (256, 256)


def test_too_few_images_to_carve_a_test_split(write, made_set, tmp_path):
    path = write.folder(tmp_path / "few", {"": (made_set.train[0][:11], made_set.train[1][:11])})
    with pytest.raises(
        InputError, match="few has no test split, and none can be carved .*class bee has a single image"
    ):
        load_dataset(str(path))


def test_single_class_is_refused(write, made_set, tmp_path):
    path = write.folder(tmp_path / "one", {"": (made_set.train[0][:5], [0] * 5)})
    with pytest.raises(InputError, match="one has a single class, 'ant'"):
        load_dataset(str(path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cifar1", r"unknown data set 'cifar1'; did you mean cifar10\? \(or give a path, or hf:OWNER/NAME\)"),
        ("digit", "unknown data set 'digit'; did you mean digits"),
        ("zebra", r"unknown data set 'zebra'; known: digits, cifar10, cifar100 \(or give a path"),
        ("./no/where", "no/where does not exist"),
        ("cifar100", "cifar100 is not here yet: pocketvit data get cifar100"),
        ("hf:owner/name", "hf:owner/name is not here yet: pocketvit data get hf:owner/name"),
        ("hf:owner", "'hf:owner' is no set on the Hub: expected hf:OWNER/NAME"),
    ],
)
def test_unknown_sources_say_what_would_work(source, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(source)
    assert "\n" not in str(caught.value)


def test_format_must_fit(flat):
    assert load_dataset(str(flat), format="folder").num_classes == 10
    with pytest.raises(InputError, match="flowers is not a NumPy .npz file: it looks like folder"):
        load_dataset(str(flat), format="npz")
    with pytest.raises(InputError, match="unknown data format 'floder'; did you mean folder"):
        load_dataset(str(flat), format="floder")


@pytest.mark.parametrize("resize", [0, -3, 10**9])
def test_resize_must_be_within_reason(resize):
    with pytest.raises(InputError, match=rf"data.resize={resize}: must be in \[1, 4096\]"):
        load_dataset("digits", resize=resize)


def test_known_sources(home):
    infos = {info.name: info for info in known_sources()}
    assert list(infos) == ["digits", "cifar10", "cifar100"]
    assert infos["digits"].present and not infos["cifar10"].present
    (home / "fetched" / "cifar10").mkdir(parents=True)
    assert {info.name: info for info in known_sources()}["cifar10"].present


@pytest.mark.parametrize(("name", "message"), [("digits", "nothing to fetch"), ("cifar", "did you mean cifar10")])
def test_get_of_what_cannot_be_fetched(name, message):
    with pytest.raises(InputError, match=message):
        get(name)


def test_check_counts(write, made_set, tmp_path):
    write.folder(tmp_path / "set", {"train": made_set.train, "test": made_set.test})
    report = check(str(tmp_path / "set"))
    assert (report.name, report.format, report.num_train, report.num_test) == ("set", "folder", 60, 20)
    assert report.train_counts == (6,) * 10 and report.test_counts == (2,) * 10 and report.class_names == write.NAMES
    assert np.allclose(report.mean, made_set.train[0].mean((0, 1, 2)) / 255)
    assert np.allclose(report.std, made_set.train[0].std((0, 1, 2)) / 255)
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
