"""Download a file over a network that stalls, cuts and corrupts.

The bytes go to `<target>.part`, which becomes `<target>` only when it is complete and its checksum is right. A download
that was cut off is resumed, in the same call or a later one, if the server still has the same version of the file: its
ETag or date is stored in `<target>.part.from`.

Only the standard library is used. Only one process at a time may download a target.
"""

import contextlib
import functools
import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from time import sleep
from typing import IO, Any
from urllib.parse import urlsplit

from pocketvit.data.fetch.paths import write_error
from pocketvit.errors import InputError
from pocketvit.files import read_json, regular_size

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes received and the total, None if the server does not tell it."""

_BLOCK_BYTES = 1 << 16
TRIES = 5  # how often in a row the server may fail without sending anything new
TIMEOUT_S = 30.0  # how long it may be silent
_MAX_WAIT_S = 60.0
MOST_BYTES = 2**30
"""A file is no larger, unless the catalogue says so: a server may send without end."""
_BUSY = {408, 425, 429}  # the HTTP errors below 500 that are worth a retry


class _TryAgain(Exception):
    """This try failed; the next one may succeed."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _GiveUp(Exception):
    """The server does not give the file."""


def download(
    url: str, target: Path, checksum: str | None = None, progress: Progress | None = None, most_bytes: int = MOST_BYTES
) -> None:
    """Download a file and check it.

    Args:
        url: of the file.
        target: where to store it.
        checksum: of its content, such as "sha256:9f86d0…" or "md5:098f6b…".
        progress: called after every block.
        most_bytes: greatest size of the file.
    Raises:
        InputError: the server did not give the file, or it could not be written; received bytes are kept for a later
            call.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for file in (part, _origin(part)):
            if file.is_fifo():  # which would block
                file.unlink()
        _persist(functools.partial(_receive, url, part, progress, most_bytes), part, checksum)
        os.replace(part, target)
        _origin(part).unlink(missing_ok=True)
    except _GiveUp as error:
        raise InputError(f"{target.name} cannot be downloaded ({urlsplit(url).netloc}: {error})") from error
    except OSError as error:  # the disk's: the network's were turned into _TryAgain
        raise write_error(target, error) from error


def _persist(receive: Callable[[], int], part: Path, checksum: str | None) -> None:
    """Call `receive` until `part` is complete and correct, as long as something new arrives.

    Waits between tries, 1, 2, 4, … seconds, or as long as the server asks for.
    """
    num_failed, most_bytes = 0, 0
    while True:
        try:
            resumed_at = receive()
            if checksum is None or _matches(part, checksum):
                return
            part.unlink()
            if resumed_at == 0:
                raise _GiveUp(f"the file is corrupt: expected {checksum}")
            raise _TryAgain("the file is corrupt")  # perhaps only what an earlier call left
        except _TryAgain as error:
            num_bytes = part.stat().st_size if part.exists() else 0
            if num_bytes > most_bytes:
                num_failed, most_bytes = 0, num_bytes
            num_failed += 1
            if num_failed >= TRIES:
                raise _GiveUp(f"{error}, {TRIES} times") from error
            sleep(min(max(error.wait_s, 2.0 ** (num_failed - 1)), _MAX_WAIT_S))


def _receive(url: str, part: Path, progress: Progress | None, most_bytes: int) -> int:
    """Request the missing bytes of the file once, and append them to `part`.

    Returns:
        the byte at which the file was resumed, 0 if it was not.
    """
    start, version = _resume_point(url, part)
    request = urllib.request.Request(url, headers={"User-Agent": "pocketvit"})  # noqa: S310 (of our catalogue)
    if start and version is not None:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version)
    try:
        with _network():
            response = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        what = f"HTTP {error.code} {error.reason}".split("\n")[0]  # of endless redirections it is several lines
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return start  # it was already complete
            part.unlink(missing_ok=True)
        elif error.code < 500 and error.code not in _BUSY:
            raise _GiveUp(what) from error
        wait = error.headers.get("Retry-After", "")
        raise _TryAgain(what, float(wait) if wait.isdecimal() else 0.0) from error
    with response:
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            _check_resumed(response, start, version, part)
        else:
            start = 0  # the server does not resume, or has another version now
        _append(response, url, part, start, progress, most_bytes)
    return start


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to where it points, but not away from HTTPS, nor to another protocol than HTTP."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], *answer: Any
    ) -> urllib.request.Request | None:
        scheme = urlsplit(answer[-1]).scheme
        if scheme not in ("https", urlsplit(req.full_url).scheme):
            fp.close()
            raise _GiveUp(f"it points to {answer[-1]}, which is not HTTPS")
        return super().redirect_request(req, fp, *answer)


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Turn all errors of a connection into `_TryAgain`, except HTTP errors."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except TimeoutError as error:
        raise _TryAgain(f"silent for {TIMEOUT_S:g} s") from error
    except urllib.error.URLError as error:
        raise _TryAgain(str(error.reason)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that is none
        raise _TryAgain(f"connection lost: {error!r}") from error


def _append(
    response: http.client.HTTPResponse, url: str, part: Path, start: int, progress: Progress | None, most_bytes: int
) -> None:
    """Write the server's bytes to `part`, from byte `start` on."""
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
    num_bytes = start
    with part.open("ab" if start else "wb") as file:
        # Only now that the file is empty, or bytes of an older version would count as this one's.
        _origin(part).write_text(json.dumps({"url": url, "version": _version(response)}), encoding="utf-8")
        while True:
            with _network():
                block = response.read1(_BLOCK_BYTES)  # not read(), which waits until the block is full
            if not block:
                break
            if num_bytes + len(block) > most_bytes:
                part.unlink()
                _origin(part).unlink()
                raise _GiveUp(f"it sends more than {most_bytes:,} bytes")
            file.write(block)
            num_bytes += len(block)
            if progress is not None:
                progress(num_bytes, total)
    if total is not None and num_bytes < total:
        raise _TryAgain(f"cut off at byte {num_bytes:,} of {total:,}")


def _origin(part: Path) -> Path:
    """The file that stores the origin of `part`."""
    return part.with_name(f"{part.name}.from")


def _version(response: http.client.HTTPResponse) -> str | None:
    """The version of the file: its ETag if that is a strong one, else its date."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if etag.startswith("W/") else etag


def _resume_point(url: str, part: Path) -> tuple[int, str | None]:
    """The number of bytes already received, and their version."""
    with contextlib.suppress(OSError, InputError):
        origin, size = read_json(_origin(part)), regular_size(part)
        version = origin.get("version")
        if origin.get("url") == url and isinstance(version, str) and version.isascii() and version.isprintable():
            return size, version
    return 0, None


def _check_resumed(response: http.client.HTTPResponse, start: int, version: str | None, part: Path) -> None:
    """Refuse a continuation that does not match `part`."""
    sent = response.headers.get("Content-Range", "")
    if not sent.startswith(f"bytes {start}-") or _version(response) != version:
        part.unlink(missing_ok=True)
        raise _TryAgain(f"asked for the bytes from {start:,}, but the server sent {sent or 'others'}")


def _matches(file: Path, checksum: str) -> bool:
    regular_size(file)
    kind, _, digest = checksum.partition(":")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest() == digest
