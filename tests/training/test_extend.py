"""Runs that are given more passes."""

import numpy as np
import pytest
from test_run import Heard, Interrupt, metrics, same_run, weights

from pocketvit.cli.train import parse_train
from pocketvit.config import load_config, override
from pocketvit.errors import InputError
from pocketvit.optim.schedule import lr_table
from pocketvit.runs.result import RunResult
from pocketvit.training import Stopped, train


@pytest.fixture(scope="module")
def tiny(small_in, tmp_path_factory):
    """A run of two passes of six steps, without what costs time; in a folder of its own."""

    def tiny(name, **values):
        base = override(small_in(tmp_path_factory.mktemp(name)), {"model.width": 16, "model.depth": 1})
        return override(base, {"schedule.passes": 2, "schedule.warmup_passes": 1} | values)

    return tiny


def more(config, passes):
    """What `--resume RUN --schedule.passes N` makes."""
    return parse_train(["--resume", str(config.out), "--schedule.passes", str(passes)])


@pytest.fixture(scope="module")
def finished(tiny):
    config = tiny("finished")
    return config, train(config)


@pytest.mark.parametrize(
    "kind", [{"schedule.name": "wsd", "schedule.decay_frac": 1 / 3}, {"schedule.name": "constant"}]
)
def test_before_a_decay_a_run_ends_as_if_it_had_had_the_passes_from_the_start(tiny, kind):
    plain, stopped = tiny("plain", **kind | {"schedule.passes": 4}), tiny("stopped", **kind | {"schedule.passes": 3})
    with pytest.raises(Stopped):
        train(stopped, Interrupt(8))
    heard, longer = Heard(), more(stopped, 4)
    assert longer.schedule.extended == (3, 2) and longer.schedule.passes == 4
    result = train(longer, heard)
    said = "4 passes instead of 3: from pass 3 on, the learning rate is that of a run of 4, as it was so far"
    assert said in heard.lines
    straight = train(plain)
    assert same_run(plain.out, stopped.out)
    assert result.images_seen == straight.images_seen and result.config_hash != straight.config_hash


def test_a_finished_run_follows_the_longer_schedule_from_where_it_is(finished, tiny):
    config, first = finished
    former = (config.out / "result.json").read_bytes()
    longer, heard = more(config, 3), Heard()
    with pytest.raises(Stopped):
        train(longer, Interrupt(3))
    assert not (config.out / "result.json").exists()
    assert (config.out / "result.json.2-passes").read_bytes() == former
    assert more(config, 3) == load_config_of(config) == longer, "the same command resumes"
    result = train(longer, heard)
    rates = [
        lr_table(c.schedule, peak=2e-3, steps_per_pass=6) for c in (config, override(config, {"schedule.passes": 3}))
    ]
    said = f"3 passes instead of 2: from pass 3 on, the learning rate is that of a run of 3, {rates[1][12]:.2g} after "
    assert said + f"{rates[0][11]:.2g}" in heard.lines
    assert [line["lr"] for line in metrics(config.out)] == [rates[0][5], rates[0][11], rates[1][17]]
    assert RunResult.read(result.file).config_hash == result.config_hash != first.config_hash
    assert result.images_seen == 3 * 96 and [point.images for point in result.curve] == [2 * 96, 3 * 96]

    again = tiny("again", **{"schedule.passes": 3, "schedule.extended": (2, 2)})
    assert train(again).config_hash == result.config_hash
    mine, other = weights(config.out), weights(again.out)
    assert all(np.array_equal(mine[name], other[name]) for name in other), "the configuration says all"
    with pytest.raises(InputError, match="contains a finished run; .*--schedule.passes 6"):
        train(more(config, 3))


def test_a_refused_extension_leaves_the_finished_run_as_it_is(tiny):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 2
    config = tiny("other-data", **{"model.patch_size": 4})
    train(config, data=(images, labels))
    before = {path: path.read_bytes() for path in config.out.iterdir() if path.is_file()}
    with pytest.raises(InputError, match="contains a run on other data"):
        train(more(config, 3), data=(255 - images, labels))
    assert {path: path.read_bytes() for path in config.out.iterdir() if path.is_file()} == before


def test_a_worker_lost_before_an_extension_begins_does_not_end_the_run(tiny, monkeypatch):
    config = tiny("restarted")
    first = train(config)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    result = train(more(config, 3))
    assert result.images_seen == 3 * 96 and first.images_seen == 2 * 96
    assert train(load_config_of(config)) == result, "a worker lost at the end does not"


def load_config_of(config):
    return override(load_config(config.out / "config.yaml"), {"out": config.out})


def test_what_cannot_go_on_is_refused(tiny):
    config = tiny("refused", **{"schedule.passes": 3, "train.checkpoint_every_passes": 0})
    config.out.mkdir()
    save(config)
    with pytest.raises(InputError, match="the run in .* has 3; give more"):
        more(config, 2)
    with pytest.raises(InputError, match="has no checkpoint to go on from; start it anew"):
        more(config, 4)
    with pytest.raises(InputError, match="--schedule.passes takes a whole number, not 'many'"):
        more(config, "many")
    with pytest.raises(InputError, match="takes no other flags, such as --seed"):
        parse_train(["--resume", str(config.out), "--schedule.passes", "4", "--seed", "1"])
    save(override(config, {"schedule.sides": (8,)}))
    with pytest.raises(InputError, match=r"schedule.sides=\(8,\) shrinks images in parts of the whole run"):
        more(config, 4)
    for what in ({"optim.ema_decay": 0.9, "optim.ema_start": 0.5}, {"objective.name": "dino"}):
        save(override(config, what))
        with pytest.raises(InputError, match=f"{list(what)[-1]}=.* the whole run: no more passes"):
            more(config, 4)
    for pairs in ((3,), (3, 2, 2, 2), (5, 2), (2, 3), (0, 0)):
        with pytest.raises(InputError, match="schedule.extended=.* must be pairs"):
            override(config, {"schedule.extended": pairs})


def save(config):
    from pocketvit.config import save_config

    save_config(config, config.out / "config.yaml")


def test_a_run_can_be_given_more_passes_twice(tiny):
    schedule = tiny("twice", **{"schedule.passes": 4, "schedule.extended": (2, 1, 3, 3)}).schedule
    table = lr_table(schedule, peak=1.0, steps_per_pass=6)
    parts = [
        lr_table(override(tiny("x"), {"schedule.passes": n}).schedule, peak=1.0, steps_per_pass=6) for n in (2, 3, 4)
    ]
    wanted = np.concatenate([parts[0][:6], parts[1][6:18], parts[2][18:]])
    assert np.array_equal(table, wanted)
