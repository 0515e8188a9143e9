"""Code of the user's own: how it is named, read, copied, allowed and run."""

import dataclasses
import inspect
import pickle
import sys
import typing

import pytest

from pocketvit.config import (
    ModelConfig,
    RunConfig,
    code_fields,
    code_of,
    config_hash,
    flatten,
    load_config,
    override,
    save_config,
)
from pocketvit.errors import InputError
from pocketvit.studies import load_study
from pocketvit.usercode import Code, resolve

FIELDS = code_fields(RunConfig)
SOURCE = "class Mine:\n    pass\n\n\ndef other():\n    return 1\n"


@pytest.fixture
def idea(tmp_path):
    """A file of code that does nothing bad."""
    path = tmp_path / "idea.py"
    path.write_text(SOURCE)
    return path


def marked(folder, name="idea.py"):
    """A file that leaves a mark beside it when it runs, and the mark."""
    folder.mkdir(exist_ok=True)
    mark = folder / "it-ran"
    (folder / name).write_text(f"open({str(mark)!r}, 'w').close()\n{SOURCE}")
    return folder / name, mark


def test_the_fields_that_take_code_are_the_listed_ones():
    taking = set()
    for section in dataclasses.fields(RunConfig()):
        config = getattr(RunConfig(), section.name)
        if dataclasses.is_dataclass(config):
            hints = typing.get_type_hints(type(config))
            taking |= {f"{section.name}.{name}" for name, hint in hints.items() if Code in typing.get_args(hint)}
    assert taking == set(FIELDS)
    assert {"model.attention", "model.block", "augment.policy", "optim.name", "schedule.name"} <= taking


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeUpModel(ModelConfig):
    mixer: typing.Literal["none"] | Code = "none"
    mixers: tuple[typing.Literal["none"] | Code, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeUpRun(RunConfig):
    model: MadeUpModel = dataclasses.field(default_factory=MadeUpModel)
    sampler: typing.Literal["none"] | Code = "none"


@pytest.mark.parametrize("field", ["model.mixer", "model.mixers", "sampler"])
def test_a_new_field_that_takes_code_needs_consent_from_the_start(field, tmp_path, monkeypatch):
    path, mark = marked(tmp_path)
    monkeypatch.setattr("pocketvit.config.files.RunConfig", MadeUpRun)
    assert code_fields(MadeUpRun) == FIELDS | {"model.mixer", "model.mixers", "sampler"}
    value = "[idea.py:Mine]" if field == "model.mixers" else "idea.py:Mine"
    (tmp_path / "config.yaml").write_text(f"{field}: {value}")
    with pytest.raises(InputError, match=f"would run user-defined code: {field} is Mine in "):
        load_config(tmp_path / "config.yaml")
    config = load_config(tmp_path / "config.yaml", allow_code=True)
    assert Code.read(f"{path}:Mine") in (flatten(config)[field], *flatten(config)["model.mixers"])
    assert not mark.exists()


def test_a_configuration_reads_code_and_does_not_run_it(tmp_path):
    path, mark = marked(tmp_path)
    config = override(RunConfig(), dict.fromkeys(FIELDS, f"{path}:Mine"))
    assert set(code_of(config)) == set(FIELDS)
    assert config.optim.name == Code.read("idea.py:Mine", tmp_path)
    config_hash(config, "data")
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml", allow_code=True) == config
    assert not mark.exists()
    config.optim.name.load()
    assert mark.exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("absent.py:Mine", "absent.py: No such file"),
        ("idea.py", "must be one of adamw, adam, sgd, lion, muon, soap_muon, or FILE.py:NAME"),
        ("idea.py:", "or FILE.py:NAME"),
        ("idea.py:not a name", "or FILE.py:NAME"),
        ("idea.txt:Mine", "or FILE.py:NAME"),
        ("idea.py:Mine@0123456789abcdef", "idea.py has changed: its SHA-256 begins with"),
        (7, "optim.name=7: must be one of"),
        ("\x1b[2Khidden.py:Mine", "or FILE.py:NAME"),
    ],
)
def test_what_is_no_code_is_refused_by_name(idea, monkeypatch, value, words):
    monkeypatch.chdir(idea.parent)
    with pytest.raises(InputError) as refused:
        override(RunConfig(), {"optim.name": value})
    assert words in str(refused.value) and "optim.name" in str(refused.value) and "\n" not in str(refused.value)


def test_the_hash_follows_the_content_and_the_name_but_not_the_place(idea, tmp_path):
    def hash_of(reference):
        return config_hash(override(RunConfig(), {"model.block": str(reference)}), "data")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "renamed.py").write_text(SOURCE)
    (elsewhere / "changed.py").write_text(SOURCE + "# a remark\n")
    first = hash_of(f"{idea}:Mine")
    assert first == hash_of(f"{elsewhere}/renamed.py:Mine")
    hashes = {first, hash_of(f"{elsewhere}/changed.py:Mine"), hash_of(f"{idea}:other"), hash_of("standard")}
    assert len(hashes) == 4
    idea.write_text("changed = 1")
    assert hash_of(f"{idea}:Mine") not in hashes
    assert hash_of("standard") == config_hash(RunConfig(), "data")


def test_what_was_read_is_what_runs(idea):
    code = Code.read(f"{idea}:other")
    idea.write_text("def other():\n    return 2\n")
    assert code.call() == 1


def test_python_finds_its_source(idea):
    """Tracebacks and Triton look for it."""
    assert inspect.getsource(Code.read(f"{idea}:other").load()) == "def other():\n    return 1\n"


def test_one_file_is_one_module_that_hides_no_other(idea, tmp_path):
    before = set(sys.modules)
    first, second = Code.read(f"{idea}:Mine"), Code.read(f"{idea}:other")
    assert first.load().__module__ == second.load().__module__
    assert {name for name in set(sys.modules) - before if "idea" in name} == set()
    assert pickle.loads(pickle.dumps(first)) == first
    assert not (tmp_path / "__pycache__").exists(), "nothing is left beside the user's file"


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("def f(:\n", "f", "fails when it is loaded: SyntaxError"),
        ("x = 1\n1 / 0\n", "f", "ZeroDivisionError: division by zero (line 2)"),
        ("import no_such_package\n", "f", "No module named 'no_such_package' (line 1)"),
        ("class Mine:\n    pass\n", "Mien", "has no class or function Mien; it has Mine"),
        ("f = 3\n", "f", "has no class or function f; it has none"),
        ("def f(a):\n    return a\n", "f", "fails when called with (x, y): TypeError"),
        ("def f(x, y):\n    return x.nothing\n", "f", "has no attribute 'nothing' (line 2)"),
    ],
)
def test_code_that_fails_is_an_input_error_with_its_line(tmp_path, source, name, words):
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(InputError) as refused:
        Code.read(f"bad.py:{name}", tmp_path).call(x=1, y=2)
    assert words in str(refused.value) and "bad.py" in str(refused.value) and "\n" not in str(refused.value)


# ---------------------------------------------------------------- consent


def test_a_config_that_names_code_is_loaded_only_with_consent(tmp_path):
    path, mark = marked(tmp_path / "here")
    config = override(RunConfig(), {"optim.name": f"{path}:Mine", "model.block": f"{path}:other"})
    save_config(config, tmp_path / "c.yaml")
    assert (tmp_path / "code" / "idea.py").read_bytes() == path.read_bytes()
    with pytest.raises(InputError) as refused:
        load_config(tmp_path / "c.yaml")
    for words in (f"model.block is other in {tmp_path}/code/idea.py", "optim.name is Mine in", "--allow-code"):
        assert words in str(refused.value)
    path.unlink()
    held = load_config(tmp_path / "c.yaml", allow_code=True)
    assert held.optim.name.path == tmp_path / "code" / "idea.py"
    assert not mark.exists()


@pytest.mark.parametrize("place", ["../outside.py", "{absolute}", "code/../../outside.py", "code/link.py"])
def test_a_config_runs_nothing_outside_of_its_folder(tmp_path, place):
    folder = tmp_path / "run"
    (folder / "code").mkdir(parents=True)
    (tmp_path / "outside.py").write_text(SOURCE)
    (folder / "code" / "link.py").symlink_to(tmp_path / "outside.py")
    place = place.format(absolute=tmp_path / "outside.py")
    (folder / "config.yaml").write_text(f"optim: {{name: '{place}:Mine'}}\n")
    for allow_code in (False, True):
        with pytest.raises(InputError, match="is outside of .*run; only copies in it are run"):
            load_config(folder / "config.yaml", allow_code=allow_code)


def test_a_copy_that_was_changed_is_refused(idea, tmp_path):
    save_config(override(RunConfig(), {"optim.name": f"{idea}:Mine"}), tmp_path / "c.yaml")
    (tmp_path / "code" / "idea.py").write_text("evil = 1")
    with pytest.raises(InputError, match="optim.name: .*code/idea.py has changed"):
        load_config(tmp_path / "c.yaml", allow_code=True)


def test_different_files_of_one_name_are_refused(idea, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "idea.py").write_text("def f(): pass\n")
    config = override(RunConfig(), {"optim.name": f"{idea}:Mine", "schedule.name": f"{other}/idea.py:f"})
    with pytest.raises(InputError, match="is already another file than .*rename one of them"):
        save_config(config, tmp_path / "c.yaml")


def test_references_are_found_at_any_depth_and_nowhere_else(idea):
    content = {"rows": {"a": {"optim.name": "idea.py:Mine"}, "b": {"grid": {"optim.name": ["lion", "idea.py:other"]}}}}
    content["note"] = "idea.py:Mine"
    found = resolve(content, fields=FIELDS, folder=idea.parent, where="x", allow_code=True, inside=True)
    assert isinstance(found["rows"]["a"]["optim.name"], Code)
    assert [str(value) for value in found["rows"]["b"]["grid"]["optim.name"]] == ["lion", f"{idea}:other"]
    assert found["note"] == "idea.py:Mine"
    for content in (None, 7, ["optim.name"], {3: {"optim.name": 4}}):
        assert resolve(content, fields=FIELDS, folder=idea.parent, where="x", allow_code=False, inside=True) == content


def test_a_study_names_code_relative_to_itself_and_needs_consent(tmp_path, monkeypatch):
    path, mark = marked(tmp_path / "ideas")
    (tmp_path / "studies").mkdir()
    study = tmp_path / "studies" / "mine.yaml"
    study.write_text(
        "recipe: digits\nrows:\n  plain: {}\n  mine: {optim.name: ../ideas/idea.py:Mine}\n"
        "  both: {grid: {model.block: [standard, ../ideas/idea.py:Mine]}, optim.lr: 1e-4}\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=f"mine.yaml would run user-defined code: optim.name is Mine in {path}.*--allow-code"
    ):
        load_study(study)
    rows = {row.name: row for row in load_study(study, allow_code=True).rows}
    assert list(rows) == ["plain", "mine", "both-block=standard", "both-block=Mine"]
    assert rows["mine"].config.optim.name == Code.read("idea.py:Mine", path.parent)
    assert not mark.exists()
