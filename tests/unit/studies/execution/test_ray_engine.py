"""Cells as Ray tasks, on Ray's own cluster of several nodes on one machine."""

import threading
import time
from pathlib import Path

import pytest

from pocketvit.errors import InputError
from pocketvit.studies import parse_study
from pocketvit.studies.definition.jobs import study_jobs
from pocketvit.studies.execution.runner import run_study

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster():
    """A cluster whose head runs no cells, and two nodes for one cell each, of which a test may lose the first."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=100_000_000) for _ in range(2)]
        yield cluster, nodes
        ray.shutdown()
        cluster.shutdown()


def study(passes: int):
    schedule = {"schedule.passes": passes, "schedule.warmup_passes": 0}
    base = schedule | {"train.checkpoint_every_passes": 5, "train.device": "cpu", "model.depth": 2}
    rows = {"plain": {}, "two": {"model.num_cls_tokens": 2}, "broken": {"model.patch_size": 3}}
    return parse_study({"recipe": "digits", "base": base, "rows": rows}, "test")


def table(run) -> list[tuple]:
    return [(cell.row, cell.seed, cell.state, cell.result and cell.result.test_accuracy) for cell in run.gathered]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def kill_a_node(cluster, node, out: Path, lines: int) -> threading.Thread:
    """Remove a node as soon as two runs have some lines."""

    def work() -> None:
        while sum(path.read_text().count("\n") >= lines for path in out.glob("*/metrics.jsonl")) < 2:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def assert_left(count: int) -> None:
    """So many nodes are alive, once the cluster has noticed who is not."""
    import ray

    until = time.monotonic() + 300
    while (alive := sum(node["Alive"] for node in ray.nodes())) != count:
        assert time.monotonic() < until, f"{alive} nodes are left"
        time.sleep(0.1)


@pytest.mark.nightly
def test_a_lost_node_changes_nothing_in_the_table(cluster, tmp_path):
    head, nodes = cluster
    killer = kill_a_node(head, nodes[0], tmp_path / "ray", lines=6)
    lost = run_study(study(20), tmp_path / "ray", address=head.address)
    killer.join(timeout=60)
    assert not killer.is_alive()
    assert_left(2)  # the head and one node
    whole = run_study(study(20), tmp_path / "local")
    assert table(lost) == table(whole)
    broken = next(cell for cell in lost.gathered if cell.row == "broken")
    assert broken.state == "failed" and "model.patch_size=3 does not divide" in broken.error
    for cell in lost.gathered:
        if cell.folder:
            ours, theirs = cell.folder, tmp_path / "local" / cell.folder.name
            assert names(ours) == names(theirs)


def test_folders_that_are_not_shared_come_back(cluster, tmp_path, monkeypatch):
    from pocketvit.studies.execution import ray_engine

    head, _ = cluster
    unpack, unpacked = ray_engine.tarfile.open, []
    monkeypatch.setattr(ray_engine.tarfile, "open", lambda **given: unpacked.append(unpack(**given)) or unpacked[-1])
    # A machine that does not see the study's folder does not find the token.
    monkeypatch.setattr(ray_engine, "_token_file", lambda job: job.log.with_name("elsewhere.txt"))
    run = run_study(study(1), tmp_path / "out", only=["plain"], address=head.address)
    assert len(unpacked) == 1
    assert [cell.state for cell in run.gathered if cell.row == "plain"] == ["done"]
    assert all((cell.folder / "report.html").is_file() for cell in run.gathered if cell.state == "done")
    assert not list((tmp_path / "out").glob(".receiving-*"))


@pytest.mark.parametrize("source", ["digits", "cifar10", "own"])
def test_paths_mean_the_same_in_another_directory(tmp_path, monkeypatch, source):
    from pocketvit.studies.execution.ray_engine import _with_absolute_paths

    monkeypatch.chdir(tmp_path)
    Path(source).mkdir()
    data = {"data.source": source, "data.cache_dir": "cache"}
    given = parse_study({"recipe": "digits", "base": data, "rows": {"plain": {}}}, "test")
    job = _with_absolute_paths(study_jobs(given, Path("out"), lambda data: "0" * 32)[0])
    assert job.out == tmp_path / "out" and job.cell.config.data.cache_dir == tmp_path / "cache"
    assert job.cell.config.data.source == (str(tmp_path / "own") if source == "own" else source)


def test_no_cluster_is_said(tmp_path):
    with pytest.raises(InputError, match="no Ray cluster at 127.0.0.1:1; start one"):
        run_study(study(1), tmp_path / "out", address="127.0.0.1:1")
