"""Tables of docs/fast.md: the kernels of a step and their lower bounds, accuracy by kind of kernels, speed on a CPU."""

from collections.abc import Mapping, Sequence
from math import sqrt
from operator import mul
from pathlib import Path
from statistics import fmean, median, stdev

from scipy.stats import t as student_t

from benchmarks.scaling_tables import measured_findings, noted, run_cells
from pocketvit.errors import InputError
from pocketvit.files import read_json
from pocketvit.recipes import recipe
from pocketvit.report.text import count, points
from pocketvit.studies import load_study
from pocketvit.studies.analysis.findings import Finding
from pocketvit.studies.analysis.verdict import interval
from pocketvit.studies.definition.choose import find_study
from pocketvit.studies.output.outputs import notes
from pocketvit.tables import ABSENT, ABSENT_YET, markdown_table, mean_and_spread

KERNELS_FILE = Path(__file__).with_name("kernels.yaml")
TEST_IMAGES = 10_000
"""Of CIFAR-10."""
WHENCE = "Fused: the runs of `results/paper-baseline`; reference: `pocketvit study benchmarks/kernels.yaml`."
DESIGNS = ("fused", "persistent")

Pair = Sequence[Sequence[float]]
"""The accuracies of a row's runs with each of two kinds of kernels."""

BF16_BYTES = 2


def step_kernels(profile_file: Path, bench_file: Path) -> str:
    """The kernels of a step of the paper's model, each with the least time of its products and of its memory traffic.

    Args:
        profile_file: as `pocketvit profile paper` writes it.
        bench_file: as `pocketvit bench paper` writes it; has the rates of the machine.
    """
    profile, rates = read_json(profile_file), read_json(bench_file)["rates"]
    took = {kernel["name"].removesuffix("_kernel"): 1e3 * kernel["ms"] for kernel in profile["kernels"]}
    rows, known = _kernel_rows(took, _kernel_work(profile["batch_size"]), rates)
    rest = 1e3 * (profile["busy_ms"] - profile["phases_ms"]["data"]) - known
    rows.append(_kernel_row("everything else", rest))
    note = (
        f"{profile['device']}, PyTorch {profile['versions']['torch']}; batch size {profile['batch_size']}, µs per step, "
        "sums over kernels without the gaps between them. Products: multiplications and additions at the rate of a large "
        "matrix product, including those that the backward pass repeats. Traffic: each value of a token that a kernel "
        "reads or writes, once, at the bandwidth of a large copy. In the last block, only the CLS tokens pass the tail."
    )
    return f"{markdown_table(rows, list(rows[0]))}\n\n{note}"


def both_designs(file: Path, speed_file: Path) -> str:
    """The recipes with either kind of kernels, and where a step of the paper's goes with the persistent ones.

    Args:
        file: as `benchmarks/persistent.py` writes it.
        speed_file: as `benchmarks/speed.py` writes it; has the rates of a machine of the same kind.
    Raises:
        InputError: they are of different GPUs.
    """
    measured, speed = read_json(file), read_json(speed_file)
    if measured["gpu"] != speed["device"]:
        raise InputError(f"{file} is of {measured['gpu']}, {speed_file} of {speed['device']}; measure both on one kind")
    found = {(row["model"], row["batch_size"], row["kernels"]): row for row in measured["rows"]}
    rows = []
    for model, batch_size, kernels in found:
        if kernels == "fused":
            pair = [found[model, batch_size, kind]["recipe_images_per_s"] for kind in ("fused", "persistent")]
            row = {"recipe": model, "batch": str(batch_size), "fused": count(pair[0]), "persistent": count(pair[1])}
            rows.append(row | {"persistent / fused": f"{pair[1] / pair[0]:.2f}"})
    took = measured["step_kernels_us"]
    parts, known = _kernel_rows(took, _persistent_work(256), speed["rates"])
    parts += [_kernel_row("`pack_kernel`", took["pack_kernel"])]
    parts += [_kernel_row("everything else", sum(took.values()) - known - took["pack_kernel"])]
    note = (
        f"{measured['gpu']}, PyTorch {measured['torch']}, one call: images/s of the whole recipe, augmentation included; "
        "synthetic images. 49 tokens: the paper's model with mean pooling and overlapping patches. Below, a step of the "
        "paper's recipe at batch 256: µs, sums over kernels without the gaps between them. Products, traffic: the least time "
        "that what must be multiplied takes at the rate of a large matrix product, and what must be read and written at the "
        "bandwidth of a large copy, as another call measured them; in the last block, what the CLS tokens need."
    )
    return "\n\n".join([markdown_table(rows, list(rows[0])), note, markdown_table(parts, list(parts[0]))])


def _kernel_rows(
    took: Mapping[str, float], work: Mapping[str, tuple[float, float]], rates: Mapping[str, float]
) -> tuple[list[dict[str, str]], float]:
    """Kernels beside the least times that their work takes, the slowest first, and their sum; and its µs.

    Args:
        took: µs of each kernel.
        work: its operations and bytes.
        rates: of the machine.
    """
    found = [  # name, µs, least µs for products, for traffic
        (f"`{name}`", took[name], 1e6 * flop / rates["matrix_flop_per_s"], 1e6 * size / rates["copy_bytes_per_s"])
        for name, (flop, size) in sorted(work.items(), key=lambda entry: -took[entry[0]])
    ]
    rows = [_kernel_row(name, us, products, traffic, max(products, traffic)) for name, us, products, traffic in found]
    known, floor = sum(us for _, us, *_ in found), sum(max(floors) for _, _, *floors in found)
    return [*rows, _kernel_row("all of these", known, None, None, floor)], known


def _kernel_row(
    name: str, took: float, products: float | None = None, traffic: float | None = None, larger: float | None = None
) -> dict[str, str]:
    """A line of the table of kernels."""
    cells = {"takes": took, "products": products, "traffic": traffic, "the larger": larger}
    shown = {column: ABSENT if us is None else f"{us:.0f}" for column, us in cells.items()}
    return {"kernel": name} | shown | {"× the larger": f"{took / larger:.1f}" if larger else ABSENT}


def _kernel_work(batch_size: int) -> dict[str, tuple[float, float]]:
    """Operations and bytes of a step of the paper's model, by kernel.

    D channels per token, packed projections of F, a hidden layer of H, N tokens to attend to; bytes are those of bf16
    numbers. Single numbers per token and the weights are left out.
    """
    D, H, N, tokens, tail = _sizes(batch_size)
    F = 3 * D
    per_token = {
        "mlp_backward": (tail, D * D + 3 * D * H, 4 * D + 2 * H),  # n, dout, dx, do; a, dh
        "attention_backward": (tokens, 5 * N * D, 2 * F + D),  # qkv, dqkv; do
        "block_tail": (tail, D * D + 2 * D * H, 4 * D),  # x, o, n, out
        "norm_linear": (tokens, D * F, 2 * D + F),  # x, n; qkv
        "norm_linear_backward": (tokens, D * F, 3 * D + F),  # n, dx after the block's tail, dx; dqkv
        "attention": (tokens, 2 * N * D, F + D),  # qkv; o
    }
    work = {name: (2.0 * count * flop, BF16_BYTES * count * num) for name, (count, flop, num) in per_token.items()}
    products = tokens * D * F + tail * (D * D + 2 * D * H)
    work["weight_gradients"] = (2.0 * products, BF16_BYTES * (tokens * (D + F) + tail * (4 * D + 2 * H)))
    return work


def _persistent_work(batch_size: int) -> dict[str, tuple[float, float]]:
    """As `_kernel_work`, by persistent kernel: what lies between forward, backward and weight gradients is kept.

    That is n, n1 (normalized), q, k, v, o of forward, and a (the MLP's hidden layer), dh, dout, dx1, dq, dk, dv of backward.
    """
    D, H, N, tokens, tail = _sizes(batch_size)
    both, late = 2 * D * D, 5 * D + 2 * H
    work = {  # operations and numbers of each token (of k, v and n), and of each that passes the tail (of the others)
        "vit_forward": ((both, 3 * D), (both + 2 * N * D + 2 * D * H, 3 * D)),  # writes q, o, n1
        "vit_backward": ((both, 5 * D), (both + 5 * N * D + 3 * D * H, late)),  # q, n1; all of backward
        "vit_weights": ((both, 3 * D), (both + 2 * D * H, late)),  # o, n1; all of backward
    }
    return {
        name: (2.0 * (tokens * flop + tail * tail_flop), BF16_BYTES * (tokens * num + tail * tail_num))
        for name, ((flop, num), (tail_flop, tail_num)) in work.items()
    }


def _sizes(batch_size: int) -> tuple[int, int, int, int, int]:
    """Of a step of the paper's model: D, H, N, its tokens, and how many of them pass the tail of a block."""
    model = recipe("paper").model
    N = (32 // model.patch_size) ** 2 + model.num_cls_tokens
    tokens = model.depth * batch_size * N
    return model.width, model.hidden_width, N, tokens, tokens - batch_size * (N - model.num_cls_tokens)


def persistent_accuracy(results: Path) -> str:
    """Rows of the paper's Table 2 with seeds of both designs of our kernels, and the difference over all of them.

    Args:
        results: the folder of all results; runs are found anywhere in it.
    """
    runs = {f.row: list(f.results) for f in measured_findings(find_study("paper-table2"), results)}
    *_, persistent = measured_findings(load_study(KERNELS_FILE.with_name("persistent_accuracy.yaml")), results)
    runs["baseline"] += persistent.results
    rows, samples = [], []
    for row, of_row in runs.items():
        pair = [[run.test_accuracy for run in of_row if run.kernels_used == kind] for kind in DESIGNS]
        if min(map(len, pair)) < 2:
            continue
        samples.append(pair)
        told = {"row of Table 2": f"`{row}`"}
        for kind, of_kind in zip(DESIGNS, pair, strict=True):
            told |= {
                f"{kind} (%)": mean_and_spread([100 * value for value in of_kind]),
                f"{kind}, n": str(len(of_kind)),
            }
        rows.append(told)
    if not rows:
        return f"{ABSENT_YET.capitalize()}."
    totals = {f"{kind}, n": str(sum(len(pair[place]) for pair in samples)) for place, kind in enumerate(DESIGNS)}
    rows.append({"row of Table 2": "all of them"} | dict.fromkeys(list(rows[0])[1:], ABSENT) | totals)
    for row, of_rows in zip(rows, [*([pair] for pair in samples), samples], strict=True):
        difference, ends = _mean_difference(of_rows, samples)
        row |= {"difference": points(difference, signed=True), "95 % CI": interval(ends)}
    note = (
        "Test accuracy after the last step: mean ± standard deviation over n seeds. The seeds of these rows were trained with "
        "the fused kernels on an H100, or later with the persistent ones on an H200; five more of the baseline's are `pocketvit "
        "study benchmarks/persistent_accuracy.yaml`. Difference: persistent − fused, in points; over all rows, weighted by "
        "what each tells. Interval: Student's t, with the variance over seeds pooled over the rows."
    )
    return f"{markdown_table(rows, list(rows[0]))}\n\n{note}"


def _mean_difference(of_rows: Sequence[Pair], pooled: Sequence[Pair]) -> tuple[float, tuple[float, float]]:
    """The mean over rows of the second kind's mean less the first's, and its 95 % confidence interval.

    Args:
        of_rows: by row, the accuracies with each of two kinds of kernels.
        pooled: the rows whose runs' variance is pooled.
    """
    groups = [of_kind for pair in pooled for of_kind in pair]
    df = sum(len(group) - 1 for group in groups)
    variance = sum((len(group) - 1) * stdev(group) ** 2 for group in groups) / df
    weights = [1 / (1 / len(first) + 1 / len(second)) for first, second in of_rows]
    apart = [fmean(second) - fmean(first) for first, second in of_rows]
    mean = sum(map(mul, weights, apart)) / sum(weights)
    half = float(student_t.ppf(0.975, df)) * sqrt(variance / sum(weights))
    return mean, (mean - half, mean + half)


def kernels_accuracy(results: Path) -> str:
    """The paper's run with the fused kernels and with the reference implementation, and the difference in accuracy.

    Args:
        results: the folder of all results; runs are found anywhere in it.
    """
    study = load_study(KERNELS_FILE)
    found = measured_findings(study, results)
    rows = [{"kernels": f"`{finding.row}`"} | run_cells(finding) for finding in found]
    note = " ".join([WHENCE, *notes(study, found)])
    return noted(rows, [finding.results for finding in found], [_beside_chance(*found), note])


def _beside_chance(fused: Finding, reference: Finding) -> str:
    """The difference of the means, compared with the sampling error of the test images."""
    if any(finding.count("done") < len(finding.cells) for finding in (fused, reference)):
        return "Whether the means lie within one binomial standard deviation is not measured yet."
    ours, theirs = fused.accuracy.mean, reference.accuracy.mean
    accuracy = fmean([ours, theirs])
    sigma, apart = sqrt(accuracy * (1 - accuracy) / TEST_IMAGES), abs(ours - theirs)
    return (
        f"One binomial standard deviation at {100 * accuracy:.2f} % on {count(TEST_IMAGES)} images is {points(sigma)} "
        f"points; the means differ by {points(apart)}, which is {'within' if apart <= sigma else 'beyond'} it."
    )


def cpu_speed(file: Path) -> str:
    """Our step on a CPU against timm's model, as measured by `benchmarks/cpu_against_timm.py`."""
    measured = read_json(file)
    rows, rounds = [], len(measured["rows"][0]["images_per_s"]["ours"])
    for row in measured["rows"]:
        speeds = row["images_per_s"]
        rows.append(
            {"model": row["recipe"], "batch size": str(row["batch_size"]),
             "ours, images/s": count(median(speeds["ours"])), "timm, images/s": count(median(speeds["timm"])),
             "ratio": f"{row['ratio']:.2f} ({row['ratio_min']:.2f} – {row['ratio_max']:.2f})"}
        )  # fmt: skip
    versions = f"PyTorch {measured['versions']['torch']}, timm {measured['timm']}"
    note = (
        f"{measured['device']}, {versions}, fp32. Images/s of training: medians over {rounds} alternating rounds. "
        "Ratio of ours to timm's: the median over the rounds, with the least and the greatest in brackets."
    )
    return f"{markdown_table(rows, list(rows[0]))}\n\n{note}"
