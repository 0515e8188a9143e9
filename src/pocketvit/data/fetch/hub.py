"""Sets from the Hugging Face Hub: hf:OWNER/NAME, or hf:OWNER/NAME/CONFIG where a repository holds several.

The Hub keeps most sets as parquet files, and converts many of the others on a branch of their own.

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
_CONVERTED = "refs/convert/parquet"
"""The branch with the Hub's own conversion."""


def folder_name(source: str) -> str:
    """The name of the folder that `source` ("hf:OWNER/NAME…") is fetched into.

    Raises:
        InputError: `source` has another form.
    """
    return "--".join(("hf", *_parse(source)))


def fetch(source: str, folder: Path) -> None:
    """Fetch a repository's parquet files, with the Hub's own library and its progress bars.

    What an interrupted download left is used by the next call.

    Args:
        source: "hf:OWNER/NAME" or "hf:OWNER/NAME/CONFIG".
        folder: where to put the files.
    Raises:
        InputError: the repository cannot be reached or holds no parquet files, or huggingface_hub is not installed.
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
        # The library lets through errors of its own, of its network libraries and of the system.
        except Exception as error:
            raise InputError(f"{source} cannot be fetched: {one_line(error)}") from error
        if parquet.files(scratch):
            put_in_place(scratch, folder)
            return
    shutil.rmtree(scratch, ignore_errors=True)
    raise InputError(f"{source} holds no parquet files")


def _parse(source: str) -> list[str]:
    """Owner, name and, if there, config of "hf:OWNER/NAME/CONFIG"."""
    if not re.fullmatch(r"hf:\w[\w.-]*(/\w[\w.-]*){1,2}", source):
        raise InputError(f"{source!r} is no set on the Hub: expected hf:OWNER/NAME or hf:OWNER/NAME/CONFIG")
    return source.removeprefix(PREFIX).split("/")
