"""What is known of a data set that can be downloaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pocketvit.data.dataset import Decoded
from pocketvit.data.fetch.download import MOST_BYTES


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded."""

    url: str
    checksum: str | None = None
    """Such as "md5:098f6b…"."""
    most_bytes: int = MOST_BYTES
    """Its greatest size."""
    most_unpacked: int | None = None
    """Bytes that it may unpack to, if it is an archive, which is removed afterwards; None keeps it as it is."""
    wanted: str = ".*"
    """Regular expression of the members that are needed."""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def place(self, folder: Path) -> Path:
        """Where it is downloaded to, for a data set in `folder`: an archive beside it."""
        return folder.with_name(f"{folder.name}-{self.name}") if self.most_unpacked else folder / self.name


@dataclass(frozen=True)
class Offer:
    """One of the ways to get a data set."""

    name: str
    files: tuple[RemoteFile, ...]
    needs_pyarrow: bool = False


@dataclass(frozen=True)
class RemoteSet:
    """A data set that can be downloaded by its name."""

    name: str
    description: str
    size: str  # of the download
    offers: tuple[Offer, ...]  # in the order to try
    is_real: Callable[[Decoded], bool]  # whether these are the true images, labels and splits
    licence: str = "none stated"
    flags: str = ""  # of `pocketvit train paper --data NAME`, that suit its images
    class_names: tuple[str, ...] = ()  # where the files do not name the classes
