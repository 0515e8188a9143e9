"""A depth-wise convolution beside the block against a loop."""

import numpy as np
import pytest
import torch
from neighbours.depthwise import depthwise_beside_block, num_params
from torch.nn import functional as F

from pocketvit.config import ModelConfig, override
from pocketvit.errors import InputError
from pocketvit.model import ViT, create_model
from pocketvit.recipes import recipe

WIDTH, PLACES = 16, 3  # tokens in front of the patches: a CLS token and two registers
SIZE = {"width": WIDTH, "num_heads": 2, "num_registers": 2, "depth": 1}


def gelu(x: np.ndarray) -> np.ndarray:
    return F.gelu(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("side", [3, 5])
def test_equals_a_loop_beside_the_block(side):
    model = ViT(ModelConfig(depthwise=side, **SIZE), image_size=(12, 20)).double()
    plain = ViT(ModelConfig(**SIZE), image_size=(12, 20)).double()
    plain.load_state_dict(model.state_dict(), strict=False)
    tokens = torch.randn(2, PLACES + 15, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    keep = torch.tensor([[2.0, 0.0], [0.0, 1.5]], dtype=torch.float64)  # the convolution is never skipped
    weight, bias = (p.detach().numpy() for p in model.blocks[0].beside.convolution.parameters())
    with torch.no_grad():
        for image in range(2):
            of_image = keep[:, image : image + 1]

            def block(x, of_image=of_image):
                return plain.blocks[0](torch.from_numpy(x)[None], of_image)[0].numpy()

            want = depthwise_beside_block(tokens[image].numpy(), block, weight, bias, 3, 5, before=gelu)
            got = model.blocks[0](tokens[image : image + 1], of_image)
            np.testing.assert_allclose(got[0], want, rtol=1e-9, atol=1e-9)
            fewer = model.blocks[0](tokens[image : image + 1], of_image, 5)
            np.testing.assert_allclose(fewer[0], want[:5], rtol=1e-9, atol=1e-9)


def test_adds_the_papers_parameters_which_start_as_a_convolutions():
    model, plain = create_model("paper", depthwise=3), create_model("paper")
    assert model.num_params - plain.num_params == num_params(192, 9) == 17_280
    weight = model.blocks[2].beside.convolution.weight
    assert 0.3 < weight.abs().max() <= 1 / 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"depthwise": 4}, "model.depthwise=4 is even"),
        (
            {"depthwise": 3, "block": "docs/examples/my_parts.py:ParallelBlock"},
            "no effect with model.block=.*ParallelBlock",
        ),
    ],
)
def test_what_cannot_work_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        ModelConfig(**values)


@pytest.mark.parametrize("values", [{"model.patch_drop": 0.5}, {"schedule.sides": (16, 32)}])
def test_some_patches_or_smaller_images_are_refused(values):
    (name,) = values
    with pytest.raises(InputError, match=f"{name}=.* cannot be combined with model.depthwise=3"):
        override(recipe("paper"), {"model.depthwise": 3} | values)
