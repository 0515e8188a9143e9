"""Formats of other libraries' vision transformers: timm's `VisionTransformer` and transformers' `ViTForImageClassification`.

Only plain models fit them; what can be merged into plain layers is. Both call one linear layer what is several of ours:
low-rank projections, queries that share a key, and LayerScale, which timm has as well.

Shapes: L layers, N tokens, D width, A query heads, A_kv key and value heads, E head dim.
"""

import json
from dataclasses import fields
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor

from pocketvit.config import DataConfig
from pocketvit.errors import InputError
from pocketvit.inference.foreign import timm_name
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import ViT
from pocketvit.model.block import Block
from pocketvit.model.mixers.standard import Attention
from pocketvit.model.norm import NORM_EPS

ALWAYS = ("onnx", "torchscript", "safetensors")  # formats that every model fits
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}  # what transformers calls them
FREE = (
    "patch_size", "patch_init", "whitening_patches", "whitening_pairs", "width", "depth", "num_heads", "num_kv_heads",
    "q_rank", "k_rank", "v_rank", "kv_rank_shared", "qk_norm", "mlp_ratio", "activation", "layer_scale", "num_cls_tokens",
    "num_registers", "patch_drop", "init", "drop_path", "dropout",
)  # fmt: skip
"""Fields of a model that may have any value: these formats have them too, they can be merged, or only training reads them."""
CROPS = {"stretch": "squash", "crop": "center", "pad": "border"}
"""What timm calls the ways of `data.fit`."""


def misfit(model: ViT, kind: str) -> str | None:
    """What of a model another library's vision transformer does not have, as `field=value`; None if it fits.

    Args:
        kind: timm or hf.
    """
    config = model.config
    wanted: dict[str, tuple[Any, ...]] = {f.name: (f.default,) for f in fields(config) if f.name not in FREE} | {
        "patch_stride": (None, config.patch_size),
        "positions": ("learned", "sincos", "none"),
        "pool": ("cls", "mean") if kind == "timm" else ("cls",),
    }
    if config.pool == "cls":
        wanted["num_cls_tokens"] = (1,)
    if kind == "hf":
        wanted |= {"num_registers": (0,), "qk_norm": (False,)}
    odd = [
        f"model.{name}={getattr(config, name)}" for name, fits in wanted.items() if getattr(config, name) not in fits
    ]
    if model.distilled_head is not None:
        odd.append("objective.name=distillation, its second head,")
    return odd[0] if odd else None


def refuse_misfit(model: ViT, kind: str, library: str) -> None:
    """Raise an `InputError` that names the formats that the model fits, unless it fits this one."""
    if odd := misfit(model, kind):
        others = [*ALWAYS, *(["timm"] if kind == "hf" and misfit(model, "timm") is None else [])]
        raise InputError(f"{odd} does not fit {library}; use --format {', '.join(others[:-1])} or {others[-1]}")


@torch.no_grad()
def plain_tensors(model: ViT) -> dict[str, Tensor]:
    """The tensors of a model that fits timm, by our names, with full projections and a table of positions."""
    state = {name: tensor.float().cpu() for name, tensor in model.state_dict().items()}
    attention = [cast(Block, block).attn for block in model.blocks]
    if not attention[0].packed:
        parts = ("q.", "k.", "v.", "kv_latent.")
        state = {name: t for name, t in state.items() if not name.partition(".attn.")[2].startswith(parts)}
        weights, biases = Attention.fold(attention)  # (L, F, D), (L, F)
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            state[f"blocks.{i}.attn.qkv.weight"] = _own_keys(weight, model)
            state[f"blocks.{i}.attn.qkv.bias"] = _own_keys(bias, model)
    table = model.tokens.positions
    table = torch.zeros(1, model.tokens.num_tokens, model.config.width) if table is None else table
    return state | {"tokens.positions": table.float().cpu()}


def _own_keys(packed: Tensor, model: ViT) -> Tensor:
    """A projection (F, D), or its bias (F,), with a key and a value head for each query head, (3·D, D) or (3·D,)."""
    config = model.config
    kv_width = (config.num_kv_heads or config.num_heads) * config.head_dim
    q, k, v = packed.float().cpu().split((config.width, kv_width, kv_width))
    share = config.width // kv_width
    heads = [x.unflatten(0, (-1, config.head_dim)).repeat_interleave(share, dim=0).flatten(0, 1) for x in (k, v)]
    return torch.cat([q, *heads])


def timm(trained: TrainedModel, about: dict[str, Any], data: DataConfig) -> dict[str, bytes]:
    """The files that `timm.create_model("local-dir:FOLDER")` reads, or "hf-hub:OWNER/NAME" on the Hub.

    The arguments of `timm.models.VisionTransformer` are `model_args` in config.json.

    Raises:
        InputError: the model does not fit.
    """
    model, config = trained.model, trained.model.config
    refuse_misfit(model, "timm", "timm's VisionTransformer")
    ratio = config.hidden_width / config.width
    if int(config.width * ratio) != config.hidden_width:  # timm rounds down
        ratio = (config.hidden_width + 0.5) / config.width
    arguments = {
        "img_size": list(model.image_size),
        "patch_size": config.patch_size,
        "num_classes": model.num_classes,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": ratio,
        "qk_norm": config.qk_norm,
        "init_values": config.layer_scale,
        "class_token": config.pool == "cls",
        "global_pool": "token" if config.pool == "cls" else "avg",
        "fc_norm": False,
        "reg_tokens": config.num_registers,
        "act_layer": config.activation,
    }
    cfg = {
        "input_size": [3, *model.image_size],
        "fixed_input_size": True,
        "num_classes": model.num_classes,
        "mean": list(trained.mean),
        "std": list(trained.std),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": CROPS[data.fit],
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "label_names": list(trained.class_names),
    }
    content = {
        "architecture": "vit_tiny_patch16_224",  # a name that timm knows; all that is different is in model_args
        "num_classes": model.num_classes,
        "global_pool": arguments["global_pool"],
        "model_args": arguments,
        "pretrained_cfg": cfg,
        "pocketvit": about,
    }
    tensors = {timm_name(name): tensor.contiguous() for name, tensor in plain_tensors(model).items()}
    return {"config.json": _json(content), "model.safetensors": save(tensors, {"format": "pt"})}


def hf(trained: TrainedModel, about: dict[str, Any], _data: DataConfig) -> dict[str, bytes]:
    """The files that `ViTForImageClassification.from_pretrained` and `ViTImageProcessor.from_pretrained` read.

    Tensors have the names of transformers 4, which later versions read as well.

    Raises:
        InputError: the model does not fit.
    """
    model, config = trained.model, trained.model.config
    refuse_misfit(model, "hf", "transformers' ViTForImageClassification")
    height, width = model.image_size
    content = {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "image_size": height if height == width else [height, width],
        "patch_size": config.patch_size,
        "num_channels": 3,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.hidden_width,
        "hidden_act": ACTIVATIONS[config.activation],
        "layer_norm_eps": NORM_EPS,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "id2label": {str(i): name for i, name in enumerate(trained.class_names)},
        "label2id": {name: i for i, name in enumerate(trained.class_names)},
        "problem_type": f"{'multi' if trained.multilabel else 'single'}_label_classification",
        "pocketvit": about,
    }
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 3,  # bicubic, by Pillow's numbers
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(trained.mean),
        "image_std": list(trained.std),
    }
    return {
        "config.json": _json(content),
        "preprocessor_config.json": _json(processor),
        "model.safetensors": save(_hf_tensors(model), {"format": "pt"}),
    }


HF_NAMES = {
    "tokens.cls": "vit.embeddings.cls_token",
    "tokens.positions": "vit.embeddings.position_embeddings",
    "tokens.patches.proj.": "vit.embeddings.patch_embeddings.projection.",
    "blocks.": "vit.encoder.layer.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".attn.proj.": ".attention.output.dense.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
    "head.": "classifier.",
}
"""Parts of our names, and what transformers calls them."""


def _hf_tensors(model: ViT) -> dict[str, Tensor]:
    """The tensors by transformers' names, with LayerScale merged into the layer before it."""
    state = plain_tensors(model)
    for layer, scale in (("attn.proj", "scale1"), ("mlp.fc2", "scale2")):
        for i in range(model.config.depth):
            if (gamma := state.pop(f"blocks.{i}.{scale}.gamma", None)) is not None:
                state[f"blocks.{i}.{layer}.weight"] = state[f"blocks.{i}.{layer}.weight"] * gamma[:, None]
                state[f"blocks.{i}.{layer}.bias"] = state[f"blocks.{i}.{layer}.bias"] * gamma
    named = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for part, share in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                named[_hf_name(name.replace(".attn.qkv.", f".attention.attention.{part}."))] = share.contiguous()
        else:
            named[_hf_name(name)] = tensor.contiguous()
    return named


def _hf_name(name: str) -> str:
    for ours, theirs in HF_NAMES.items():
        name = name.replace(ours, theirs)
    return f"vit.layernorm.{name.removeprefix('norm.')}" if name.startswith("norm.") else name


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
