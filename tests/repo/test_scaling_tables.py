"""The tables of docs/scaling.md, from synthetic result files: all there, some missing, and files that are not what they say."""

import json
from pathlib import Path

import pytest
from synthetic_results import result_content

from pocketvit.config import config_hash
from pocketvit.config.hashing import earlier_hashes
from pocketvit.data.dataset import CIFAR10_FINGERPRINT
from pocketvit.errors import InputError
from pocketvit.studies import load_study
from pocketvit.studies.definition.choose import find_study

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture(scope="module")
def script(benchmark_script):
    """benchmarks/scaling_tables.py as a module."""
    return benchmark_script("scaling_tables")


def result(config, accuracy: float, num_gpus: int = 1, **fields) -> dict:
    """A result.json."""
    values = {"test_accuracy": accuracy, "best_test_accuracy": accuracy + 0.001, "images_per_s": 125_000.0,
              "train_s": 119.8, "total_s": 140.0, "peak_memory_gib": 1.5, "num_params": 2_697_610, "device": H100,
              "seed": config.seed, "num_gpus": num_gpus,
              "config_hash": config_hash(config, CIFAR10_FINGERPRINT)}  # fmt: skip
    return result_content(**values | fields)


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def rows(table: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("|")]
    return lines[2:]


# ---------------------------------------------------------------- cost


def test_the_cost_is_of_the_runs_with_each_kind_of_kernels_and_of_those_whose_whole_time_is_known(script, tmp_path):
    seconds = {"fused": (118, 140), "persistent": (60, 80)}
    for kernels, files in (("fused", "paper-baseline/paper"), ("persistent", "paper-table2/baseline")):
        train_s, total_s = seconds[kernels]
        for seed in range(3):
            content = result_content(kernels=kernels, train_s=train_s + seed, total_s=total_s + 2 * seed, seed=seed)
            write(tmp_path / f"{files}-s{seed}.json", content)
    resumed = result_content(kernels="persistent", train_s=64.0, total_s=21.0, seed=3)
    write(tmp_path / "paper-table2" / "baseline-s3.json", resumed)
    write(tmp_path / "paper-table2" / "baseline-s4.json", result_content(kernels="fused", train_s=500.0))
    table = script.scaling_cost(tmp_path).replace("\N{NO-BREAK SPACE}", " ")
    assert [row[:4] for row in rows(table)] == [
        ["persistent", "a GPU, 4 runs", "61.8 s", "20.0 s"], ["fused", "a GPU, 3 runs", "119.0 s", "22.0 s"]
    ]  # fmt: skip


# ---------------------------------------------------------------- speed


def write_speed(folder: Path, num_gpus: int, batch: int, images_per_s: float, **fields) -> None:
    """Passes of 50,000 images; the first one is slow."""
    seconds = [2.0, *(50_000 / (images_per_s * factor) for factor in (0.99, 1, 1.02))]
    content = result_content(num_gpus=num_gpus, images_seen=200_000, device=H100, num_params=2_697_610)
    content |= {"batch_size": batch, "pass_train_s": seconds}
    write(folder / f"{num_gpus}-{batch}.json", content | fields)


def test_speed_over_batch_size_and_gpus(script, tmp_path):
    for num_gpus, batch, speed in [
        (1, 256, 1e5),
        (2, 256, 1.2e5),
        (4, 256, 1.6e5),
        (1, 1024, 1.4e5),
        (2, 1024, 2.52e5),
    ]:
        write_speed(tmp_path, num_gpus, batch, speed)
    table = script.scaling_speed(tmp_path)
    assert table.startswith(f"{H100}, PyTorch 2.11.0; paper, 2,697,610 parameters.\n\n")
    assert rows(table)[:6] == [
        ["256", "1", "100,000 (99,000 – 102,000)", "2.56", "1.00", "100 %"],
        ["256", "2", "120,000 (118,800 – 122,400)", "2.13", "1.20", "60 %"],
        ["256", "4", "160,000 (158,400 – 163,200)", "1.60", "1.60", "40 %"],
        ["1,024", "1", "140,000 (138,600 – 142,800)", "7.31", "1.00", "100 %"],
        ["1,024", "2", "252,000 (249,480 – 257,040)", "4.06", "1.80", "90 %"],
        ["1,024", "4", "not measured yet", "—", "—", "—"],
    ]
    assert [row[:3] for row in rows(table)[6:]] == [["4,096", str(n), "not measured yet"] for n in (1, 2, 4)]
    assert "Speed-up of 2 GPUs over one: 1.20 at batch size 256, 1.80 at batch size 1,024." in table
    assert "Speed-up of 4 GPUs over one: 1.60 at batch size 256." in table
    assert "--gpus 1,2,4`" in table


def test_speed_is_compared_with_the_same_kind_of_gpu_only(script, tmp_path):
    assert script.scaling_speed(tmp_path / "absent") == "Not measured yet."
    write_speed(tmp_path, 1, 256, 1e5)
    write_speed(tmp_path, 2, 256, 1.5e5, device="NVIDIA H200")
    write_speed(tmp_path, 2, 1024, 1.5e5)
    table = script.scaling_speed(tmp_path)
    assert rows(table)[1][4:] == ["—", "—", "NVIDIA H200"] and rows(table)[0][6] == H100
    assert rows(table)[2][6] == "—" and "as many times" not in table


def test_speed_files_are_what_they_say(script, tmp_path):
    write_speed(tmp_path, 2, 256, 1e5, batch_size=512)
    with pytest.raises(InputError, match="contains batch size 512 on 2 GPUs"):
        script.scaling_speed(tmp_path)
    write(tmp_path / "2-256.json", result_content(num_gpus=2))
    with pytest.raises(InputError, match=r"lacks batch_size.*was it written by benchmarks/scaling.py"):
        script.scaling_speed(tmp_path)
    write(tmp_path / "1-what.json", {})
    with pytest.raises(InputError, match="not named like a measurement"):
        script.scaling_speed(tmp_path)


# ---------------------------------------------------------------- accuracy


ONE, TWO = (0.9413, 0.9371, 0.9398), (0.9408, 0.9380, 0.9393)


def write_accuracy(script, results: Path, seeds=(0, 1, 2), num_gpus=2) -> None:
    for seed, one, more in zip(range(3), ONE, TWO, strict=True):
        config = script.accuracy_config(seed)
        write(results / "paper-baseline" / f"paper-s{seed}.json", result(config, one))
        if seed in seeds:
            content = result(config, more, num_gpus, images_per_s=150_000.0)
            write(results / "scaling" / f"paper-{num_gpus}gpus-s{seed}.json", content)


def test_accuracy_on_two_gpus_against_one_is_compared_seed_by_seed(script, tmp_path):
    write_accuracy(script, tmp_path)
    one, two = rows(script.scaling_accuracy(tmp_path))
    assert one[:5] == ["1", "94.04 ± 0.21", "93.94 ± 0.21", "3", "—"]
    assert two[:6] == ["2", "94.04 ± 0.14", "93.94 ± 0.14", "3", "1", "0.00"]
    assert two[6] == "−0.20 … +0.20", "the paired t interval of -0.05, +0.09, -0.05 points"
    assert two[7].startswith("no significant difference") and two[8] == "150,000"


def test_accuracy_not_measured_or_not_wholly_says_so(script, tmp_path):
    write_accuracy(script, tmp_path, seeds=())
    one, two = rows(script.scaling_accuracy(tmp_path))
    assert one[3] == "3" and two[2:4] == ["not measured yet", "0 of 3 (3 missing)"] and two[7] == "no result yet"
    write_accuracy(script, tmp_path, seeds=(1,), num_gpus=4)
    assert [row[:4] for row in rows(script.scaling_accuracy(tmp_path))][2] == ["4", "93.90", "93.80", "1"]


def test_accuracy_files_are_what_they_say(script, tmp_path):
    write_accuracy(script, tmp_path)
    path = tmp_path / "scaling" / "paper-2gpus-s1.json"
    write(path, json.loads(path.read_text()) | {"num_gpus": 1})
    with pytest.raises(InputError, match="not the paper's run with seed 1 on 2 GPUs"):
        script.scaling_accuracy(tmp_path)
    path.rename(path.with_name("paper-two-s1.json"))
    with pytest.raises(InputError, match="not named like a run on several GPUs"):
        script.scaling_accuracy(tmp_path)


# ---------------------------------------------------------------- the paper's rows


def test_the_rows_are_those_of_the_papers_studies(script):
    """So that a run of either study counts for both, and the paper's figures are there."""
    ours = {row.name: row.config for row in load_study(script.ROWS_FILE).rows}
    table2 = {row.name: row.config for row in find_study("paper-table2").rows}
    assert ours["bs256"] == table2["baseline"]
    assert all(ours[row] == table2[row] for row in ours if row.startswith("ba"))
    assert script.PAPERS_ROW.keys() == ours.keys()


def test_rows_stand_beside_the_papers_figures_wherever_their_runs_lie(script, tmp_path):
    level = {"bs256": 0.94, "bs1024": 0.935, "bs1024-lion": 0.92, "ba": 0.941, "ba-bs1024": 0.936}
    for number, cell in enumerate(load_study(script.ROWS_FILE).cells()):
        if cell.row in level:
            folder = ("paper-table2", "elsewhere/deep")[number % 2]
            accuracy = level[cell.row] + 0.001 * (cell.seed % 3) + 0.0001 * (number % 5)
            write(tmp_path / folder / f"{number}.json", result(cell.config, accuracy))
            write(tmp_path / "a" / f"{number}.json", result(cell.config, 0.1, num_gpus=2))
    table = script.scaling_rows(tmp_path)
    found = {row[0].strip("`"): row[1:] for row in rows(table)}
    assert list(found) == [row.name for row in load_study(script.ROWS_FILE).rows]
    assert [row[1] for row in found.values()] == ["93.44", "92.09", "92.38"] * 2
    assert found["bs256"][3].startswith("94.1") and found["bs256"][4] == "9" and found["bs256"][8] == "—"
    assert found["bs1024-lion"][5] == "bs1024" and found["bs1024-lion"][8].startswith("hurts (−1.49")
    assert found["ba"][5] == "bs256" and found["ba-bs1024"][5] == "ba"
    assert found["ba-bs1024-lion"][2:5] == ["—", "not measured yet", "0 of 3 (3 missing)"]


def test_rows_from_before_a_revision_are_marked(script, tmp_path):
    for number, cell in enumerate(load_study(script.ROWS_FILE).cells()):
        hashes = [config_hash(cell.config, CIFAR10_FINGERPRINT), *earlier_hashes(cell.config, CIFAR10_FINGERPRINT)]
        hashed = hashes[0] if cell.row == "ba-bs1024" else hashes[-1]
        known = {"config_hash": hashed, "data_fingerprint": CIFAR10_FINGERPRINT}
        write(tmp_path / f"{number}.json", result(cell.config, 0.94 + 0.001 * cell.seed, **known))
    table = script.scaling_rows(tmp_path)
    assert [row[0] for row in rows(table) if "ba" in row[0]] == ["`ba` ‡", "`ba-bs1024`", "`ba-bs1024-lion` ‡"]
    assert table.count("‡") == 3
    assert "Bootstrap" not in table, "it has no column"
    assert table.count("\n‡ Run before the copies") == 1 and {row[5] for row in rows(table)} == {"3", "8", "9"}


def test_rows_without_any_run(script, tmp_path):
    table = script.scaling_rows(tmp_path)
    assert table.count("not measured yet") == 6 and "nan" not in table and "None" not in table
