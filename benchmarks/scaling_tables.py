"""Tables of docs/scaling.md: speed and accuracy on several GPUs, and the paper's multi-GPU rows."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.scaling import BATCH_SIZES, PASSES, accuracy_config
from pocketvit.config import config_hash
from pocketvit.config.hashing import earlier_hashes
from pocketvit.data.dataset import CIFAR10_FINGERPRINT
from pocketvit.errors import InputError
from pocketvit.files import read_json
from pocketvit.recipes import recipe
from pocketvit.report.text import count, duration
from pocketvit.runs.result import RunResult, find_results
from pocketvit.studies import Study, load_study
from pocketvit.studies.analysis.findings import Finding, findings
from pocketvit.studies.definition.gather import CellResult, outcome, with_earlier
from pocketvit.studies.definition.grid import Row
from pocketvit.studies.definition.jobs import Fingerprints, study_jobs
from pocketvit.studies.output.outputs import notes, table_row
from pocketvit.tables import ABSENT, ABSENT_YET, markdown_table, mean_and_spread
from reproduction.numbers import published
from reproduction.texts import EARLIER_NOTE

ROWS_FILE = Path(__file__).with_name("scaling_rows.yaml")
PAPERS_ROW = {
    "bs256": "ba",
    "bs1024": "ba-bs1024",
    "bs1024-lion": "ba-bs1024-lion",
    "ba": "ba",
    "ba-bs1024": "ba-bs1024",
    "ba-bs1024-lion": "ba-bs1024-lion",
}
"""The row of the study paper-table2 for the same run of the paper."""
SEEDS = (0, 1, 2)
COMPARED = ("against", "difference", "95 % CI", "verdict")

_SPEED_FILE = re.compile(r"(?P<gpus>\d+)-(?P<batch>\d+)")
_RUN_FILE = re.compile(r"paper-(?P<gpus>\d+)gpus-s(?P<seed>\d+)")

LIMITS = {"issue slots": "issue_percent", "L2": "l2_percent", "memory": "memory_percent"}
"""Columns of what limits a kernel, and the counters they show."""

SPEED_NOTE = (
    f"Runs of {PASSES} passes of the whole recipe with torchrun on one host, including augmentation, without compiling "
    "and evaluation: median over the passes after the first, slowest to fastest in brackets. The batch size is that of "
    "the whole run, so each of two GPUs takes half of it. Step: time per batch. Speed-up: relative to one GPU of the "
    "same kind at the same batch size. Efficiency: speed-up divided by the number of GPUs. Measured by `python -m "
    "benchmarks.scaling --gpus {gpus}`."
)
ROWS_NOTE = (
    "Paper: one run, the best of 20 evaluations on the test set, repeated in both kinds of rows. `bs`: batch size, each "
    "image once per pass; `ba`: with Batch Augmentation, each image three times in a batch. Ours: mean ± standard "
    "deviation over n seeds, each on one GPU."
)


def scaling_speed(folder: Path) -> str:
    """Images/s by batch size and number of GPUs: a sentence, a table, and notes.

    Args:
        folder: of `GPUS-BATCH.json` as `benchmarks/scaling.py` writes them; may be absent.
    Raises:
        InputError: a file whose content contradicts its name.
    """
    measured = _measured_speeds(folder)
    if not measured:
        return f"{ABSENT_YET.capitalize()}."
    gpus = sorted({1, *(num_gpus for _, num_gpus in measured)})
    batches = sorted({*BATCH_SIZES, *(batch for batch, _ in measured)})
    pairs = [(batch, num_gpus) for batch in batches for num_gpus in gpus]
    rows = [_speed_row(measured, *pair) for pair in pairs]
    behind = [[measured[pair]] if pair in measured else [] for pair in pairs]
    note = SPEED_NOTE.format(gpus=",".join(map(str, gpus)))
    return noted(rows, behind, [_in_words(measured), note])


def half_batch(file: Path) -> str:
    """The kernels of a step on 256 images and on 128, and what limits the large ones.

    Args:
        file: as `benchmarks/half_batch.py` writes it.
    """
    measured = read_json(file)
    steps = [_by_kernel(measured["kernels"][size]) for size in ("256", "128")]
    large = [kernel for kernel in steps[0] if kernel.startswith("vit_")]
    rows = []
    for name in sorted(large, key=lambda kernel: -_us(steps[0][kernel])):
        row = _half_row(f"`{name}`", *(_us(step[name]) for step in steps))
        for column, counter in LIMITS.items():
            row[column] = " → ".join(f"{step[name][0][counter]:.0f} %" for step in steps)
        rows.append(row)
    rest = [sum(_us(launches) for name, launches in step.items() if name not in large) for step in steps]
    whole = [sum(map(_us, step.values())) for step in steps]
    for name, pair in (("everything else", rest), ("a step", whole)):
        rows.append(_half_row(name, *pair) | dict.fromkeys(LIMITS, ABSENT))
    note = (
        f"{measured['gpu']}, counters of every kernel of a step of the paper's recipe on synthetic images, read by ncu: µs, sums "
        "without the gaps between kernels. Issue slots: the share of cycles in which a scheduler issues an instruction. L2, "
        "memory: the share of the peak rate. Measured by `python -m benchmarks.half_batch`."
    )
    return f"{markdown_table(rows, list(rows[0]))}\n\n{note}"


def _by_kernel(kernels: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The launches of each kernel."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for launch in kernels:
        found.setdefault(launch["kernel"], []).append(launch)
    return found


def _us(launches: Sequence[Mapping[str, Any]]) -> float:
    return sum(launch["us"] for launch in launches)


def _half_row(name: str, whole: float, half: float) -> dict[str, str]:
    return {"kernel": name, "256": f"{whole:.0f}", "128": f"{half:.0f}", "128 / 256": f"{half / whole:.2f}"}


def scaling_accuracy(results: Path) -> str:
    """The paper's run on several GPUs against one, on the same seeds.

    Args:
        results: the folder of all results.
    Raises:
        InputError: a file whose content contradicts its name.
    """
    files = {(1, seed): results / "paper-baseline" / f"paper-s{seed}.json" for seed in SEEDS}
    files |= {(2, seed): results / "scaling" / f"paper-2gpus-s{seed}.json" for seed in SEEDS}
    for path in sorted((results / "scaling").glob("*.json")):
        name = _RUN_FILE.fullmatch(path.stem)
        if name is None:
            raise InputError(f"{path} is not named like a run on several GPUs; expected paper-<GPUs>gpus-s<seed>.json")
        files[int(name["gpus"]), int(name["seed"])] = path
    cells = [_run_cell(path, num_gpus, seed) for (num_gpus, seed), path in sorted(files.items())]
    study = _gpus_study(sorted(files))
    found = findings(study, cells)
    rows = [{"GPUs": finding.row} | run_cells(finding) for finding in found]
    command = "`python -m benchmarks.scaling --accuracy --gpus 2`"
    note = f"One GPU: the runs of `results/paper-baseline`; several: {command}."
    return noted(rows, [finding.results for finding in found], [" ".join([note, *notes(study, found)])])


def scaling_rows(results: Path) -> str:
    """The paper's multi-GPU rows and ours, of both kinds; runs are found anywhere under `results`."""
    study = load_study(ROWS_FILE)
    found = measured_findings(study, results)
    rows = []
    earlier = ""
    for row, finding in zip(study.rows, found, strict=True):
        old = any(r.config_hash in earlier_hashes(row.config, r.data_fingerprint) for r in finding.results)
        earlier = EARLIER_NOTE if old else earlier
        theirs = published("paper-table2", PAPERS_ROW[finding.row])
        paper = {"in the paper": theirs.name, "paper, best of 20 (%)": f"{100 * theirs.accuracy:.2f}"}
        rows.append({"our row": f"`{finding.row}`{' ‡' * old}"} | paper | run_cells(finding))
    command = f"`pocketvit study benchmarks/{ROWS_FILE.name}`"
    note = f"{ROWS_NOTE} Measured by {command}."
    shown = [text for text in notes(study, found) if not text.startswith("Bootstrap")]  # there is no column of it
    texts = [" ".join([note, *shown]), earlier]
    return noted(rows, [finding.results for finding in found], texts)


# ---------------------------------------------------------------- speed


def _measured_speeds(folder: Path) -> dict[tuple[int, int], RunResult]:
    """The results by batch size and number of GPUs."""
    measured = {}
    for path in sorted(folder.glob("*.json")):
        name = _SPEED_FILE.fullmatch(path.stem)
        if name is None:
            raise InputError(f"{path} is not named like a measurement of speed; expected <GPUs>-<batch size>.json")
        result = RunResult.read(path)
        lacking = {"batch_size", "pass_train_s"} - result.extra.keys()
        if lacking:
            raise InputError(f"{path} lacks {', '.join(sorted(lacking))}: was it written by benchmarks/scaling.py?")
        key = int(name["batch"]), int(name["gpus"])
        if key != (result.extra["batch_size"], result.num_gpus):
            raise InputError(f"{path} contains batch size {result.extra['batch_size']} on {result.num_gpus} GPUs")
        measured[key] = result
    return measured


def _speeds(result: RunResult) -> tuple[float, float, float]:
    """Images/s over the passes after the first: median, least and most."""
    passes = result.extra["pass_train_s"]
    images = result.images_seen / len(passes)
    speeds = [images / seconds for seconds in passes[1:] or passes]
    return median(speeds), min(speeds), max(speeds)


def _speed_row(measured: Mapping[tuple[int, int], RunResult], batch: int, num_gpus: int) -> dict[str, str]:
    """One batch size on one number of GPUs, by column."""
    row = {"batch size": count(batch), "GPUs": str(num_gpus), "images/s": ABSENT_YET}
    row |= dict.fromkeys(("step (ms)", "speed-up", "efficiency"), ABSENT)
    if (batch, num_gpus) not in measured:
        return row
    middle, low, high = _speeds(measured[batch, num_gpus])
    row["images/s"] = f"{count(middle)} ({count(low)} – {count(high)})"
    row["step (ms)"] = f"{1e3 * batch / middle:.2f}"
    faster = _speed_up(measured, batch, num_gpus)
    if faster is not None:
        row |= {"speed-up": f"{faster:.2f}", "efficiency": f"{faster / num_gpus:.0%}".replace("%", " %")}
    return row


def _speed_up(measured: Mapping[tuple[int, int], RunResult], batch: int, num_gpus: int) -> float | None:
    """The speed-up over one GPU of the same kind; None if that was not measured."""
    ours, one = measured.get((batch, num_gpus)), measured.get((batch, 1))
    if ours is None or one is None or ours.device != one.device:
        return None
    return _speeds(ours)[0] / _speeds(one)[0]


def _in_words(measured: Mapping[tuple[int, int], RunResult]) -> str:
    """The speed-ups, one sentence per number of GPUs."""
    sentences = []
    for num_gpus in sorted({num_gpus for _, num_gpus in measured if num_gpus > 1}):
        batches = sorted(batch for batch, gpus in measured if gpus == num_gpus)
        ups = [(batch, up) for batch in batches if (up := _speed_up(measured, batch, num_gpus)) is not None]
        texts = [f"{up:.2f} at batch size {count(batch)}" for batch, up in ups]
        if texts:
            sentences.append(f"Speed-up of {num_gpus} GPUs over one: {', '.join(texts)}.")
    return " ".join(sentences)


# ---------------------------------------------------------------- accuracy


def _run_cell(path: Path, num_gpus: int, seed: int) -> CellResult:
    """A run as a cell of a study whose rows are numbers of GPUs."""
    result = RunResult.read(path) if path.is_file() else None
    if result is not None:
        expected = config_hash(accuracy_config(seed), CIFAR10_FINGERPRINT), seed, num_gpus
        if (result.config_hash, result.seed, result.num_gpus) != expected:
            raise InputError(f"{path} is not the paper's run with seed {seed} on {num_gpus} GPUs")
    state = "missing" if result is None else "done"
    return CellResult(row=str(num_gpus), seed=seed, state=state, result=result, error=None, folder=None)


def _gpus_study(runs: Sequence[tuple[int, int]]) -> Study:
    """One row per number of GPUs, compared with one GPU; `runs` are pairs of number and seed."""
    gpus = sorted({num_gpus for num_gpus, _ in runs})
    seeds = {num_gpus: tuple(seed for number, seed in runs if number == num_gpus) for num_gpus in gpus}
    rows = tuple(
        Row(name=str(num_gpus), overrides={}, seeds=seeds[num_gpus], config=recipe("paper")) for num_gpus in gpus
    )
    pairs = {str(num_gpus): "1" for num_gpus in gpus if num_gpus > 1}
    return Study(name="gpus", recipe="paper", base={}, rows=rows, compare=pairs)


# ---------------------------------------------------------------- tables of runs, here and in docs/fast.md


def measured_findings(
    study: Study, results: Path, fingerprints: Fingerprints = lambda data: CIFAR10_FINGERPRINT
) -> list[Finding]:
    """The findings of a study from runs on one GPU anywhere under `results`, including those before a revision."""
    jobs = study_jobs(study, results, fingerprints)
    known = with_earlier(jobs, find_results([results], one_gpu=True))
    return findings(study, [outcome(job, known.get(job.key)) for job in jobs])


def run_cells(finding: Finding) -> dict[str, str]:
    """A row in the tables of runs, by column."""
    told = table_row(finding)
    return {
        "best of 20 (%)": spread(finding, "best_test_accuracy"),
        "last step (%)": spread(finding, "test_accuracy") if finding.count("done") else ABSENT_YET,
        "n": told["n"],
        **{column: told[column] for column in (*COMPARED, "images/s", "training time", "memory (GiB)")},
    }


def noted(rows: Sequence[Mapping[str, str]], behind: Sequence[Sequence[RunResult]], texts: Sequence[str]) -> str:
    """A table with the hardware above it, and notes below.

    Args:
        rows: by column.
        behind: the results of each row; if they are from several kinds of GPU, each row names its own.
        texts: the paragraphs below.
    """
    results = [result for of_row in behind for result in of_row]
    if len({result.device for result in results}) > 1:
        rows = [row | {"hardware": _devices(of_row) or ABSENT} for row, of_row in zip(rows, behind, strict=True)]
    parts = [_where(results, sizes="parameters" not in rows[0]), markdown_table(rows, list(rows[0])), *texts]
    return "\n\n".join(part for part in parts if part)


def spread(finding: Finding, key: str) -> str:
    """Mean and standard deviation of an accuracy over a row's runs, percent."""
    values = [100 * value for result in finding.results if (value := getattr(result, key)) is not None]
    return mean_and_spread(values) if values else ABSENT


def _where(results: Sequence[RunResult], sizes: bool) -> str:
    """The hardware, PyTorch and perhaps the size of the model; empty without results."""
    if not results:
        return ""
    torch = " or ".join(sorted({result.versions["torch"] for result in results}))
    models = " or ".join(map(count, sorted({result.num_params for result in results})))
    return f"{_devices(results)}, PyTorch {torch}{f'; paper, {models} parameters' * sizes}."


def _devices(results: Sequence[RunResult]) -> str:
    return " or ".join(sorted({result.device for result in results}))


def scaling_cost(results: Path) -> str:
    """What a study of 1,000 runs of the paper's recipe costs, by the runs of each kind of kernels.

    Args:
        results: the folder of all results.
    """
    rows = []
    for kernels, files in (("persistent", "paper-table2/baseline-s*.json"), ("fused", "paper-baseline/paper-s*.json")):
        runs = [run for file in results.glob(files) if (run := RunResult.read(file)).kernels_used == kernels]
        device = Counter(run.device for run in runs).most_common(1)[0][0]
        runs = [run for run in runs if run.device == device]
        train_s = fmean(run.train_s for run in runs)
        beside_s = min(run.beside_s for run in runs if run.beside_s is not None)
        hours = 1000 * (train_s + beside_s) / 3600
        rows.append(
            {
                "kernels": kernels,
                "measured on": f"{device}, {len(runs)} runs",
                "training a run": duration(train_s),
                "besides": duration(beside_s),
                "1,000 runs": f"{hours:.1f} GPU hours",
                "on 8 GPUs": duration(3600 * hours / 8),
                "on 64 GPUs": duration(3600 * hours / 64),
            }
        )
    note = (
        "The recipe `paper`, from the runs of `baseline` under `results/paper-table2` and of `results/paper-baseline`. "
        "Besides: importing, compiling, evaluation and report, the least of the runs, since a run may also have waited "
        "for its turn. Calculated from single runs, not measured: on its GPU a run gets ready while the one before it "
        "trains, which saves most of it, and many runs at once read one file system."
    )
    return f"{markdown_table(rows, list(rows[0]))}\n\n{note}"
