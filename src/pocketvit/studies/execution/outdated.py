"""Find finished runs in a study's folder that no longer count because what they computed has changed since.

User-defined code is identified by the whole content of its file: after any change, the study needs new runs. The same
holds after a revision of a choice (`pocketvit.config.hashing`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketvit.config import code_of, config_hash, load_config, override
from pocketvit.config.hashing import revised
from pocketvit.errors import InputError
from pocketvit.runs.result import result_at
from pocketvit.studies.definition.gather import CellResult
from pocketvit.studies.definition.jobs import Job
from pocketvit.usercode import Code


def outdated(jobs: Sequence[Job], gathered: Sequence[CellResult]) -> list[str]:
    """A line on each file of user-defined code and each choice that has changed since runs that the study now lacks.

    Args:
        jobs: of the study, in one folder.
        gathered: the state of each.
    """
    lacking = {job.key: job for job, cell in zip(jobs, gathered, strict=True) if cell.state != "done"}
    now = {(code.path.name, code.name): code for job in lacking.values() for code in code_of(job.cell.config).values()}
    found: dict[str, set[Path]] = {}
    for path in sorted(jobs[0].out.glob("*/result.json")) if now else ():
        key, changed = _with_code_of_now(path, now)
        for name in changed if key in lacking else ():
            found.setdefault(name, set()).add(path)
    for job in lacking.values():
        old = {path for key in job.earlier_keys if (path := job.out / key / "result.json").is_file()}
        for name in revised(job.cell.config) if old else ():
            found.setdefault(name, set()).update(old)
    return [_line(name, len(paths), jobs[0].out) for name, paths in found.items()]


def _with_code_of_now(path: Path, now: Mapping[tuple[str, str], Code]) -> tuple[str | None, list[str]]:
    """The key that the cell of a result would have now, None if unknown, and the files that have changed since.

    `now` is the study's code by the names of its file and of the class or function.
    """
    result = result_at(path)
    try:
        config = load_config(path.with_name("config.yaml"), allow_code=True)  # to compare it: none of its code runs
    except InputError:
        return None, []
    held = code_of(config)
    new = {field: now.get((code.path.name, code.name), code) for field, code in held.items()}
    changed = [code.path.name for field, code in held.items() if new[field] != code]
    if result is None or not changed:
        return None, []
    return f"{config_hash(override(config, new), result.data_fingerprint)}-s{result.seed}", changed


def _line(name: str, number: int, out: Path) -> str:
    if number == 1:
        return f"{name} has changed since 1 finished run in {out}; the run is kept but no longer counts"
    return f"{name} has changed since {number:,} finished runs in {out}; the runs are kept but no longer count"
