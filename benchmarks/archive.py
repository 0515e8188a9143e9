"""Archive the results of a study's runs as results/STUDY/ROW-sSEED.json.

    python -m benchmarks.archive STUDY FOLDER [--results results]

STUDY is a .yaml file or a built-in study, FOLDER its folder, perhaps an unpacked archive from another machine. Cells that
already have a result anywhere under results/ are skipped; runs on several GPUs do not count. Each archived cell is
printed in one line.
"""

import argparse
from pathlib import Path

from pocketvit.files import write_atomically
from pocketvit.runs.result import find_results
from pocketvit.studies.definition.choose import find_study
from pocketvit.studies.definition.grid import IMAGES_OF
from pocketvit.studies.definition.jobs import study_jobs


def archive(name: str, folder: Path, results: Path) -> list[str]:
    """Copy new results; returns one line per copied cell."""
    study = find_study(name)
    found, known = (find_results([place], one_gpu=True) for place in (folder, results))
    fingerprints = {result.data_fingerprint for result in found.values()}
    lines = []
    of_data = [study_jobs(study, folder, lambda data, one=one: one, results) for one in sorted(fingerprints)]
    for jobs in zip(*of_data, strict=True):  # a cell on all data
        for job in jobs:
            if job.key not in found or job.key in known:
                continue
            result = found[job.key]
            path = results / study.name / f"{job.cell.name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, result.file.read_bytes())
            accuracy = f"{100 * getattr(result, study.measure):.2f} % of the {IMAGES_OF[study.measure]} images"
            speed = f"{result.images_per_s:,.0f} images/s"
            lines.append(
                f"{path}: {accuracy}, {speed}, {result.train_s:.1f} s, commit {(result.commit or 'unknown')[:8]}"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    for line in archive(options.study, options.folder, options.results):
        print(line)


if __name__ == "__main__":
    main()
