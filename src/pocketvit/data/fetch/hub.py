"""Data sets on the Hugging Face Hub: hf:OWNER/NAME, or hf:OWNER/NAME/CONFIG if a repository has several.

The Hub stores most data sets as parquet files, and converts many others on a separate branch.

Source: https://huggingface.co/docs/dataset-viewer/parquet
"""

import importlib.util
import re
import shutil
from pathlib import Path

from pocketvit.data.fetch.catalogue import put_in_place, scratch_of
from pocketvit.data.formats import parquet
from pocketvit.data.pixels import one_line
from pocketvit.errors import InputError

PREFIX = "hf:"
_CONVERTED = "refs/convert/parquet"  # the branch with the Hub's own conversion


def folder_name(source: str) -> str:
    """The name of the folder for `source` ("hf:OWNER/NAME…").

    Raises:
        InputError: `source` has another form.
    """
    return "--".join(("hf", *_parse(source)))


def fetch(source: str, folder: Path) -> None:
    """Download a repository's parquet files with the Hub's own library and its progress bars.

    An interrupted download is resumed by the next call.

    Raises:
        InputError: the repository cannot be reached or has no parquet files, or huggingface_hub is not installed.
    """
    owner, name, *config = _parse(source)
    if importlib.util.find_spec("huggingface_hub") is None:
        raise InputError(f"{source} needs huggingface_hub: pip install 'pocketvit[data]'")
    from huggingface_hub import snapshot_download

    scratch = scratch_of(folder)
    for revision in (None, _CONVERTED):
        try:
            snapshot_download(
                f"{owner}/{name}",
                repo_type="dataset",
                revision=revision,
                allow_patterns="/".join((*config, "*.parquet")),
                local_dir=scratch,
            )
        # The library raises its own errors, those of its network libraries and those of the system.
        except Exception as error:
            raise InputError(f"{source} cannot be downloaded: {one_line(error)}") from error
        if parquet.files(scratch):
            put_in_place(scratch, folder)
            return
    shutil.rmtree(scratch, ignore_errors=True)
    raise InputError(f"{source} has no parquet files")


def _parse(source: str) -> list[str]:
    """Owner, name and, if any, config of "hf:OWNER/NAME/CONFIG"."""
    if not re.fullmatch(r"hf:\w[\w.-]*(/\w[\w.-]*){1,2}", source):
        raise InputError(f"{source!r} is not a data set on the Hub: expected hf:OWNER/NAME or hf:OWNER/NAME/CONFIG")
    return source.removeprefix(PREFIX).split("/")
