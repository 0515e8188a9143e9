"""What `pocketvit study --plan` says, and where its figures are from."""

import itertools
import json
from dataclasses import replace
from math import sqrt
from pathlib import Path
from statistics import median

import pytest
from synthetic_results import result_content

from pocketvit.cli.study import study_command
from pocketvit.config import override
from pocketvit.errors import InputError
from pocketvit.recipes import RECIPES
from pocketvit.runs.hardware import hardware
from pocketvit.runs.result import RunResult
from pocketvit.studies import parse_study
from pocketvit.studies.definition.choose import find_study
from pocketvit.studies.definition.jobs import data_fingerprints, study_jobs
from pocketvit.studies.execution.forecast import ASSUMED_ACCURACY, ASSUMED_SPEED, Devices, devices_here, forecast
from pocketvit.studies.execution.local import cpu_slots, gpu_slots

RESULTS = Path(__file__).parents[4] / "results"
FAST = "a [fast] one"
SPREAD = "Spread over seeds (standard deviation)"
ROWS = {"plain": {}, "deep": {"model.depth": 6}}


def study(seeds=4):
    return parse_study({"recipe": "digits", "seeds": seeds, "baseline": "plain", "rows": ROWS}, "test")


def write_result(job, path, **values):
    key, _, seed = job.key.rpartition("-s")
    run = result_content(config_hash=key, seed=int(seed), device=FAST, total_s=30.0, images_per_s=1437 * 6.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run | values))


def said_of(study, out, results="results", **options) -> str:
    options = {"devices": Devices(2, FAST)} | options
    return "\n".join(forecast(study, out, results=out / results, **options)).replace("\N{NO-BREAK SPACE}", " ")


def write_all(out, **values) -> None:
    """Eight runs: four seeds of each row."""
    jobs = study_jobs(study(), out, data_fingerprints())
    for job, accuracy in zip(jobs, (0.90, 0.91, 0.92, 0.92, 0.90, 0.93, 0.91, 0.90), strict=True):
        write_result(job, out / "results" / f"{job.key}.json", **({"test_accuracy": accuracy} | values))


def test_without_a_run_the_figures_are_assumed_and_said_to_be(tmp_path):
    """The hours are those of the device whose speed is assumed: two cores of another kind do not halve them."""
    said = said_of(study(), tmp_path)
    # 480 passes of 1,437 images at 8,000 a second, and 8 times 5 s beside them.
    assert "8 runs of 2 rows, 480 passes, about 2 min 6 s on 1 × Intel(R) Xeon(R) Processor (1 thread)." in said
    assert "images/s, assumed to be that of the recipe on an Intel(R) Xeon(R) Processor (1 thread); " in said
    assert f"; there is no run on {FAST} yet." in said
    assert f"This machine has 2 × {FAST}; the time is of 1 × Intel(R) Xeon(R) Processor (1 thread)." in said
    # The binomial spread: the root of 0.97 · 0.03 / 360.
    assert f"{SPREAD}: 0.90 points, assumed to be pure chance (binomial, 97.0 % of 360 test images); there is" in said


def test_rows_that_hold_out_images_scatter_as_so_few_of_these_do(tmp_path):
    held_out = parse_study({"recipe": "digits", "base": {"data.val_frac": 0.1}, "seeds": 4, "rows": ROWS}, "test")
    # The root of 0.97 · 0.03 / 143, a tenth of 1,437 as it is rounded in each class.
    said = said_of(held_out, tmp_path)
    assert f"{SPREAD}: 1.43 points, assumed to be pure chance (binomial, 97.0 % of 143 validation" in said
    for number, job in enumerate(study_jobs(held_out, tmp_path, data_fingerprints())):
        path = tmp_path / "results" / f"{job.key}.json"
        write_result(job, path, val_accuracy=(0.90, 0.92)[number // 3 % 2], test_accuracy=0.9)
    assert "measured on 8 runs of this study" in said_of(held_out, tmp_path), "where the test accuracy never differs"


@pytest.mark.parametrize(
    ("recipe", "frac", "held_out"), [("digits", 0.0005, "10"), ("paper", 0.1, "5,000"), ("paper", 0.00001, "10")]
)
def test_images_are_held_out_as_training_does_it_at_least_one_of_a_class(monkeypatch, tmp_path, recipe, frac, held_out):
    """CIFAR-10 need not be there for that."""
    monkeypatch.setenv("POCKETVIT_DATA", str(tmp_path / "empty"))
    few = parse_study({"recipe": recipe, "base": {"data.val_frac": frac}, "seeds": 2, "rows": ROWS}, "test")
    assert f"of {held_out} validation images); there is no run" in said_of(few, tmp_path)


def test_rows_that_hold_out_images_in_vain_are_named_beforehand(tmp_path):
    mixed = parse_study({"recipe": "digits", "rows": {"plain": {}, "held": {"data.val_frac": 0.1}}}, "test")
    assert "trained on fewer images all the same: held." in said_of(mixed, tmp_path)
    assert "fewer images" not in said_of(study(), tmp_path)


@pytest.mark.parametrize(
    ("accuracies", "spread"),
    [
        pytest.param([0.0], "assumed to be pure chance", id="nothing is ever right"),
        pytest.param([0.7] * 4 + [0.1 + 0.2] * 4, "assumed to be pure chance", id="no spread but rounding"),
        pytest.param([0.1, 0.9, 0.3, 0.7, 0.8, 0.2, 0.5, 0.4], "42.96 points, measured on 8 runs", id="much spread"),
    ],
)
def test_runs_that_scatter_unusually_can_be_planned_for(tmp_path, accuracies, spread):
    jobs = study_jobs(study(), tmp_path, data_fingerprints())
    for job, accuracy in zip(jobs, itertools.cycle(accuracies)):
        write_result(job, tmp_path / "results" / f"{job.key}.json", test_accuracy=accuracy)
    said = said_of(study(), tmp_path)
    assert f"{SPREAD}: " in said and spread in said
    assert "A difference of 0.50 points needs" in said and "difference of 0.00" not in said


def test_too_few_runs_for_the_scatter_are_said_to_be(tmp_path):
    jobs = study_jobs(study(), tmp_path, data_fingerprints())
    for job, accuracy in zip(jobs[:2] + jobs[4:6], (0.90, 0.91, 0.92, 0.95), strict=True):  # two seeds of each row
        write_result(job, tmp_path / "results" / f"{job.key}.json", test_accuracy=accuracy)
    assert "(binomial, 92.0 % of 360 test images); it cannot be estimated from 4 runs of" in said_of(study(), tmp_path)


def test_a_row_that_diverges_does_not_count_in_the_scatter(tmp_path):
    """Of three rows, one of which scatters by tens of points."""
    rows = ROWS | {"wild": {"model.depth": 3}}
    three = parse_study({"recipe": "digits", "seeds": 4, "rows": rows}, "test")
    for job in study_jobs(three, tmp_path, data_fingerprints()):
        accuracy = 0.9 + 0.002 * ((job.cell.seed * 7 + len(job.cell.row)) % 3)
        accuracy = (0.1, 0.9, 0.5, 0.2)[job.cell.seed] if job.cell.row == "wild" else accuracy
        write_result(job, tmp_path / "results" / f"{job.key}.json", test_accuracy=accuracy)
    assert f"{SPREAD}: 0.2" in said_of(three, tmp_path)


def test_a_plan_checks_the_code_that_the_study_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "{baseline: {}, mine: {model.attention: 'mine.py:Mine'}}"
    Path("own.yaml").write_text(f"{{recipe: digits, seeds: 2, baseline: baseline, rows: {rows}}}")
    plan = ["own.yaml", "--plan", "--allow-code"]
    with pytest.raises(InputError, match="cannot read .*mine.py"):
        study_command(plan)
    Path("mine.py").write_text("class Mien: pass\n")
    with pytest.raises(InputError, match="has no class or function Mine; it has Mien"):
        study_command(plan)
    Path("mine.py").write_text("class Mine: pass\n")
    assert study_command(plan) == 0


def test_measured_speed_and_scatter_are_used(tmp_path):
    write_all(tmp_path)
    said = said_of(study(5), tmp_path, devices=Devices(1, FAST))
    # 120 passes at 6 passes a second and twice 20 s; what is done takes no time.
    assert f"10 runs of 2 rows, 2 of them left to run, 120 passes, about 60.0 s on 1 × {FAST}." in said
    assert f"8,622 images/s, the median of 8 runs on {FAST}." in said
    assert "measured on 8 runs of this study" in said and "8 of the runs are already done" in said


def test_a_run_whose_whole_time_is_not_known_does_not_tell_what_comes_beside_training(tmp_path):
    """Older versions counted only the last part of a resumed run."""
    write_all(tmp_path)
    resumed = study_jobs(study(), tmp_path, data_fingerprints())[0]
    write_result(resumed, tmp_path / "results" / f"{resumed.key}.json", train_s=60.9, total_s=21.1)
    assert f"about 60.0 s on 1 × {FAST}." in said_of(study(5), tmp_path, devices=Devices(1, FAST))
    write_all(tmp_path, train_s=60.9, total_s=21.1)
    assert f"about 30.0 s on 1 × {FAST}." in said_of(study(5), tmp_path, devices=Devices(1, FAST)), "5 s as assumed"


def test_devices_of_the_same_kind_share_the_work_and_others_do_not(tmp_path):
    write_all(tmp_path)
    assert f"about 30.0 s on 2 × {FAST}." in said_of(study(5), tmp_path)
    assert "about 30.0 s on 9 × " in said_of(study(5), tmp_path, devices=Devices(9, FAST)), "there are two runs only"
    said = said_of(study(5), tmp_path, devices=Devices(64, "a slow core"))
    assert f"about 60.0 s on 1 × {FAST}." in said and "; there is no run on a slow core yet." in said
    write_all(tmp_path, num_gpus=1)
    assert f"on 4 × {FAST}." in said_of(study(5), tmp_path, devices=Devices(4, on_gpu=True))


def test_runs_on_the_devices_that_are_here_count_before_others(tmp_path):
    write_all(tmp_path)
    job = study_jobs(study(5), tmp_path, data_fingerprints())[8]
    write_result(job, tmp_path / "results" / "slow.json", device="slow", images_per_s=1437.0)
    assert "1,437 images/s, the median of 1 run on slow." in said_of(study(5), tmp_path, devices=Devices(1, "slow"))


def test_all_done_takes_no_time(tmp_path):
    write_all(tmp_path)
    assert said_of(study(), tmp_path).startswith("8 runs of 2 rows, none of them left to run.\n")


def test_only_some_rows_take_only_their_time(tmp_path):
    assert "8 runs of 2 rows, 4 of them left to run, 240 passes, " in said_of(study(), tmp_path, only=["pl*"])
    with pytest.raises(InputError, match="unknown row 'plane'; did you mean plain"):
        said_of(study(), tmp_path, only=["plane"])


def test_a_difference_of_ones_own(tmp_path):
    said = said_of(study(), tmp_path, difference=1.5)
    assert said.count("needs") == 1 and "A difference of 1.50 points needs 8 seeds per row." in said
    for wrong in (0.0, -1.0, 0.001, 100.0, float("nan")):
        with pytest.raises(InputError, match="must lie between 0.01, a hundredth of the spread over seeds, and 100"):
            said_of(study(), tmp_path, difference=wrong)


def test_cifar10_is_planned_for_before_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETVIT_DATA", str(tmp_path / "nothing"))
    table2 = find_study("paper-table2")
    said = said_of(table2, tmp_path)
    assert "on 1 × NVIDIA H200." in said and "94.0 % of 10,000 test images" in said
    assert "The data set is not on this machine, but its size is known (cifar10 is not downloaded yet" in said
    here = said_of(table2, tmp_path, results=RESULTS)
    assert "of the runs are already done" in here, "runs are found by the fingerprint of the real CIFAR-10"
    rows = tuple(replace(row, config=override(row.config, {"data.source": "cifar100"})) for row in table2.rows)
    with pytest.raises(InputError, match="pocketvit data get cifar100"):
        said_of(replace(table2, rows=rows), tmp_path)


def test_what_is_assumed_is_what_was_measured():
    assert ASSUMED_SPEED.keys() == ASSUMED_ACCURACY.keys() == RECIPES.keys()
    timed = {}
    for name, files in (("paper", "paper-table2/baseline-*"), ("minute", "minute/*"), ("digits", "digits/*")):
        runs = [RunResult.read(path) for path in RESULTS.glob(f"{files}.json")]
        assert ASSUMED_ACCURACY[name] == pytest.approx(median(run.test_accuracy for run in runs), abs=0.02)
        timed[name] = list(filter(hardware(runs).counts, runs))
    for name in ("paper", "digits"):
        speed, runs = ASSUMED_SPEED[name], timed[name]
        assert speed.images_per_s == pytest.approx(median(run.images_per_s for run in runs), rel=0.1)
        assert all(run.device.startswith(speed.device) and speed.on_gpu == (run.num_gpus > 0) for run in runs)
    assert ASSUMED_SPEED["paper"].beside_s == pytest.approx(min(run.beside_s for run in timed["paper"]), rel=0.1)
    assert {run.kernels for run in timed["paper"]} == {"persistent"}
    assert replace(ASSUMED_SPEED["finetune"], source="") == replace(ASSUMED_SPEED["paper"], source="")
    steps = json.loads((RESULTS / "persistent" / "steps.json").read_text())  # no whole run yet
    (measured,) = (
        row["recipe_images_per_s"]
        for row in steps["rows"]
        if (row["model"], row["kernels"], row["batch_size"]) == ("minute", "persistent", 512)
    )
    assert ASSUMED_SPEED["minute"].images_per_s == pytest.approx(measured, rel=0.01)
    assert ASSUMED_SPEED["minute"].device == steps["gpu"]


def test_the_assumed_scatter_is_about_what_runs_of_cifar10_have():
    values = [json.loads(path.read_text())["test_accuracy"] for path in (RESULTS / "paper-baseline").glob("*.json")]
    mean = sum(values) / len(values)
    measured = sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    assert 0.4 < measured / sqrt(0.94 * 0.06 / 10_000) < 1.5


def test_the_devices_are_those_that_the_study_asks_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "pocketvit.studies.execution.local.find_slots", lambda gpus, device: asked.append(device) or cpu_slots(3)
    )
    found = devices_here(None, "cpu")
    assert found.number == 3 and found.name.endswith(" (1 thread)") and not found.on_gpu
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text("recipe: digits\nrows: {a: {train.device: cpu}}\n")
    assert study_command(["s.yaml", "--plan"]) == 0 and asked == ["cpu", "cpu"]


def test_gpus_are_planned_for_where_there_are_none(monkeypatch):
    def none_here(gpus, device):
        raise InputError("this machine has no CUDA device")

    monkeypatch.setattr("pocketvit.studies.execution.local.find_slots", none_here)
    assert devices_here(["0", "1"], "auto") == Devices(2, on_gpu=True)
    assert devices_here(None, "cuda") == Devices(1, on_gpu=True)
    with pytest.raises(InputError):
        devices_here(["0"], "cpu")


def test_gpus_that_are_here_are_named(monkeypatch):
    monkeypatch.setattr("pocketvit.studies.execution.local.find_slots", lambda gpus, device: gpu_slots(["0", "1"]))
    monkeypatch.setattr("pocketvit.device.choose_device", lambda wanted: wanted)
    monkeypatch.setattr("pocketvit.device.device_name", lambda device: f"{device} by name")
    assert devices_here(None, "auto") == Devices(2, "auto by name", on_gpu=True)


def test_runs_of_the_same_recipe_and_data_tell_the_speed(tmp_path):
    fingerprint = data_fingerprints()(study().rows[0].config.data)
    job = study_jobs(study(), tmp_path, lambda data: "other")[0]
    write_result(job, tmp_path / "results" / "a.json", data_fingerprint=fingerprint)
    write_result(job, tmp_path / "results" / "b.json", data_fingerprint="other", images_per_s=1.0)
    assert "8,622 images/s, the median of 1 run" in said_of(study(), tmp_path)
