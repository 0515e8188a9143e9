"""Studies: rows of runs with several seeds each, compared with error bars."""

from pocketvit.report.text import points
from pocketvit.studies.analysis.power import detectable_with, seeds_needed
from pocketvit.studies.analysis.spread import Accuracies, Spread, pooled_spread
from pocketvit.studies.analysis.stats import Comparison, Summary, compare, summarise
from pocketvit.studies.analysis.verdict import effect, p_value, verdict
from pocketvit.studies.definition.grid import Cell, Row, Study
from pocketvit.studies.definition.study_file import load_study, parse_study
from pocketvit.studies.execution.plan import Plan, plan_study

__all__ = [
    "Accuracies", "Cell", "Comparison", "Plan", "Row", "Spread", "Study", "Summary", "compare",
    "detectable_with", "effect", "load_study", "p_value", "parse_study", "plan_study", "points",
    "pooled_spread", "seeds_needed", "summarise", "verdict",
]  # fmt: skip
