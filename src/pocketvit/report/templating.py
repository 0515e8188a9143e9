"""What every page is made with: templates that escape all they are given, and a file that is never half written."""

import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pocketvit.errors import InputError
from pocketvit.report import text


def page_environment() -> Environment:
    """The templates, with the report's ways of writing numbers as filters."""
    environment = Environment(
        loader=PackageLoader("pocketvit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=text.count, percent=text.percent, duration=text.duration)
    return environment


def write_page(path: Path, html: str) -> Path:
    """Write a page all at once; returns its path.

    Raises:
        InputError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_text(html, encoding="utf-8")
        os.replace(unfinished, path)  # a reader never meets half a page
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    return path
