"""Tables of docs/fast.md: the kernels of a step and their lower bounds, accuracy by kind of kernels, speed on a CPU."""

from math import sqrt
from pathlib import Path
from statistics import fmean, median

from benchmarks.scaling_tables import measured_findings, noted, run_cells
from pocketvit.files import read_json
from pocketvit.recipes import recipe
from pocketvit.report.text import count, points
from pocketvit.studies import load_study
from pocketvit.studies.analysis.findings import Finding
from pocketvit.studies.output.outputs import notes
from pocketvit.tables import ABSENT, markdown_table

KERNELS_FILE = Path(__file__).with_name("kernels.yaml")
TEST_IMAGES = 10_000
"""Of CIFAR-10."""
WHENCE = "Fused: the runs of `results/paper-baseline`; reference: `pocketvit study benchmarks/kernels.yaml`."

BF16_BYTES = 2


def step_kernels(profile_file: Path, bench_file: Path) -> str:
    """The kernels of a step of the paper's model, each with the least time of its products and of its memory traffic.

    Args:
        profile_file: as `pocketvit profile paper` writes it.
        bench_file: as `pocketvit bench paper` writes it; has the rates of the machine.
    """
    profile, rates = read_json(profile_file), read_json(bench_file)["rates"]
    took = {kernel["name"].removesuffix("_kernel"): 1e3 * kernel["ms"] for kernel in profile["kernels"]}
    work = _kernel_work(profile["batch_size"])
    found = [  # name, µs, least µs for products, for traffic
        (f"`{name}`", took[name], 1e6 * flop / rates["matrix_flop_per_s"], 1e6 * size / rates["copy_bytes_per_s"])
        for name, (flop, size) in sorted(work.items(), key=lambda entry: -took[entry[0]])
    ]
    rows = [_kernel_row(name, us, products, traffic, max(products, traffic)) for name, us, products, traffic in found]
    known, floor = sum(us for _, us, *_ in found), sum(max(floors) for _, _, *floors in found)
    rest = 1e3 * (profile["busy_ms"] - profile["phases_ms"]["data"]) - known
    rows += [_kernel_row("all of these", known, None, None, floor), _kernel_row("everything else", rest)]
    note = (
        f"{profile['device']}, PyTorch {profile['versions']['torch']}; batch size {profile['batch_size']}, µs per step, "
        "sums over kernels without the gaps between them. Products: multiplications and additions at the rate of a large "
        "matrix product, including those that the backward pass repeats. Traffic: each value of a token that a kernel "
        "reads or writes, once, at the bandwidth of a large copy. In the last block, only the CLS tokens pass the tail."
    )
    return f"{markdown_table(rows, list(rows[0]))}\n\n{note}"


def both_designs(file: Path) -> str:
    """The recipes with either kind of kernels, and where a step of the paper's goes with the persistent ones.

    Args:
        file: as `benchmarks/persistent.py` writes it.
    """
    measured = read_json(file)
    found = {(row["model"], row["batch_size"], row["kernels"]): row for row in measured["rows"]}
    rows = []
    for model, batch_size, kernels in found:
        if kernels == "fused":
            pair = [found[model, batch_size, kind]["recipe_images_per_s"] for kind in ("fused", "persistent")]
            row = {"recipe": model, "batch": str(batch_size), "fused": count(pair[0]), "persistent": count(pair[1])}
            rows.append(row | {"persistent / fused": f"{pair[1] / pair[0]:.2f}"})
    took = measured["step_kernels_us"]
    known = {name: took.pop(name) for name in ("vit_backward", "vit_forward", "vit_weights", "pack_kernel")}
    known["everything else"] = sum(took.values())
    parts = [{"kernel": f"`{name}`" if "_" in name else name, "µs": f"{us:.0f}"} for name, us in known.items()]
    note = (
        f"{measured['gpu']}, PyTorch {measured['torch']}, one call: images/s of the whole recipe, augmentation included; "
        "synthetic images. 49 tokens: the paper's model with mean pooling and overlapping patches. Below, a step of the "
        "paper's recipe at batch 256, sums over kernels without the gaps between them."
    )
    return "\n\n".join([markdown_table(rows, list(rows[0])), note, markdown_table(parts, list(parts[0]))])


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
    model = recipe("paper").model
    D, H, F, N = model.width, model.hidden_width, 3 * model.width, (32 // model.patch_size) ** 2 + model.num_cls_tokens
    tokens = model.depth * batch_size * N
    tail = tokens - batch_size * (N - model.num_cls_tokens)
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


def persistent_accuracy(results: Path) -> str:
    """The paper's run with the persistent kernels and with the fused ones, on the same seeds.

    Args:
        results: the folder of all results.
    """
    study = load_study(KERNELS_FILE.with_name("persistent_accuracy.yaml"))
    found = measured_findings(study, results)
    rows = [{"kernels": f"`{finding.row}`"} | run_cells(finding) for finding in found]
    left = sum(cell.state == "missing" for finding in found for cell in finding.cells)
    runs = f" {left} of {len(study.cells())} runs are still to be made." if left else ""
    return noted(rows, [finding.results for finding in found], [
        "Fused: the runs of `results/paper-baseline`; persistent: `pocketvit study benchmarks/persistent_accuracy.yaml`. The "
        f"notes of the table above hold here too.{runs}"
    ])  # fmt: skip


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
