"""A made study: results as training leaves them behind, without the training."""

from dataclasses import replace

import numpy as np
from synthetic_results import synthetic_result

from pocketvit.runs.result import RunResult
from pocketvit.studies import Study, parse_study
from pocketvit.studies.definition.gather import CellResult

ROWS = {
    "baseline": {},
    "mla-q": {"model.q_rank": 64},
    "mla-qkv": {"model.q_rank": 64, "model.k_rank": 64, "model.v_rank": 64},
    "whitening": {"model.patch_init": "whitening"},
    "muon": {"optim.name": "muon", "optim.lr": 1e-3},
}
MEANS = {"baseline": 0.9410, "mla-q": 0.9406, "mla-qkv": 0.9312, "whitening": 0.9415, "muon": 0.9576}
SPEED = {"baseline": 78_100, "mla-q": 76_300, "mla-qkv": 73_900, "whitening": 78_000, "muon": 66_800}
ERROR = "RuntimeError: loss is nan at step 1,204 in <script>alert('MyAttention & co')</script> of my_idea.py"


def synthetic_study(**content) -> Study:
    """Five rows of the paper's recipe with three seeds each."""
    return parse_study({"recipe": "paper", "seeds": 3, "baseline": "baseline", "rows": ROWS} | content, "synthetic")


def result_of(row: str, seed: int) -> RunResult:
    """20 looks that climb to the row's accuracy, a little noise on them."""
    share = np.arange(1, 21) / 20  # of the run
    noise = np.random.default_rng([seed, *row.encode()]).normal(0, 0.0008 + 0.006 * (1 - share))
    level = MEANS[row] + 0.0004 * (seed - 1)
    climb = level - (0.33 if row != "muon" else 0.2) * (1 - share) ** 1.7 * np.exp(-2.5 * share)
    accuracy = (climb + noise).round(4)
    images = (share * 14_976_000).round().astype(int)
    seconds = images / SPEED[row]
    content = {
        "test_accuracy": float(accuracy[-1]), "best_test_accuracy": float(accuracy.max()),
        "train_s": float(seconds[-1]), "total_s": float(seconds[-1]) + 20, "images_seen": 14_976_000,
        "images_per_s": float(SPEED[row]), "peak_memory_gib": 1.61, "num_params": 2_697_610, "num_gpus": 1,
        "seed": seed, "config_hash": f"de82639bc0{len(row):02}", "data_fingerprint": "cd93b3364ccc49dc",
        "recipe": "paper", "device": "NVIDIA H100 80GB HBM3", "commit": "0940641021137524",
        "command": f"pocketvit train paper --seed {seed}",
        "versions": {"python": "3.12.3", "torch": "2.11.0"},
        "curve": [
            {"images": int(i), "train_s": float(s), "accuracy": float(a), "split": "test"}
            for i, s, a in zip(images, seconds, accuracy, strict=True)
        ],
    }  # fmt: skip
    return synthetic_result(**content)


def synthetic_cells(study: Study, failed: tuple[str, ...] = (), missing: tuple[str, ...] = ()) -> list[CellResult]:
    """Every cell of a study, done but for those named."""
    cells = []
    for cell in study.cells():
        state = "failed" if cell.name in failed else "missing" if cell.name in missing else "done"
        cells.append(
            CellResult(
                row=cell.row, seed=cell.seed, state=state, folder=None,
                result=result_of(cell.row, cell.seed) if state == "done" else None,
                error=ERROR if state == "failed" else None,
            )
        )  # fmt: skip
    return cells


def changed(cell: CellResult, **fields) -> CellResult:
    """A cell with another result; one without a result stays as it is."""
    return replace(cell, result=cell.result and replace(cell.result, **fields))
