"""Tables of runs for the README and the docs, made from result files.

A row sums up the runs of one configuration with one kind of kernels, which differ only in their seed: the number of
runs, the mean, and the standard deviation over seeds (n − 1), which a single run does not have.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from pocketvit.errors import InputError
from pocketvit.report.text import count, duration
from pocketvit.runs.hardware import device, hardware
from pocketvit.runs.result import RunResult
from pocketvit.studies.output.outputs import BEST_EVALUATION, COST_NOTE
from pocketvit.tables import ABSENT, markdown_table, mean_and_spread

COLUMNS = (
    "row",
    "runs",
    "test accuracy (%)",
    "best evaluation (%)",
    "images/s",
    "training time",
    "memory (GiB)",
    "parameters",
    "kernels",
    "hardware",
    "command",
)
NOTE = (
    "Test accuracy after the last step: mean ± standard deviation over the seeds in brackets (n − 1; none for a single "
    f"run). Best evaluation: {BEST_EVALUATION}. {COST_NOTE}"
)

_RESULT_FILE = re.compile(r"(?P<row>.+)-s(?P<seed>\d+)\.json")
_PER_RUN_OPTION = re.compile(r" +--(?:out|resume)(?:=| +)\S+")
_SEED_OPTION = re.compile(r" +--seed(?:=| +)\S+")


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """Figures reported by others, for comparison; None if not reported."""

    name: str
    """The name of the row, with the source of the figures; Markdown."""
    runs: int = 1
    """Number of runs behind the accuracy."""
    test_accuracy: float | None = None
    """After the last step, a fraction."""
    best_test_accuracy: float | None = None
    """The best of several evaluations on the test set, a fraction."""
    images_per_s: float | None = None
    train_s: float | None = None
    num_params: int | None = None
    hardware: str | None = None

    def cells(self) -> dict[str, str]:
        """The row as text, by column."""
        best = self.best_test_accuracy
        return {
            "row": self.name,
            "runs": str(self.runs),
            "test accuracy (%)": ABSENT if self.test_accuracy is None else f"{100 * self.test_accuracy:.2f}",
            "best evaluation (%)": ABSENT if best is None else f"{100 * best:.2f}",
            "images/s": ABSENT if self.images_per_s is None else count(self.images_per_s),
            "training time": ABSENT if self.train_s is None else duration(self.train_s),
            "memory (GiB)": ABSENT,
            "parameters": ABSENT if self.num_params is None else count(self.num_params),
            "kernels": ABSENT,
            "hardware": self.hardware or ABSENT,
            "command": ABSENT,
        }


def summary_row(name: str, results: Sequence[RunResult], command: str | None = None) -> dict[str, str]:
    """Sum up the runs of one configuration as the text of a table row.

    Args:
        name: of the row.
        results: of the runs, one per seed. Times and memory are those on the most frequent hardware.
        command: to repeat it; by default the command of the first run.
    Raises:
        InputError: no runs, a repeated seed, or runs of different configurations, data or kernels.
    """
    if not results:
        raise InputError(f"row {name}: no results; a row needs at least one run")
    results = sorted(results, key=lambda result: result.seed)
    seeds = [result.seed for result in results]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"row {name}: one of the seeds {seeds} is repeated; each run of a row needs its own seed")
    for key in ("config_hash", "data_fingerprint", "kernels_used"):
        if len({getattr(result, key) for result in results}) > 1:
            raise InputError(f"row {name}: its runs differ in {key}; runs of a row may only differ in their seed")
    found = hardware(results)
    timed = list(filter(found.counts, results))
    return {
        "row": name,
        "runs": f"{len(seeds)} ({', '.join(map(str, seeds))})",
        "test accuracy (%)": mean_and_spread([100 * result.test_accuracy for result in results]),
        "best evaluation (%)": _spread_of(results, "best_test_accuracy", 100),
        "images/s": count(mean(result.images_per_s for result in timed)),
        "training time": duration(mean(result.train_s for result in timed)),
        "memory (GiB)": _spread_of(timed, "peak_memory_gib", 1).partition(" ±")[0],
        "parameters": count(results[0].num_params),
        "kernels": results[0].kernels_used,
        "hardware": ", ".join(sorted(set(map(device, timed))))
        + (f"; not timed: {found.said_of_others()}" if found.others else ""),
        "command": f"`{command or _command(results)}`",
    }


def _spread_of(results: Sequence[RunResult], key: str, factor: float) -> str:
    """`mean_and_spread` of a figure that some runs may not have."""
    values = [getattr(result, key) for result in results]
    return ABSENT if None in values else mean_and_spread([factor * value for value in values])


def _command(results: Sequence[RunResult]) -> str:
    """The first run's command without its folder, and with SEED for the seed if there are several runs."""
    command = _PER_RUN_OPTION.sub("", results[0].command)
    return command if len(results) == 1 else _SEED_OPTION.sub("", command) + " --seed SEED"


def results_table(
    *folders: Path,
    published: Sequence[PublishedRow] = (),
    commands: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, Iterable[Path]] | None = None,
) -> str:
    """The rows of one or more studies, read from their files `<row>-s<seed>.json`; one for each kind of kernels.

    Args:
        folders: such as `results/<study>`.
        published: rows to show above ours.
        commands: to repeat each row, by its name; they determine the order of the rows.
        elsewhere: more files of a row, by its name; they are named by another row.
    Returns:
        Markdown: a table with the rows in the order of `commands` or of their names, and one paragraph.
    Raises:
        InputError: no such folders or no results in them, a file that is damaged or wrongly named, or as `summary_row`.
    """
    groups: dict[tuple[str, str], list[RunResult]] = {}
    files: list[tuple[str | None, Path]]
    files = [(None, path) for folder in folders for path in sorted(folder.glob("*.json"))]
    files += [(row, path) for row, paths in (elsewhere or {}).items() for path in sorted(paths)]
    for row, path in files:
        name = _RESULT_FILE.fullmatch(path.name)
        if name is None:
            raise InputError(f"{path} is not named like a result; expected <row>-s<seed>.json")
        result = RunResult.read(path)
        if result.seed != int(name["seed"]):
            raise InputError(f"{path} contains the result of seed {result.seed}, which differs from its name")
        groups.setdefault((row or name["row"], result.kernels_used), []).append(result)
    if not groups:
        raise InputError(f"{' '.join(map(str, folders))}: no results there; expected files <row>-s<seed>.json")
    commands = commands or {}
    place = {row: number for number, row in enumerate(commands)}
    order = sorted(groups, key=lambda group: (place.get(group[0], len(place)), group))
    rows = [summary_row(row, groups[row, kernels], commands.get(row)) for row, kernels in order]
    return f"{markdown_table([*(row.cells() for row in published), *rows], COLUMNS)}\n\n{NOTE}"


def replace_section(document: str, marker: str, text: str) -> str:
    """A document with `text` between `<!-- results:marker -->` and `<!-- /results:marker -->`.

    Raises:
        InputError: the document does not contain the two comments exactly once, in this order.
    """
    start, end = f"<!-- results:{marker} -->", f"<!-- /results:{marker} -->"
    if document.count(start) != 1 or document.count(end) != 1 or document.index(end) < document.index(start):
        raise InputError(f"no place for the table: expected one {start} followed by one {end}")
    before, rest = document.split(start)
    after = rest.split(end)[1]
    return f"{before}{start}\n{text.strip()}\n{end}{after}"


def update_readme(readme: Path, marker: str, text: str) -> bool:
    """Put `text` between a file's two comments for `marker`, see `replace_section`.

    Returns:
        whether the file changed.
    Raises:
        InputError: the file does not contain the two comments.
    """
    old = readme.read_text(encoding="utf-8")
    try:
        new = replace_section(old, marker, text)
    except InputError as error:
        raise InputError(f"{readme}: {error}") from None
    if new != old:
        readme.write_text(new, encoding="utf-8")
    return new != old
