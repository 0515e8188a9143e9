"""Studies are run to the end, whatever happens to their cells, and never run twice what is done."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text
from synthetic_results import result_content, synthetic_result
from synthetic_study import synthetic_cells, synthetic_study

from pocketvit import lock
from pocketvit.cli.study import _end as end
from pocketvit.cli.study import seconds, study_command
from pocketvit.config import override
from pocketvit.errors import InputError
from pocketvit.studies import parse_study
from pocketvit.studies.analysis.findings import findings
from pocketvit.studies.definition.choose import builtin_studies, chosen_rows, find_study, with_data, with_seeds
from pocketvit.studies.definition.gather import CellResult, gather
from pocketvit.studies.definition.jobs import study_jobs
from pocketvit.studies.execution import runner
from pocketvit.studies.execution.eta import Eta, progress_of
from pocketvit.studies.execution.launch import command_line, failure_of
from pocketvit.studies.execution.live import Board, View, accuracy_text, ended_text, verdict_table
from pocketvit.studies.execution.runner import StudyRun, run_study, study_lock
from pocketvit.training import train
from pocketvit.training.progress import SilentReporter

FINGERPRINT = "0" * 32
PASSES = 60


def study(**values):
    rows = {"plain": {}, "deep": {"model.depth": 6}}
    return parse_study({"recipe": "digits", "seeds": 2, "baseline": "plain", "rows": rows} | values, "test")


METRICS = '{"pass": %d, "train_s": %f, "images": 1, "loss": 1.0, "lr": 1e-3}\n'


def result_of(job, **values) -> dict:
    """A result as a run leaves it."""
    key, _, seed = job.key.rpartition("-s")
    made = result_content(config_hash=key, seed=int(seed), test_accuracy=0.9 + 0.01 * int(seed), num_gpus=0)
    return made | {"train_s": 6.0, "total_s": 7.0} | values


class FakeEngine:
    """Ends every cell at the next look; cells of some rows fail."""

    def __init__(self, capacity: int = 1, fails: tuple[str, ...] = (), **values) -> None:
        self.num_devices, self.fails, self.started, self.stopped = capacity, fails, [], False
        self.running, self.values = {}, values

    def free_slot(self):
        return [] if len(self.running) < self.num_devices else None

    def start(self, job):
        self.started.append(f"{job.cell.row}-s{job.cell.seed}")
        self.running[job] = "here"
        job.log.parent.mkdir(parents=True, exist_ok=True)

    def ended(self):
        found, self.running = list(self.running), {}
        for job in found:
            if job.cell.row not in self.fails:
                job.folder.mkdir()
                (job.folder / "result.json").write_text(json.dumps(result_of(job, **self.values)))
        return [(job, "it [bold]broke[/bold]" if job.cell.row in self.fails else None) for job in found]

    def stop(self):
        self.stopped = True

    def kill(self):
        self.running = {}


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Runs a study in tmp_path/out on a fake engine; returns its end, the cells started, and what was said."""
    monkeypatch.setattr(runner, "TICK_S", 0.0)
    monkeypatch.setattr(runner, "data_fingerprints", lambda: lambda data: FINGERPRINT)

    def go(engine=None, asked=None, **options):
        engine = engine or FakeEngine()
        monkeypatch.setattr(runner, "_engine", lambda *_: engine)
        console = Console(record=True, width=200, file=open("/dev/null", "w"))
        run = run_study(asked or study(), tmp_path / "out", console=console, **options)
        return run, engine.started, console.export_text()

    return go


def states(run) -> dict[str, str]:
    return {f"{cell.row}-s{cell.seed}": cell.state for cell in run.gathered}


# ---------------------------------------------------------------- what is run


def test_every_cell_is_run_once_and_never_again(go):
    run, started, said = go()
    assert started == ["plain-s0", "deep-s0", "plain-s1", "deep-s1"]
    assert set(states(run).values()) == {"done"} and (run.left, run.signum) == (0, None)
    assert "deep seed 1: 91.00 % of the test images after 6.00" in said
    assert go()[1] == []


def test_a_study_that_holds_out_images_speaks_of_these(go, tmp_path):
    held_out = study(base={"data.val_frac": 0.1})
    run, _, said = go(FakeEngine(val_accuracy=0.5), held_out)
    assert "deep seed 1: 50.00 % of the validation images after 6.00" in said
    jobs = study_jobs(held_out, tmp_path / "out", lambda data: FINGERPRINT)
    console = Console(record=True, width=200, file=open("/dev/null", "w"))
    console.print(Board(held_out, dict(zip(jobs, run.gathered, strict=True))).table())
    head, plain, _ = console.export_text().splitlines()
    assert "validation accuracy so far" in head and "50.00 ± 0.00 %" in plain


def test_a_result_that_lacks_the_accuracy_to_compare_by_is_no_result(tmp_path):
    """From another program, or edited."""
    held_out = study(base={"data.val_frac": 0.1})
    jobs = study_jobs(held_out, tmp_path / "out", lambda data: FINGERPRINT)
    for number, job in enumerate(jobs):
        job.folder.mkdir(parents=True)
        lacks = {"val_accuracy": None} if number else {}
        (job.folder / "result.json").write_text(json.dumps(result_of(job, **lacks)))
    assert {cell.state for cell in gather(jobs)} == {"failed"}
    error = gather(jobs)[0].error
    assert error.startswith(f"{jobs[0].folder / 'result.json'} has no val_accuracy")


def test_a_result_of_another_study_counts(go, tmp_path):
    jobs = study_jobs(study(), tmp_path / "out", lambda data: FINGERPRINT)
    elsewhere = tmp_path / "results" / "older" / "any-name.json"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(json.dumps(result_of(jobs[1])))
    (tmp_path / "results" / "torn.json").write_text('{"config_hash": "')
    (tmp_path / "results" / "other.json").write_text("[1]")
    run, started, _ = go(results=str(tmp_path / "results"))
    assert started == ["plain-s0", "plain-s1", "deep-s1"]
    by_name = {(cell.row, cell.seed): cell for cell in run.gathered}
    assert by_name["deep", 0].state == "done" and by_name["deep", 0].folder is None
    assert by_name["plain", 0].folder == jobs[0].folder


def test_the_same_row_on_other_data_is_another_cell(tmp_path):
    keys = [{job.key for job in study_jobs(study(), tmp_path, lambda data, f=f: f)} for f in ("0" * 32, "1" * 32)]
    assert not keys[0] & keys[1]


def test_a_failed_cell_is_said_and_the_others_go_on(go):
    run, started, said = go(FakeEngine(fails=("deep",)))
    assert states(run) == {"plain-s0": "done", "deep-s0": "failed", "plain-s1": "done", "deep-s1": "failed"}
    assert all(cell.error == "it [bold]broke[/bold]" and cell.result is None for cell in run.gathered[1::2])
    assert "deep seed 0 failed: it [bold]broke[/bold]" in said, "brackets in an error are no markup"
    assert run.left == 0
    again, started, _ = go()
    assert started == ["deep-s0", "deep-s1"] and set(states(again).values()) == {"done"}


def test_cells_that_were_begun_come_first(go, tmp_path):
    job = study_jobs(study(), tmp_path / "out", lambda data: FINGERPRINT)[3]
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "metrics.jsonl").write_text(METRICS % (3, 1.5) + '{"pass": 4, "tr')
    assert progress_of(begun) == (3, 1.5) and progress_of(tmp_path) is None
    job.folder.mkdir(parents=True)
    (begun / "metrics.jsonl").rename(job.folder / "metrics.jsonl")
    engine = FakeEngine()
    engine.ended = lambda: [(engine.running.popitem()[0], "no")] if engine.running else []
    assert go(engine)[1][0] == "deep-s1"


def test_only_some_rows(go):
    run, started, _ = go(only=["pl*"])
    assert started == ["plain-s0", "plain-s1"]
    assert states(run)["deep-s0"] == "missing" and run.left == 0
    with pytest.raises(InputError, match="unknown row 'plian'; did you mean plain"):
        chosen_rows(study(), ["plian"])


def test_rows_whose_names_hold_commas_can_be_named():
    rows = {"r": {"grid": {"optim.betas": [[0.9, 0.99], [0.9, 0.95]]}}, "plain": {}, "deep": {"model.depth": 5}}
    grid = parse_study({"recipe": "digits", "rows": rows}, "test")
    first, second = "r-betas=0.9,0.99", "r-betas=0.9,0.95"
    assert [row.name for row in grid.rows] == [first, second, "plain", "deep"]
    assert chosen_rows(grid, [first]) == {first}
    assert chosen_rows(grid, [f"plain,{second},deep"]) == {"plain", second, "deep"}
    assert chosen_rows(grid, ["r-betas=0.9,*,pl*"]) == {first, second, "plain"}
    assert chosen_rows(grid, ["r-*,plain"]) == {first, second, "plain"}
    for wrong, name in (("r-betas=0.9", "r-betas=0.9"), ("plain,0.99", "0.99"), ("plain,", "")):
        with pytest.raises(InputError, match=f"unknown row '{name}'"):
            chosen_rows(grid, [wrong])


def test_no_cell_is_started_that_would_not_end_in_time(go):
    run, started, _ = go(time_limit_s=5.0)  # the first shows that a cell takes seven seconds
    assert started == ["plain-s0"] and run.left == 3


def test_time_that_is_up_stops_the_rest(go):
    engine = FakeEngine()
    engine.ended = list
    run, started, _ = go(engine, time_limit_s=0.0)
    assert started == ["plain-s0"] and engine.stopped and run.left == 4


def test_rows_that_compute_the_same_are_refused(go):
    rows = {"a": {}, "b": {"train.device": "cpu"}}
    with pytest.raises(InputError, match="rows 'a' and 'b' compute the same; remove one"):
        go(asked=study(rows=rows, baseline="a"))


def test_the_name_of_a_study_is_not_one(tmp_path):
    with pytest.raises(InputError, match=r"^'digits' is not a study; read one with pocketvit.find_study"):
        run_study("digits", tmp_path)


def test_a_folder_serves_one_study_at_a_time(go, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WAIT_S", 0.0)
    with study_lock(tmp_path / "out", "test"), pytest.raises(InputError, match="a study is running in"):
        go()
    go()


def test_a_folder_serves_one_study_only(go, tmp_path):
    """The tables of another would take the place of its own."""
    go()
    (tmp_path / "out" / "table.md").write_text("of the first")
    other = parse_study({"recipe": "digits", "rows": {"plain": {}}}, "other")
    with pytest.raises(
        InputError, match=r"out holds the study test, whose tables would be overwritten; choose another --out"
    ):
        go(asked=other)
    go()


def test_no_study_moves_into_the_folder_of_a_run(go, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text("recipe: digits")
    with pytest.raises(InputError, match=r"out is the folder of a run; choose another --out for the study test$"):
        go()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.yaml"]


# ---------------------------------------------------------------- what is known of it


def test_the_time_left_is_learnt_from_cells(tmp_path):
    first, second, third, _ = study_jobs(study(), tmp_path, lambda data: FINGERPRINT)
    eta = Eta()
    assert eta.total_left([first]) is None
    eta.learn_finished(first, synthetic_result(train_s=120.0, total_s=130.0))
    assert eta.seconds_left(third) == pytest.approx(PASSES * 2.0 + 10.0)
    assert eta.seconds_left(second) == pytest.approx(PASSES * 2.0 + 10.0), "another row is taken to be as fast"
    eta.learn_finished(first, synthetic_result(train_s=120.0, total_s=21.0))  # resumed by an older version
    assert eta.seconds_left(third) == pytest.approx(PASSES * 2.0 + 10.0)
    second.folder.mkdir()
    (second.folder / "metrics.jsonl").write_text(METRICS % (50, 200.0))
    eta.learn_running(second)
    assert eta.total_left([second, third]) == pytest.approx(10 * 4.0 + PASSES * 2.0 + 2 * 10.0)


def test_the_board_shows_what_runs_what_failed_and_what_is_known_so_far(tmp_path):
    jobs = study_jobs(study(), tmp_path, lambda data: FINGERPRINT)
    for job in jobs[::2]:
        job.folder.mkdir(parents=True)
        (job.folder / "result.json").write_text(json.dumps(result_of(job)))
    jobs[1].failure.parent.mkdir(parents=True)
    jobs[1].failure.write_text("[red]no[/red]\n")
    board = Board(study(), dict(zip(jobs, gather(jobs), strict=True)))
    board.running, board.todo = {jobs[3]: "here"}, []
    console = Console(record=True, width=200, file=open("/dev/null", "w"))
    console.print(board.table())
    plain, deep = console.export_text().splitlines()[1:]
    assert plain.split() == ["plain", "2/2", "90.50", "±", "0.71", "%"]
    assert deep.split() == ["deep", "0/2", "s0", "failed:", "[red]no[/red]", "s1", "started"]
    assert board.summary().startswith("2 of 4 done, 1 failed, 1 running;")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_the_board_and_a_file_a_line_a_minute(terminal, tmp_path):
    jobs = study_jobs(study(), tmp_path, lambda data: FINGERPRINT)
    console = Console(force_terminal=terminal, width=200, file=io.StringIO())
    shown = View(Board(study(), dict(zip(jobs, gather(jobs), strict=True))), console)
    shown.show()
    drawn = console.file.getvalue()
    assert ("test accuracy so far" in drawn) == ("0 of 4 done" in drawn) == terminal
    shown.said_at -= View.EVERY_S
    shown.show()
    shown.say(Text("a line"))
    shown.close()
    said = console.file.getvalue().removeprefix(drawn)
    assert "0 of 4 done" in said and "a line\n" in said and ("test accuracy so far" in said) == terminal


def test_one_run_has_no_spread_and_none_has_no_number():
    cell = CellResult(
        row="a", seed=0, state="done", result=synthetic_result(test_accuracy=0.5), error=None, folder=None
    )
    assert accuracy_text([cell], "test_accuracy") == "50.00 %" and accuracy_text([], "test_accuracy") == ""
    lost = CellResult(row="a", seed=0, state="failed", result=None, error="[x]", folder=None)
    assert ended_text(lost, "test_accuracy", "here") == Text("a seed 0 failed: [x]", "red")


@pytest.mark.parametrize(
    ("code", "log", "words"),
    [
        (2, "run folder: x\nthe loss is not finite\n\n", "the loss is not finite"),
        (-9, "training", "ended by SIGKILL (out of memory?)"),
        (-11, "", "ended by SIGSEGV"),
        (1, "", "ended with exit code 1"),
    ],
)
def test_the_reason_of_a_failure_is_one_line(tmp_path, code, log, words):
    job = study_jobs(study(), tmp_path, lambda data: FINGERPRINT)[0]
    job.log.parent.mkdir(parents=True)
    job.log.write_text(log)
    assert failure_of(job, code) == words
    job.folder.mkdir()
    (job.folder / "result.json").write_text(json.dumps(result_of(job)))
    assert failure_of(job, code) is None, "a result counts, whatever the process said"
    (job.folder / "result.json").write_text(json.dumps(result_of(job, num_gpus=2)))
    assert "result.json is from a run on 2 GPUs; move its folder away" in failure_of(job, code), "which is no cell"


def whole(job) -> str:
    return json.dumps(result_of(job))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda job: "{}", "is damaged or from another version; remove it to resume the run"),
        (lambda job: "[]", "is damaged or from another version; remove it to resume the run"),
        (lambda job: whole(job)[:99], "is damaged or from another version; remove it to resume the run"),
        (lambda job: json.dumps(result_of(job, device=None)), "is damaged or from another version; remove it"),
        (lambda job: json.dumps(result_of(job, config_hash="other")), "is from another run, other-s0; move its folder"),
    ],
    ids=["empty", "list", "cut", "without a device", "of another run"],
)
def test_a_result_of_something_else_in_a_cells_folder_is_named(go, tmp_path, content, words):
    class Refused(FakeEngine):
        """The cells' trainings find the folder finished."""

        def ended(self):
            found, self.running = list(self.running), {}
            return [(job, failure_of(job, 2)) for job in found]

    job = study_jobs(study(), tmp_path / "out", lambda data: FINGERPRINT)[0]
    job.folder.mkdir(parents=True)
    (job.folder / "result.json").write_text(content(job))
    asked = study(rows={"plain": {}}, seeds=1)
    run, _, said = go(Refused(), asked)
    assert states(run) == {"plain-s0": "failed"} and words in run.gathered[0].error
    assert f"plain seed 0 failed: {job.folder / 'result.json'} is " in said.replace("\n", "")


def test_other_data_elsewhere_are_suspected_where_a_cell_computed_something_else(tmp_path):
    job = study_jobs(study(), tmp_path, lambda data: FINGERPRINT)[0]
    job.folder.mkdir()
    (job.folder / "result.json").write_text(json.dumps(result_of(job, config_hash="other")))
    assert failure_of(job, 0) == f"computed other-s0, not {job.key}: does the data set differ between machines?"


def test_the_command_of_a_cell_is_understood():
    from pocketvit.cli import parse_train
    from pocketvit.config import override

    rows = {"a": {"augment.skip_ops": ["rotate", "color"], "model.q_rank": 16, "train.compile": False}}
    for cell in study(rows=rows, baseline="a").cells():
        words = command_line(cell.config)
        assert parse_train(words[2:]) == override(cell.config, {"out": None})


# ---------------------------------------------------------------- which study


def test_every_built_in_study_can_be_run():
    assert builtin_studies() == ["digits", "neighbours", "paper-fig6", "paper-table2", "paper-table3"]
    studies = {name: find_study(name) for name in builtin_studies()}
    assert studies["digits"] == find_study(Path("digits"))
    assert {name: len(found.cells()) for name, found in studies.items()} == {
        "digits": 12, "neighbours": 75, "paper-fig6": 23, "paper-table2": 88, "paper-table3": 25,
    }  # fmt: skip
    configs = {row.name: row.config for row in studies["paper-table2"].rows}
    assert configs["baseline"] == studies["paper-table3"].rows[0].config, "one run serves both tables"
    assert configs["ba-bs1024"] == studies["paper-fig6"].rows[0].config
    with pytest.raises(InputError, match="unknown study 'digit'; did you mean digits"):
        find_study("digit")


def test_other_seeds_and_other_data():
    assert [row.seeds for row in with_seeds(study(), 3).rows] == [(0, 1, 2)] * 2
    own = study(rows={"a": {}, "b": {"data.source": "cifar10"}}, baseline="a")
    assert [row.config.data.source for row in with_data(own, "somewhere").rows] == ["somewhere", "cifar10"]
    assert [row.config.data.resize for row in with_data(own, None, 16).rows] == [16, 16]
    assert with_data(own, None) == own
    with pytest.raises(InputError, match="seeds=0"):
        with_seeds(study(), 0)
    with pytest.raises(InputError, match=r"^seeds=5001: must be in \[1, 5000\]$"):
        with_seeds(study(), 5001)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--address", "ray://head"], "--address ray://head: only for a Ray cluster; add --engine ray"),
        (["--gpus", "0", "--engine", "ray"], "--gpus 0: Ray chooses the GPUs itself"),
        (["--difference", "0.3"], "--difference 0.3: only with --plan; add it or leave --difference out"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(tmp_path, flags, words):
    with pytest.raises(InputError, match=words):
        study_command(["digits", "--out", str(tmp_path / "out"), *flags])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (0, ""),
        (1, "1 run is left; the same command resumes the study\n"),
        (3, "3 runs are left; the same command resumes the study\n"),
    ],
)
def test_what_is_left_is_said_at_the_end(tmp_path, capsys, left, words):
    study = synthetic_study()
    run = StudyRun(gathered=synthetic_cells(study), signum=None, left=left)
    assert end(study, run, tmp_path) == (3 if left else 0)
    assert capsys.readouterr().out.partition(f"study.html in {tmp_path}\n")[2] == words


def test_time_limits():
    assert (seconds("9m"), seconds("90s"), seconds("1h30m")) == (540, 90, 5400)
    for wrong in ("", "9", "m", "1h 30m", "-9m"):
        with pytest.raises(InputError, match="such as 9m or 1h30m"):
            seconds(wrong)


# ---------------------------------------------------------------- real processes


def write_study(path: Path, passes: int) -> Path:
    path.write_text(
        f"{{recipe: digits, seeds: 1, baseline: ok, base: {{schedule.passes: {passes}, schedule.warmup_passes: 0, "
        "train.checkpoint_every_passes: 1, train.device: cpu, model.depth: 2}, "
        "rows: {ok: {}, two: {model.num_cls_tokens: 2}}}"
    )
    return path


def command(file: Path, out: Path, *more: str) -> list[str]:
    (none := out.parent / "none").mkdir(exist_ok=True)
    words = ["study", str(file), "--out", str(out), "--results", str(none), *more]
    return [sys.executable, "-m", "pocketvit", *words]


def test_real_cells_end_and_fail_in_processes_of_their_own(tmp_path):
    file = write_study(tmp_path / "tiny.yaml", passes=1)
    file.write_text(file.read_text().replace("model.num_cls_tokens: 2", "model.patch_size: 3"))
    done = subprocess.run(command(file, tmp_path / "out"), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "two seed 0 failed: model.patch_size=3 does not divide images of 8 × 8 pixels" in done.stdout
    assert "ok seed 0: " in done.stdout
    assert (tmp_path / "out" / "table.csv").is_file()
    folder = next((tmp_path / "out").glob("*-s0/result.json")).parent
    assert (folder / "report.html").is_file()
    result = json.loads((folder / "result.json").read_text())
    assert result["command"].startswith("pocketvit train digits --model.depth 2 --schedule.passes 1")


class TrainsHere(FakeEngine):
    """Trains the cells in this process."""

    def ended(self):
        found, self.running = list(self.running), {}
        for job in found:
            sys.argv = command_line(job.cell.config)
            train(override(job.cell.config, {"out": job.folder}), SilentReporter())
        return [(job, None) for job in found]


@pytest.mark.long
def test_a_study_killed_and_restarted_ends_with_the_same_table(tmp_path, monkeypatch, undrawn):
    file = write_study(tmp_path / "tiny.yaml", passes=20)
    out, straight = tmp_path / "out", tmp_path / "straight"
    with monkeypatch.context() as here:
        here.setattr(runner, "_engine", lambda *_: TrainsHere())
        here.setattr(sys, "argv", sys.argv)
        assert study_command(command(file, straight)[4:]) == 0
    kills = 0
    for lines in (5, 15, 28):
        process = subprocess.Popen(command(file, out))
        while process.poll() is None:
            metrics = list(out.glob("*-s0/metrics.jsonl"))
            if sum(path.read_text().count("\n") for path in metrics) >= lines:
                process.kill()
                kills += process.wait() == -9
            time.sleep(0.05)
    assert kills == 3
    done = subprocess.run(command(file, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert any("resuming from step" in log.read_text() for log in out.glob("cells/*/log.txt"))
    assert table_of(out) == table_of(straight)


@pytest.mark.long
@pytest.mark.parametrize("passes", [4, pytest.param(30, marks=pytest.mark.nightly)])
def test_the_built_in_study_finds_a_difference_that_is_there(passes, tmp_path, monkeypatch, undrawn):
    """As it is, in processes, by night; in this one with fewer passes, after which the difference is larger."""
    name = "digits"
    if passes < 30:
        own = (Path(runner.__file__).parents[1] / "definition" / "builtin" / "digits.yaml").read_text()
        few = own.replace("passes: 30", f"passes: {passes}").replace("seeds: 4", "seeds: 3")
        (tmp_path / "few.yaml").write_text(few)
        monkeypatch.setattr(runner, "_engine", lambda *_: TrainsHere())
        monkeypatch.setattr(sys, "argv", sys.argv)
        name = str(tmp_path / "few.yaml")
    assert study_command([name, "--out", str(tmp_path / "out"), "--results", str(tmp_path)]) == 0
    with open(tmp_path / "out" / "table.csv", newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert rows["narrow"]["verdict"].startswith("hurts (") and float(rows["narrow"]["ci_high"]) < 0
    assert rows["two-cls"]["verdict"].startswith("no significant difference")


def table_of(out: Path) -> list[list[str]]:
    """cells.csv without when and where the cells were run."""
    clock = {"train_s", "images_per_s", "folder", "commit"}
    with open(out / "cells.csv", newline="") as file:
        return [[value for key, value in row.items() if key not in clock] for row in csv.DictReader(file)]


@pytest.mark.long
def test_a_study_with_a_time_limit_saves_and_goes_on(tmp_path):
    """A limit that is up before the cells train, as on a slow machine, leaves nothing to save; then it gets longer."""
    file = write_study(tmp_path / "tiny.yaml", passes=300)
    for limit in ("15s", "30s", "60s"):
        assert subprocess.run(command(file, tmp_path / "out", "--time-limit", limit), check=False).returncode == 3
        if saved := list((tmp_path / "out").glob("*-s0/checkpoint/*.safetensors")):
            break
    assert saved


def test_the_cells_of_this_machine_inherit_the_lock_of_the_studys_folder(tmp_path, monkeypatch):
    class Reached(Exception):
        """The engine has been asked for."""

    def engine(slots, *, pass_fds):
        with pytest.raises(InputError, match="a study is running"), study_lock(tmp_path, "another"):
            pass
        os.fstat(*pass_fds)
        raise Reached

    monkeypatch.setattr("pocketvit.studies.execution.local.LocalEngine", engine)
    monkeypatch.setattr(lock, "WAIT_S", 0.1)
    with pytest.raises(Reached):
        run_study(study(), tmp_path, console=Console(file=open(os.devnull, "w")))


def test_the_last_table_has_a_line_for_each_row(capsys):
    study = synthetic_study()
    console = Console(width=200)
    console.print(verdict_table(study, findings(study, synthetic_cells(study, missing=("muon-s2",)))))
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[0] == ["row", "n", "test accuracy", "verdict"]
    assert [line[:2] for line in cells[1:]] == [
        ["baseline", "3"], ["mla-q", "3"], ["mla-qkv", "3"], ["whitening", "3"], ["muon", "2"],
    ]  # fmt: skip
    assert cells[3][2].startswith("93.") and cells[3][3].startswith("against baseline: hurts")
    assert cells[5][3].startswith("against baseline: helps")
