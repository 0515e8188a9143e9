"""Reads the package's docstrings for the page of the API: their sections follow each other without blank lines."""

import re
from typing import Any

import griffe

SECTION = re.compile(r"\n+(?=(?:Args|Returns|Yields|Raises|Attributes):\n)")


class Sections(griffe.Extension):
    """Puts a blank line before each section, which is how griffe tells them apart."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for everything that is found in the source."""
        if obj.docstring is not None:
            obj.docstring.value = SECTION.sub("\n\n", obj.docstring.value)
