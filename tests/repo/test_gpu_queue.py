"""benchmarks/gpu_queue.py: jobs side by side, in order, in time."""

import runpy
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_queue.py"


@pytest.fixture
def run(tmp_path):
    """Makes a queue of some jobs on two GPUs, runs it, and returns it."""
    Queue = runpy.run_path(str(SCRIPT))["Queue"]

    def run(seconds: float = 3_600, **jobs: dict):
        (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(jobs, sort_keys=False))
        queue = Queue(tmp_path / "jobs.yaml", tmp_path / "out", ["3", "5"], seconds)
        queue.run()
        return queue

    return run


def said(queue, name: str) -> list[str]:
    return (queue.out / name / "log").read_text().split()


def test_jobs_get_gpus_a_folder_and_the_time_left(run):
    say = "echo $CUDA_VISIBLE_DEVICES $LEFT $OUT"
    queue = run(
        one={"command": say, "gpus": 1, "seconds": 1}, two={"command": say + "; exit 3", "gpus": 2, "seconds": 1}
    )
    assert queue.ended == {"one": 0, "two": 3}
    assert said(queue, "one")[0] == "3" and said(queue, "two")[0] == "3,5"
    assert 3_000 < int(said(queue, "one")[1]) < 3_600 and said(queue, "one")[2] == str(queue.out / "one")


def test_one_that_waits_for_gpus_is_not_overtaken(run, tmp_path):
    log = f">> {tmp_path}/order"
    queue = run(
        first={"command": f"sleep 0.5; echo first {log}", "gpus": 1, "seconds": 1},
        both={"command": f"echo both {log}", "gpus": 2, "seconds": 1},
        last={"command": f"echo last {log}", "gpus": 1, "seconds": 1},
        later={"command": f"echo later {log}", "gpus": 1, "seconds": 1, "after": ["last"]},
    )
    assert (tmp_path / "order").read_text().split() == ["first", "both", "last", "later"]
    assert queue.free == {"3", "5"}


def test_what_would_not_end_in_time_is_left(run):
    queue = run(
        600, long={"command": "true", "gpus": 1, "seconds": 601}, short={"command": "true", "gpus": 1, "seconds": 9}
    )
    assert list(queue.ended) == ["short"]


def test_jobs_can_be_added_while_others_run(run, tmp_path):
    added = f"printf 'more: {{command: \"true\", gpus: 1, seconds: 1}}\\n' >> {tmp_path}/jobs.yaml"
    assert list(run(first={"command": added, "gpus": 1, "seconds": 1}).ended) == ["first", "more"]
