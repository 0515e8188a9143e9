"""RandAugment and TrivialAugment: frequencies and arguments."""

import runpy

import numpy as np
from scipy import stats

from pocketvit.augment import autoaugment
from pocketvit.augment import randaugment as module
from pocketvit.augment.autoaugment import OPS, arguments
from pocketvit.augment.randaugment import SPACE, randaugment, trivialaugment
from pocketvit.randomness import uniform

SIZE = (32, 32)


def counts(codes):
    return [int((codes == OPS.index(op)).sum()) for op in SPACE]


def test_the_space_is_the_fourteen_of_the_papers():
    assert len(SPACE) == 14 and "identity" in SPACE and "invert" not in SPACE


def test_a_new_operation_changes_no_table_of_today(monkeypatch):
    """Results of today keep their configuration's hash, so they must keep its meaning."""
    draws = uniform(0, 1, 0, 1000, 6)

    def tables(ra: dict) -> list[np.ndarray]:
        made = [ra["randaugment"](draws, level=7, image_size=SIZE), ra["trivialaugment"](draws[:, :3], image_size=SIZE)]
        made += [autoaugment.resolve(policy, draws[:, :5], image_size=SIZE) for policy in autoaugment.POLICIES]
        return [array for table in made for array in (table.op, table.value)]

    today = tables(vars(module))
    monkeypatch.setattr(autoaugment, "OPS", (*OPS, "made_up"))
    later = tables(runpy.run_path(module.__file__))
    assert all((a == b).all() for a, b in zip(today, later, strict=True))


def test_randaugment_draws_each_operation_equally_at_one_level():
    table = randaugment(uniform(0, 1, 0, 50_000, 6), level=7, image_size=SIZE)
    assert table.op.shape == (50_000, 3)
    assert stats.chisquare(counts(table.op)).pvalue > 1e-4
    degrees = table.value[table.op == OPS.index("rotate")]
    assert set(degrees.round(6)) == {round(s * 30 * 7 / 9, 6) for s in (-1, 1)}
    shear = table.value[table.op == OPS.index("shear_x")]
    assert set(shear) == set(arguments("shear_x", SIZE)[:, 7])


def test_trivialaugment_draws_operation_level_and_sign_apart():
    table = trivialaugment(uniform(0, 1, 0, 200_000, 3), image_size=SIZE)
    assert table.op.shape == (200_000, 1)
    assert stats.chisquare(counts(table.op)).pvalue > 1e-4
    values, seen = np.unique(table.value[table.op == OPS.index("posterize")], return_counts=True)
    assert values.tolist() == [4, 5, 6, 7, 8]
    levels = np.linspace(8, 4, 10).round()
    assert stats.chisquare(seen, [sum(levels == v) / 10 * seen.sum() for v in values]).pvalue > 1e-4
    assert abs((table.value[table.op == OPS.index("rotate")] < 0).mean() - 0.45) < 0.02  # level 0 has no sign


def test_skipped_operations_leave_the_image():
    table = randaugment(uniform(0, 1, 0, 1000, 4), level=5, image_size=SIZE, skip=("rotate", "shear_x"))
    assert not np.isin(table.op, [OPS.index("rotate"), OPS.index("shear_x")]).any()


def test_rotation_both_ways_equals_pillows(real_images):
    import torch
    from PIL import Image

    from pocketvit.augment.pillow_ops import OPERATIONS

    images = torch.from_numpy(real_images[:20])
    for degrees in (-30.0, -10.0, -3.3333, 20.0):
        got = OPERATIONS["rotate"](images, torch.full((20,), degrees, dtype=torch.float64)).numpy()
        for image, mine in zip(real_images, got, strict=False):
            want = Image.fromarray(image).rotate(degrees, fillcolor=(128, 128, 128))
            assert (np.asarray(want) == mine).all()
