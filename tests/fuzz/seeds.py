"""Valid inputs for every reader, as small as they can be: one folder for each, with a few variants."""

import csv
import hashlib
import io
import json
import pickle
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "cases"))

import named_sets
from named_sets import write_idx, write_stl10, write_svhn

RNG = np.random.default_rng(0)
SIDE = 16
RUN = (
    "train digits --seed 3 --model.width 32 --model.depth 1 --model.num-heads 2 --schedule.passes 2 --batch-size 200 "
    "--schedule.warmup-passes 1 --train.device cpu --augment.crop-pad 0"
)
FORMATS = {
    "PNG": ("RGB", "L", "P", "1", "RGBA", "LA", "I;16"),
    "JPEG": ("RGB", "L", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA"),
    "GIF": ("P", "L"),
    "BMP": ("RGB", "L", "P", "1"),
    "DIB": ("RGB",),
    "TIFF": ("RGB", "L", "P", "1", "CMYK", "I;16", "LAB", "F"),
    "PPM": ("RGB", "L", "1"),
    "TGA": ("RGB", "L", "RGBA"),
    "JPEG2000": ("RGB", "L", "RGBA"),
}
"""The formats that are read, with some modes of each."""
EXIF = b"Exif\0\0MM\0*\0\0\0\x08" + bytes(20)
FOREIGN = ("EPS", "PDF", "ICO", "ICNS", "PCX", "SGI", "IM", "MSP", "XBM", "DDS", "SPIDER", "QOI", "MPO")
"""Others that Pillow writes, and may read."""


def write_seeds(root: Path) -> None:
    """Write `<reader>/<variant>/…` for every reader into an empty folder."""
    for name, variants in {**_images(), **FOLDERS, **DATA, **TEXTS}.items():
        for variant, write in variants.items():
            (folder := root / name / variant).mkdir(parents=True)
            write(folder)
    _runs(root)


def picture(mode: str = "RGB", shift: int = 0) -> Image.Image:
    """A small image."""
    pixels = RNG.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[: SIDE // 2] //= 1 + shift
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    return Image.fromarray(pixels).convert(mode)


def content(kind: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    """A small image's file."""
    stream = io.BytesIO()
    picture(mode).save(stream, kind, **options)
    return stream.getvalue()


def _class_folder(folder: Path, ending: str, first: bytes) -> None:
    """Two classes of three images, of which the first one of `a` has this content."""
    for name in "ab":
        (folder / name).mkdir()
        for i in range(3):
            (folder / name / f"{i}.png").write_bytes(content())
    (folder / "a" / "0.png").unlink()
    (folder / "a" / f"first{ending}").write_bytes(first)


def _images() -> dict[str, dict[str, Callable[[Path], None]]]:
    """Class folders with one image of each format and mode."""

    def writer(ending: str, first: bytes) -> Callable[[Path], None]:
        return lambda folder: _class_folder(folder, ending, first)

    endings = {"JPEG2000": ".jp2", "PPM": ".ppm", "DIB": ".bmp"}
    found = {
        f"image {kind}": {
            mode.replace(";", ""): writer(endings.get(kind, f".{kind.lower()}"), content(kind, mode)) for mode in modes
        }
        for kind, modes in FORMATS.items()
    }
    pages = {"save_all": True, "append_images": [picture()]}
    found["image GIF"]["animated"] = writer(".gif", content("GIF", **pages))
    found["image PNG"]["animated"] = writer(".png", content("PNG", **pages))
    found["image TIFF"]["lzw"] = writer(".tif", content("TIFF", compression="tiff_lzw"))
    found["image TIFF"]["pages"] = writer(".tif", content("TIFF", compression="tiff_deflate", **pages))
    found["image JPEG"]["progressive"] = writer(
        ".jpg", content("JPEG", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08" + bytes(20))
    )
    found["image foreign"] = {}
    for kind in FOREIGN:
        mode = {"MSP": "1", "XBM": "1", "SPIDER": "F", "ICO": "RGBA", "ICNS": "RGBA"}.get(kind, "RGB")
        found["image foreign"][kind] = writer(".png", content(kind, mode))
    return found


def _pixels(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def _cifar(folder: Path, hundred: bool = False, protocol: int = 2) -> None:
    """The batches of CIFAR-10 or CIFAR-100, with four images each."""
    key = "fine_labels" if hundred else "labels"
    for name in ("train", "test") if hundred else (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        batch = {"data": _pixels(4).reshape(4, 3072), key: [0, 1, 1, 0], "coarse_labels": [0, 0, 0, 0]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    names = {"label_names" if key == "labels" else "fine_label_names": ["ant", "bee"], "coarse_label_names": ["insect"]}
    (folder / ("meta" if hundred else "batches.meta")).write_bytes(pickle.dumps(names, protocol))


def _tar(folder: Path, ending: str = ".tar.gz") -> None:
    _cifar(folder)
    with tarfile.open(folder / f"cifar-10-python{ending}", "w:gz" if ending.endswith("gz") else "w") as archive:
        for file in sorted(folder.glob("*batch*")):
            archive.add(file, f"cifar-10-batches-py/{file.name}")
    for file in folder.glob("*batch*"):
        if "." not in file.name.removeprefix("batches."):
            file.unlink()


def _npz(folder: Path, **arrays: np.ndarray) -> None:
    np.savez_compressed(folder / "x.npz", **arrays)


def _parquet(folder: Path, **options: object) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": content(), "path": None} for _ in range(6)]
    features = {"img": {"_type": "Image"}, "label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"img": images, "label": [0, 1] * 3}, metadata=metadata)
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}.parquet", **options)


def _csv(
    folder: Path, columns: tuple[str, ...] = ("label",), cells: Sequence[tuple[str, ...]] = (("a",), ("b",))
) -> None:
    for i in range(6):
        (folder / f"{i}.png").write_bytes(content())
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file_name", *columns, "split"))
        table.writerows((f"{i}.png", *cells[i % len(cells)], ("train", "test")[i > 3]) for i in range(6))


def _archive(folder: Path, ending: str) -> None:
    """An archive of four files."""
    files = {f"a/{i}.bin": bytes(range(256)) * i for i in range(4)}
    if ending == "zip":
        with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for name, held in files.items():
                packed.writestr(name, held)
        return
    with tarfile.open(folder / "x.tar.gz", "w:gz") as packed:
        for name, held in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(held)
            packed.addfile(member, io.BytesIO(held))


def _download(folder: Path, *, status: str, headers: str, have: int = 0, version: str = '"a"') -> None:
    """What a server answers, and what an earlier download left behind."""
    whole = bytes(range(256)) * 20
    head = f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n"
    (folder / "response").write_bytes(head.encode() + (whole[have:] if status.startswith("2") else b""))
    (folder / "x.bin.part").write_bytes(whole[:have])
    origin = {"url": "http://127.0.0.1/x.bin", "version": version}
    (folder / "x.bin.part.from").write_text(json.dumps(origin))


def _weights(folder: Path, ending: str) -> None:
    """A small model of timm's, in PyTorch's own format or as safetensors."""
    import torch
    from safetensors.torch import save_file

    shapes = {
        "cls_token": (1, 1, 32),
        "pos_embed": (1, 17, 32),
        "patch_embed.proj.weight": (32, 3, 8, 8),
        "head.weight": (2, 32),
    }
    linear = {"attn.qkv": (96, 32), "attn.proj": (32, 32), "mlp.fc1": (64, 32), "mlp.fc2": (32, 64)}
    shapes |= {f"blocks.0.{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"{name}.weight": (32,) for name in ("blocks.0.norm1", "blocks.0.norm2", "norm")}
    biases = {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items() if name.endswith("weight")}
    tensors = {name: torch.zeros(shape) for name, shape in (shapes | biases).items()}
    if ending == "pth":
        torch.save({"model": tensors}, folder / "x.pth")
    else:
        save_file(tensors, folder / "x.safetensors")


FOLDERS: dict[str, dict[str, Callable[[Path], object]]] = {
    "idx": {
        "packed": lambda folder: write_idx(folder, named_sets.GRAY, named_sets.LABELS),
        "plain": lambda folder: write_idx(
            folder, named_sets.GRAY, named_sets.LABELS, "emnist-digits-", "test", pack=False
        ),
    },
    "svhn": {
        "packed": lambda folder: write_svhn(folder),
        "plain": lambda folder: write_svhn(folder, pack=False, kind=np.float64),
    },
    "stl10": {"binary": lambda folder: write_stl10(folder, 2)},
}
"""Data sets of which any file is changed, by their format: at least one valid folder of each that is not in `DATA`."""

DATA: dict[str, dict[str, Callable[[Path], object]]] = {
    "npz": {
        "splits": lambda folder: _npz(
            folder, train_images=_pixels(6), train_labels=np.arange(6) % 2, test_images=_pixels(4),
            test_labels=np.arange(4) % 2, class_names=np.array(["ant", "bee"]),
        ),
        "keras": lambda folder: _npz(folder, x_train=_pixels(6)[..., 0], y_train=np.array(list("ababab"))[:, None]),
        "gray16": lambda folder: _npz(folder, images=_pixels(6)[..., 0].astype("u2"), labels=np.arange(6) % 2, more=np.ones(3)),
    },
    "cifar folder": {
        "10": _cifar,
        "100": lambda folder: _cifar(folder, hundred=True),
        "new": lambda folder: _cifar(folder, hundred=True, protocol=5),
    },
    "cifar tar": {"gz": _tar, "plain": lambda folder: _tar(folder, ".tar")},
    "parquet": {
        "snappy": _parquet,
        "zstd": lambda folder: _parquet(folder, compression="zstd", use_dictionary=False, data_page_version="2.0"),
        "plain": lambda folder: _parquet(folder, compression="none", row_group_size=2, write_page_index=True),
    },
    "csv": {
        "split": _csv,
        "columns": lambda folder: _csv(folder, ("ant", "bee", "age"), (("0", "1", "7"), ("1", "0", "8"), ("1", "1", "9"))),
    },
    "csv separator": {"split": lambda folder: _csv(folder, cells=(("a|b",), ("b",), ("",)))},
    "archive": {"zip": lambda folder: _archive(folder, "zip"), "tar": lambda folder: _archive(folder, "tar.gz")},
    "weights": {ending: partial(_weights, ending=ending) for ending in ("pth", "safetensors")},
    "download": {
        "whole": lambda folder: _download(folder, status="200 OK", headers='ETag: "a"\r\nContent-Length: 5120'),
        "rest": lambda folder: _download(
            folder, status="206 Partial Content", have=100,
            headers='ETag: "a"\r\nContent-Range: bytes 100-5119/5120\r\nContent-Length: 5020',
        ),
        "redirect": lambda folder: _download(
            folder, status="302 Found", headers="Location: http://127.0.0.1/y\r\nContent-Length: 0"
        ),
        "busy": lambda folder: _download(folder, status="503 Busy", headers="Retry-After: 3\r\nContent-Length: 0"),
        "done": lambda folder: _download(
            folder, status="416 No", have=5120, headers="Content-Range: bytes */5120\r\nContent-Length: 0"
        ),
    },
}  # fmt: skip

TEXTS: dict[str, dict[str, Callable[[Path], None]]] = {
    "study": {
        "rows": lambda folder: (folder / "x.yaml").write_text(
            "recipe: digits\nbase: {schedule.passes: 4, schedule.warmup_passes: 1, train.device: cpu}\nseeds: 2\n"
            "baseline: plain\ncompare: {slow: null}\nrows:\n  plain: {seeds: [0, 3]}\n  slow: {optim.lr: 1e-4}\n"
            "  both: {inherit: slow, optim.name: lion}\n  rank: {grid: {model.k_rank: [8, 16], model.q_rank: [8]}}\n"
        )
    }
}


def _runs(root: Path) -> None:
    """One trained run, whose files several readers take, a study's results and a cache of decoded images."""
    from pocketvit.cli import dispatch
    from pocketvit.data.sources import load_dataset

    run = root / "run" / "x"
    assert dispatch([*RUN.split(), "--out", str(run)]) == 0
    (run / "picture.png").write_bytes(content())
    unfinished = root / "unfinished" / "x"
    shutil.copytree(run, unfinished)
    for name in ("result.json", "report.html", "model.safetensors", "predictions.npz", "samples.npz", "figures.npz"):
        (unfinished / name).unlink(missing_ok=True)
    results = root / "results" / "x" / "results"
    results.mkdir(parents=True)
    for seed in range(3):
        held = json.loads((run / "result.json").read_text()) | {"seed": seed}
        (results / f"plain-s{seed}.json").write_text(json.dumps(held))
    shutil.copy(root / "study" / "rows" / "x.yaml", results.parent)
    data, cache = root / "data" / "x", root / "cache" / "x"
    data.mkdir(parents=True)
    _class_folder(data, ".png", content())
    load_dataset(data, cache_dir=cache)


def fix_digests(folder: Path) -> None:
    """Name the checkpoints of a folder by what they hold, so that changed ones are opened."""
    for file in folder.glob("step-*.safetensors"):
        if file.is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
            file.rename(file.with_name(f"{file.name.split('.')[0]}.{digest}.safetensors"))


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
