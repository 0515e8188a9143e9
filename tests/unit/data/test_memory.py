"""Images given from Python are the same set as those of a file, and go through the same checks."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, TensorDataset

from pocketvit.config import DataConfig
from pocketvit.data import load_dataset
from pocketvit.data.memory import load_from_memory
from pocketvit.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 4, 5, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
TENSORS = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)  # (N, C, H, W)


class Pictures(TorchDataset):
    """In map style, as torchvision's."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


PILLOW = [Image.fromarray(image) for image in IMAGES]
UNSPLIT = {
    "arrays": (IMAGES, LABELS),
    "arrays and a list": (IMAGES, LABELS.tolist()),
    "tensors": (TENSORS, torch.from_numpy(LABELS)),
    "named arrays": {"images": IMAGES, "labels": LABELS[:, None]},
    "named tensors": {"images": TENSORS, "labels": torch.from_numpy(LABELS)},
    "pictures": Pictures(PILLOW, LABELS.tolist()),
    "pictures of arrays": Pictures(IMAGES, torch.from_numpy(LABELS)),
    "pictures of tensors": TensorDataset(TENSORS, torch.from_numpy(LABELS)),
    "a list of pairs": list(zip(PILLOW, LABELS)),
}


@pytest.fixture
def from_file(tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    return load_dataset(tmp_path / "set.npz", test_frac=0.25, split_seed=3, cache_dir=tmp_path)


def same(a, b):
    pairs = [(a.train.images, b.train.images), (a.train.labels, b.train.labels)]
    pairs += [(a.test.images, b.test.images), (a.test.labels, b.test.labels)]
    return all(np.array_equal(x, y[:]) for x, y in pairs) and a.class_names == b.class_names


@pytest.mark.parametrize("form", UNSPLIT)
def test_a_set_that_is_not_split(form, from_file):
    found = load_from_memory(UNSPLIT[form], DataConfig(test_frac=0.25, split_seed=3))
    assert same(found, from_file) and found.fingerprint == from_file.fingerprint
    assert "".join(found.notes) == "".join(from_file.notes).replace("set has", "data has")
    assert found.train.images.flags.c_contiguous and not np.shares_memory(found.train.images, IMAGES)
    whole = load_from_memory(UNSPLIT[form], test_frac=1)
    assert len(whole.test) == 12 and len(whole.train) == 0


SPLIT = {
    "arrays": (IMAGES, LABELS, IMAGES[:3], LABELS[:3]),
    "named arrays": {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:3], "y_test": LABELS[:3]},
    "pictures": (Pictures(PILLOW, LABELS), Pictures(PILLOW[:3], LABELS[:3])),
}


@pytest.mark.parametrize("form", SPLIT)
def test_a_set_that_is_split(form, tmp_path):
    found = load_from_memory(SPLIT[form])
    np.savez(
        tmp_path / "set.npz", train_images=IMAGES, train_labels=LABELS, test_images=IMAGES[:3], test_labels=LABELS[:3]
    )
    assert same(found, load_dataset(tmp_path / "set.npz", cache_dir=tmp_path))


def test_a_set_that_is_loaded_stays_as_it_is(from_file):
    assert load_from_memory(from_file) is from_file
    with pytest.raises(InputError, match=r"^data.resize=8, but set is already loaded; give it to load_dataset$"):
        load_from_memory(from_file, DataConfig(resize=8))


def test_names_of_the_classes(from_file):
    pictures = Pictures(PILLOW, LABELS)
    assert load_from_memory(pictures, class_names=("a", "b", "c", "d")).class_names == ("a", "b", "c", "d")
    pictures.classes = ["x", "y", "z"]
    assert load_from_memory(pictures, class_names=("a", "b", "c", "d")).class_names == ("x", "y", "z")
    arrays = {"images": IMAGES, "labels": LABELS}
    assert load_from_memory(arrays, class_names=("a", "b", "c", "d")).class_names == ("a", "b", "c", "d")
    assert load_from_memory(arrays | {"class_names": ["x", "y", "z"]}, class_names=("a",)).class_names == (
        "x",
        "y",
        "z",
    )
    named = np.array(["x", "y", "z"])[LABELS]
    assert load_from_memory((IMAGES, named)).class_names == ("x", "y", "z")
    assert load_from_memory((IMAGES, named.astype(object))).class_names == ("x", "y", "z"), "as pandas keeps text"
    assert load_from_memory(list(zip(PILLOW, named.tolist()))).class_names == ("x", "y", "z")


def test_pictures_of_mixed_size_are_resized_and_grey_ones_repeated():
    pictures = [(Image.new("L", (size, size), size), label) for size in (4, 5) for label in (0, 1)]
    with pytest.raises(InputError, match=r"^data, train\[0\] has 4 × 4 pixels but data, train\[2\] has 5 × 5 pixels"):
        load_from_memory(pictures, test_frac=0.5)
    found = load_from_memory(pictures, DataConfig(test_frac=0.5, resize=6))
    assert found.image_size == (6, 6) and "4 images in gray, repeated in the three channels" in found.notes


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


FLOATS = (TENSORS / 255).float()
WRONG = {
    "a name": (
        "digits",
        r"^'digits' is not a data set; load it: pocketvit.load_dataset\(SOURCE\); or give \(images, la",
    ),
    "a stream": (Stream(), r"is not a data set; load it: .*, or two of them, the second to test on$"),
    "images alone": (IMAGES, r"^data, train\[0\] is of type ndarray, not \(image, label\); give \(images, labels\)"),
    "three arrays": ((IMAGES, LABELS, IMAGES), r"^data is a tuple of 3; give \(images, labels\), "),
    "no arrays": ({}, r"^data contains the arrays \(none\): expected train_images and train_labels"),
    "no names": ({0: IMAGES}, r"^data contains the arrays 0: expected train_images and train_labels"),
    "ragged": ({"images": [[1], [2, 3]], "labels": [0, 1]}, r"^data is not arrays: .*; give \(images, labels\)"),
    "unlike lengths": ((IMAGES, LABELS[:5]), r"^data: images is \(12, 4, 5, 3\) but labels is \(5,\)$"),
    "floats": ((IMAGES / 255, LABELS), r"^data: images is float64: expected uint8, .*: use \(images \* 255\)\.round"),
    "channels first": ((np.moveaxis(IMAGES, 3, 1), LABELS), r"put the channels last: images\.transpose\(0, 2, 3, 1\)$"),
    "made into floats": (
        TensorDataset(FLOATS, torch.from_numpy(LABELS)),
        r"^data, train\[0\]: the image is float32: remove ToTensor",
    ),
    "Pillow's floats": (
        [(Image.new("F", (2, 2)), 0)],
        r"^data, train\[0\]: the scale of floating-point pixels is unknown",
    ),
    "one-hot labels": (
        Pictures(PILLOW, np.eye(12)),
        r"^data, train\[0\]: the label has shape \(12,\); give an integer",
    ),
    "labels from 1": ((IMAGES, LABELS + 1), r"^data, labels\[2\]: label 3, but only 3 different labels occur"),
    "a missing label": (
        (IMAGES, np.array(["x", float("nan"), *"xyz" * 3, "y"], dtype=object)),
        r"^data, labels\[0\]: the label is object, neither",
    ),
    "no images": ([], r"^the train split of data has no images$"),
    "one class": ((IMAGES, np.zeros(12, int)), r"^data has a single class, '0': there is nothing to learn$"),
}


@pytest.mark.parametrize("form", WRONG)
def test_what_is_no_set_is_refused_in_one_line(form):
    data, message = WRONG[form]
    with pytest.raises(InputError, match=message) as refused:
        load_from_memory(data)
    assert "\n" not in str(refused.value)


def test_such_a_set_cannot_be_opened_by_its_source(tmp_path):
    with pytest.raises(InputError, match=r"^data.source=memory: these images came from Python; give them again"):
        load_dataset("memory", cache_dir=tmp_path)
