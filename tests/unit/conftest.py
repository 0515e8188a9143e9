"""Writers of the file formats a set may come in, a web server that misbehaves on request, and a browser for pages."""

import http.server
import io
import json
import pickle
import re
import shutil
import tarfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay")
CIFAR10_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def encode(image: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    """An image file's content."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format, **options)
    return stream.getvalue()


def write_folder(path: Path, splits: Mapping[str, tuple], names: Sequence[str] = NAMES) -> Path:
    """`<split>/<class>/<index>.png`; the split "" writes `<class>/<index>.png`."""
    for split, (images, labels) in splits.items():
        for i, (image, label) in enumerate(zip(images, labels)):
            file = path / split / names[label] / f"{i:05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(image))
    return path


def write_parquet(
    path: Path, images: Sequence[np.ndarray], labels: Sequence, names: Sequence[str] | None = NAMES, **columns: Sequence
) -> Path:
    """One parquet file as on the Hub; `columns` replace or join `img` and `label`."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    contents = [{"bytes": encode(image), "path": None} for image in images]
    table = pa.table({"img": contents, "label": list(labels)} | columns)
    if names is not None:
        features = {"img": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


class _Python2Pickler(pickle._Pickler):
    """Writes strings as Python 2 did: as bytes that know no encoding. So are the official batches."""

    dispatch = dict(pickle._Pickler.dispatch)

    def _save_string(self, value: str | bytes) -> None:
        content = value.encode("latin-1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        self.memoize(value)

    dispatch[str] = _save_string
    dispatch[bytes] = _save_string


def python2_pickle(value: object) -> bytes:
    """`value` as Python 2 and NumPy 1 would have pickled it."""
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar10_batches(train: tuple, test: tuple, names: Sequence[str] = NAMES) -> dict[str, bytes]:
    """The content of the official archive's files, by name."""
    contents = {"batches.meta": python2_pickle({"label_names": list(names)})}
    shares = [*zip(np.array_split(train[0], 5), np.array_split(train[1], 5)), test]
    for name, (images, labels) in zip(CIFAR10_BATCHES, shares):
        data = np.ascontiguousarray(np.asarray(images).transpose(0, 3, 1, 2).reshape(len(images), 3072))
        contents[name] = python2_pickle({"data": data, "labels": [int(label) for label in labels]})
    return contents


def write_tar(path: Path, contents: Mapping[str, bytes], folder: str = "cifar-10-batches-py") -> Path:
    """A .tar.gz of files in a folder."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(scope="session")
def write() -> SimpleNamespace:
    """The writers, and the class names they use."""
    return SimpleNamespace(
        NAMES=NAMES,
        encode=encode,
        folder=write_folder,
        parquet=write_parquet,
        python2_pickle=python2_pickle,
        cifar10_batches=cifar10_batches,
        tar=write_tar,
    )


@pytest.fixture(scope="session")
def synthetic_set() -> SimpleNamespace:
    """60 training and 20 test images of noise, 32×32, ten classes."""
    rng = np.random.default_rng(0)
    return SimpleNamespace(
        train=(rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), np.arange(60) % 10),
        test=(rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), np.arange(20) % 10),
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data home of this test's own."""
    monkeypatch.setenv("POCKETVIT_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def flat(write, synthetic_set, tmp_path):
    """<class>/<image>, six images in each of ten classes."""
    return write.folder(tmp_path / "flowers", {"": synthetic_set.train})


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, with ETags and ranges, and misbehaves as `faults` say: one fault a request, in order.

    A fault is a dict of: `status` (answer so), `headers` (more of them), `cut` (close after so many bytes), `stall`
    (fall silent after so many bytes), `corrupt` (change the last byte), `pause_s` (wait after each kilobyte), `whole`
    (ignore the range asked for), `shift` (answer another range than asked for), `any_version` (ignore `If-Range`).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[dict]] = defaultdict(list)
        self.etag: str | None = '"v1"'
        self.asked: list[tuple[str, str | None]] = []
        """Path and range of each request."""
        self.closing = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        fault = server.faults[self.path].pop(0) if server.faults[self.path] else {}
        status = fault.get("status", 200 if self.path in server.files else 404)
        if status != 200:
            self._head(status, fault.get("headers", {}))
            return

        content = server.files[self.path]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = 0
        same = self.headers.get("If-Range") == server.etag or fault.get("any_version")
        if asked and same and not fault.get("whole"):
            start = int(asked[1]) + fault.get("shift", 0)
        if start >= len(content):
            self._head(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        ranged = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        length = {"Content-Length": str(len(content) - start)} | fault.get("headers", {})
        self._head(206 if start else 200, {name: value for name, value in length.items() if value is not None} | ranged)
        self._body(content[start:], fault)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        if self.server.etag is not None:
            self.send_header("ETag", self.server.etag)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, content: bytes, fault: Mapping) -> None:
        if fault.get("corrupt"):
            content = content[:-1] + bytes([content[-1] ^ 1])
        end = min(fault.get("cut", len(content)), fault.get("stall", len(content)))
        with suppress(ConnectionError):  # a client may leave as soon as it has seen enough
            for i in range(0, end, 1024):
                self.wfile.write(content[i : min(i + 1024, end)])
                time.sleep(fault.get("pause_s", 0))
        if "stall" in fault:
            self.wfile.flush()
            self.server.closing.wait(60)


@pytest.fixture
def server() -> Iterator[Server]:
    """A running `Server` on this machine."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser for the tests of one file; they are skipped where it is not installed."""
    from browser import Browser

    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine; see apt.txt")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
