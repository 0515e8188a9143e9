"""YAML that hangs, recurses or breaks off is refused in one line."""

import os

import pytest
from bounded import refusal

from pocketvit.config.yaml_text import read_yaml
from pocketvit.errors import InputError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
CASES = {
    "alias bomb": (BOMB, "line 2: *a is an alias; write its content out"),
    "itself": ("&a [*a]", "line 1: *a is an alias"),
    "deep list": ("[" * 100_000, "line 1: more than 20 nested lists or mappings"),
    "deep mapping": ("- " * 1_000 + "a", "more than 20 nested lists or mappings"),
    "number in base 60": ("a: " + "1:" * 100_000 + "1", "line 1: a value of more than 10,000 characters"),
    "hexadecimal number": ("a:\n  b: 0x" + "f" * 9_000, "line 2: an integer of more than 64 bits"),
    "number with minutes": ("a: " + "1:" * 3_000 + "1", "line 1: an integer of more than 64 bits"),
    "date": ("a: !!timestamp x", "is not YAML: AttributeError"),
    "truth": ("a: !!bool x", "is not YAML: KeyError"),
    "empty number": ("a: !!int ''", "is not YAML: IndexError"),
    "set": ("a: !!set [1]", "is not YAML: TypeError"),
    "Latin-1": ("é".encode("latin-1"), "is not YAML: 'utf-8' codec"),
    "long": ("# " + "x" * 300_000, "larger than 262,144 bytes"),
}


@pytest.mark.parametrize(("content", "says"), CASES.values(), ids=CASES)
def test_yaml_is_refused_in_one_line(content, says, tmp_path):
    (file := tmp_path / "c.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_yaml(file, "config")
    assert str(file) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("command", ["load_config(pathlib.Path(sys.argv[1]))", "load_study(pathlib.Path(sys.argv[1]))"])
def test_pipes_and_devices_are_no_configuration(command, tmp_path):
    imports = (
        "from pocketvit.config import load_config; from pocketvit.studies.definition.study_file import load_study; "
        "import pocketvit.config.yaml_text"
    )
    os.mkfifo(tmp_path / "c.yaml")
    for path in (tmp_path / "c.yaml", "/dev/zero"):
        assert "not a regular file" in refusal(command, path, imports=imports)
