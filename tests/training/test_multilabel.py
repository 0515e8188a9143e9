"""A run on images that may have several classes, from labels.csv to every place that tells of it."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from predictions import predict_files
from sklearn.metrics import average_precision_score
from test_run import Interrupt, metrics, same_run

from pocketvit.cli.many_runs import runs_command
from pocketvit.cli.runs import eval_command, predict_command
from pocketvit.cli.train import result_text
from pocketvit.config import TrainConfig, override
from pocketvit.errors import InputError
from pocketvit.inference.evaluate import evaluate, evaluate_run
from pocketvit.inference.explain import explain_each
from pocketvit.inference.trained_model import load_model
from pocketvit.report.comparison import compare
from pocketvit.report.page import write_report
from pocketvit.runs.result import RunResult
from pocketvit.studies import parse_study
from pocketvit.training import Stopped, train
from pocketvit.training.finish import held_out
from pocketvit.training.patience import Patience

NAMES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Images of 16 × 16 pixels in which each color is there or not, with a table of 0 and 1: 96 to train on, 32 to test on."""
    folder, rng = tmp_path_factory.mktemp("several"), np.random.default_rng(0)
    has = rng.random((128, 3)) < 0.45
    pixels = rng.integers(0, 200, (128, 16, 16, 3)) + 8 * has[:, None, None, :]
    rows = ["file,red,green,blue,split"]
    for i, image in enumerate(pixels.astype(np.uint8)):
        Image.fromarray(image).save(folder / f"p{i}.png")
        rows.append(f"p{i}.png,{','.join(map(str, has[i].astype(int)))},{'train' if i < 96 else 'test'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def config(several, small_in, tmp_path_factory):
    values = {
        "data.source": str(several),
        "objective.name": "multilabel",
        "schedule.passes": 6,
        "train.flip_average": True,
    }
    values |= {"optim.lr": 5e-3, "model.pool": "mean", "augment.policy": "none", "data.val_frac": 0.1}
    return override(small_in(tmp_path_factory.mktemp("multilabel")), values)


@pytest.fixture(scope="module")
def result(config):
    return train(config)


def predictions(result):
    with np.load(result.run_folder / "predictions.npz") as held:
        return held["logits"], held["labels"]


def test_the_result_has_average_precision_as_scikit_learn_measures_it(result):
    logits, labels = predictions(result)
    wanted = average_precision_score(labels, logits, average=None)
    assert labels.shape == (32, 3) and set(np.unique(labels)) == {0, 1}
    assert [*result.class_precisions] == [*NAMES]
    np.testing.assert_allclose([*result.class_precisions.values()], wanted, rtol=1e-9)
    assert result.test_map == pytest.approx(wanted.mean()) and 1 > result.test_map > labels.mean() + 0.2
    assert result.test_accuracy == ((logits >= 0) == labels).all(axis=1).mean()
    assert result.balanced_accuracy is None and result.test_accuracy_tta is not None
    assert RunResult.read(result.file) == result
    held = json.loads(result.file.read_text())
    assert held["val_map"] == held["curve"][-1]["map"] and held["curve"][-1]["split"] == "val"
    assert "test mAP" in result_text(result) and "exactly their classes" in result_text(result)
    last = json.loads((result.run_folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_map"] == result.val_map and "train_accuracy" not in last


def test_a_stopped_run_resumes_bit_for_bit(config, result, tmp_path):
    stopped = override(config, {"out": tmp_path / "stopped"})
    with pytest.raises(Stopped):
        train(stopped, Interrupt(7))
    train(stopped)
    assert same_run(result.run_folder, stopped.out)


def test_patience_looks_at_average_precision(config, tmp_path, monkeypatch):
    monkeypatch.setattr("pocketvit.report.page.write_report", lambda *_: None)
    values = {"optim.lr": 2e-3, "data.val_frac": 0.3, "train.eval_every_passes": 1, "train.patience": 5}
    patient = override(config, values | {"out": tmp_path / "patient", "train.flip_average": False})
    result, lines = train(patient), metrics(patient.out)
    maps, exact = ([line[f"val_{score}"] for line in lines] for score in ("map", "accuracy"))
    best = int(np.argmax(maps))
    assert result.best_pass == best + 1 and (result.val_map, result.val_accuracy) == (maps[best], exact[best])
    assert exact[best] < max(exact), "exactly the right classes are found less often then"


def test_the_kept_scores_are_told_though_their_line_is_lost():
    lines = [{"pass": 1, "val_accuracy": 0.3, "val_map": 0.6}, {"pass": 3, "val_map": 0.7}]
    best = Patience(TrainConfig())
    assert held_out(best, lines, multilabel=True) == {"val_accuracy": None, "val_map": 0.7}
    best.pass_index, best.score = 2, 0.8
    assert held_out(best, lines, multilabel=True) == {"val_accuracy": None, "val_map": 0.8}
    assert held_out(best, lines, multilabel=False) == {"val_accuracy": 0.8, "val_map": None}
    best.pass_index, best.score = 1, 0.6
    assert held_out(best, lines, multilabel=True) == {"val_accuracy": 0.3, "val_map": 0.6}


def test_probabilities_are_of_each_class_alone(result, several, capsys):
    logits, labels = predictions(result)
    trained = load_model(result.run_folder)
    assert trained.multilabel
    answer = predict_files(result.run_folder, [several / "p100.png"], device="cpu")[0]
    wanted = 1 / (1 + np.exp(-logits[4].astype(float)))
    np.testing.assert_allclose([*answer["probabilities"].values()], wanted, atol=1e-5)
    assert answer["classes"] == [name for name, share in zip(NAMES, wanted, strict=True) if share >= 0.5]
    explained = next(explain_each(result.run_folder, [several / "p100.png"], device="cpu"))
    np.testing.assert_allclose([*explained["probabilities"].values()], wanted, atol=1e-4)
    capsys.readouterr()
    predict_command([str(several / "p100.png"), "--run", str(result.run_folder), "--csv", "--device", "cpu"])
    head, line = csv.reader(io.StringIO(capsys.readouterr().out))
    assert head == ["file", "prediction", "p(red)", "p(green)", "p(blue)"] and line[1] == "|".join(answer["classes"])
    eval_command([str(result.run_folder), "--csv", "--device", "cpu"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    told = ["|".join(name for name, one in zip(NAMES, row, strict=True) if one) for row in labels]
    assert [row["label"] for row in rows] == told and rows[4]["prediction"] == line[1]


def test_eval_and_runs_tell_map(result, capsys):
    scores = evaluate_run(result.run_folder, device="cpu")
    assert (scores["map"], scores["per_class"]) == (
        pytest.approx(result.test_map),
        pytest.approx(result.class_precisions),
    )
    eval_command([str(result.run_folder), "--device", "cpu"])
    told = capsys.readouterr().out
    assert (f"\ntest mAP {result.test_map:.2%}, the mean over classes" in told) and "\n  red " in told
    runs_command([str(result.run_folder)])
    assert "test mAP" in capsys.readouterr().out


def test_the_report_tells_precision_by_class_and_no_confusions(result):
    page = write_report(result.run_folder).read_text()
    assert "test mAP after the last step" in page and "Average precision by class" in page
    assert "mAP by images seen" in page and "binary cross-entropy" in page and "Validation mAP" in page
    assert 'id="confusions"' not in page and 'id="calibration"' not in page and "Wilson" not in page
    assert "there is no confusion matrix" in page.replace("\n    ", " ")
    assert "With label smoothing 0.1, even a perfect model has a training loss of 0.199" in page


def test_attention_is_shown_on_images_with_all_classes_right_and_on_others(result):
    logits, labels = predictions(result)
    hits = ((logits >= 0) == labels).all(axis=1)
    with np.load(result.run_folder / "figures.npz") as held:
        rows = held["attention_rows"]
    right, wrong = rows[hits[rows]], rows[~hits[rows]]
    assert len(right) == len(set(labels[right].argmax(axis=1))) > 0 and labels[right].any(axis=1).all()
    assert len(wrong) == min(6, int((~hits).sum())) and rows.tolist() == [*right, *wrong]
    page = write_report(result.run_folder).read_text()
    assert page.count('<div class="look wrong') == len(wrong) and page.count('<div class="look') == 2 + len(rows)
    shown = page.partition('id="attention"')[2].partition("</section>")[0]
    assert all(" + ".join(np.array(NAMES)[labels[row] == 1]) in shown for row in rows)


def test_studies_compare_by_map(config):
    rows = {"a": {}, "b": {"optim.lr": 1e-3}}
    base = {"objective.name": "multilabel"}
    study = parse_study({"recipe": "paper", "base": base, "rows": rows}, "several")
    assert study.measure == "test_map"
    held = parse_study({"recipe": "paper", "base": base | {"data.val_frac": 0.1}, "rows": rows}, "several")
    assert held.measure == "val_map"


def test_what_needs_one_class_an_image_is_refused_by_name(small, config, result, synthetic_set, several):
    with pytest.raises(InputError, match="images of .* may have several classes; set objective.name=multilabel"):
        train(override(config, {"objective.name": "classification", "out": small.out}))
    with pytest.raises(InputError, match="objective.name=multilabel needs images with several classes, and each of"):
        train(override(small, {"objective.name": "multilabel"}))
    with pytest.raises(InputError, match="objective.teacher=.* was trained on several classes an image"):
        train(override(small, {"objective.teacher": str(result.run_folder)}))
    one_class = "an image of data has one class, but the model was trained on images with several"
    with np.load(synthetic_set) as arrays, pytest.raises(InputError, match=one_class):
        evaluate(load_model(result.run_folder), dict(arrays))
    with pytest.raises(InputError, match="may have several classes, and only runs with one can be compared"):
        compare([result.run_folder, shutil.copytree(result.run_folder, small.out.parent / "copy")])
