"""The figures that are typed into prose are those of the files under results/."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.simulations import TABLE2_SHARE
from pocketvit.model import create_model
from pocketvit.studies.analysis.findings import noisy_rows
from pocketvit.studies.analysis.spread import pooled_spread
from reproduction.evidence import read_evidence

ROOT = Path(__file__).parents[2]


def test_what_the_minute_takes_with_the_persistent_kernels_is_calculated_from_their_measured_speed():
    steps = json.loads((ROOT / "results" / "persistent" / "steps.json").read_text())
    fused, persistent = (
        row["recipe_images_per_s"] for row in steps["rows"] if (row["model"], row["batch_size"]) == ("minute", 512)
    )
    runs = [json.loads(path.read_text()) for path in (ROOT / "results" / "minute").glob("*.json")]
    assert not any("kernels" in run for run in runs), "older ones are of the fused kernels; say what was measured since"
    (seen,) = {run["images_seen"] for run in runs}
    page = " ".join((ROOT / "docs" / "minute.md").read_text().split())
    assert f"{persistent / fused:.2f} times as fast, at {persistent:,} images/s instead of {fused:,} (" in page
    assert f"its {seen / 1e6:.1f} million images would take {seen / persistent:.0f} s;" in page
    assert {run["num_params"] for run in runs} == {create_model("minute").num_params}


def test_the_share_of_seeds_in_table_2_is_that_of_its_runs():
    accuracies = read_evidence(ROOT / "results").figures("paper-table2", "test_accuracy")
    spread = pooled_spread(accuracies, noisy_rows(accuracies))
    assert 1 - spread.noise / spread.total == pytest.approx(TABLE2_SHARE, abs=0.01)
    told = " ".join((ROOT / "docs" / "reading.md").read_text().split())
    assert f"in the paper's Table 2 it is {spread.total / spread.noise - 1:.2f}." in told


def test_the_estimates_of_scaling_rest_on_the_measured_steps():
    """The paper's model on one H200, in batches of 256 and 128."""
    measured = json.loads((ROOT / "results" / "persistent" / "steps.json").read_text())["rows"]
    rows = {r["batch_size"]: r for r in measured if (r["model"], r["kernels"]) == ("paper", "persistent")}
    half, whole = (1e3 * size / rows[size]["recipe_images_per_s"] for size in (128, 256))
    scaling = " ".join((ROOT / "docs" / "scaling.md").read_text().split())
    assert f"A step at batch 256 takes {whole:.2f} ms on one H200" in scaling
    assert f"at most {whole / half:.2f} times the speed of one: a step on 128 images takes {half:.2f} ms" in scaling
    assert f"a step on 256 takes {whole:.2f}." in scaling


def test_the_head_of_the_readme_is_measured():
    """The paper's run on one H200, and its speed with both kinds of kernels in one call."""
    head = " ".join((ROOT / "README.md").read_text().partition("## Get started")[0].split())
    runs = [json.loads(path.read_text()) for path in (ROOT / "results" / "paper-table2").glob("baseline-s*.json")]
    assert {(run["device"], run["kernels"], run["num_gpus"]) for run in runs} == {("NVIDIA H200", "persistent", 1)}
    assert f"it takes {fmean(run['train_s'] for run in runs):.0f} seconds on one H200" in head
    steps = json.loads((ROOT / "results" / "persistent" / "steps.json").read_text())
    fused, persistent = (
        row["recipe_images_per_s"] for row in steps["rows"] if (row["model"], row["batch_size"]) == ("paper", 256)
    )
    assert f"train at {persistent:,} images/s, and the fused ones before them at {fused:,}," in head
    assert steps["gpu"] == "NVIDIA H200"
    fast = " ".join((ROOT / "docs" / "fast.md").read_text().partition("## ")[0].split())
    assert f"the whole recipe at {persistent:,} images/s at batch 256; the fused kernels, " in fast
    rows = json.loads((ROOT / "results" / "speed" / "paper.json").read_text())["rows"]
    (compiled,) = (
        row["images_per_s"]
        for row in rows
        if (row["variant"], row["mode"], row["batch_size"]) == ("compiled", "recipe", 256)
    )
    assert f"at {fused:,} in the same call, and compiled PyTorch at {compiled:,.0f} in another." in fast


def test_typed_figures_of_the_kernels_and_of_muon_are_measured():
    """What prose says of tables: counters of a step, speeds of every choice, Muon's lead."""
    fast, scaling, minute = (
        " ".join((ROOT / "docs" / f"{name}.md").read_text().split()) for name in ("fast", "scaling", "minute")
    )
    counted = json.loads((ROOT / "results" / "persistent" / "half-batch.json").read_text())["kernels"]
    both = ("vit_forward", "vit_backward")
    (issue,) = {f"{kernel['issue_percent']:.0f} %" for kernel in counted["256"] if kernel["kernel"] in both}
    assert f"one issues an instruction in {issue} of the cycles" in fast
    us = {kernel["kernel"]: kernel["us"] for kernel in counted["128"]}
    beside = sum(kernel["us"] for kernel in counted["128"] if not kernel["kernel"].startswith("vit_"))
    alone = sum(us[name] for name in both)
    assert f"needs {alone / 1000:.2f} ms for forward and backward of the blocks" in scaling
    assert f"and {beside / 1000:.2f} ms for what is not blocks" in scaling
    whole = sum(kernel["us"] for kernel in counted["256"])
    assert f"at most {whole / (alone + beside + 55):.1f} times as fast" in scaling, "55 µs is the exchange"
    ratios = {kinds: [] for kinds in (("fused", "compiled"), ("persistent", "fused"))}
    for path in (ROOT / "results" / "speed").glob("*.json"):
        rows = [row for row in json.loads(path.read_text())["rows"] if row.get("mode") == "recipe"]
        speeds = {(row["variant"], row["batch_size"]): row["images_per_s"] for row in rows}
        for (ours, theirs), found in ratios.items():
            sizes = (size for size in (256, 1024) if {(ours, size), (theirs, size)} <= speeds.keys())
            found.extend(speeds[ours, size] / speeds[theirs, size] for size in sizes)
    fused, persistent = (f"{min(found):.1f} to {max(found):.1f}" for found in ratios.values())
    assert (
        f"each choice trains {fused} times as fast" in fast
        and f"they support it, {persistent} times as fast again" in fast
    )
    figures = read_evidence(ROOT / "results").figures("paper-fig6", "test_accuracy")
    muon, adamw = (100 * fmean(figures[row].values()) for row in ("muon", "adamw"))
    assert f"{muon - adamw:.1f} points ahead after a full run" in minute


def test_the_sentence_before_the_table_of_speeds_says_what_is_in_it():
    rows = json.loads((ROOT / "results" / "paper-table1" / "bench.json").read_text())["rows"]
    found = {(row["variant"], row["mode"]): row for row in rows if row["batch_size"] == 256}
    said = (
        (ROOT / "docs" / "fast.md")
        .read_text()
        .partition("## Where the fused kernels stand\n\n")[2]
        .partition("\n\n")[0]
    )
    fused, compiled = (found[variant, "step"]["batch_ms"] for variant in ("fused", "compiled"))
    assert f"takes {fused:.2f} ms, less than half of the {compiled:.2f} ms" in said and fused < compiled / 2
    assert f"{found['fused', 'recipe']['images_per_s'] / 1000:.0f} thousand images/s" in said
