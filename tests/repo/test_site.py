"""The documentation site: it builds without a warning, loads nothing from elsewhere, and its pages work in a browser."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import griffe
import pytest
import yaml
from browser import Browser

import pocketvit
from dev.site_hooks import rewritten

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NAV = (
    "First run", "What a ViT is", "Your own images", "Ask a question: write a study", "Read a result",
    "Add an attention variant", "Fine-tune, explain, export", "How it is fast", "The paper, checked", "Records", "Scaling",
    "Configuration", "API",
)  # fmt: skip

SEARCH = """
document.querySelector("#__search").click();
const words = document.querySelector("[data-md-component=search-query]");
words.value = "Holm";
words.dispatchEvent(new Event("focus"));
words.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}))
"""
FOUND = "document.querySelectorAll('.md-search-result__item').length"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site. Strict: a broken link, a page outside the navigation or an unknown name fails."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


class Loaded(HTMLParser):
    """Addresses that a page loads by itself, so not those that a reader may follow."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = ("src", "srcset", "href", "data", "poster") if tag != "a" else ()
        self.found += [value for name, value in attrs if name in names and value]


def from_elsewhere(text: str) -> list[str]:
    """What a page or a style sheet would load from a network."""
    styles = re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")\s]+)", text)
    return [each for each in [*Loaded(text).found, *styles] if re.match(r"([a-z]+:)?//", each)]


def test_what_would_be_loaded_from_elsewhere_is_found():
    text = '<a href="https://a.b"><script src="//c.d/x.js"></script><link href="https://e.f"><style>p {src: url(http://g.h)}'
    assert from_elsewhere(text) == ["//c.d/x.js", "https://e.f", "http://g.h"]


def test_nothing_is_loaded_from_elsewhere(site):
    files = [path for kind in ("*.html", "*.css") for path in site.rglob(kind)]
    assert len(files) > len(NAV)
    assert {path.name: found for path in files if (found := from_elsewhere(path.read_text()))} == {}


def test_the_pages_stand_in_their_order(site):
    page = (site / "404.html").read_text().partition('<nav class="md-nav md-nav--primary"')[2].partition("<article")[0]
    names = [
        " ".join(re.sub("<.*?>", "", item).split())
        for item in re.findall(r'class="md-ellipsis">(.*?)</', page, re.DOTALL)
    ]
    assert [name for name in names if name in NAV] == list(NAV)


def test_every_public_name_is_on_the_page_of_the_api(site):
    page = (site / "api.html").read_text()
    assert [name for name in pocketvit.__all__ if f'id="pocketvit.{name}"' not in page] == ["__version__"]


def directives() -> dict[str, dict[str, Any]]:
    """What docs/api.md shows, by its path, and the options of each."""
    found = re.findall(r"^::: (\S+)\n((?: {4}.*\n)*)", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    return {path: (yaml.safe_load(options) or {}).get("options", {}) for path, options in found}


@pytest.fixture(scope="module")
def documented() -> list[griffe.Object]:
    """Functions, classes and methods on the page of the API, as they stand in the source."""
    extensions = griffe.load_extensions(str(ROOT / "dev" / "site_docstrings.py"))
    package = griffe.load("pocketvit", search_paths=[str(ROOT / "src")], extensions=extensions)
    found = []
    for path, options in directives().items():
        each = package[path.removeprefix("pocketvit.")]
        each = each.final_target if each.is_alias else each
        chosen = options.get("members", each.members)
        methods = [each[name] for name in chosen or () if not name.startswith("_")] if each.is_class else []
        found += [each, *(method for method in methods if method.is_function and method.docstring)]
    return found


def test_parameters_on_the_page_of_the_api_are_those_of_the_signatures(documented):
    wrong = {}
    for each in documented:
        if each.is_attribute or "dataclass" in each.labels:
            continue
        source = each.all_members["__init__"] if each.is_class and "__init__" in each.members else each
        signature = [p.name for p in getattr(source, "parameters", ()) if p.name not in ("self", "cls")]
        sections = each.docstring.parse("google", warnings=False)
        named = [
            p.name.lstrip("*") for section in sections if section.kind.value == "parameters" for p in section.value
        ]
        if signature != named:
            wrong[each.path] = (signature, named)
    assert wrong == {}
    assert len(documented) > 40


@pytest.mark.parametrize(
    ("address", "expected"),
    [(None, "see log (`dev/LOG.md`)"), ("https://host/us/it", "see [log](https://host/us/it/blob/main/dev/LOG.md#x)")],
    ids=["no address", "an address"],
)
def test_a_link_out_of_the_docs_becomes_a_path_or_an_address(address, expected):
    assert rewritten("see [log](../dev/LOG.md#x)", "", address) == expected
    inside = "[a](fast.md) [b](https://c.d) ![e](images/f.png)\n\n```\n[log](../dev/LOG.md)\n```\n"
    assert rewritten(inside, "", address) == inside
    assert rewritten("[log](../../dev/LOG.md#x), [a](../fast.md)", "deeper", address).endswith("), [a](../fast.md)")


def test_notebooks_become_pages(site):
    """With their text, their code and a link to the file, which is there."""
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        page = (site / "notebooks" / f"{path.stem}.html").read_text()
        assert (
            "pocketvit</span>" in page and f'href="{path.name}"' in page and (site / "notebooks" / path.name).is_file()
        )
        notebook = json.loads(path.read_text())
        assert not any(cell.get("outputs") for cell in notebook["cells"]), "commit notebooks without outputs"


def test_a_link_that_says_its_path_does_not_say_it_twice():
    assert rewritten("[`dev/LOG.md`](../dev/LOG.md)", "", None) == "`dev/LOG.md`"
    assert rewritten("[README](../README.md#results)", "", None) == "`README.md`"


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_pages_work_in_a_browser_without_a_server(site, tmp_path):
    """Wide and light, narrow and dark: nothing fails, nothing is asked of a network, no page is too wide; search finds."""
    assert CHROMIUM is not None
    browser = Browser(CHROMIUM, tmp_path)
    try:
        for page in sorted(set(site.glob("*.html")) - {site / "404.html"}):  # this one is for a server alone
            for width, scheme in ((1300, "light"), (400, "dark")):
                browser.open(page, width, scheme=scheme)
                assert browser.complaints() == [], page.name
                assert [url for url in browser.requests() if not url.startswith(("file:", "data:"))] == [], page.name
                assert browser.value("document.documentElement.scrollWidth") <= width, f"{page.name} at {width} pixels"
        browser.open(site / "index.html", 1300)
        browser.value(SEARCH)
        end = time.monotonic() + 60
        while not browser.value(FOUND):
            assert time.monotonic() < end, "nothing is found"
            time.sleep(0.1)
        assert browser.complaints() == []
    finally:
        browser.close()
