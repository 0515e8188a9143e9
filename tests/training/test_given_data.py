"""A run on images that were given from Python."""

import json
import random

import numpy as np
import pytest
import torch
from test_run import Interrupt, same_run

import pocketvit
from pocketvit.cli import main
from pocketvit.cli.runs import eval_command
from pocketvit.cli.train import result_text
from pocketvit.config import load_config, override
from pocketvit.errors import InputError
from pocketvit.inference.evaluate import evaluate_run
from pocketvit.inference.trained_model import load_model
from pocketvit.runs.balance import TRY
from pocketvit.runs.result import RunResult
from pocketvit.training import Stopped, train


@pytest.fixture
def given(synthetic_set):
    with np.load(synthetic_set) as arrays:
        return dict(arrays)


def test_it_is_the_run_on_the_same_images_in_a_file(small, given, tmp_path):
    train(small)
    result = train(override(small, {"out": tmp_path / "given"}), data=given)
    assert same_run(small.out, tmp_path / "given")
    for key in ("config_hash", "data_fingerprint", "train_fingerprint"):
        assert getattr(result, key) == json.loads((small.out / "result.json").read_text())[key]
    said = [json.loads((tmp_path / "given" / name).read_text())["data_source"] for name in ("env.json", "result.json")]
    assert said == ["memory"] * 2
    assert load_config(tmp_path / "given" / "config.yaml").data.source == "memory"
    page = (tmp_path / "given" / "report.html").read_text()
    assert "memory" in page and "paper on memory" not in page


def test_it_is_split_and_resized_as_files_are(small, given):
    values = {"data.val_frac": 0.25, "data.test_frac": 0.5, "data.resize": 8, "schedule.passes": 2}
    result = train(override(small, values), data=(given["train_images"], given["train_labels"]))
    assert result.val_accuracy is not None
    trained = load_model(small.out)
    assert trained.model.image_size == (8, 8) and trained.class_names == ("0", "1", "2")
    with np.load(small.out / "predictions.npz") as predictions:
        assert len(predictions["labels"]) == 48


def test_what_it_needs_to_go_on_and_to_be_measured_is_said_in_one_line(small, given, capsys, synthetic_set):
    with pytest.raises(Stopped):
        train(small, Interrupt(10), data=given)
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--resume", str(small.out)])
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].endswith(
        "data.source=memory: these images came from Python; give them again with pocketvit.train(config, data=...), "
        "with the same `out` to resume, or pocketvit.evaluate(trained, data); or name a source with --data"
    )
    with pytest.raises(InputError, match="contains a run on other data than data.source=memory has now"):
        train(small, data=given | {"test_images": given["test_images"] // 2})
    train(small, data=given)
    with pytest.raises(InputError, match="^data.source=memory: these images came from Python"):
        evaluate_run(small.out, device="cpu")
    accuracy = evaluate_run(small.out, source=str(synthetic_set), device="cpu")["accuracy"]
    assert pocketvit.evaluate(load_model(small.out), given)["accuracy"] == accuracy


def test_it_is_measured_on_whatever_is_given(small, given):
    train(override(small, {"schedule.passes": 2}), data=given)
    trained = load_model(small.out)
    images, labels = given["test_images"], given["test_labels"]
    whole = pocketvit.evaluate(trained, given)
    assert whole["images"] == 30 and list(whole["per_class"]) == ["red", "green", "blue"]
    assert pocketvit.evaluate(trained, (images, labels)) == whole
    assert pocketvit.evaluate(trained, list(zip(images, labels))) == whole
    assert pocketvit.evaluate(trained, (torch.from_numpy(images).permute(0, 3, 1, 2), labels.tolist())) == whole
    red = pocketvit.evaluate(trained, (images[labels == 0], np.array(["red"] * 10)))
    assert red["per_class"] == {"red": whole["per_class"]["red"]}
    with pytest.raises(InputError, match=r"^data has images of 8 × 8 pixels, but the model takes 16 × 16 pixels"):
        pocketvit.evaluate(trained, (images[:, :8, :8], labels))
    with pytest.raises(InputError, match=r"^data has 2 classes, but the model was trained on 3"):
        pocketvit.evaluate(
            trained,
            given
            | {"class_names": ["red", "green"], "train_labels": given["train_labels"] % 2, "test_labels": labels % 2},
        )


def test_a_format_of_files_and_nothing_to_train_on_are_refused(small, given, synthetic_set):
    with pytest.raises(
        InputError, match="^data.format=npz: only files have a format; leave it out for images in memory"
    ):
        train(override(small, {"data.format": "npz"}), data=given)
    images, labels = given["test_images"], given["test_labels"]
    with pytest.raises(InputError, match="batch_size=16"):
        train(
            small, data=pocketvit.load_dataset(_saved(small, images, labels), test_frac=1, cache_dir=small.out.parent)
        )
    assert not small.out.exists()


def _saved(small, images, labels):
    small.out.parent.mkdir(exist_ok=True)
    np.savez(small.out.parent / "unsplit.npz", images=images, labels=labels)
    return small.out.parent / "unsplit.npz"


def test_a_run_leaves_the_global_generators_alone(small):
    def draws():
        return [random.random(), float(np.random.random()), float(torch.rand(()))]

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    expected = [draws(), draws()]
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    found = [draws()]
    train(override(small, {"schedule.passes": 2}))
    found.append(draws())
    with pytest.raises(InputError):
        train(override(small, {"out": small.out.parent / "other", "data.source": "nowhere"}))
    assert found == expected


def test_a_constant_predictor_is_not_celebrated(small, tmp_path, capsys):
    """Noise in three classes, one of which has most of the images."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, counts in (("train", (84, 6, 6)), ("test", (26, 2, 2))):
        arrays[f"{split}_labels"] = np.repeat(np.arange(3), counts)
        arrays[f"{split}_images"] = rng.integers(0, 256, (sum(counts), 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "uneven.npz", **arrays, class_names=np.array(["red", "green", "blue"]))
    result = train(override(small, {"data.source": str(tmp_path / "uneven.npz")}))
    assert (result.test_accuracy, result.balanced_accuracy, result.majority_share) == (26 / 30, 1 / 3, 26 / 30)
    assert result.classes_at_zero == ("green", "blue") and RunResult.read(result.file) == result
    balanced = "balanced accuracy 33.33% (mean over classes; the largest class has 86.67% of the test images)"
    zero = f"CAUTION: no test image of these classes is classified correctly (0 %): green, blue{TRY}"
    assert result_text(result).splitlines()[1:3] == [balanced, zero]
    capsys.readouterr()
    eval_command([str(small.out), "--device", "cpu"])
    assert f"\n{balanced}\n{zero}\n  red" in capsys.readouterr().out
    page = (small.out / "report.html").read_text()
    assert all(f'<p class="warning">{line}.</p>' in page for line in (balanced, zero))
