"""Parquet files as on the Hub, and their ways of being wrong."""

import json

import numpy as np
import pytest

from pocketvit.config import DataConfig
from pocketvit.data.formats import parquet
from pocketvit.data.formats.registry import detect
from pocketvit.errors import InputError

pa = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
NAMES = ("ant", "bee", "cat")
LABELS = [0, 1, 2, 2, 1, 0]


@pytest.fixture
def folder(write, tmp_path):
    """Two training shards and a test file, as the Hub lays them out."""
    shards = {"train-00000-of-00002": [0, 1], "train-00001-of-00002": [2, 3], "test-00000-of-00001": [4, 5]}
    for name, rows in shards.items():
        labels = [LABELS[row] for row in rows]
        write.parquet(tmp_path / "set" / "plain_text" / f"{name}.parquet", IMAGES[rows], labels, NAMES)
    return tmp_path / "set"


def test_folder_of_shards(folder):
    decoded = parquet.read(folder)
    assert np.array_equal(decoded.train.images, IMAGES[:4]) and decoded.train.labels.tolist() == LABELS[:4]
    assert np.array_equal(decoded.test.images, IMAGES[4:]) and decoded.test.labels.tolist() == LABELS[4:]
    assert decoded.class_names == NAMES and decoded.notes == (f"{folder} has no test images of the class cat",)


def test_hidden_files_are_ignored(folder, write):
    write.parquet(folder / ".cache" / "train-00000-of-00009.parquet", IMAGES[:1], [0])
    (folder / "plain_text" / ".train-x.parquet").write_bytes(b"half")
    assert len(parquet.files(folder)) == 3 and len(parquet.read(folder).train) == 4


def test_images_beside_the_files_are_left_aside_aloud(folder, write):
    picture = folder / "assets" / "banner.png"
    picture.parent.mkdir()
    picture.write_bytes(write.encode(IMAGES[0]))
    assert detect(folder) == "parquet"
    note = parquet.read(folder).notes[-1]
    assert note == f"1 file is ignored, such as {picture}: not among the parquet files"


def test_single_file_is_not_split(folder):
    decoded = parquet.read(folder / "plain_text" / "test-00000-of-00001.parquet")
    assert decoded.test is None and np.array_equal(decoded.train.images, IMAGES[4:])


def test_split_by_folder_name(write, tmp_path):
    write.parquet(tmp_path / "train" / "0000.parquet", IMAGES[:4], LABELS[:4])
    write.parquet(tmp_path / "validation" / "0000.parquet", IMAGES[4:], LABELS[4:])
    decoded = parquet.read(tmp_path)
    assert len(decoded.train) == 4 and len(decoded.test) == 2
    assert "no test split: its validation split is used instead" in decoded.notes[0]


def test_validation_beside_test_is_left_aside(folder, write):
    write.parquet(folder / "plain_text" / "validation.parquet", IMAGES[:1], LABELS[:1])
    decoded = parquet.read(folder)
    assert np.array_equal(decoded.test.images, IMAGES[4:]) and "validation split is ignored" in decoded.notes[0]


@pytest.mark.parametrize("column", ["label", "fine_label", "labels"])
@pytest.mark.parametrize("image_column", ["img", "image"])
def test_column_names(tmp_path, write, column, image_column):
    contents = [{"bytes": write.encode(image), "path": None} for image in IMAGES]
    table = pa.table({"other": [1] * 6, image_column: contents, column: LABELS})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    decoded = parquet.read(tmp_path / "x.parquet")
    assert decoded.train.labels.tolist() == LABELS and decoded.class_names == ("0", "1", "2")


def test_columns_found_by_the_hubs_metadata(tmp_path, write):
    contents = [{"bytes": write.encode(image), "path": None} for image in IMAGES]
    features = {"picture": {"_type": "Image"}, "kind": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"picture": contents, "kind": LABELS}, metadata=metadata)
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    assert parquet.read(tmp_path / "x.parquet").class_names == ("a", "b", "c")


LABEL = {"names": ["a", "b", "c"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("features", "names"),
    [
        ({"tags": [{"dtype": "string", "_type": "Value"}], "label": LABEL}, ("a", "b", "c")),
        ({"boxes": {"x": {"dtype": "int64", "_type": "Value"}}, "label": LABEL}, ("a", "b", "c")),
        ({"label": [LABEL]}, ("0", "1", "2")),
        ([LABEL | {"name": "label"}], ("0", "1", "2")),
        (None, ("0", "1", "2")),
    ],
)
def test_columns_of_other_forms_in_the_hubs_metadata(tmp_path, write, features, names):
    contents = [{"bytes": write.encode(image), "path": None} for image in IMAGES]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pa.parquet.write_table(pa.table({"img": contents, "label": LABELS}, metadata=metadata), tmp_path / "x.parquet")
    assert parquet.read(tmp_path / "x.parquet").class_names == names


def test_no_class_names_where_there_should_be_some(write, tmp_path):
    file = write.parquet(tmp_path / "x.parquet", IMAGES, LABELS, ())
    with pytest.raises(InputError, match=f"^{file} has an empty list of class names"):
        parquet.read(file)


def test_string_labels_and_plain_bytes(tmp_path, write):
    contents = [write.encode(image, "WEBP", lossless=True) for image in IMAGES]
    pa.parquet.write_table(pa.table({"image": contents, "label": list("bacabc")}), tmp_path / "x.parquet")
    decoded = parquet.read(tmp_path / "x.parquet")
    assert decoded.train.labels.tolist() == [1, 0, 2, 0, 1, 2] and decoded.class_names == ("a", "b", "c")
    assert np.array_equal(decoded.train.images, IMAGES)


def test_truncated_image_is_named_with_file_and_row(folder, write):
    contents = [{"bytes": write.encode(image), "path": None} for image in IMAGES[:4]]
    contents[2]["bytes"] = contents[2]["bytes"][:60]
    file = write.parquet(folder / "plain_text" / "test-00000-of-00001.parquet", IMAGES[:4], LABELS[:4], img=contents)
    with pytest.raises(InputError, match=f"^{file}, row 2: the image is truncated or corrupt"):
        parquet.read(folder)


def test_image_without_bytes_is_named(folder, write):
    contents = [{"bytes": write.encode(IMAGES[0]), "path": "a"}, {"bytes": None, "path": "b"}]
    file = write.parquet(folder / "plain_text" / "test-00000-of-00001.parquet", IMAGES[:2], [0, 1], img=contents)
    with pytest.raises(InputError, match=f"^{file}, row 1: column img contains no image bytes"):
        parquet.read(folder)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3], "row 1: label 3 is outside the 3 classes"),
        ([0, -1], "row 1: label -1 is outside"),
        ([0, None], "row 1: label None is not an integer"),
    ],
)
def test_wrong_label_is_named_with_file_and_row(folder, write, labels, message):
    file = write.parquet(folder / "plain_text" / "train-00001-of-00002.parquet", IMAGES[:2], labels, NAMES)
    with pytest.raises(InputError, match=f"^{file}, {message}"):
        parquet.read(folder)


def test_label_of_another_kind(write, tmp_path):
    file = write.parquet(tmp_path / "x.parquet", IMAGES[:2], [0.5, 1.5], None)
    with pytest.raises(InputError, match="row 0: label 0.5 is not an integer"):
        parquet.read(file)


@pytest.mark.parametrize("kept", [0, 3, 100, 0.9])
def test_truncated_file_is_named(folder, kept):
    file = folder / "plain_text" / "train-00001-of-00002.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(InputError, match=rf"^{file} \([\d,]+ bytes\) is truncated or not a parquet file"):
        parquet.read(folder)


def test_corrupt_file_is_named(folder):
    file = folder / "plain_text" / "train-00001-of-00002.parquet"
    content = bytearray(file.read_bytes())
    content[4:40] = bytes(36)  # the first page's header
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"^{file}.*corrupt"):
        parquet.read(folder)


def test_missing_shard_is_named(folder):
    (folder / "plain_text" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(InputError, match="train-00000-of-00002.parquet is missing"):
        parquet.read(folder)


def test_several_sets_must_be_named(folder, write):
    write.parquet(folder / "other" / "train.parquet", IMAGES, LABELS)
    with pytest.raises(InputError, match="contains several data sets: name one of .*other, .*plain_text"):
        parquet.read(folder)


def test_file_of_no_split_beside_others(folder, write):
    write.parquet(folder / "plain_text" / "more.parquet", IMAGES, LABELS)
    with pytest.raises(InputError, match="more.parquet: its name says neither train nor test"):
        parquet.read(folder)


def test_only_test_files(folder):
    for file in (folder / "plain_text").glob("train*"):
        file.unlink()
    with pytest.raises(InputError, match="has no training images, only test"):
        parquet.read(folder)


def test_empty_table(write, tmp_path):
    file = write.parquet(tmp_path / "x.parquet", IMAGES[:0], [])
    with pytest.raises(InputError, match="has no images"):
        parquet.read(file)


def test_unknown_columns_are_listed(tmp_path):
    pa.parquet.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="has the columns a, b: expected img or image"):
        parquet.read(tmp_path / "x.parquet")


def test_times_that_python_cannot_hold_are_refused(tmp_path):
    """Arrow refuses them, or gives pandas' own times where pandas is installed."""
    table = pa.table({"img": [b"", b""], "label": pa.array([0, 1], pa.timestamp("ns"))})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match="x.parquet.*row 0: (Nanosecond resolution|label Timestamp)"):
        parquet.read(tmp_path / "x.parquet")


def test_shard_of_another_schema(folder):
    file = folder / "plain_text" / "train-00001-of-00002.parquet"
    pa.parquet.write_table(pa.table({"a": [1]}), file)
    with pytest.raises(InputError, match=f"{file} has no column label"):
        parquet.read(folder)


def test_missing_extra_is_named(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'pocketvit\[data\]'"):
        parquet.read(folder)


def test_labels_go_by_name_where_files_list_their_classes_in_another_order(write, tmp_path):
    write.parquet(tmp_path / "train.parquet", IMAGES, LABELS, NAMES)
    other = NAMES[::-1]
    write.parquet(tmp_path / "test.parquet", IMAGES, [other.index(NAMES[label]) for label in LABELS], other)
    decoded = parquet.read(tmp_path)
    assert decoded.class_names == NAMES and (decoded.test.labels == decoded.train.labels).all()
    write.parquet(tmp_path / "test.parquet", IMAGES[:2], [0, 2], NAMES[1:])
    with pytest.raises(InputError, match=r"test.parquet, row 1: label 2 is outside the 2 classes that it lists"):
        parquet.read(tmp_path)
    write.parquet(tmp_path / "test.parquet", IMAGES[:2], [0, 1], ("x", NAMES[0]))
    with pytest.raises(InputError, match=f"test.parquet lists other classes: it lists x, {NAMES[0]}, .* {NAMES[0]}, "):
        parquet.read(tmp_path)


def test_a_class_name_that_stands_twice_is_refused(write, tmp_path):
    file = write.parquet(tmp_path / "x.parquet", IMAGES, LABELS, ("a", "b", "a"))
    with pytest.raises(InputError, match=f"^{file}: class_names has 'a' 2 times: give every class a different"):
        parquet.read(file)


def test_a_class_name_that_another_file_lists_twice_is_refused(write, tmp_path):
    write.parquet(tmp_path / "train.parquet", IMAGES, LABELS, NAMES)
    file = write.parquet(tmp_path / "test.parquet", IMAGES[:2], [0, 1], ("bee", "bee"))
    with pytest.raises(InputError, match=f"^{file} lists two classes of one name: give every class a different name"):
        parquet.read(tmp_path)


@pytest.mark.parametrize("val", [True, False])
def test_a_test_split_without_labels_is_left_aside(write, tmp_path, val):
    write.parquet(tmp_path / "train.parquet", IMAGES, LABELS, NAMES)
    write.parquet(tmp_path / "test.parquet", IMAGES[:2], [-1, -1], NAMES)
    if val:
        write.parquet(tmp_path / "validation.parquet", IMAGES[:3], LABELS[:3], NAMES)
    decoded = parquet.read(tmp_path)
    assert (len(decoded.test) == 3 if val else decoded.test is None) and len(decoded.train) == len(IMAGES)
    assert decoded.notes[0] == f"{tmp_path}: its test split has no labels and is ignored"


def test_columns_of_ones_own(write, tmp_path):
    contents = [{"bytes": write.encode(image), "path": None} for image in IMAGES]
    coarse = [label // 2 for label in LABELS]
    features = {"label": LABEL | {"names": list(NAMES)}, "coarse": LABEL | {"names": ["insect", "pet"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"img": contents, "scan": contents[::-1], "label": LABELS, "coarse": coarse}, metadata=metadata)
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    usual = parquet.read(tmp_path / "x.parquet")
    assert usual.class_names == NAMES and usual.notes == (
        "labels are those of label; --data.label-column takes coarse instead",
    )
    other = parquet.read(tmp_path / "x.parquet", DataConfig(image_column="scan", label_column="coarse"))
    assert other.class_names == ("insect", "pet") and other.train.labels.tolist() == coarse and other.notes == ()
    assert np.array_equal(other.train.images, usual.train.images[::-1])
    with pytest.raises(InputError, match="has the columns img, scan, label, coarse: expected colour$"):
        parquet.read(tmp_path / "x.parquet", DataConfig(label_column="colour"))


@pytest.mark.parametrize("names", [{"a": 1}, "ab", [1, 2], 5, None, [["a"], "b"]], ids=str)
def test_class_names_of_another_type_are_none(tmp_path, write, names):
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": LABEL | {"names": names}}}})}
    contents = [{"bytes": write.encode(image), "path": None} for image in IMAGES]
    pa.parquet.write_table(pa.table({"img": contents, "label": LABELS}, metadata=metadata), tmp_path / "x.parquet")
    assert parquet.read(tmp_path / "x.parquet").class_names == tuple(map(str, range(len(set(LABELS)))))
