"""What MkDocs does differently for these pages: links that leave docs/, which a site cannot follow.

They lead to the repository's address if pyproject.toml names one, and are shown as paths if not.
"""

import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[((?:[^\[\]`]|`[^`]*`)*)\]\((\.\./[^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)


def repository() -> str | None:
    """The address of the repository, without a slash at its end, as pyproject.toml gives it."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    return next((urls[name].rstrip("/") for name in ("Repository", "Source") if name in urls), None)


def rewritten(markdown: str, folder: str, address: str | None) -> str:
    """Markdown whose links lead out of docs/ no more.

    Args:
        markdown: the text of a page.
        folder: the folder of the page, relative to docs/.
        address: of the repository; without one, a link becomes its text and the path in brackets.
    """

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        path, _, anchor = posixpath.normpath(posixpath.join("docs", folder, target)).partition("#")
        if path.startswith("docs/"):
            return match[0]
        if address:
            return f"[{text}]({address}/blob/main/{path}{'#' + anchor if anchor else ''})"
        return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"

    parts = FENCE.split(markdown)  # code stands at the odd places
    return "".join(part if n % 2 else LINK.sub(link, part) for n, part in enumerate(parts))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs for each page, before it is rendered."""
    return rewritten(markdown, posixpath.dirname(page.file.src_uri), repository())
