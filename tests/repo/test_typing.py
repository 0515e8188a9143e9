"""What an editor knows of the package: names, types, and which keywords there are."""

import ast
import importlib
import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import pocketvit
from pocketvit.config.data import READING, DataConfig, ReadingFields
from pocketvit.config.model import ModelConfig, ModelFields
from pocketvit.usercode import Code

PACKAGE = Path(pocketvit.__file__).parent


def test_type_checkers_see_the_names_that_are_there():
    block = next(node for node in ast.parse((PACKAGE / "__init__.py").read_text()).body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == pocketvit._HOME
    assert sorted(["__version__", *seen]) == sorted(pocketvit.__all__) == dir(pocketvit)
    for name, module in seen.items():
        assert getattr(pocketvit, name) is getattr(importlib.import_module(module), name)
    assert pocketvit.Silent is pocketvit.SilentReporter
    assert (PACKAGE / "py.typed").exists()


def test_the_keywords_of_create_model_and_load_dataset_are_fields():
    fields = {
        name: hint | str if Code in typing.get_args(hint) else hint
        for name, hint in typing.get_type_hints(ModelConfig).items()
    }
    assert typing.get_type_hints(ModelFields) == fields
    assert not ModelFields.__required_keys__
    hints = typing.get_type_hints(DataConfig)
    assert typing.get_type_hints(ReadingFields) == {name: hints[name] for name in READING}
    assert not ReadingFields.__required_keys__


WRONG = {
    'pocketvit.create_model("paper", num_cls_token=2)': "num_cls_token",
    'pocketvit.create_model("paper", norm="batchnorm")': "batchnorm",
    'pocketvit.trian(pocketvit.recipe("paper"))': "trian",
    "pocketvit.ModelConfig(widht=64)": "widht",
    'pocketvit.load_dataset("digits", resise=8)': "resise",
    'pocketvit.train("paper")': "RunConfig",
    'pocketvit.train(pocketvit.recipe("paper"), data=5)': "Literal[5]",
    'pocketvit.train(pocketvit.recipe("paper")).test_acuracy': "test_acuracy",
}
"""Lines with a mistake, and a word of what pyright says."""


@pytest.mark.long
def test_an_editor_finds_mistakes_and_knows_every_type(tmp_path):
    program = tmp_path / "program.py"
    revealed = [f"reveal_type(pocketvit.{name})" for name in pocketvit.__all__]
    right = [
        'pocketvit.create_model("paper", num_cls_tokens=2, attention="mine.py:Mine", image_size=(28, 28)).num_params'
    ]
    program.write_text("\n".join(["# pyright: strict", "import pocketvit", *right, *WRONG, *revealed]))
    ran = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", program],
        capture_output=True,
        text=True,
    )
    said = json.loads(ran.stdout)["generalDiagnostics"]
    errors = [(one["range"]["start"]["line"], one["message"]) for one in said if one["severity"] == "error"]
    first = 2 + len(right)
    assert {line for line, _ in errors} == set(range(first, first + len(WRONG))), errors
    for line, word in enumerate(WRONG.values(), first):
        assert any(at == line and word in message for at, message in errors), (word, errors)
    types = [one["message"] for one in said if one["severity"] == "information"]
    assert len(types) == len(revealed)
    for message in types:
        assert not re.search(r"\b(Any|Unknown)\b", message), message
