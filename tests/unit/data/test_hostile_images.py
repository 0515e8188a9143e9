"""Image files that start programs, take gigabytes or never end."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from bounded import refusal
from PIL import EpsImagePlugin, Image

from pocketvit.data.formats import folders, parquet
from pocketvit.data.pixels import MOST_PIXELS, PLAIN, decode, to_rgb
from pocketvit.errors import InputError
from pocketvit.files import read_bytes

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
DECODE = "decode(pathlib.Path(sys.argv[1]), 'x')"
IMPORT_DECODE = "import numpy, PIL.Image; from pocketvit.data.pixels import decode; PIL.Image.init()"


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """The file that a program called `gs` makes when it is started."""
    started, program = tmp_path / "started", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n: > {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return started


def png(width: int, height: int) -> bytes:
    """A black picture, 1 bit a pixel, of a few kB whatever its size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header, rows = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0), bytes(height * (1 + (width + 7) // 8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def test_no_file_starts_ghostscript(tmp_path, ghostscript):
    file = tmp_path / "0.png"
    file.write_bytes(EPS)
    with pytest.raises(InputError, match="^0.png: not in a supported image format"):
        decode(file, "0.png")
    with Image.open(io.BytesIO(EPS)) as image, pytest.raises(InputError, match="^EPS is not a supported image format"):
        to_rgb(image)
    assert not ghostscript.exists()


def test_no_row_of_a_parquet_file_starts_ghostscript(tmp_path, ghostscript, write):
    content = [{"bytes": EPS, "path": None}] * 2
    write.parquet(tmp_path / "x.parquet", [np.zeros((4, 4, 3), np.uint8)] * 2, [0, 1], img=content)
    with pytest.raises(InputError, match="row 0: not in a supported image format"):
        parquet.read(tmp_path / "x.parquet", PLAIN)
    assert not ghostscript.exists()


@pytest.mark.parametrize("side", [7_200, 13_000, 40_000])
def test_small_file_of_many_pixels_is_refused(tmp_path, side):
    (tmp_path / "x.png").write_bytes(png(side, side))
    assert (tmp_path / "x.png").stat().st_size < 300_000
    said = refusal(DECODE, tmp_path / "x.png", imports=IMPORT_DECODE)
    assert said == f"x: it has more than {MOST_PIXELS:,} pixels: make it smaller"


def test_small_file_of_a_long_image_is_refused(tmp_path):
    """Resizing one of 51 million pixels in a row took more than 2 GiB."""
    (tmp_path / "x.png").write_bytes(png(50_000_000, 1))
    assert (tmp_path / "x.png").stat().st_size < 10_000
    said = refusal(DECODE, tmp_path / "x.png", imports=IMPORT_DECODE)
    assert said == "x: it is more than 65,535 pixels long: make it smaller"


@pytest.mark.parametrize("kind", ["png", "parquet"])
def test_pipe_among_the_files_is_refused(tmp_path, kind):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    os.mkfifo(pipe := tmp_path / "ant" / f"1.{kind}")
    read, where = (folders.read, tmp_path) if kind == "png" else (parquet.read, tmp_path)
    with pytest.raises(InputError, match=f"{pipe}.*not a regular file"):
        read(where, PLAIN)


def test_endless_device_is_refused():
    assert refusal(DECODE, "/dev/zero", imports=IMPORT_DECODE) == "x: cannot be read: not a regular file"


def test_file_beyond_what_is_read_at_once_is_refused(tmp_path):
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(2**40)  # which takes no space on the disk
    assert refusal(DECODE, tmp_path / "x.png", imports=IMPORT_DECODE) == (
        "x: cannot be read: larger than 268,435,456 bytes"
    )
    (tmp_path / "y").write_bytes(b"123")
    assert read_bytes(tmp_path / "y", most=3) == b"123"


def test_a_pipe_among_images_does_not_block_the_choice_of_a_recipe(tmp_path):
    for name in ("cat/0.png", "dog/0.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (9, 7)).save(tmp_path / name)
    os.mkfifo(tmp_path / "cat" / "1.png")
    imports = "from pocketvit.config import DataConfig\nfrom pocketvit.data.survey import survey"
    code = "print(survey(DataConfig(source=sys.argv[1])))"
    assert refusal(code, tmp_path, imports=imports, timeout_s=30) == "(2, [(7, 9), (7, 9)])"
