"""Images beside a table of labels, and its ways of being wrong."""

import numpy as np
import pytest

from pocketvit.config import DataConfig
from pocketvit.data import load_dataset
from pocketvit.data.check import check
from pocketvit.data.formats import table
from pocketvit.data.formats.registry import detect, find_format
from pocketvit.data.survey import survey
from pocketvit.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)


def write_images(write, folder, count=6):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(IMAGES[:count]):
        (folder / f"p{i}.png").write_bytes(write.encode(image))


@pytest.fixture
def flat(write, tmp_path):
    """Six images in a folder with labels.csv, which names them in reverse."""
    write_images(write, tmp_path / "set" / "images")
    rows = [f"p{i}.png,{('bee', 'ant', 'cat')[i % 3]}" for i in range(6)][::-1]
    (tmp_path / "set" / "labels.csv").write_text("\n".join(["file,label", *rows]))
    return tmp_path / "set"


def test_labels_of_a_table(flat):
    assert detect(flat) == "csv" and len(table.files(flat)) == 7
    decoded = find_format("csv").read(flat, DataConfig(), lambda _, images, __: np.stack(list(images)))
    assert decoded.class_names == ("ant", "bee", "cat") and decoded.train.labels.tolist() == [2, 0, 1, 2, 0, 1]
    assert np.array_equal(decoded.train.images, IMAGES[::-1]) and decoded.train.files[0] == "images/p5.png"
    assert decoded.test is None and decoded.notes == ()
    assert survey(DataConfig(source=str(flat), test_frac=0.5)) == (3, [(4, 4)] * 6)
    assert survey(DataConfig(source=str(flat), test_frac=0.5, val_frac=1 / 3))[0] == 2
    assert survey(DataConfig(source="digits", val_frac=0.9))[0] == 144


@pytest.mark.parametrize("head", ["file_name;label;split", "id\tclass\tsplit", "\ufeffpath,breed,split"])
def test_other_columns_endings_and_splits(flat, head):
    mark = next(mark for mark in ";\t," if mark in head)
    rows = [mark.join((f"p{i}", f"{10 * i}", "val" if i == 5 else "training_set")) for i in range(6)]
    text = "\r\n".join([head, *rows[:5], rows[5].replace("50", "0")])
    (flat / "labels.csv").write_bytes(text.encode())
    decoded = table.read(flat)
    assert decoded.class_names == ("0", "10", "20", "30", "40"), "by number"
    assert len(decoded.train) == 5 and decoded.test.labels.tolist() == [0]


def test_a_table_in_each_splits_folder(write, tmp_path):
    for split, count in (("train", 6), ("test", 2)):
        write_images(write, tmp_path / split, count)
        rows = [f"p{i}.png,{i % 2}" for i in range(count)]
        (tmp_path / split / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    write_images(write, tmp_path / "test" / "more", 1)
    assert detect(tmp_path) == "csv"
    with pytest.raises(InputError, match="test/metadata.csv, row 2: file_name is .*: several images have that name"):
        (tmp_path / "test" / "metadata.csv").write_text("file_name,label\np0,1")
        table.read(tmp_path)
    (tmp_path / "test" / "metadata.csv").write_text("file_name,label\np0.png,0\nmore/p0.png,1")
    decoded = table.read(tmp_path)
    assert decoded.test.labels.tolist() == [0, 1] and decoded.test.files == ["test/p0.png", "test/more/p0.png"]
    assert decoded.notes[-1].startswith("1 file is ignored, such as") and "test/p1.png" in decoded.notes[-1]


def test_image_folders_with_a_stray_table_stay_image_folders(write, tmp_path):
    write.folder(tmp_path, {"": (IMAGES, [0, 1] * 3)})
    (tmp_path / "labels.csv").write_text("file,label\n00000.png,x")
    assert detect(tmp_path) == "folder"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\n../secret.png,ant", "row 2: file is '../secret.png': there is no such image"),
        ("file,label\np0.png,", "row 2: label has 0 letters; give p0.png a label"),
        ("file,label\np0.png", "row 2: label has 0 letters"),
        ("file,label,split\np0.png,ant,somewhere", "row 2: split is 'somewhere': expected train, test or val"),
        (
            "file,colour\np0.png,red",
            "has the columns file, colour: expected label or labels.*; --data.image-column and --data.label-column name",
        ),
        ("", "has the columns \\(none\\): expected file_name or"),
        ('file,label\n"p0.png,ant', "is not a CSV table in UTF-8: unexpected end of data"),
        (b"file,label\n\xff.png,ant", "is not a CSV table in UTF-8: 'utf-8' codec"),
    ],
)
def test_wrong_tables_are_named(flat, text, words):
    (flat / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"labels.csv.* {words}") as found:
        table.read(flat)
    assert "\n" not in str(found.value)


def test_columns_may_be_named(flat):
    rows = [f"x,p{i}.png,{i % 2}" for i in range(6)]
    (flat / "labels.csv").write_text("\n".join(["label,photo,kind", *rows]))
    decoded = table.read(flat, DataConfig(image_column="photo", label_column="kind"))
    assert decoded.train.labels.tolist() == [0, 1] * 3


SEVERAL = [("ant", "cat"), ("bee",), (), ("cat", "bee"), ("ant",), ("cat", "cat")]
MATRIX = [[1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(("mark", "quote"), [("|", ""), (";", ""), (" ", ""), (",", '"')])
def test_several_classes_between_separators(flat, mark, quote):
    rows = [f"p{i}.png,{quote}{mark.join(names)}{quote}" for i, names in enumerate(SEVERAL)]
    (flat / "labels.csv").write_text("\n".join(["file,label", *rows]))
    decoded = table.read(flat, DataConfig(label_separator=mark))
    assert decoded.class_names == ("ant", "bee", "cat")
    assert decoded.train.labels.dtype == bool and decoded.train.labels.astype(int).tolist() == MATRIX
    assert decoded.notes == (f"{flat}: images without a class in the train split: 1",)


def test_a_column_of_0_and_1_for_each_class(flat):
    rows = [f"{i},p{i}.png,{c},{40 + i},{a},{b}.0,{'test' if i > 3 else 'train'}" for i, (a, b, c) in enumerate(MATRIX)]
    (flat / "labels.csv").write_text("\n".join([",file,cat,age,ant,bee,split", *rows]))
    decoded = table.read(flat)
    assert decoded.class_names == ("cat", "ant", "bee"), "in the order of the columns"
    columns = np.array(MATRIX, bool)[:, [2, 0, 1]]
    assert np.array_equal(decoded.train.labels, columns[:4]) and np.array_equal(decoded.test.labels, columns[4:])
    assert decoded.notes[-1] == "1 column is ignored, such as age of labels.csv: not only 0 and 1"
    assert any("no training images" not in note and "no test images of the class bee" in note for note in decoded.notes)


@pytest.mark.parametrize(
    ("text", "separator", "words"),
    [
        ("file,label\np0.png,ant,cat", ",", "row 2: has other columns than the head; a label that contains a comma"),
        ("file,label\np0.png", "|", "row 2: has other columns than the head"),
        ("file,label\np0.png,ant|" + "x" * 1001, "|", "row 2: label has a class of more than 1000 letters"),
        ("file,ant,bee\np0.png,1,-1", None, "has the columns file, ant, bee: expected label or labels"),
        ("file,ant,bee\np0.png,1", None, "has the columns file, ant, bee: expected label or labels"),
        ("file,ant,bee\np0.png,1,0", "|", "has the columns file, ant, bee: expected label or labels"),
    ],
)
def test_wrong_tables_of_several_classes_are_named(flat, text, separator, words):
    (flat / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=f"labels.csv.* {words}") as found:
        table.read(flat, DataConfig(label_separator=separator))
    assert "\n" not in str(found.value)


def test_tables_of_other_classes_are_not_joined(write, tmp_path):
    for split, head in (("train", "file,ant,bee"), ("test", "file,bee,ant")):
        write_images(write, tmp_path / split, 2)
        (tmp_path / split / "labels.csv").write_text(f"{head}\np0,0,1\np1,1,1")
    with pytest.raises(InputError, match="do not have the same columns of classes"):
        table.read(tmp_path)


def test_more_labels_than_memory_are_refused_before_they_are_made(flat, monkeypatch):
    monkeypatch.setattr(table, "MOST_BYTES", 17)
    rows = [f"p{i}.png,{'|'.join(names)}" for i, names in enumerate(SEVERAL)]
    (flat / "labels.csv").write_text("\n".join(["file,label", *rows]))
    with pytest.raises(InputError, match="has 3 classes; with its images, that is 18 labels, too many"):
        table.read(flat, DataConfig(label_separator="|"))


def test_several_classes_split_and_loaded(flat, tmp_path):
    rows = [f"p{i}.png,{'|'.join(names)}" for i, names in enumerate(SEVERAL)]
    (flat / "labels.csv").write_text("\n".join(["file,label", *rows]))
    options = {"label_separator": "|", "test_frac": 0.34, "cache_dir": tmp_path / "cache"}
    first, again = (load_dataset(flat, **options) for _ in range(2))
    assert len(first.test) == 2 and first.train.multilabel and "(0.34 of them, seed 0)" in first.notes[-1]
    assert first.fingerprint == again.fingerprint and np.array_equal(first.train.labels, again.train.labels)
    report = check(DataConfig(source=str(flat), **options))
    assert report.dataset.train.multilabel and "in 3 classes, several for an image\n" in report.text()
    assert np.add(report.train_counts, report.test_counts).tolist() == [2, 2, 3]
    (flat / "labels.csv").write_text("\n".join(["file,label", *rows[:-1], "p5.png,cat|ant"]))
    assert load_dataset(flat, **options).fingerprint != first.fingerprint
    with pytest.raises(InputError, match=r"data.label_separator='\|' is for labels.csv, but .* is a NumPy .npz file"):
        np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.arange(6))
        load_dataset(tmp_path / "a.npz", **options)
