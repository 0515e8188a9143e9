"""What MkDocs does differently for these pages.

Links that leave docs/, which a site cannot follow, lead to the repository's address if pyproject.toml names one, and are
shown as paths if not. Notebooks become pages of their text and code.
"""

import json
import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

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
        says_it = text.strip("`") in (path, path.removesuffix(".md"))
        return f"`{path}`" if says_it else f"{text} (`{path}`)"

    parts = FENCE.split(markdown)  # code stands at the odd places
    return "".join(part if n % 2 else LINK.sub(link, part) for n, part in enumerate(parts))


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """The text and the code of a notebook, as Markdown; `name` is that of its file."""
    cells = ["".join(cell["source"]) for cell in notebook["cells"]]
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    parts = [text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in zip(kinds, cells, strict=True)]
    parts.insert(1, f'To run it: <a href="{name}" download>{name}</a>, with Jupyter.')
    return "\n\n".join(parts) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs when it has found the files in docs/."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = notebook_page(json.loads(file.content_string), posixpath.basename(file.src_uri))
        files.append(File.generated(config, file.src_uri.removesuffix(".ipynb") + ".md", content=page))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Called by MkDocs for each page, before it is rendered."""
    pages = markdown.replace(".ipynb)", ".md)")  # of notebooks
    return rewritten(pages, posixpath.dirname(page.file.src_uri), repository())
