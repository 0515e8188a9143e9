"""The sets besides CIFAR: their addresses, their recipes, and downloads of small ones from a local server."""

import dataclasses
import gzip
import hashlib
import io
import os
import re
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from named_sets import GRAY, LABELS, write_idx, write_stl10, write_svhn

from pocketvit.cli.train import parse_train
from pocketvit.data import sources
from pocketvit.data.fetch import catalogue as remote
from pocketvit.data.fetch.other_sets import SETS
from pocketvit.data.fetch.unpack import unpack
from pocketvit.errors import InputError
from pocketvit.model import ViT

KNOWN = {known.name: known for known in SETS}


def test_every_file_has_an_address_and_a_checksum():
    assert list(KNOWN) == ["mnist", "fashion-mnist", "emnist", "svhn", "cinic10", "tiny-imagenet", "stl10"]
    for known in SETS:
        for file in (file for offer in known.offers for file in offer.files):
            assert re.fullmatch(r"https?://[a-z0-9.-]+/[A-Za-z0-9_./~-]+", file.url)
            assert re.fullmatch("md5:[0-9a-f]{32}", file.checksum), file.url


@pytest.mark.parametrize("known", sources.known_sources(), ids=lambda known: known.name)
def test_the_recipe_of_a_set_fits_its_images(known):
    """Its command is one, and the model takes the images."""
    words = known.train.split()
    config = parse_train(words[2:])
    assert words[:2] == ["pocketvit", "train"] and config.data.source == known.name
    side = int(re.search(r"(\d+) × \1 pixels", known.description)[1])
    num_classes = int(re.search(r"(\d+) classes", known.description)[1])
    with torch.device("meta"):
        model = ViT(config.model, image_size=(side, side), num_classes=num_classes)
    assert 4 <= model.tokens.patches.num_patches <= 64


@pytest.fixture
def offered(server, tmp_path, monkeypatch):
    """Gets a set by its name, of which the server offers small files."""

    def get(name, files, is_real=lambda decoded: True):
        known, offers = KNOWN[name], []
        for offer in known.offers:
            changed = []
            for file in offer.files:
                content = files[file.name]
                server.files[f"/{file.name}"] = content
                digest = f"md5:{hashlib.md5(content).hexdigest()}"
                changed.append(dataclasses.replace(file, url=server.url(f"/{file.name}"), checksum=digest))
            offers.append(dataclasses.replace(offer, files=tuple(changed)))
        monkeypatch.setitem(remote.REMOTE_SETS, name, dataclasses.replace(known, offers=tuple(offers), is_real=is_real))
        folder = sources.get(name, data_dir=tmp_path / "home")
        return folder, sources.load_dataset(name, cache_dir=tmp_path / "home")

    return get


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def tar(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def test_mnist_and_its_twin_with_other_names(offered, tmp_path):
    labels = (np.arange(60) % 10).astype(np.uint8)
    files = contents(write_idx(tmp_path / "m", np.repeat(GRAY, 2, axis=0), labels))
    folder, dataset = offered("mnist", files)
    assert sorted(file.name for file in folder.iterdir()) == sorted(files) and dataset.class_names[:2] == ("0", "1")
    _, twin = offered("fashion-mnist", files)
    assert twin.class_names[0] == "T-shirt/top" and twin.fingerprint == dataset.fingerprint


def test_emnist_is_taken_out_of_its_archive(offered, tmp_path, server):
    wanted = contents(write_idx(tmp_path / "e", GRAY, LABELS, "emnist-balanced-", test="test"))
    others = contents(write_idx(tmp_path / "o", GRAY, LABELS, "emnist-letters-", test="test"))
    archive = zipped({f"gzip/{name}": content for name, content in {**wanted, **others}.items()})
    folder, dataset = offered("emnist", {"gzip.zip": archive})
    assert contents(folder / "gzip") == wanted and len(dataset.class_names) == 47
    assert [entry.name for entry in folder.parent.iterdir()] == ["emnist"], "the archive is gone"


def test_svhn(offered, tmp_path):
    pixels, _ = write_svhn(tmp_path / "s")
    _, dataset = offered("svhn", contents(tmp_path / "s"))
    assert np.array_equal(dataset.test.images, pixels.transpose(3, 0, 1, 2))


def test_stl10(offered, tmp_path):
    images = write_stl10(tmp_path / "s")
    files = {f"stl10_binary/{name}": content for name, content in contents(tmp_path / "s").items()}
    folder, dataset = offered("stl10", {"stl10_binary.tar.gz": tar({**files, "stl10_binary/fold_indices.txt": b"0 1"})})
    assert np.array_equal(dataset.train.images, images) and dataset.class_names[0] == "airplane"
    assert not (folder / "stl10_binary" / "unlabeled_X.bin").exists()


def test_tiny_imagenet(offered, write, synthetic_set):
    png = write.encode(synthetic_set.train[0][0])
    files = {f"train/n0{k}/images/n0{k}_{i}.JPEG": png for k in range(2) for i in range(3)}
    files |= {f"train/n0{k}/n0{k}_boxes.txt": b"" for k in range(2)} | {
        "test/images/test_0.JPEG": png,
        "wnids.txt": b"n00",
    }
    files |= {"val/images/val_0.JPEG": png, "val/val_annotations.txt": b"val_0.JPEG\tn01\t0\t0\t1\t1\n"}
    archive = zipped({f"tiny-imagenet-200/{name}": content for name, content in files.items()})
    folder, dataset = offered("tiny-imagenet", {"tiny-imagenet-200.zip": archive})
    assert (len(dataset.train), dataset.test.labels.tolist(), dataset.class_names) == (6, [1], ("n00", "n01"))
    assert not (folder / "tiny-imagenet-200" / "test").exists()


def test_cinic10(offered, write, synthetic_set):
    png = write.encode(synthetic_set.train[0][0])
    splits = ("train", "valid", "test")
    files = {f"{split}/{name}/{i}.png": png for split in splits for name in ("airplane", "truck") for i in range(2)}
    _, dataset = offered("cinic10", {"CINIC-10.tar.gz": tar({**files, "README.md": b"x"})})
    assert (len(dataset.train), len(dataset.test), dataset.class_names) == (4, 4, ("airplane", "truck"))


def test_other_images_are_refused_and_thrown_away(offered, tmp_path, server):
    write_stl10(tmp_path / "s")
    files = {f"stl10_binary/{name}": content for name, content in contents(tmp_path / "s").items()}
    with pytest.raises(InputError, match="the downloaded images are not those of stl10"):
        offered("stl10", {"stl10_binary.tar.gz": tar(files)}, KNOWN["stl10"].is_real)
    left = [file.name for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert left == ["lock"] or not left


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_a_pipe_in_place_of_an_archive_is_not_waited_for(tmp_path, ending):
    os.mkfifo(archive := tmp_path / f"x{ending}")
    with pytest.raises(InputError, match=f"^x{re.escape(ending)} is truncated or corrupt: .*not a regular file"):
        unpack(archive, tmp_path / "out", ".*", 1_000)


HOSTILE = {
    "outside.zip": (zipped({"../x": b"x"}), "holds a file outside of it: '../x'"),
    "absolute.zip": (zipped({"/x": b"x"}), "holds a file outside of it: '/x'"),
    "windows.zip": (zipped({"a\\..\\x": b"x", "C:x": b"x"}), "holds a file outside of it"),
    "outside.tar.gz": (tar({"a/../../x": b"x"}), "holds a file outside of it"),
    "twice.tar.gz": (tar({"a": b"x", "./a": b"y"}), "holds a twice"),
    "bomb.zip": (zipped({"a": bytes(2000)}), "unpacks to more than 1,000 bytes"),
    "bomb.tar.gz": (tar({"a": bytes(2000)}), "unpacks to more than 1,000 bytes"),
    "cut.tar.gz": (tar({"a": bytes(range(256)) * 3})[:60], "is truncated or corrupt"),
    "cut.zip": (zipped({"a": b"x"})[:-10], "is truncated or corrupt"),
    "none.zip": (b"", "is truncated or corrupt"),
    "none.tar.gz": (b"\x1f\x8b", "is truncated or corrupt"),
    "long-head.tar.gz": (gzip.compress(b"a" * 257 + b"ustar" + bytes(250) + bytes(10_000)), "is truncated or corrupt"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_end_in_one_line_and_write_nothing_outside(tmp_path, name):
    content, words = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as found:
        unpack(tmp_path / name, tmp_path / "inner" / "folder", ".*", 1000)
    assert "\n" not in str(found.value)
    assert {file.name for file in tmp_path.iterdir()} <= {name, "inner"}
    assert not [file for file in (tmp_path / "inner").glob("*") if file.name != "folder"]


def test_links_and_devices_are_not_unpacked(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"m{kind.decode()}")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        member = tarfile.TarInfo("a/file")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    (tmp_path / "x.tar.gz").write_bytes(stream.getvalue())
    unpack(tmp_path / "x.tar.gz", tmp_path / "out", ".*", 1000)
    assert [file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*")] == ["a", "a/file"]
