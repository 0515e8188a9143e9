"""Loading by name and by path."""

import tracemalloc

import numpy as np
import pytest

from pocketvit.data.sources import get, known_sources, load_dataset, name_of
from pocketvit.errors import InputError

pytestmark = pytest.mark.usefixtures("home")


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


@pytest.mark.parametrize("source", ["digits", "flat"])
def test_numpys_numbers_split_and_resize_as_pythons(source, flat, home):
    source = str(flat) if source == "flat" else source
    given = {"resize": 9, "test_frac": 0.5, "split_seed": 3}
    theirs = load_dataset(source, **{name: np.array(value)[()] for name, value in given.items()})
    ours = load_dataset(source, **given)
    assert theirs.notes == ours.notes and (theirs.test.labels == ours.test.labels).all()
    assert theirs.fingerprint == ours.fingerprint


def test_flat_folder_gets_a_seeded_test_split(flat, synthetic_set):
    first, again, other = (load_dataset(str(flat), test_frac=0.34, split_seed=seed) for seed in (0, 0, 1))
    assert first.name == "flowers" and len(first.train) == 40
    assert np.bincount(first.test.labels).tolist() == [2] * 10
    (note,) = first.notes
    assert (
        note == "flowers has no test split: 20 of its 60 images are held out for testing (0.34 of each class, seed 0)"
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_all_images_may_serve_as_test_split(flat, write, synthetic_set):
    whole = load_dataset(str(flat), test_frac=1)
    assert (len(whole.train), len(whole.test), whole.image_size) == (0, 60, (32, 32))
    assert whole.notes == ("flowers has no test split: all its images are test images",)
    write.folder(flat.parent / "set", {"train": synthetic_set.train, "test": synthetic_set.test})
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


def test_a_damaged_cache_is_said_once_and_changes_no_fingerprint(flat, home):
    first = load_dataset(str(flat))
    with open(next((home / "decoded").glob("*/train_images.npy")), "r+b") as file:
        file.seek(5000)
        file.write(bytes(100))
    again, later = load_dataset(str(flat)), load_dataset(str(flat))
    assert "are damaged; decoding them again" in again.notes[0] and again.notes[1:] == later.notes == first.notes
    assert again.fingerprint == later.fingerprint == first.fingerprint


def test_names_of_images_outlast_the_cache(flat, home):
    first, again = load_dataset(str(flat)), load_dataset(str(flat))
    assert first.test.files == again.test.files and set(first.train.files + first.test.files) == {
        str(file.relative_to(flat)) for file in flat.rglob("*.png")
    }
    assert load_dataset("digits").test.files[0] == "digits, image 0"


def test_a_column_of_what_has_none_is_refused(flat, home):
    with pytest.raises(InputError, match="^data.label_column=fine, but .*flowers has no columns: it is image folders"):
        load_dataset(str(flat), label_column="fine")


def test_changed_source_is_read_again(write, synthetic_set, tmp_path):
    images, labels = synthetic_set.train
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


def test_too_few_images_to_carve_a_test_split(write, synthetic_set, tmp_path):
    path = write.folder(tmp_path / "few", {"": (synthetic_set.train[0][:11], synthetic_set.train[1][:11])})
    with pytest.raises(
        InputError, match="few has no test split, and none can be held out .*class bee has a single image"
    ):
        load_dataset(str(path))


def test_single_class_is_refused(write, synthetic_set, tmp_path):
    path = write.folder(tmp_path / "one", {"": (synthetic_set.train[0][:5], [0] * 5)})
    with pytest.raises(InputError, match="one has a single class, 'ant'"):
        load_dataset(str(path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "cifar1",
            r"unknown data set 'cifar1'; did you mean cifar10\? \(or give hf:OWNER/NAME, or a path: nothing here",
        ),
        ("digit", "unknown data set 'digit'; did you mean digits"),
        ("zebra", r"unknown data set 'zebra'; known: digits, cifar10, cifar100, .*nothing here is called 'zebra'\)"),
        ("./no/where", "no/where does not exist"),
        ("cifar100", "cifar100 is not downloaded yet; run: pocketvit data get cifar100"),
        ("hf:owner/name", "hf:owner/name is not downloaded yet; run: pocketvit data get hf:owner/name"),
        ("hf:owner", "'hf:owner' is not a data set on the Hub: expected hf:OWNER/NAME"),
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
    assert list(infos)[:3] == ["digits", "cifar10", "cifar100"] and "svhn" in infos
    assert infos["digits"].present and not infos["cifar10"].present
    (home / "fetched" / "cifar10").mkdir(parents=True)
    assert {info.name: info for info in known_sources()}["cifar10"].present


@pytest.mark.parametrize(("name", "message"), [("digits", "nothing to download"), ("cifar", "did you mean cifar10")])
def test_get_of_what_cannot_be_fetched(name, message):
    with pytest.raises(InputError, match=message):
        get(name)
