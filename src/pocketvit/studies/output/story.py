"""What a study found, one sentence for each row."""

from pocketvit.report.text import NBSP, counted, points
from pocketvit.studies.analysis.findings import Finding
from pocketvit.studies.analysis.verdict import effect, p_value


def sentence(finding: Finding) -> str:
    """What was found of a row, in words that need no guide."""
    row, comparison, runs = finding.row, finding.comparison, counted(finding.accuracy.num_seeds, "run")
    if finding.count("failed") == len(finding.cells):
        return f"{row} failed in all of its {counted(len(finding.cells), 'run')}."
    if finding.accuracy.mean is None:
        return f"{row} has no result yet."
    spread = "" if finding.accuracy.std is None else f" ± {points(finding.accuracy.std)}"
    reached = f"{100 * finding.accuracy.mean:.2f}{spread}{NBSP}% in {runs}"
    if comparison is None:
        return f"{row} reaches {reached}."
    against, difference = comparison.reference, effect(comparison)
    if finding.kind in ("helps", "hurts") and comparison.p_holm is not None:
        word = "better" if finding.kind == "helps" else "worse"
        return f"{row} is {word} than {against}, by {difference} ({p_value(comparison.p_holm)}): {reached}."
    if finding.kind == "equal":
        detectable = f"a difference of {points(comparison.detectable or 0.0)} would most likely have shown"
        return (
            f"{row} differs from {against} by no more than chance may explain ({difference}; {detectable}): {reached}."
        )
    if finding.kind == "untold":
        return f"{row} has too few runs to be told from {against} ({difference}): {reached}."
    return f"{row} waits for the runs of {against}: {reached}."
