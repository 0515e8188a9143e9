"""What several tests share: sample images, and one thread, so that results repeat."""

import io
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("cases", "reference")]  # what several tests import

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # not needed by the tests on a GPU
    pass
else:  # a busy machine is no failure
    settings.register_profile("untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")

CIFAR = Path(os.environ["POCKETVIT_CIFAR10"]) if "POCKETVIT_CIFAR10" in os.environ else None
"""The real CIFAR-10 as parquet files, where $POCKETVIT_CIFAR10 names their folder."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is for the night is long as well, so that `-m 'not long'` leaves it out."""
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker("long")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes without their content: with the time of a zip file in it, two processes would collect tests of other names."""
    return "bytes" if isinstance(val, bytes) else None


def pytest_sessionfinish() -> None:
    """Keep what `make coverage` has counted: one of several processes has ten seconds to end, too few on a busy machine."""
    measured = sys.modules.get("coverage")
    if measured is not None and (counting := measured.Coverage.current()) is not None:
        counting.save()


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:  # quoted: new in pytest 8.4
    """Say in one line why how many tests were skipped."""
    skipped = terminalreporter.stats.get("skipped", [])
    why = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if why:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in why.most_common())
        terminalreporter.write_line(f"skipped: {reasons}")


def synthetic_images(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Smooth coloured blobs with some hard edges and noise, uint8, (count, size, size, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    for i in range(count):
        a, b, c = rng.uniform(-6, 6, (3, 3, 1, 1))
        wave = 127 + 100 * np.sin(a * x + b * y + c)  # (3, H, W)
        wave[:, : rng.integers(1, size), : rng.integers(1, size)] += rng.uniform(-80, 80, (3, 1, 1))
        wave += rng.normal(0, rng.uniform(0, 25), wave.shape)
        images[i] = np.clip(wave, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return images


@pytest.fixture(scope="session")
def cifar_folder() -> Path:
    """The folder of the real CIFAR-10; tests that must have it are skipped where it is absent."""
    if CIFAR is None:
        pytest.skip("no real CIFAR-10: POCKETVIT_CIFAR10 is not set")
    assert CIFAR.is_dir(), f"POCKETVIT_CIFAR10 names {CIFAR}, which is no folder"
    return CIFAR


@pytest.fixture(scope="session")
def real_images() -> np.ndarray:
    """64 images to augment, uint8, (64, 32, 32, 3): real CIFAR-10 where it is at hand, else made ones."""
    files = sorted(CIFAR.glob("test-*.parquet")) if CIFAR else []
    if not files:
        return synthetic_images(64)
    import pyarrow.parquet as pq
    from PIL import Image

    rows = next(pq.ParquetFile(files[0]).iter_batches(64, columns=["img"])).column("img").to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows])


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plots of pages stay empty: to draw them takes longer than to train what most tests train."""
    from markupsafe import Markup

    monkeypatch.setattr("pocketvit.report.plots._embeddable", lambda *_: Markup("<svg></svg>"))


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN, and 255 in bytes, so that a number which nobody wrote shows."""
    from poison import poisoned_memory

    with poisoned_memory():
        yield
