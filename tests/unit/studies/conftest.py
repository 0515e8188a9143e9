"""A browser for the pages that studies write."""

import shutil

import pytest


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser for the tests of one file; they are skipped where it is not installed."""
    from browser import Browser

    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine; see apt.txt")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()
