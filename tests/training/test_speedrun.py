"""The timed training of benchmarks/speedrun.py is the training of `pocketvit train`."""

import dataclasses

import torch

import pocketvit
from benchmarks.speedrun import WarmRecipe
from pocketvit.config import override
from pocketvit.data import open_splits


def test_every_seed_trains_as_a_run_of_its_own(small_in, tmp_path):
    config = override(
        small_in(tmp_path),
        {
            "schedule.passes": 2,
            "optim.ema_decay": 0.9,
            "optim.ema_start": 0.5,
            "model.patch_init": "whitening",
            "data.repeats": "batch",
            "seed": 4,
        },
    )
    result = pocketvit.train(config, pocketvit.SilentReporter())
    warm = WarmRecipe(dataclasses.replace(config, seed=0), open_splits(config.data), torch.device("cpu"))
    assert warm.train(seed=1) > 0
    assert warm.train(seed=4) > 0
    trained = pocketvit.load_model(result.run_folder).model.state_dict()
    for name, tensor in warm.trainer.averaged().state_dict().items():
        assert torch.equal(tensor, trained[name]), name
    assert warm.accuracy() == result.test_accuracy
