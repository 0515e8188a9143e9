"""Study files: rows, grids, inheritance, comparisons, and one plain line for every mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pocketvit.config import override
from pocketvit.config.weights import RunOf
from pocketvit.errors import InputError
from pocketvit.recipes import recipe
from pocketvit.studies import load_study, parse_study

BENCHMARKS = Path(__file__).parents[4] / "benchmarks"


def parse(text: str):
    return parse_study(yaml.safe_load(text), "test")


def rows_of(study) -> dict:
    return {row.name: dict(row.overrides) for row in study.rows}


def test_a_cell_is_the_recipe_with_base_row_and_seed():
    study = parse("{recipe: digits, base: {optim.lr: 1e-3}, seeds: [4, 2], rows: {a: {}, b: {model.depth: 2}}}")
    cells = {cell.name: cell.config for cell in study.cells()}
    assert list(cells) == ["a-s4", "b-s4", "a-s2", "b-s2"]  # every row gets its first seed before any its second
    assert cells["b-s2"] == override(recipe("digits"), {"optim.lr": 1e-3, "model.depth": 2, "seed": 2})


def test_a_study_in_python_takes_numpys_numbers():
    rows = {"a": {"optim.lr": np.float64(0.5)}, "b": {"grid": {"model.depth": list(np.arange(2, 4))}}}
    study = parse_study({"recipe": "digits", "seeds": np.int64(2), "rows": rows}, "test")
    assert [row.name for row in study.rows] == ["a", "b-depth=2", "b-depth=3"]
    assert json.dumps([[row.overrides, row.seeds] for row in study.rows]) == (
        '[[{"optim.lr": 0.5}, [0, 1]], [{"model.depth": 2}, [0, 1]], [{"model.depth": 3}, [0, 1]]]'
    )


def test_a_row_overrides_base_and_may_have_seeds_of_its_own():
    study = parse("{recipe: digits, base: {model.depth: 3}, seeds: 2, rows: {a: {seeds: 3}, b: {model.depth: 2}}}")
    assert [cell.name for cell in study.cells()] == ["a-s0", "b-s0", "a-s1", "b-s1", "a-s2"]
    assert [row.config.model.depth for row in study.rows] == [3, 2]


def test_fields_that_only_fit_together_are_checked_together():
    study = parse("{recipe: digits, base: {model.width: 72}, rows: {a: {model.num_heads: 6}}}")
    assert study.rows[0].config.model.num_heads == 6  # 64 channels, the recipe's, are not divisible by 6


def test_rows_inherit_overrides_but_not_seeds():
    study = parse("""{recipe: digits, rows: {
        c: {inherit: b, optim.name: lion},
        a: {model.depth: 2, model.q_rank: 8, seeds: 4},
        b: {inherit: a, model.depth: 3}}}""")
    assert rows_of(study)["c"] == {"model.depth": 3, "model.q_rank": 8, "optim.name": "lion"}
    assert [row.seeds for row in study.rows] == [(0,), (0, 1, 2, 3), (0,)]


def test_a_grid_multiplies_its_lists():
    study = parse("""{recipe: digits, rows: {plain: {}, g: {
        model.depth: 2, grid: {model.q_rank: [null, 16], optim.lr: [1e-3, 0.002]}}}}""")
    assert rows_of(study) == {
        "plain": {},
        "g-q_rank=none-lr=1e-3": {"model.depth": 2, "model.q_rank": None, "optim.lr": "1e-3"},
        "g-q_rank=none-lr=0.002": {"model.depth": 2, "model.q_rank": None, "optim.lr": 0.002},
        "g-q_rank=16-lr=1e-3": {"model.depth": 2, "model.q_rank": 16, "optim.lr": "1e-3"},
        "g-q_rank=16-lr=0.002": {"model.depth": 2, "model.q_rank": 16, "optim.lr": 0.002},
    }
    assert study.rows[1].config.optim.lr == 1e-3


STARTS = {"recipe": "digits", "rows": {"first": {}, "second": {"init_from": {"run_of": "first"}}}}


def test_a_row_may_start_from_an_earlier_one():
    first, second = parse_study(STARTS, "test").rows
    assert first.config.init_from is None and second.config.init_from == RunOf("first")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"second": {"init_from": {"run_of": "first"}}, "first": {}}, "unknown earlier row 'first'"),
        ({"first": {"seeds": 1}, "second": {"init_from": {"run_of": "first"}, "seeds": 2}}, "'first' has no seed 1"),
        ({"first": {}, "second": {"init_from": {"row": "first"}}}, "must be the folder of a finished run"),
    ],
)
def test_a_start_that_cannot_be_is_refused(rows, says):
    with pytest.raises(InputError, match=says):
        parse_study(STARTS | {"rows": rows}, "test")


def test_grid_labels_stay_unique_and_fit_for_file_names():
    study = parse("""{recipe: digits, rows: {g: {grid: {
        optim.name: [adamw], schedule.name: [linear], optim.betas: [[0.9, 0.95], null],
        data.source: [my data/x.npz]}}}}""")
    assert [row.name for row in study.rows] == [
        "g-optim.name=adamw-schedule.name=linear-betas=0.9,0.95-source=my_data_x.npz",
        "g-optim.name=adamw-schedule.name=linear-betas=none-source=my_data_x.npz",
    ]


def test_a_grid_that_is_called_like_its_field_does_not_say_it_twice():
    study = parse(
        "recipe: paper\nbaseline: lr=0.001\nrows: {lr: {grid: {optim.lr: [0.001, 0.01]}}, l: {grid: {optim.lr: [0.1]}}}"
    )
    assert [row.name for row in study.rows] == ["lr=0.001", "lr=0.01", "l-lr=0.1"]
    assert study.compare == {"lr=0.01": "lr=0.001", "l-lr=0.1": "lr=0.001"}


def test_comparisons_follow_the_baseline_unless_told_otherwise():
    study = parse("""{recipe: digits, baseline: a, compare: {c: b, d: null, g: b}, rows: {
        a: {}, b: {model.depth: 1}, c: {model.depth: 2}, d: {model.depth: 3}, e: {model.q_rank: 4},
        g: {grid: {model.k_rank: [4, 8]}}}}""")
    assert study.compare == {"b": "a", "c": "b", "e": "a", "g-k_rank=4": "b", "g-k_rank=8": "b"}
    assert parse("{recipe: digits, rows: {a: {}, b: {model.depth: 1}}}").compare == {}


def test_a_grids_row_can_be_the_baseline():
    study = parse("{recipe: digits, baseline: g-q_rank=none, rows: {g: {grid: {model.q_rank: [null, 4]}}}}")
    assert study.compare == {"g-q_rank=4": "g-q_rank=none"}
    study = parse("{recipe: digits, compare: {g: g-q_rank=none}, rows: {g: {grid: {model.q_rank: [null, 4]}}}}")
    assert study.compare == {"g-q_rank=4": "g-q_rank=none"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "is not a mapping"),
        ("{recipe: digits, row: {a: {}}}", "unknown key 'row'; did you mean rows?"),
        ("{rows: {a: {}}}", "give the recipe that the rows start from"),
        ("{recipe: digit, rows: {a: {}}}", "unknown recipe 'digit'; did you mean digits?"),
        ("{recipe: digits}", "rows is empty"),
        ("{recipe: digits, name: ../up, rows: {a: {}}}", "name '../up'"),
        ("{recipe: digits, rows: {a/b: {}}}", "row 'a/b': is used in file names"),
        ("{recipe: digits, rows: {yes: {}}}", "YAML reads the name True as a bool; put it in quotes"),
        ("{recipe: digits, rows: {a: 3}}", "row 'a': 3 is not a mapping"),
        ("{recipe: digits, rows: {a: {model.dept: 3}}}", "row 'a': unknown field 'model.dept'; did you mean model.dep"),
        ("{recipe: digits, rows: {a: {inherits: b}}}", "row 'a': unknown field 'inherits'; did you mean inherit?"),
        ("{recipe: digits, base: {optim.lrr: 1}, rows: {a: {}}}", "base: unknown field 'optim.lrr'; did you mean opt"),
        ("{recipe: digits, rows: {b: {model: {depth: 2, width: 32}}}}", "such as model.depth: 2"),
        ("{recipe: digits, rows: {b: {grid: {model: {q_rank: [null, 4]}}}}}", "such as model.q_rank: [null, 4]"),
        ("{recipe: digits, base: {optim: {name: lion}}, rows: {a: {}}}", "base: optim is a section; write its fields"),
        ("{recipe: digits, rows: {a: {model.depth: 0}}}", "row 'a': model.depth=0: must be at least 1"),
        ("{recipe: digits, rows: {a: {seed: 3}}}", "row 'a': seed cannot be set here; use seeds"),
        ("{recipe: digits, base: {out: x}, rows: {a: {}}}", "base: out cannot be set here"),
        (
            "{recipe: digits, rows: {a: {grid: {schedule.time_budget: [1m, 2m]}}}}",
            "row 'a': grid: schedule.time_budget cannot be set here; runs would not be comparable, use schedule.passes",
        ),
        ("{recipe: digits, seeds: 0, rows: {a: {}}}", "seeds=0: must be a count"),
        ("{recipe: digits, seeds: [], rows: {a: {}}}", "seeds=[]"),
        ("{recipe: digits, seeds: true, rows: {a: {}}}", "seeds=True"),
        ("{recipe: digits, seeds: [1, -1], rows: {a: {}}}", "seeds=[1, -1]"),
        ("{recipe: digits, rows: {a: {seeds: [1, 2, 1]}}}", "row 'a': seeds=[1, 2, 1]: seed 1 is listed twice"),
        ("{recipe: digits, rows: {a: {inherit: B}, b: {}}}", "row 'a': inherit: unknown row 'B'"),
        ("{recipe: digits, rows: {a: {inherit: b}, b: {inherit: a}}}", "row 'a': inherits from itself: a -> b -> a"),
        ("{recipe: digits, rows: {a: {inherit: a}}}", "row 'a': inherits from itself: a -> a"),
        (
            "{recipe: digits, rows: {a0: {}, " + ", ".join(f"a{i + 1}: {{inherit: a{i}}}" for i in range(3_000)) + "}}",
            "row 'a50': inherits through more than 50 rows",
        ),
        ("{recipe: digits, rows: {a: {inherit: [b]}, b: {}}}", "row 'a': inherit: unknown row"),
        ("{recipe: digits, compare: [a], rows: {a: {}}}", "compare: ['a'] is not a mapping"),
        ("{recipe: digits, rows: {a: {inherit: g}, g: {grid: {model.depth: [1]}}}}", "'g' is a grid"),
        ("{recipe: digits, rows: {a: {grid: {model.dept: [1]}}}}", "row 'a': grid: unknown field 'model.dept'"),
        ("{recipe: digits, rows: {a: {grid: {model.depth: 1}}}}", "grid: model.depth=1: must be a list"),
        ("{recipe: digits, rows: {a: {model.depth: 2, grid: {model.depth: [1]}}}}", "in the row and in its grid"),
        ("{recipe: digits, rows: {a: {grid: {model.depth: [1, 0]}}}}", "row 'a-depth=0': model.depth=0"),
        ("{recipe: digits, rows: {a-depth=1: {}, a: {grid: {model.depth: [1]}}}}", "two rows are named 'a-depth=1'"),
        ("{recipe: digits, rows: {a: {}, b: {model.depth: 4}}}", "rows 'a' and 'b' are the same run"),
        ("{recipe: digits, baseline: base, rows: {baseline: {}}}", "unknown row 'base'; did you mean baseline?"),
        ("{recipe: digits, compare: {mla: a}, rows: {a: {}, mla-q: {model.q_rank: 4}}}", "did you mean mla-q?"),
        ("{recipe: digits, compare: {mla: b}, rows: {a: {}, mla: {model.q_rank: 4}}}", "compare: mla: unknown row 'b'"),
        ("{recipe: digits, compare: {a: a}, rows: {a: {}}}", "row 'a' is compared with itself"),
    ],
)
def test_a_mistake_is_named_in_one_line(text, words):
    with pytest.raises(InputError) as caught:
        parse(text)
    message = str(caught.value)
    assert words in message and message.startswith("study ") and "\n" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows:\n  a: {}\n  a: {model.depth: 2}\n", "'a' is set twice, again in line 3"),
        ("rows: [", "is not YAML"),
        ("seeds: " + "9" * 5000, "is not YAML"),
        ("? [a]\n: 1\n", "is not YAML"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, words):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="study.yaml") as caught:
        load_study(path)
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot read study .*nowhere.yaml: No such file"):
        load_study(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_of_the_repository_load(path):
    study = load_study(path)
    assert study.name == path.stem.replace("_", "-") and study.cells()


MANY = list(range(1, 1_001))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"seeds": 10**12, "rows": {"a": {}}}, "seeds would make 1,000,000,000,000 runs; a study takes at most 10,000"),
        ({"rows": {"a": {"seeds": list(range(10_001))}}}, "row 'a': seeds would make 10,001 runs"),
        (
            {"rows": {"a": {"grid": {"model.depth": MANY, "model.width": MANY}}}},
            "row 'a': grid would make 1,000,000 runs",
        ),
        ({"seeds": 6_000, "rows": {"a": {}, "b": {"model.depth": 2}}}, "rows up to 'b' would make 12,000 runs"),
    ],
)
def test_a_slip_that_makes_millions_of_runs_is_refused(content, says):
    with pytest.raises(InputError, match=says):
        parse_study({"recipe": "digits"} | content, "test")
