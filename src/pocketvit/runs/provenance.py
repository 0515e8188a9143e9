"""Where a run was made: command, versions, commit, hardware."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pocketvit import __version__


def environment(device_name: str) -> dict[str, Any]:
    """The provenance of a run: commit, versions, hardware, command."""
    commit, dirty = git_state()
    return {
        "commit": commit,
        "dirty": dirty,
        "command": command(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name,
        "cpu_count": os.cpu_count(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda,
        "versions": versions(),
    }


def command() -> str:
    """The command line of this process; `python -m pocketvit` counts as `pocketvit`."""
    program = Path(sys.argv[0])
    return shlex.join([program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version(), "pocketvit": __version__}
    for package in ("torch", "triton", "numpy", "pillow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> tuple[str | None, bool | None]:
    """The commit of the source, and whether it was modified; without git, POCKETVIT_COMMIT and None."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("POCKETVIT_COMMIT"), None
