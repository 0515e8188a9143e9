"""CutMix and MixUp: frequencies, boxes, and equality with the plain formulas."""

import numpy as np
import torch
from scipy import stats

from pocketvit.augment.mix import beta_quantile, draw_mix, mix, smooth_targets
from pocketvit.config import AugmentConfig


def drawn(steps=20_000, size=(32, 32), **config):
    return draw_mix(AugmentConfig(**config), seed=3, pass_index=1, steps=steps, image_size=size)


def kinds(table):
    plain = (table[:, 0] == 1) & (table[:, 1] == 1)
    cutmix = (table[:, 0] == 0) & (table[:, 1] == 1)
    return plain, cutmix, ~plain & ~cutmix


def test_half_plain_a_quarter_each():
    plain, cutmix, mixup = kinds(drawn())
    np.testing.assert_allclose([plain.mean(), cutmix.mean(), mixup.mean()], [0.5, 0.25, 0.25], atol=0.01)


def test_leaving_one_out_does_not_touch_the_other():
    """So that "-mixup" can be run as 25 % CutMix (the other left alone) or 50 % (cutmix_prob=0.5)."""
    _, cutmix, mixup = kinds(drawn(mixup_prob=0.0))
    assert not mixup.any() and abs(cutmix.mean() - 0.25) < 0.01
    _, cutmix, _ = kinds(drawn(mixup_prob=0.0, cutmix_prob=0.5))
    assert abs(cutmix.mean() - 0.5) < 0.01


def test_cutmix_label_share_is_the_area_left():
    table = drawn(cutmix_prob=1.0, mixup_prob=0.0)
    _, _, top, bottom, left, right, share = table.T
    np.testing.assert_allclose(share, 1 - (bottom - top) * (right - left) / 1024, atol=1e-6)
    assert (top >= 0).all() and (bottom <= 32).all() and (left >= 0).all() and (right <= 32).all()


def test_mixup_share_is_beta():
    share = drawn(cutmix_prob=0.0, mixup_prob=1.0, mixup_alpha=0.4)[:, 6]
    assert stats.kstest(share, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    assert stats.kstest(drawn(cutmix_prob=0.0, mixup_prob=1.0)[:, 6], "uniform").pvalue > 1e-3


def test_beta_quantile_is_scipys():
    u = np.linspace(0.01, 0.99, 9)
    np.testing.assert_allclose(beta_quantile(0.7, u), stats.beta(0.7, 0.7).ppf(u))


def test_mixing_equals_pasting_and_blending():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, 8, 10, generator=generator)
    targets = smooth_targets(torch.tensor([0, 1, 2, 3, 0]), 4, 0.1)
    table = draw_mix(AugmentConfig(), seed=0, pass_index=0, steps=60, image_size=(8, 10))
    for row, is_cut, is_up in zip(table, *kinds(table)[1:], strict=True):
        got_images, got_targets = mix(images, targets, torch.from_numpy(row))
        want, share = images.clone(), float(row[6])
        if is_cut:
            top, bottom, left, right = row[2:6].astype(int)
            want[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
        elif is_up:
            want = share * images + (1 - share) * images.flip(0)
        torch.testing.assert_close(got_images, want)
        torch.testing.assert_close(got_targets, share * targets + (1 - share) * targets.flip(0))
    assert kinds(table)[1].any() and kinds(table)[2].any()


def test_smoothed_targets():
    torch.testing.assert_close(smooth_targets(torch.tensor([1]), 4, 0.1), torch.tensor([[0.025, 0.925, 0.025, 0.025]]))
