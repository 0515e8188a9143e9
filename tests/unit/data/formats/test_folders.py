"""Image folders, split and flat, and their ways of being wrong."""

import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from pocketvit import load_dataset
from pocketvit.config import DataConfig
from pocketvit.data.formats import folders
from pocketvit.data.formats.registry import detect
from pocketvit.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
LABELS = [0, 1, 0, 1, 0, 1]


@pytest.fixture
def split(write, tmp_path):
    """train/ and test/ of two classes, three images in each split and class."""
    return write.folder(tmp_path / "set", {"train": (IMAGES, LABELS), "test": (IMAGES[::-1], LABELS)}, ("ant", "bee"))


def test_split_folder(split):
    decoded = folders.read(split)
    assert decoded.class_names == ("ant", "bee") and decoded.notes == ()
    assert decoded.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(decoded.train.images, IMAGES[[0, 2, 4, 1, 3, 5]])
    assert np.array_equal(decoded.test.images, IMAGES[::-1][[0, 2, 4, 1, 3, 5]])
    assert decoded.test.files[::3] == ["test/ant/00000.png", "test/bee/00001.png"]
    assert decoded.test.take(np.array([3, 0])).files == decoded.test.files[::3][::-1]


@pytest.mark.parametrize("name", ["val", "Validation", "valid"])
def test_validation_serves_as_test(split, name):
    (split / "test").rename(split / name)
    decoded = folders.read(split)
    assert len(decoded.test) == 6 and "validation split is used instead" in decoded.notes[0]


def test_flat_folder_is_not_split(write, tmp_path):
    decoded = folders.read(write.folder(tmp_path, {"": (IMAGES, LABELS)}))
    assert decoded.test is None and len(decoded.train) == 6


def test_class_called_train(write, tmp_path):
    decoded = folders.read(write.folder(tmp_path, {"": (IMAGES, LABELS)}, ("plane", "train")))
    assert decoded.class_names == ("plane", "train") and decoded.test is None


def test_deeper_images_count_and_hidden_ones_do_not(split, write):
    for name in ("more/deep.png", ".hidden.png", ".folder/x.png"):
        file = split / "train" / "ant" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(write.encode(IMAGES[0]))
    (split / ".git" / "y").mkdir(parents=True)
    decoded = folders.read(split)
    assert len(decoded.train) == 7 and decoded.notes == ()


def test_a_class_is_the_same_in_both_ways_to_write_its_accent(write, tmp_path):
    composed, decomposed = (
        unicodedata.normalize(form, "\N{LATIN SMALL LETTER E WITH ACUTE}te") for form in ("NFC", "NFD")
    )
    for train, test in ((composed, decomposed), (decomposed, composed)):
        path = tmp_path / str(train == composed)
        write.folder(path, {"train": (IMAGES, LABELS)}, (train, "fall"))
        write.folder(path, {"test": (IMAGES, LABELS)}, (test, "fall"))
        decoded = folders.read(path)
        assert decoded.class_names == ("fall", composed) and decoded.notes == ()
        assert decoded.train.labels.tolist() == decoded.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
        write.folder(path, {"train": (IMAGES[::2], [0, 0, 0])}, (test,))
        assert folders.read(path).train.labels.tolist() == [0, 0, 0, *[1] * 6], "both are one class"


def test_other_files_are_left_aside_aloud(split):
    (split / "train" / "ant" / "notes.txt").write_text("hello")
    (split / "README.md").write_text("hello")
    decoded = folders.read(split)
    assert len(decoded.train) == 6
    assert decoded.notes == (f"2 files are ignored, such as {split / 'README.md'}: not an image of a class",)


def test_photos_in_heic_are_named_as_such(split):
    """Phones write them, and Pillow alone does not read them."""
    for name in ("1.HEIC", "2.heif"):
        (split / "train" / "ant" / name).write_bytes(b"ftypheic")
    (split / "train" / "ant" / "notes.txt").write_text("hello")
    heic, other = folders.read(split).notes
    assert heic.startswith(f"2 files are ignored, such as {split / 'train' / 'ant' / '1.HEIC'}: HEIC, as some phones")
    assert heic.endswith("convert it to JPEG") and other.endswith("notes.txt: not an image of a class")
    for file in (split / "train").rglob("*.png"):
        file.unlink()
    with pytest.raises(InputError, match="no images; expected train/<class>/<image>; HEIC, .* convert it to JPEG$"):
        folders.read(split)


def test_folders_without_images_are_left_aside_in_one_line(split, write):
    before = folders.files(split)
    (split / "train" / "cow").mkdir()
    (split / "__MACOSX" / "train").mkdir(parents=True)
    write.folder(split / "train" / "__MACOSX", {"ant": (IMAGES, LABELS)}, "xy")
    decoded = folders.read(split)
    assert folders.files(split) == before and decoded.class_names == ("ant", "bee")
    assert decoded.notes[0] == "3 folders are ignored, without an image of a class: __MACOSX, train/__MACOSX, train/cow"
    assert decoded.notes[1].startswith("6 files are ignored, such as ")


def test_a_split_without_any_images_is_named(split):
    for file in (split / "train").rglob("*.png"):
        file.unlink()
    for look in (folders.read, folders.files):  # also when the set is in the cache
        with pytest.raises(InputError, match="train: its folders contain no images; expected train/<class>/<image>"):
            look(split)


@pytest.mark.parametrize("outer", ["", "archive"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("train", "test"),
    [("training_set", "test_set"), ("seg_train", "seg_test"), ("Training", "Val images"), ("TrainSet", "testdata")],
)
def test_folders_whose_names_hold_a_split_are_splits(write, tmp_path, train, test, nested, outer):
    inside = tmp_path / outer
    places = [f"{name}/{name if nested else ''}" for name in (train, test)]
    write.folder(inside, {places[0]: (IMAGES, LABELS), places[1]: (IMAGES[:4], LABELS[:4])}, ("ant", "bee"))
    write.folder(inside, {"single_prediction": (IMAGES[:1], [0])}, [""])
    decoded = folders.read(tmp_path)
    assert decoded.class_names == ("ant", "bee") and (len(decoded.train), len(decoded.test)) == (6, 4)
    assert folders.would_read(tmp_path, inside / places[0] / "new")
    assert not any("CAUTION" in note for note in decoded.notes)


def test_classes_are_no_splits_for_a_word_in_their_names(write, tmp_path):
    decoded = folders.read(write.folder(tmp_path, {"": (IMAGES, LABELS)}, ("train_set", "train_station")))
    assert decoded.class_names == ("train_set", "train_station") and decoded.test is None
    (note,) = decoded.notes
    assert note.startswith("CAUTION: classes are named like splits: train_set, train_station; ")


def test_two_folders_of_one_split_are_refused(split, write):
    write.folder(split, {"validation": (IMAGES, LABELS), "val": (IMAGES, LABELS)}, ("ant", "bee"))
    with pytest.raises(InputError, match="set/val and .*set/validation both stand for the val split"):
        folders.read(split)


@pytest.mark.parametrize("below", ["", "images"])
def test_an_unlabeled_test_split_leaves_the_place_to_val(split, write, below):
    (split / "test").rename(split / "val")
    (split / "test" / below).mkdir(parents=True)
    (split / "test" / below / "0.png").write_bytes(write.encode(IMAGES[0]))
    decoded = folders.read(split)
    assert len(decoded.test) == 6 and "has no test split: its validation split is used instead" in decoded.notes[-2]
    assert decoded.notes[0] == f"{split / 'test'} holds no class of the training images: ignored as unlabeled"


@pytest.fixture
def tiny_imagenet(split, write):
    """The raw layout of Tiny ImageNet: three images of each of two classes, five to validate on, one without a label."""
    for name in ("ant", "bee"):
        files = sorted((split / "train" / name).iterdir())
        (split / "train" / name / "images").mkdir()
        for i, file in enumerate(files):
            file.rename(split / "train" / name / "images" / f"{name}_{i}.JPEG")
        (split / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t3\t3\n")
    (split / "test").rename(split / "old")
    for place, count in (("val", 5), ("test", 1)):
        (split / place / "images").mkdir(parents=True)
        for i in range(count):
            (split / place / "images" / f"{place}_{i}.JPEG").write_bytes(write.encode(IMAGES[i]))
    rows = [f"val_{i}.JPEG\t{('bee', 'ant')[i % 2]}\t0\t0\t3\t3" for i in range(5)]
    (split / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    (split / "wnids.txt").write_text("ant\nbee\n")
    shutil.rmtree(split / "old")
    return split


def test_the_layout_of_tiny_imagenet(tiny_imagenet):
    assert detect(tiny_imagenet) == "folder"
    decoded = folders.read(tiny_imagenet)
    assert decoded.class_names == ("ant", "bee") and decoded.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert decoded.test.files == [f"val/images/val_{i}.JPEG" for i in (1, 3, 0, 2, 4)]
    assert decoded.test.labels.tolist() == [0, 0, 1, 1, 1]
    assert np.array_equal(decoded.test.images, IMAGES[[1, 3, 0, 2, 4]])
    assert decoded.notes[0] == f"{tiny_imagenet / 'test'} holds no class of the training images: ignored as unlabeled"
    assert "has no test split: its validation split is used instead" in decoded.notes[1]
    assert decoded.notes[2].startswith("4 files are ignored, such as ") and len(decoded.notes) == 3


def test_a_changed_table_of_classes_is_read_anew(tiny_imagenet, home):
    table = tiny_imagenet / "val" / "val_annotations.txt"
    assert table in folders.files(tiny_imagenet)
    for _ in range(2):  # the second time from the cache
        assert load_dataset(tiny_imagenet).test.labels.tolist() == [0, 0, 1, 1, 1]
    table.write_text(table.read_text().replace("bee", "ant", 1))
    assert load_dataset(tiny_imagenet).test.labels.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"val_0.JPEG\tant\nval_9.JPEG\tant\n", "line 2: there is no image 'val_9.JPEG'"),
        (b"val_0.JPEG ant\n", "line 1: expected the name of an image, a tab and its class"),
        (b"val_0.JPEG\t \t0\n", "line 1: expected the name of an image, a tab and its class"),
        (b"", "val_annotations.txt is empty"),
        (b"val_0.JPEG\t\xff\n", "is not a table in UTF-8"),
        (b"val_0.JPEG\twasp\n", "val_0.JPEG: label 'wasp' is outside the 2 classes"),
    ],
)
def test_a_wrong_table_of_classes_is_one_line(tiny_imagenet, content, why):
    (tiny_imagenet / "val" / "val_annotations.txt").write_bytes(content)
    with pytest.raises(InputError) as caught:
        folders.read(tiny_imagenet)
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_test_class_is_named(split):
    (split / "test" / "bee").rename(split / "test" / "wasp")
    with pytest.raises(
        InputError, match="test/wasp/00001.png: label 'wasp' is outside the 2 classes, which are ant to"
    ):
        folders.read(split)


def test_split_without_class_folders(split, write):
    for name in ("ant", "bee"):
        for file in (split / "test" / name).iterdir():
            file.rename(split / "test" / f"{name}-{file.name}")
        (split / "test" / name).rmdir()
    with pytest.raises(InputError, match="test contains no class folders: expected test/<class>/<image>"):
        folders.read(split)


def test_test_alone(split):
    (split / "train").rename(split.parent / "elsewhere")
    with pytest.raises(InputError, match="has no training images, only test"):
        folders.read(split)


@pytest.mark.parametrize("name", ["test", "val"])
def test_splits_are_no_classes_where_train_is_misspelt(split, name):
    (split / "train").rename(split / "trian")
    (split / "test").rename(split / name)
    words = f"set/{name} contains class folders, like a split, but .*/set/train does not: name the folder of the"
    for look in (lambda: folders.read(split), lambda: folders.files(split)):
        with pytest.raises(InputError, match=words):
            look()


def test_a_stray_parquet_file_does_not_take_the_place_of_the_images(split):
    for place in (split, split / "train" / "ant"):
        file = place / "stray.parquet"
        file.write_bytes(b"PAR1")
        assert detect(split) == "folder"
        decoded = folders.read(split)
        assert len(decoded.train) == 6
        assert decoded.notes == (f"1 file is ignored, such as {file}: not an image of a class",)
        file.unlink()


def test_what_is_done_to_images_that_are_not_8_bit_colour_is_said(split):
    rgba = np.random.default_rng(1).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    grey16 = rgba[..., 0].astype(np.uint16) * 257
    for number, image in enumerate((rgba, rgba[..., 0], rgba[..., 1], grey16)):
        Image.fromarray(image).save(split / "train" / "ant" / f"other{number}.png")
    assert folders.read(split).notes == (
        "1 image with alpha, composited over black",
        "2 images in gray, repeated in the three channels",
        "1 image in 16-bit gray, divided by 257 and repeated in the three channels",
    )


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_broken_image_is_named(split, content):
    file = split / "train" / "bee" / "broken.jpg"
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"^{file}: "):
        folders.read(split)


def test_mixed_sizes_name_both_files(split, write):
    file = split / "test" / "bee" / "large.png"
    file.write_bytes(write.encode(np.zeros((5, 4, 3), np.uint8)))
    with pytest.raises(
        InputError,
        match=f"ant/00000.png has 4 × 4 pixels but {file} has 4 × 5 pixels \\(width × height\\): .*--data.resize",
    ):
        folders.read(split)
    decoded = folders.read(split, DataConfig(resize=4))
    assert len(decoded.test) == 7 and decoded.notes == ("1 image resized to 4 × 4 (bicubic)",)
