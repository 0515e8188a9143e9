"""The table of docs/starting.md: digits from the weights that come with the package, and from scratch."""

from pathlib import Path

from benchmarks.scaling_tables import measured_findings, spread
from pocketvit.report.text import count
from pocketvit.studies import load_study
from pocketvit.studies.definition.jobs import data_fingerprints
from pocketvit.studies.output.outputs import notes, table_row
from pocketvit.tables import ABSENT, markdown_table

FILE = Path(__file__).with_name("finetune.yaml")
WHAT = {
    "finetune": "`cifar10`, fine-tuned by the recipe `finetune`",
    "photos": "a small model for few images from scratch, the recipe `photos`",
    "small": "a small model from scratch, the recipe `digits`",
    "scratch": "the model of `cifar10` from scratch, as many images",
    "probe": "the classifier alone, on `cifar10`",
}


def finetuning(results: Path) -> str:
    """All rows of the study, with notes.

    Args:
        results: the folder of all results; runs are found anywhere in it.
    """
    study = load_study(FILE)
    found = measured_findings(study, results, data_fingerprints())
    rows = []
    for finding in found:
        told, images = table_row(finding), {result.images_seen for result in finding.results}
        rows.append({
            "row": f"`{finding.row}`",
            "what is trained": WHAT[finding.row],
            "held out (%)": spread(finding, "val_accuracy"),
            "test (%)": spread(finding, "test_accuracy"),
            **{column: told[column] for column in ("n", "against", "difference", "95 % CI", "verdict")},
            "images of digits": " or ".join(map(count, sorted(images))) or ABSENT,
            **{column: told[column] for column in ("training time", "parameters")},
        })  # fmt: skip
    devices = " or ".join(sorted({result.device for finding in found for result in finding.results}))
    note = (
        f"`pocketvit study benchmarks/{FILE.name}`, on {devices or ABSENT}, beside other work: times compare only roughly. "
        "The file says how settings were chosen. `photos` and `small` take images of 8 × 8 pixels as they are, other rows "
        "16 × 16; all hold out the same images."
    )
    return "\n\n".join([markdown_table(rows, list(rows[0])), " ".join([note, *notes(study, found)])])
