"""Sets from the Hub, with its library replaced by one that copies local files."""

import shutil

import pytest

from pocketvit.data import sources
from pocketvit.data.fetch import hub
from pocketvit.errors import InputError

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def repository(write, synthetic_set, tmp_path, monkeypatch):
    """What a Hub repository holds, by revision; `snapshot_download` copies what the patterns allow."""
    revisions = {None: tmp_path / "main", "refs/convert/parquet": tmp_path / "converted"}
    calls = []

    def snapshot_download(repo_id, *, repo_type, revision, allow_patterns, local_dir):
        calls.append((repo_id, repo_type, revision, allow_patterns))
        local_dir.mkdir(parents=True, exist_ok=True)
        source = revisions[revision]
        for file in source.rglob("*"):
            name = file.relative_to(source)
            allowed = [*huggingface_hub.utils.filter_repo_objects([str(name)], allow_patterns=allow_patterns)]
            if file.is_file() and allowed:
                (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, local_dir / name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    for folder in revisions.values():
        folder.mkdir()
    revisions["calls"] = calls
    return revisions


def fill(write, synthetic_set, folder):
    for split, (images, labels) in (("train", synthetic_set.train), ("test", synthetic_set.test)):
        write.parquet(folder / f"{split}-00000-of-00001.parquet", images, labels)


def test_repository_with_parquet(repository, write, synthetic_set, tmp_path):
    fill(write, synthetic_set, repository[None] / "data")
    (repository[None] / "README.md").write_text("not wanted")
    folder = sources.get("hf:owner/name", data_dir=tmp_path / "home")
    assert repository["calls"] == [("owner/name", "dataset", None, "*.parquet")]
    assert [entry.name for entry in folder.iterdir()] == ["data"] and folder.name == "hf--owner--name"
    dataset = sources.load_dataset("hf:owner/name", cache_dir=tmp_path / "home")
    assert dataset.name == "hf:owner/name" and (len(dataset.train), len(dataset.test)) == (60, 20)

    sources.get("hf:owner/name", data_dir=tmp_path / "home")
    assert len(repository["calls"]) == 1  # it was there


def test_one_config_of_several(repository, write, synthetic_set, tmp_path):
    for config in ("small", "large"):
        fill(write, synthetic_set, repository[None] / config)
    sources.get("hf:owner/name/small", data_dir=tmp_path / "home")
    dataset = sources.load_dataset("hf:owner/name/small", cache_dir=tmp_path / "home")
    assert len(dataset.train) == 60

    sources.get("hf:owner/name", data_dir=tmp_path / "home")
    with pytest.raises(InputError, match="contains several data sets: name one of .*large, .*small"):
        sources.load_dataset("hf:owner/name", cache_dir=tmp_path / "home")


def test_the_hubs_conversion_when_there_is_no_parquet(repository, write, synthetic_set, tmp_path):
    fill(write, synthetic_set, repository["refs/convert/parquet"] / "default" / "train")
    (repository[None] / "images.zip").write_bytes(b"zip")
    folder = sources.get("hf:owner/name", data_dir=tmp_path / "home")
    assert [call[2] for call in repository["calls"]] == [None, "refs/convert/parquet"]
    assert [entry.name for entry in folder.iterdir()] == ["default"]


def test_nothing_to_read(repository, tmp_path):
    with pytest.raises(InputError, match="hf:owner/name has no parquet files"):
        sources.get("hf:owner/name", data_dir=tmp_path / "home")
    assert list((tmp_path / "home" / "fetched").iterdir()) == []


def test_unreachable_hub_is_one_line(repository, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("404 Client Error.\n\nRepository Not Found\nfor url: x")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError) as caught:
        sources.get("hf:owner/name", data_dir=tmp_path / "home")
    assert str(caught.value) == "hf:owner/name cannot be downloaded: 404 Client Error."


def test_missing_extra_is_named(repository, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"hf:owner/name needs huggingface_hub: pip install 'pocketvit\[data\]'"):
        sources.get("hf:owner/name", data_dir=tmp_path / "home")


@pytest.mark.parametrize("source", ["hf:", "hf:owner", "hf:a/b/c/d", "hf:a/../b", "hf:../..", "hf:a//b", "hf:a b/c"])
def test_malformed_source(source):
    with pytest.raises(InputError, match="expected hf:OWNER/NAME"):
        hub.folder_name(source)
