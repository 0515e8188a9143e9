"""MyAttention against the same thing written out: `python -m pytest docs/examples/test_my_attention.py`."""

import runpy
from pathlib import Path

import torch
from torch.nn.functional import cosine_similarity

from pocketvit import ModelConfig

MyAttention = runpy.run_path(str(Path(__file__).with_name("my_attention.py")))["MyAttention"]


def test_a_token_reads_by_the_cosines_of_its_query_with_the_keys():
    torch.manual_seed(0)
    layer, x = MyAttention(ModelConfig(width=8, num_heads=2), None), torch.randn(3, 5, 8)
    q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in layer.qkv(x).chunk(3, dim=2))  # (B, A, N, E)
    cosines = cosine_similarity(q[:, :, :, None], k[:, :, None], dim=4)  # (B, A, N, N)
    heads = (layer.temperature * cosines).softmax(dim=3) @ v  # (B, A, N, E)
    expected = layer.proj(torch.cat([heads[:, 0], heads[:, 1]], dim=2))
    torch.testing.assert_close(layer(x), expected)
