"""docs/paper.md says what results/ says."""

import json
from pathlib import Path

from pocketvit.data.dataset import CIFAR10_FINGERPRINT
from reproduction import paper_page

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_one_made_from_the_results():
    made = paper_page(ROOT / "results", ROOT / "docs" / "images")
    assert (ROOT / "docs" / "paper.md").read_text(encoding="utf-8") == made, "run python -m benchmarks.paper"


def test_our_results_are_looked_for_on_the_data_that_they_were_run_on():
    result = json.loads((ROOT / "results" / "paper-baseline" / "paper-s0.json").read_text())
    assert result["data_fingerprint"] == CIFAR10_FINGERPRINT
