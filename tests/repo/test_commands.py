"""Every command and Python snippet of the documents is run, made small: few images, a tiny model, one pass, `--plan`."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pocketvit
from pocketvit.cli import COMMANDS, main
from pocketvit.config import override
from pocketvit.doctor import examine
from pocketvit.doctor.trial import Budget
from pocketvit.recipes import recipe
from pocketvit.studies import load_study
from tests.conftest import synthetic_images

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TINY_MODEL = ("--model.width", "32", "--model.depth", "1", "--model.num-heads", "2")
SHORT = ("--schedule.passes", "1", "--schedule.warmup-passes", "0", "--train.eval-every-passes", "1")
TINY = (*TINY_MODEL, *SHORT)
ELSEWHERE = {
    "pocketvit data get cifar10": "tests/unit/data/fetch",  # downloads
    "pocketvit export runs/digits-000 --format hf": "tests/unit/inference/test_hub.py",  # pushes
    "python -m benchmarks.ship": "tests/unit/inference/test_shipped.py",
    "pocketvit train digits --track": "tests/training/test_trackers.py",  # the trackers are not installed here
    "pocketvit study digits --track": "tests/training/test_trackers.py",
    "pocketvit demo": "tests/unit/test_demo.py",  # a server
    "torchrun": "tests/training/test_distributed.py",
    "ray": "tests/unit/studies/execution",
    "pocketvit study paper-table2 --engine ray": "tests/unit/studies/execution",
    "#!/bin/bash": "tests/repo/test_docs.py",  # the job for SLURM
    "sbatch docs/examples/study_array.sh": "tests/repo/test_study_array.py",
    "bash docs/examples/study_array.sh": "tests/repo/test_study_array.py",
    "source .venv/bin/activate": "Makefile",
    "export": "tests/training/test_distributed.py",
    "make": "Makefile",
    "pip install": "tests/repo/test_distribution.py",
}
"""What commands that are not run here begin with, and where they are run or defined instead."""
FOREIGN = {"README.md"}
"""Documents whose Python is run by tests of their own: `test_docs.py`."""


def blocks(document: Path) -> list[tuple[str, str]]:
    """The language and the code of what a document says to run, in its order."""
    found = re.findall(r"```(sh|python)\n(.*?)```", document.read_text(), re.DOTALL)
    return [each for each in found if each[0] == "sh" or document.name not in FOREIGN]


def spans(document: Path) -> list[str]:
    """The code within the text of a document."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL))


def commands(code: str) -> list[list[str]]:
    """The words of each command of a block that is run here, without comments."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith(tuple(ELSEWHERE)):
            found.append(shlex.split(line.replace("SEED", "0"), comments=True))
        if line.startswith("#!/bin/bash"):
            break  # the rest is the script
    return [words for words in found if words]


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with what the documents speak of: the examples, a folder of photos, a cat, and some finished runs."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(ROOT / "docs" / "examples", folder / "docs" / "examples")
    images = synthetic_images(60)
    labels = np.arange(60) % 10
    np.savez(folder / "cifar10.npz", x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])
    for n, image in enumerate(images[:24]):
        place = folder / "photos" / ("train" if n < 16 else "test") / ("cat", "dog")[n % 2] / f"{n}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    shutil.copytree(folder / "photos", folder / "pets")
    for name in ("cat.png", "boat.png"):
        Image.fromarray(images[0]).save(folder / name)
    Image.fromarray(images[1][:8, :8]).save(folder / "digit.png")
    here = Path.cwd()
    os.chdir(folder)
    try:
        pocketvit_ends_well(small(["train", "paper", "--out", "runs/paper-000"]))
        pocketvit_ends_well(small(["train", "digits", "--out", "runs/digits-000"]))
    finally:
        os.chdir(here)
    return folder


def small(words: list[str]) -> list[str]:
    """The arguments of a `pocketvit` command, made small."""
    if "--resume" in words and "--schedule.passes" in words:  # of a run of one pass
        place = words.index("--schedule.passes") + 1
        return [*words[:place], "2", *words[place + 1 :]]
    if words[0] == "train" and not {"--config", "--resume", "--help"} & set(words):
        own = (
            [] if "--data" in words else ["--data", "digits" if "digits" in words or len(words) == 1 else "cifar10.npz"]
        )
        tiny = SHORT if "cifar10" in words else TINY  # the model that comes with the package is what it is
        if "--schedule.time-budget" in words:  # which chooses the passes
            place = words.index("--schedule.time-budget") + 1
            words, tiny = [*words[:place], "2s", *words[place + 1 :]], TINY_MODEL
        return [*words, *own, "--batch-size", "16" if own != ["--data", "digits"] else "256", *tiny]
    if words[0] == "doctor":
        return [*words, *(["--data", "cifar10.npz"] if "paper" in words else []), "--batch-size", "16", *TINY]
    if words[0] == "study":
        return [*words, "--plan"]
    if words[0] == "bench":
        return [
            *words,
            "--batch-sizes",
            "1",
            "--repeats",
            "1",
            "--no-starts",
            "--model.depth",
            "1",
            "--model.width",
            "24",
        ]
    return words


def pocketvit_ends_well(arguments: list[str]) -> None:
    """Run `pocketvit` in this process."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0, arguments


def run(words: list[str]) -> None:
    """Run a command of a document, made small."""
    if words[0] == "pocketvit":
        pocketvit_ends_well(small(words[1:]))
        return
    assert words[0] == "python", words
    few = {"docs/examples/simulate_studies.py": ["--studies", "3"], "benchmarks.mixers": ["--batch", "1", "--mixers", "sparse"],
           "benchmarks.vit_pictures": ["."]}  # fmt: skip
    extra = next((more for name, more in few.items() if name in words), [])
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, *words[1:], *extra], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("document", [path for path in DOCUMENTS if blocks(path)], ids=lambda path: path.name)
def test_a_document_does_what_it_says(document, desk, tmp_path, monkeypatch, capsys):
    """Its commands and snippets in their order; `images` are of the size of the data set that it uses."""
    folder = tmp_path / "desk"
    shutil.copytree(desk, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(examine, "Budget", partial(Budget, seconds=2.0))
    short = {"schedule.passes": 1, "schedule.warmup_passes": 0, "model.depth": 1}
    monkeypatch.setattr(pocketvit, "recipe", lambda name: override(recipe(name), short))
    names = {"pocketvit": pocketvit, "images": synthetic_images(9, 8 if "digits" in document.read_text() else 32)}
    for language, code in blocks(document):
        if language == "sh":
            for words in commands(code):
                run(words)
        else:
            exec(compile(code.replace('"cifar10"', '"cifar10.npz"'), document.name, "exec"), names)
    assert "False" not in capsys.readouterr().out  # as a snippet would print that claims something


def test_what_is_run_elsewhere_exists():
    text = "".join(path.read_text() for path in DOCUMENTS)
    for begin, place in ELSEWHERE.items():
        assert begin in text and (ROOT / place).exists(), begin


def test_make_targets_of_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text()
    for path in DOCUMENTS:
        lines = [*spans(path), *(line for _, code in blocks(path) for line in code.splitlines())]
        for target in re.findall(r"^make ([a-z-]+)", "\n".join(lines), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{path.name}: make {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_within_the_text_are_known(document):
    """`pocketvit COMMAND …` between backquotes, in text and tables."""
    for words in (line.split()[1:] for line in spans(document) if line.startswith("pocketvit ")):
        assert words[0] in COMMANDS or " ".join(words[:2]) in COMMANDS or words[0].isupper(), words


def test_the_example_on_the_page_is_the_one_in_the_files():
    page = (ROOT / "docs" / "own-idea.md").read_text()
    shown = re.findall(r"```(?:python|yaml)\n(.*?)```", page, re.DOTALL)
    files = [(ROOT / "docs" / "examples" / name).read_text() for name in (
        "my_attention.py", "test_my_attention.py", "my_study.yaml")]  # fmt: skip
    assert shown[0] == files[0] and shown[2] == files[2]
    assert shown[1].startswith("def test_") and files[1].endswith(shown[1])


def test_the_study_files_on_the_pages_can_be_run(tmp_path):
    page = (ROOT / "docs" / "studies.md").read_text()
    found = []
    for n, text in enumerate(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)):
        (tmp_path / f"{n}.yaml").write_text(text)
        found.append({row.name: row for row in load_study(tmp_path / f"{n}.yaml").rows})
    assert found[1].keys() >= {"lr=0.001", "lr=0.002", "rank-k_rank=16-v_rank=16"}
    assert len(found[1]) == 10 and len(found[1]["deep"].seeds) == 5 and found[1]["deep-rope"].config.model.depth == 6


def test_the_simulation_on_the_page_is_what_the_script_prints(tmp_path):
    """The first rows of both, which need the same random numbers."""
    page = (ROOT / "docs" / "reading.md").read_text()
    both = r"```sh\n(python docs/examples/simulate_studies.py .*?)\n```\n\n```\n(.*?)```"
    command, shown = re.search(both, page, re.DOTALL).groups()
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:], "--seeds", "1"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == shown.splitlines()[:2]
