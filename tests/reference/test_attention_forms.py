"""Every form of attention against an explicit softmax in float64, and against timm's where it has the form."""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from pocketvit.config import ModelConfig
from pocketvit.model import ViT, create_model
from pocketvit.model.mixers.standard import Attention
from pocketvit.model.positions import RotaryPositions, sincos_table

WIDTH, HEADS = 48, 4
FORMS = {
    "plain": {},
    "q": {"q_rank": 8},
    "k": {"k_rank": 8},
    "v": {"v_rank": 8},
    "qk": {"q_rank": 8, "k_rank": 6},
    "kv": {"k_rank": 8, "v_rank": 8},
    "qkv": {"q_rank": 8, "k_rank": 8, "v_rank": 8},
    "joint": {"kv_rank_shared": 12},
    "joint-q": {"kv_rank_shared": 12, "q_rank": 8},
    "grouped": {"num_kv_heads": 2},
    "multi-query": {"num_kv_heads": 1},
    "grouped-joint": {"num_kv_heads": 2, "kv_rank_shared": 12},
    "qk-norm": {"qk_norm": True},
    "qk-rmsnorm": {"qk_norm": True, "norm": "rmsnorm"},
    "rope": {"positions": "rope"},
    "rope-grouped-norm": {"positions": "rope", "num_kv_heads": 1, "qk_norm": True},
}


def model_config(**values):
    return ModelConfig(**{"width": WIDTH, "num_heads": HEADS, "depth": 1} | values)


def perturbed(module, seed=0):
    """The module in float64 with weights large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def matrix(layer):
    """A projection as one weight and bias, in NumPy."""
    if isinstance(layer, torch.nn.Sequential):
        down, up = layer
        return (up.weight @ down.weight).detach().numpy(), up.bias.detach().numpy()
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def heads_of(x, layer):
    """x (N, D) through a projection, as heads (A, N, E)."""
    weight, bias = matrix(layer)
    y = x @ weight.T + bias
    return y.reshape(len(x), -1, WIDTH // HEADS).transpose(1, 0, 2)


def normalised(x, layer):
    if isinstance(layer, torch.nn.RMSNorm):
        y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return y * layer.weight.detach().numpy()
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return y * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def turned(x, rotary):
    """x (A, N, E) with each pair of channels as a complex number, turned by multiplication."""
    angles = torch.atan2(rotary.sin.double(), rotary.cos.double()).numpy()  # (N, E/2)
    z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)


def explicit(layer, x):
    """What `Attention` should give for tokens x (N, D), written out with NumPy."""
    source = x
    if layer.shared_latent:
        source = x @ layer.kv_latent.weight.detach().numpy().T
    if layer.packed:
        weight, bias = matrix(layer.qkv)
        y = (x @ weight.T + bias).reshape(len(x), 3, HEADS, -1).transpose(1, 2, 0, 3)
        q, k, v = y
    else:
        q, k, v = heads_of(x, layer.q), heads_of(source, layer.k), heads_of(source, layer.v)
    if layer.q_norm is not None:
        q, k = normalised(q, layer.q_norm), normalised(k, layer.k_norm)
    if layer.rotary is not None:
        q, k = turned(q, layer.rotary), turned(k, layer.rotary)
    group = len(q) // len(k)
    outs = []
    for a in range(HEADS):
        scores = q[a] @ k[a // group].T / np.sqrt(WIDTH // HEADS)
        p = np.exp(scores - scores.max(1, keepdims=True))
        outs.append(p / p.sum(1, keepdims=True) @ v[a // group])
    weight, bias = matrix(layer.proj)
    return np.concatenate(outs, axis=1) @ weight.T + bias


@pytest.mark.parametrize("form", FORMS)
def test_equals_an_explicit_softmax(form):
    config = model_config(**FORMS[form])
    rotary = RotaryPositions((3, 4), 1, config.head_dim) if config.positions == "rope" else None
    layer = perturbed(Attention(config, rotary))
    x = torch.randn(2, 13, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    got = layer(x).detach().numpy()
    want = np.stack([explicit(layer, item.numpy()) for item in x])
    tolerance = 1e-5 if rotary else 1e-10  # the rotation itself runs in fp32
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_merged_low_rank_factors_at_full_rank_equal_plain_attention():
    low = perturbed(Attention(model_config(q_rank=WIDTH, k_rank=WIDTH, v_rank=WIDTH)))
    plain = Attention(model_config()).double()
    with torch.no_grad():
        plain.qkv.weight.copy_(torch.from_numpy(np.concatenate([matrix(m)[0] for m in (low.q, low.k, low.v)])))
        plain.qkv.bias.copy_(torch.from_numpy(np.concatenate([matrix(m)[1] for m in (low.q, low.k, low.v)])))
        plain.proj.load_state_dict(low.proj.state_dict())
    x = torch.randn(2, 9, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(low(x), plain(x), rtol=1e-10, atol=1e-10)


def test_grouped_query_with_equal_groups_equals_multi_head():
    grouped = perturbed(Attention(model_config(num_kv_heads=2)))
    plain = Attention(model_config()).double()
    repeat = torch.arange(HEADS) // 2  # each key head serves two query heads
    with torch.no_grad():
        k, v = (m.weight.unflatten(0, (2, -1))[repeat].flatten(0, 1) for m in (grouped.k, grouped.v))
        kb, vb = (m.bias.unflatten(0, (2, -1))[repeat].flatten() for m in (grouped.k, grouped.v))
        plain.qkv.weight.copy_(torch.cat([grouped.q.weight, k, v]))
        plain.qkv.bias.copy_(torch.cat([grouped.q.bias, kb, vb]))
        plain.proj.load_state_dict(grouped.proj.state_dict())
    x = torch.randn(2, 9, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(grouped(x), plain(x), rtol=1e-10, atol=1e-10)


def test_rotation_keeps_norms_and_tells_relative_position_only():
    rotary = RotaryPositions((6, 6), 1, 16)
    q, k = (torch.randn(16, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    everywhere = torch.stack([q, k])[None, :, None].expand(1, 2, 37, 16)  # the same vectors at every place
    turned_q, turned_k = rotary(everywhere)[0].double()
    torch.testing.assert_close(turned_q.norm(dim=1), q.double().norm().expand(37), rtol=1e-5, atol=0)
    products = (turned_q[1:] @ turned_k[1:].T).reshape(6, 6, 6, 6)
    for down in range(3):
        for right in range(3):
            by_shift = torch.stack([products[r, c, r + down, c + right] for r in range(2) for c in range(2)])
            torch.testing.assert_close(by_shift, by_shift[0].expand(4), rtol=1e-4, atol=1e-4)
    assert (products[0, 0, 0, 0] - products[0, 0, 3, 0]).abs() > 1e-3, "and it does depend on it"
    torch.testing.assert_close(rotary(everywhere)[0, 0, 0], q, rtol=0, atol=0)  # the CLS token stays


def test_sincos_positions_equal_a_loop():
    table = sincos_table((3, 5), 2, 16)[0]
    assert not table[:2].any()
    for patch in range(15):
        row, column = divmod(patch, 5)
        want = []
        for coordinate in (row, column):
            angles = [coordinate / 10_000 ** (i / 4) for i in range(4)]
            want += [np.sin(a) for a in angles] + [np.cos(a) for a in angles]
        np.testing.assert_allclose(table[2 + patch], want, atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"qk_norm": True}, {"qk_norm": True}),
        ({"layer_scale": 0.1}, {"init_values": 0.1}),
        ({"num_registers": 3}, {"reg_tokens": 3}),
    ],
    ids=["qk-norm", "layer-scale", "registers"],
)
def test_equals_timms(ours, theirs):
    model = create_model("paper", width=48, depth=2, num_heads=4, **ours).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)))
    timm_model = VisionTransformer(
        img_size=32, patch_size=4, num_classes=10, embed_dim=48, depth=2, num_heads=4, mlp_ratio=2, **theirs
    ).eval()
    names = {"tokens.patches.proj": "patch_embed.proj", "tokens.cls": "cls_token", "tokens.positions": "pos_embed"}
    names |= {"tokens.registers": "reg_token", "scale1": "ls1", "scale2": "ls2"}
    renamed = {}
    for name, tensor in model.state_dict().items():
        for mine, yours in names.items():
            name = name.replace(mine, yours)
        renamed[name] = tensor
    timm_model.load_state_dict(renamed)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(model(images), timm_model(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("ranks", "count"),
    [
        ({"q_rank": 64}, 2_587_018),
        ({"k_rank": 64}, 2_587_018),
        ({"q_rank": 64, "k_rank": 64}, 2_476_426),
        ({"k_rank": 64, "v_rank": 64}, 2_476_426),
        ({"q_rank": 64, "k_rank": 64, "v_rank": 64}, 2_365_834),
    ],
    ids=["q", "k", "qk", "kv", "qkv"],
)
def test_low_rank_parameter_counts_are_the_papers(ranks, count):
    assert create_model("paper", **ranks).num_params == count


def test_attention_pooling_is_a_softmax_over_patches():
    model = ViT(model_config(pool="attention", num_registers=2), image_size=(8, 8), num_classes=3)
    tokens = torch.randn(2, 2 + 4, WIDTH)
    normed = model.norm(tokens)[:, 2:]
    weights = torch.softmax(normed @ model.pool.score.weight[0] + model.pool.score.bias, dim=1)
    torch.testing.assert_close(model.pool(model.norm(tokens)), torch.einsum("bp,bpd->bd", weights, normed))


def test_mlp_head_is_the_papers_equation_4():
    model = ViT(model_config(head="mlp", num_cls_tokens=2), num_classes=3)
    first, _, second = model.head
    h = torch.randn(5, 2 * WIDTH)
    want = torch.clamp(h @ first.weight.T + first.bias, min=0) @ second.weight.T + second.bias
    torch.testing.assert_close(model.head(h), want)
