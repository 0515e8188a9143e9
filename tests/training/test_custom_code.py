"""A run with the user's own code, from the example of the docs to the trained model."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from predictions import predict_files
from safetensors.torch import load_file
from worker_processes import together

from pocketvit.cli import main, parse_train
from pocketvit.config import flatten, load_config, override
from pocketvit.errors import InputError
from pocketvit.inference.evaluate import evaluate_run
from pocketvit.inference.trained_model import load_model
from pocketvit.recipes import recipe
from pocketvit.report.page import write_report
from pocketvit.studies import load_study
from pocketvit.training import Stopped, train
from pocketvit.training.progress import SilentReporter

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "my_attention.py"
PARTS = DOCS / "examples" / "my_parts.py"
OTHERS = {"optim.name": "SignSGD", "augment.policy": "dim", "schedule.name": "square"}


class Listener(SilentReporter):
    """Hears what a run says, and asks it to stop before a step."""

    def __init__(self, stop_before=None):
        self.lines, self.left = [], stop_before

    def note(self, line):
        self.lines.append(line)

    def advance(self, steps):
        if self.left is not None:
            self.left -= steps
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def mine(small, tmp_path):
    """A run with every part but the block the user's own, from copies of the examples."""
    for path in (EXAMPLE, PARTS):
        shutil.copy(path, tmp_path)
    fields = {name: f"{tmp_path / PARTS.name}:{value}" for name, value in OTHERS.items()}
    fields |= {"model.attention": f"{tmp_path / EXAMPLE.name}:MyAttention", "schedule.passes": 3}
    return override(small, fields)


def origin_of(file, folder):
    """Where a run folder says that its copy of a file came from."""
    return json.loads((folder / "env.json").read_text())["code"][file.name]


def run(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return left.value.code or 0, printed.out, printed.err


def test_the_example_trains_and_is_used_only_with_consent(mine, tmp_path, capsys):
    result = train(mine, SilentReporter())
    folder = mine.out
    assert sorted(path.name for path in (folder / "code").iterdir()) == [EXAMPLE.name, PARTS.name]
    assert (folder / "code" / EXAMPLE.name).read_bytes() == EXAMPLE.read_bytes()
    assert "blocks.0.attn.temperature" in load_file(folder / "model.safetensors")
    assert load_config(folder / "config.yaml", allow_code=True) == mine

    refusal = rf"would run user-defined code: .*MyAttention in {folder}/code/{EXAMPLE.name}.*--allow-code"
    image = tmp_path / "grey.png"
    Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(image)
    for use in (
        lambda **consent: load_model(folder, **consent),
        lambda **consent: load_model(folder / "model.safetensors", **consent),
        lambda **consent: evaluate_run(folder, device="cpu", **consent),
        lambda **consent: predict_files(folder, [image], device="cpu", **consent),
        lambda **consent: load_config(folder / "config.yaml", **consent),
    ):
        with pytest.raises(InputError, match=refusal):
            use()
        use(allow_code=True)
    assert evaluate_run(folder, device="cpu", allow_code=True)["accuracy"] == result.test_accuracy

    for command in (["eval", folder], ["predict", image, "--run", folder]):
        code, out, err = run([*command, "--device", "cpu"], capsys)
        assert (code, out) == (2, "") and re.search(refusal, err) and err.count("\n") == 1
        code, out, _ = run([*command, "--device", "cpu", "--allow-code"], capsys)
        assert code == 0 and out
    (folder / "report.html").unlink()
    assert run(["report", folder], capsys)[0] == 0, "a report runs no code"
    page = write_report(folder).read_text()
    assert "code/my_attention.py:MyAttention@" in page
    assert "There are no attention maps: " in page and "mixes tokens in its own way" in page


def test_nothing_of_a_strangers_run_folder_runs_before_consent(mine, tmp_path, capsys):
    train(mine)
    mark = tmp_path / "it-ran"
    for path in (mine.out / "code").iterdir():
        path.write_text(f"open({str(mark)!r}, 'w').close()\n" + path.read_text())
    config = mine.out / "config.yaml"
    for arguments in (["eval", mine.out], ["train", "--config", config], ["train", "--resume", mine.out]):
        assert run(arguments, capsys)[0] == 2
        code, _, err = run([*arguments, "--allow-code"], capsys)
        assert code == 2 and "has changed: its SHA-256 begins with" in err
    assert not mark.exists()


def test_bare_weights_need_their_code_beside_them(mine, tmp_path):
    train(mine)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(mine.out / "model.safetensors", alone)
    with pytest.raises(InputError, match=f"cannot read {alone}/code/my_attention.py: No such file"):
        load_model(alone / "model.safetensors", allow_code=True)
    shutil.copytree(mine.out / "code", alone / "code")
    images = np.zeros((2, 16, 16, 3), np.uint8)
    ours = load_model(alone / "model.safetensors", allow_code=True).logits(images)
    assert torch.equal(ours, load_model(mine.out, allow_code=True).logits(images))


def test_only_code_that_would_run_needs_consent(small):
    """An own optimizer has done its work when the model is used."""
    config = override(small, {"optim.name": f"{PARTS}:SignSGD", "schedule.passes": 2})
    result = train(config)
    assert evaluate_run(config.out, device="cpu")["accuracy"] == result.test_accuracy
    with pytest.raises(InputError, match="optim.name is SignSGD"):
        load_config(config.out / "config.yaml")


@pytest.mark.parametrize("original", ["kept", "changed", "gone"])
def test_a_resumed_run_uses_the_copy_whatever_became_of_the_original(mine, tmp_path, original):
    with pytest.raises(Stopped, match=f"--resume {mine.out} --allow-code"):
        train(mine, Listener(stop_before=8))
    file = tmp_path / "my_attention.py"
    assert origin_of(file, mine.out) == str(file)
    if original == "gone":
        file.unlink()
    elif original == "changed":
        file.write_text(file.read_text() + "# another idea\n")
        with pytest.raises(InputError, match=f"run with other code; resume with its copy by --resume {mine.out}"):
            train(override(mine, {"model.attention": f"{file}:MyAttention"}))
    config = parse_train(["--resume", str(mine.out), "--allow-code"])
    assert config.model.attention.path == mine.out / "code" / "my_attention.py"
    reporter = Listener()
    train(config, reporter)
    said = [line for line in reporter.lines if line.startswith("model.attention is MyAttention in")]
    words = {"kept": "my_attention.py", "changed": "has changed since", "gone": "no longer exists"}
    assert len(said) == 1 and said[0].endswith(words[original])
    straight = override(mine, {"out": tmp_path / "straight", "model.attention": config.model.attention})
    train(straight)
    ours, theirs = load_file(config.out / "model.safetensors"), load_file(straight.out / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert origin_of(file, mine.out) == str(file)


def test_a_run_folder_that_got_no_further_than_its_code_is_begun_again(mine):
    (mine.out / "code").mkdir(parents=True)
    shutil.copy(EXAMPLE, mine.out / "code")
    assert train(mine).images_seen == 3 * 96


def test_a_run_begun_before_code_was_recorded_goes_on(mine):
    with pytest.raises(Stopped):
        train(mine, Listener(stop_before=3))
    (mine.out / "env.json").write_text("{}")
    assert train(mine).images_seen == 3 * 96


def test_a_loss_that_never_was_finite_points_at_the_models_own_code(mine, tmp_path):
    file = tmp_path / EXAMPLE.name
    file.write_text(file.read_text().replace("return self.proj(", "return torch.nan * self.proj("))
    config = override(mine, {"model.attention": f"{file}:MyAttention"})
    with pytest.raises(InputError, match=f"not finite at step 0, before any update; look at {file}:MyAttention$"):
        train(config)


def test_several_processes_run_the_same_code(mine, tmp_path):
    alone = train(mine)
    shared = override(mine, {"out": tmp_path / "shared"})
    results = together(2, tmp_path, train, shared)
    assert results[0] == results[1] and results[0].config_hash == alone.config_hash
    ours, theirs = load_file(mine.out / "model.safetensors"), load_file(shared.out / "model.safetensors")
    torch.testing.assert_close(ours["head.weight"], theirs["head.weight"], rtol=1e-2, atol=1e-2)


def test_the_command_line_takes_code_as_consent(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, tmp_path)
    given = ["--schedule.passes", "2", "--schedule.warmup-passes", "1", "--train.device", "cpu"]
    code, out, err = run(["train", "digits", *given, "--model.attention", "my_attention.py:MyAttention"], capsys)
    assert code == 0, err
    assert "model.attention is MyAttention in" in out
    saved = Path("runs/digits-000/config.yaml")
    code, _, err = run(["train", "--config", saved, "--seed", "1"], capsys)
    assert code == 2 and f"{saved} would run user-defined code" in err
    code, _, err = run(["train", "--config", saved, "--seed", "1", "--allow-code"], capsys)
    assert code == 0, err
    hashes = [json.loads(Path(f"runs/digits-00{n}/result.json").read_text())["config_hash"] for n in (0, 1)]
    assert hashes[0] == hashes[1]
    code, _, err = run(["train", "--model.attention", "my_attention.py:MyAtention"], capsys)
    assert code == 2 and "has no class or function MyAtention; it has MyAttention" in err


@pytest.fixture
def idea(small, tmp_path, monkeypatch):
    """A file of own code, which study.yaml in the current folder has in its only row."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ideas").mkdir()
    file = Path(shutil.copy(EXAMPLE, tmp_path / "ideas"))
    paper = flatten(recipe("paper")) | {"out": small.out}
    changed = {name: value for name, value in flatten(small).items() if value != paper[name]}
    changed["data.cache_dir"] = str(small.data.cache_dir)
    rows = {"mine": {"model.attention": "ideas/my_attention.py:MyAttention"}}
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump({"recipe": "paper", "base": changed | {"schedule.passes": 2}, "rows": rows})
    )
    return file


def test_a_study_has_it_as_a_row(idea, tmp_path, capsys):
    code, _, err = run(["study", "study.yaml"], capsys)
    assert code == 2 and "study study.yaml would run user-defined code" in err and not (tmp_path / "runs").exists()
    code, out, err = run(["study", "study.yaml", "--allow-code"], capsys)
    assert code == 0, out + err
    (folder,) = Path("runs/study").glob("*-s0")
    assert (folder / "code" / "my_attention.py").read_bytes() == EXAMPLE.read_bytes()
    assert "blocks.0.attn.temperature" in load_file(folder / "model.safetensors")
    shutil.rmtree("runs/study/cells")
    assert f"--model.attention {idea}:MyAttention " in json.loads((folder / "result.json").read_text())["command"]
    assert origin_of(idea, folder) == str(idea)
    idea.write_text(idea.read_text() + "# the same idea\n")
    _, out, _ = run(["study", "study.yaml", "--allow-code"], capsys)
    assert out.startswith(
        "my_attention.py has changed since 1 finished run in runs/study; the run is kept but no longer cou"
    )


def test_a_study_says_in_which_line_of_it_a_run_failed(idea, capsys):
    """Not in the trials before the run, which refuse it in their own way, but in the midst of training."""
    lines = idea.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if "def forward" in line) + 1
    lines[start:start] = ["        if self.training and len(x) > 4:", "            raise RuntimeError('boom late')"]
    idea.write_text("\n".join(lines) + "\n")
    code, out, _ = run(["study", "study.yaml", "--allow-code"], capsys)
    (log,) = Path("runs/study/cells").glob("*-s0/log.txt")
    place = f"({idea}, line {start + 2})"
    assert code == 1 and f"\nmine seed 0 failed: RuntimeError: boom late {place}; its log: {log}\n" in out
    said = log.read_text()
    assert "Traceback" in said and f'File "{idea}", line {start + 2}, in forward' in said
    assert f'(<a href="cells/{log.parent.name}/log.txt">log</a>)' in Path("runs/study/study.html").read_text()


def test_the_tutorial_shows_the_example_as_it_is():
    text = (DOCS / "own-idea.md").read_text()
    assert EXAMPLE.read_text() in text
    assert (DOCS / "examples" / "my_study.yaml").read_text() in text
    assert load_study(DOCS / "examples" / "my_study.yaml", allow_code=True).compare == {"mine": "plain"}
    assert len(EXAMPLE.read_text().splitlines()) <= 30
    for name in re.findall(r"^(?:class|def) (\w+)", PARTS.read_text(), re.MULTILINE):
        assert f"my_parts.py:{name}" in text
