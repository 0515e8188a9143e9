"""Downloads from a server on this machine that throttles, stalls, cuts, corrupts and redirects."""

import hashlib
import http.client
import io
import os
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from bounded import refusal

from pocketvit.data.fetch import download as download_module
from pocketvit.data.fetch.download import download
from pocketvit.errors import InputError

CONTENT = np.random.default_rng(0).bytes(100_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    """Download `/file` (or another path) without waiting between tries; says how long it would have waited."""
    server.files["/file"] = CONTENT

    def fetch(path: str = "/file", tries: int = 5, timeout_s: float = 60.0, **options) -> tuple[Path, list[float]]:
        target, waits = tmp_path / "got" / "file.bin", []
        for name, value in {"TRIES": tries, "TIMEOUT_S": timeout_s, "sleep": waits.append}.items():
            monkeypatch.setattr(download_module, name, value)
        download(server.url(path), target, **{"checksum": SHA256} | options)
        return target, waits

    return fetch


def begin(server, fetch, num_bytes: int) -> None:
    """Get so many bytes of `/file`, and then no more."""
    server.faults["/file"] = [{"cut": num_bytes}, {"status": 404}]
    with pytest.raises(InputError):
        fetch()


def change(server) -> bytes:
    """Put another version in the place of `/file`."""
    server.files["/file"], server.etag = CONTENT[::-1], '"v2"'
    return CONTENT[::-1]


def ranges(server) -> list[str | None]:
    return [asked for _, asked in server.asked]


@pytest.mark.parametrize("checksum", [SHA256, MD5, None])
def test_whole_file(server, fetch, checksum):
    told = []
    target, waits = fetch(checksum=checksum, progress=lambda done, total: told.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT)) and told == sorted(told)
    assert waits == [] and ranges(server) == [None]
    assert [file.name for file in target.parent.iterdir()] == ["file.bin"]


def test_cut_is_resumed(server, fetch):
    server.faults["/file"] = [{"cut": 30_000}, {"cut": 20_000}, {"cut": 10_000}]
    target, waits = fetch(tries=2)  # what arrived counts: three failures, but never two in a row without progress
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=30000-", "bytes=50000-", "bytes=60000-"]
    assert waits == [1.0, 1.0, 1.0]


def test_cut_before_anything_new_gives_up(server, fetch):
    server.faults["/file"] = [{"cut": 30_000}] + [{"cut": 0}] * 9
    with pytest.raises(InputError, match="cut off at byte 30,000 of 100,000, 3 times"):
        fetch(tries=3)
    assert len(server.asked) == 3


def test_later_call_resumes(server, fetch, tmp_path):
    begin(server, fetch, 70_000)
    assert not (tmp_path / "got" / "file.bin").exists()
    target, _ = fetch()
    assert target.read_bytes() == CONTENT and ranges(server)[-1] == "bytes=70000-"


def test_all_had_arrived_but_was_not_renamed(server, fetch, tmp_path):
    begin(server, fetch, 99_999)
    with (tmp_path / "got" / "file.bin.part").open("ab") as part:
        part.write(CONTENT[-1:])
    assert fetch()[0].read_bytes() == CONTENT
    assert ranges(server)[-1] == "bytes=100000-"


@pytest.mark.parametrize("fault", [{}, {"any_version": True}])
def test_new_version_is_not_glued_to_the_old(server, fetch, fault):
    begin(server, fetch, 50_000)
    changed = change(server)
    server.faults["/file"] = [fault]
    assert fetch(checksum=None)[0].read_bytes() == changed


def test_new_version_is_not_glued_to_the_old_even_by_a_process_that_is_killed(server, fetch, monkeypatch):
    begin(server, fetch, 50_000)
    changed = change(server)

    def killed(path: Path, mode: str = "r", *arguments: object, **options: object):
        if mode == "wb":
            raise KeyboardInterrupt
        return whole(path, mode, *arguments, **options)

    whole = Path.open
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(Path, "open", killed)
        fetch()
    assert fetch(checksum=None)[0].read_bytes() == changed


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_nothing_is_resumed(server, fetch, etag):
    server.etag = etag
    server.faults["/file"] = [{"cut": 50_000}]
    assert fetch()[0].read_bytes() == CONTENT
    assert ranges(server) == [None, None]


def test_server_that_ignores_ranges(server, fetch):
    server.faults["/file"] = [{"cut": 50_000}, {"whole": True}]
    assert fetch()[0].read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=50000-"]


def test_wrong_range_starts_over(server, fetch):
    server.faults["/file"] = [{"cut": 50_000}, {"shift": 7}]
    assert fetch(checksum=None)[0].read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=50000-", None]


def test_corrupt_file_is_refused(server, fetch, tmp_path):
    server.faults["/file"] = [{"corrupt": True}]
    with pytest.raises(InputError, match=f"file.bin cannot be downloaded.*corrupt: expected {SHA256}"):
        fetch()
    assert not list((tmp_path / "got").glob("*.bin*part"))


def test_corrupt_after_resuming_starts_over(server, fetch):
    server.faults["/file"] = [{"cut": 50_000}, {"corrupt": True}]
    assert fetch()[0].read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=50000-", None]


def test_redirects_keep_the_range(server, fetch):
    moved = {"status": 302, "headers": {"Location": "/file"}}
    server.faults["/moved"] = [moved, moved]
    server.faults["/file"] = [{"cut": 40_000}]
    assert fetch("/moved")[0].read_bytes() == CONTENT
    assert server.asked[2:] == [("/moved", "bytes=40000-"), ("/file", "bytes=40000-")]


def test_missing_file_is_asked_for_once(server, fetch):
    with pytest.raises(InputError, match=r"file.bin cannot be downloaded \(127.0.0.1:\d+: HTTP 404 Not Found\)$"):
        fetch("/nowhere")
    assert len(server.asked) == 1


def test_busy_server_is_asked_again(server, fetch):
    server.faults["/file"] = [{"status": 503, "headers": {"Retry-After": "17"}}, {"status": 500}, {"status": 429}]
    target, waits = fetch()
    assert target.read_bytes() == CONTENT and waits == [17.0, 2.0, 4.0]


def test_endless_retry_after_is_cut_short(server, fetch):
    server.faults["/file"] = [{"status": 503, "headers": {"Retry-After": "86400"}}]
    assert fetch()[1] == [60.0]


def test_stalled_server_times_out_and_is_resumed(server, fetch, monkeypatch):
    """The patience is cut short once the server is silent, so that no slow machine is taken for a silent server."""
    sockets, connect = [], http.client.HTTPConnection.connect

    def noted(connection: http.client.HTTPConnection) -> None:
        connect(connection)
        sockets.append(connection.sock)

    def lose_patience(done: int, total: int) -> None:
        if done == 60_000:
            assert sockets[-1].gettimeout() == 60.0
            sockets[-1].settimeout(0.05)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", noted)
    server.faults["/file"] = [{"stall": 60_000}]
    target, waits = fetch(progress=lose_patience)
    assert target.read_bytes() == CONTENT and waits == [1.0]
    assert ranges(server) == [None, "bytes=60000-"]


def test_throttled_server_is_waited_for(server, fetch):
    told = []
    server.faults["/file"] = [{"pause_s": 0.015}]  # 1.5 s in all, longer than the server may be silent
    target, waits = fetch(timeout_s=1.0, progress=lambda done, total: told.append(done))
    assert target.read_bytes() == CONTENT and waits == []
    assert len(told) > 10  # progress shows while it trickles in


def test_nobody_listens(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(download_module, "TRIES", 3)
    monkeypatch.setattr(download_module, "sleep", waits.append)
    with pytest.raises(InputError, match="Connection refused, 3 times"):
        download("http://127.0.0.1:9/x", tmp_path / "x")
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize("name", ["file.bin.part", "file.bin.part.from"])
def test_a_pipe_in_the_way_is_removed(server, fetch, tmp_path, name):
    (tmp_path / "got").mkdir()
    os.mkfifo(tmp_path / "got" / name)
    imports = "from pocketvit.data.fetch.download import download"
    code = f"download(sys.argv[1], pathlib.Path(sys.argv[2]), checksum={SHA256!r})"
    assert refusal(code, server.url("/file"), tmp_path / "got" / "file.bin", imports=imports, timeout_s=30) == ""
    assert [file.name for file in (tmp_path / "got").iterdir()] == ["file.bin"]


def test_a_device_in_place_of_the_file_is_not_hashed(server, fetch, tmp_path):
    (tmp_path / "file.bin.part").symlink_to("/dev/zero")
    imports = "from pocketvit.data.fetch.download import download"
    code = f"download(sys.argv[1], pathlib.Path(sys.argv[2]), checksum={SHA256!r})"
    said = refusal(code, server.url("/file"), tmp_path / "file.bin", imports=imports, timeout_s=30)
    assert said.startswith(f"{tmp_path}/file.bin cannot be written: not a regular file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_no_space_left(server, fetch, tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "file.bin.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match="file.bin cannot be written: No space left.*POCKETVIT_DATA"):
        fetch()
    assert not (tmp_path / "got" / "file.bin").exists()


def test_failed_write_keeps_what_has_arrived(server, fetch):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # as if the disk were full from there on
    try:
        with pytest.raises(InputError, match="file.bin cannot be written: File too large"):
            fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert fetch()[0].read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=50000-"]


@pytest.mark.parametrize("length", ["many", "-1", "", "1e5", "\xb2", "9" * 5_000])
def test_a_length_that_is_none_is_left_aside(server, fetch, length):
    server.faults["/file"] = [{"headers": {"Content-Length": length}}]
    told = []
    assert fetch(progress=lambda _, total: told.append(total))[0].read_bytes() == CONTENT
    assert set(told) == {None}


@pytest.mark.parametrize(
    "origin",
    ["[]", "1", "{}", "[" * 100_000, '{"url": [1], "version": "1"}', '{"url": "URL", "version": ["1"]}', "\xff"]
    + [f'{{"url": "URL", "version": "{version}"}}' for version in ("a\\r\\nHost: b", "\\u20ac", "1" * 5)],
    ids=lambda origin: origin[:40],
)
def test_a_broken_note_of_where_a_part_came_from_starts_over(server, fetch, tmp_path, origin):
    begin(server, fetch, 50_000)
    note = origin.replace("URL", server.url("/file")).encode("latin-1")
    (tmp_path / "got" / "file.bin.part.from").write_bytes(note)
    assert fetch()[0].read_bytes() == CONTENT


def test_an_endless_body_is_cut_and_removed(server, fetch, tmp_path):
    server.faults["/file"] = [{"headers": {"Content-Length": None}}]
    with pytest.raises(InputError, match="it sends more than 70,000 bytes"):
        fetch(most_bytes=70_000)
    assert not [*(tmp_path / "got").iterdir()] and len(server.asked) == 1


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("ftp://127.0.0.1/file", "it points to ftp://127.0.0.1/file, which is not HTTPS"),
        ("file:///etc/passwd", "HTTP 302"),
        ("http://[bad/file", "ValueError"),
    ],
)
def test_no_redirect_leaves_http(server, fetch, where, says):
    server.faults["/file"] = [{"status": 302, "headers": {"Location": where}}] * 2
    with pytest.raises(InputError, match=says):
        fetch(tries=2)


def test_redirects_without_end_are_one_line(server, fetch):
    server.faults["/file"] = [{"status": 302, "headers": {"Location": server.url("/file")}}] * 40
    with pytest.raises(InputError) as caught:
        fetch(tries=2)
    assert "HTTP 302" in str(caught.value) and "\n" not in str(caught.value)


def test_no_redirect_leaves_https():
    request = urllib.request.Request("https://example.org/file")
    for where, allowed in (("https://example.com/file", True), ("http://example.org/file", False)):
        answer = (io.BytesIO(), 302, "Found", {}, where)
        if allowed:
            assert download_module._Redirects().redirect_request(request, *answer).full_url == where
        else:
            with pytest.raises(download_module._GiveUp, match="which is not HTTPS"):
                download_module._Redirects().redirect_request(request, *answer)
