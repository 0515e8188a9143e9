"""Studies: many runs that differ in one thing each, and what they say about it, with error bars."""

from pocketvit.report.text import points
from pocketvit.studies.grid import Cell, Row, Study
from pocketvit.studies.plan import Plan, plan_study
from pocketvit.studies.power import detectable_with, seeds_needed
from pocketvit.studies.stats import Accuracies, Comparison, Spread, Summary, compare, pooled_spread, summarise
from pocketvit.studies.study_file import load_study, parse_study
from pocketvit.studies.verdict import effect, p_value, verdict

__all__ = [
    "Accuracies",
    "Cell",
    "Comparison",
    "Plan",
    "Row",
    "Spread",
    "Study",
    "Summary",
    "compare",
    "detectable_with",
    "effect",
    "load_study",
    "p_value",
    "parse_study",
    "plan_study",
    "points",
    "pooled_spread",
    "seeds_needed",
    "summarise",
    "verdict",
]
