"""A study that asks for runs anew because the user's code has changed says so."""

import json

import pytest
from synthetic_results import result_content

from pocketvit.config import override, save_config
from pocketvit.config.hashing import REVISIONS
from pocketvit.studies import parse_study
from pocketvit.studies.definition.gather import gather
from pocketvit.studies.definition.jobs import data_fingerprints, study_jobs
from pocketvit.studies.execution.forecast import Devices, forecast
from pocketvit.studies.execution.outdated import outdated

SOURCE = "def square(progress):\n    return 1 - progress\n"


@pytest.fixture
def files(tmp_path):
    """Two files of own code, beside the study's folder."""
    files = [tmp_path / name for name in ("mine.py", "other.py")]
    for file in files:
        file.write_text(SOURCE + f"# {file.stem}\n")
    return files


def make(files, out, fingerprints=lambda data: "0" * 32):
    """The study as its files are now, and its jobs in `out`."""
    rows = {file.stem: {"schedule.name": f"{file}:square"} for file in files}
    study = parse_study({"recipe": "digits", "seeds": 3, "rows": {"plain": {}} | rows}, "test")
    return study, study_jobs(study, out, fingerprints)


def finish(jobs, fingerprint="0" * 32) -> None:
    """Leave behind what finished runs do, as far as it is looked at."""
    for job in jobs:
        key, _, seed = job.key.rpartition("-s")
        job.folder.mkdir(parents=True)
        save_config(override(job.cell.config, {"out": job.folder}), job.folder / "config.yaml")
        result = result_content(config_hash=key, seed=int(seed), data_fingerprint=fingerprint)
        (job.folder / "result.json").write_text(json.dumps(result))


def lines(jobs) -> list[str]:
    return outdated(jobs, gather(jobs))


def test_a_change_is_said_until_its_runs_are_there(files, tmp_path):
    out = tmp_path / "out"
    jobs = make(files, out)[1]
    assert lines(jobs) == []
    finish(jobs)
    assert lines(jobs) == []
    files[0].write_text(SOURCE + "# the same idea\n")
    jobs = make(files, out)[1]
    said = f"mine.py has changed since 3 finished runs in {out}; the runs are kept but no longer count"
    assert lines(jobs) == [said]
    left = [job for job in jobs if job.cell.row == "mine"]
    finish(left[:2])
    assert lines(jobs) == [f"mine.py has changed since 1 finished run in {out}; the run is kept but no longer counts"]
    finish(left[2:])
    assert lines(jobs) == []
    files[0].write_text(SOURCE + "# once more\n")
    said = f"mine.py has changed since 6 finished runs in {out}; the runs are kept but no longer count"
    assert lines(make(files, out)[1]) == [said], "every run counts, however many changes ago it was made"


def test_runs_that_are_lacking_for_another_reason_are_no_matter_of_the_code(files, tmp_path):
    jobs = make(files, tmp_path / "out")[1]
    finish(jobs[:3])
    (jobs[0].folder / "config.yaml").write_text("torn")
    (jobs[1].folder / "result.json").write_text("{")
    for file in files:
        file.write_text(SOURCE + f"# {file.stem}, changed\n")
    assert lines(make(files, tmp_path / "out")[1]) == [
        f"other.py has changed since 1 finished run in {tmp_path / 'out'}; the run is kept but no longer counts"
    ]
    assert lines(make(files, tmp_path / "out", lambda data: "1" * 32)[1]) == [], "on other data"


def test_a_revised_choice_is_said_until_its_runs_are_there(tmp_path, monkeypatch):
    rows = {"plain": {}, "ba": {"data.repeats": "batch"}, "more": {"data.repeats": "batch", "data.num_repeats": 2}}
    study = parse_study({"recipe": "digits", "seeds": 2, "rows": rows}, "test")
    out = tmp_path / "out"
    with monkeypatch.context() as before:
        before.delitem(REVISIONS, ("data.repeats", "batch"))
        finish(study_jobs(study, out, lambda data: "0" * 32)[:5])
    jobs = study_jobs(study, out, lambda data: "0" * 32)
    assert [cell.state for cell in gather(jobs)] == ["done", "missing", "missing", "done", "missing", "missing"]
    said = f"data.repeats=batch has changed since 3 finished runs in {out}; the runs are kept but no longer count"
    assert lines(jobs) == [said]
    finish(jobs[1:3])
    finish(jobs[4:])
    assert lines(jobs) == [] and all(cell.state == "done" for cell in gather(jobs))


def test_a_plan_says_it(files, tmp_path):
    find = data_fingerprints()
    study, jobs = make(files, tmp_path / "out", find)
    finish(jobs, find(jobs[0].cell.config.data))
    files[0].write_text(SOURCE + "# changed\n")
    study, _ = make(files, tmp_path / "out")
    said = forecast(study, tmp_path / "out", results=None, devices=Devices(1))
    assert (
        f"mine.py has changed since 3 finished runs in {tmp_path / 'out'}; the runs are kept but no longer count."
        in said
    )
