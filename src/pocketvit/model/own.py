"""A user's own attention or block in the place of the built-in one.

It is called with what the built-in one is called with, and its forward must take and give what that one's does.
docs/own-idea.md tells users what that is.

Shapes: B images, N tokens, D width.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.errors import InputError
from pocketvit.model.attention import Attention
from pocketvit.model.positions import RotaryPositions
from pocketvit.usercode import Code

PROBE_IMAGES = 2


def make_attention(config: ModelConfig, rotary: RotaryPositions | None = None) -> nn.Module:
    """The attention layer that `model.attention` asks for."""
    return part(config.attention, Attention)(config, rotary)


def part(choice: str | Code, built_in: type[nn.Module]) -> Callable[..., nn.Module]:
    """What makes a part of the model from (config, rotary): the built-in class, or the user's."""
    return partial(_make, choice) if isinstance(choice, Code) else built_in


def _make(code: Code, config: ModelConfig, rotary: RotaryPositions | None) -> nn.Module:
    module = code.call(config=config, rotary=rotary)
    if not isinstance(module, nn.Module):
        raise InputError(f"{code} makes a {type(module).__name__}; it must make a torch.nn.Module")
    return module


@contextmanager
def fork_of(generator: torch.Generator | None) -> Iterator[None]:
    """Let PyTorch's own generator follow from the seed of another one, for constructors that know no other.

    So weights that a user's module draws itself are the same in every run of a seed. Afterwards it is as it was.
    """
    if generator is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        yield


@torch.no_grad()
def check_parts(config: ModelConfig, block: nn.Module, num_tokens: int) -> None:
    """Try the user's own parts of a block on made tokens, before anything expensive begins.

    Args:
        config: the choices.
        block: on the CPU.
        num_tokens: N.
    Raises:
        InputError: a part fails, is not used, or gives anything but tokens of the shape that it got.
    """
    code = _own(config)
    if code is None:
        return
    block = _copy(code, block)
    tokens, keep = _probe(num_tokens, config.width)
    if isinstance(config.block, Code):
        _check_attention_used(config, block)
        _check_tokens(config.block, block, x=tokens, keep=None)
        _check_tokens(config.block, block, x=tokens, keep=keep)
    else:
        _check_tokens(config.attention, block.attn, x=tokens)


def _check_attention_used(config: ModelConfig, block: nn.Module) -> None:
    """Refuse an attention of the user's own that the block of the user's own does not use."""
    if not isinstance(config.attention, Code):
        return
    made = config.attention.load()
    if isinstance(made, type) and not any(isinstance(module, made) for module in block.modules()):
        raise InputError(
            f"model.attention={config.attention} has no effect, because {config.block} does not use it; there, make "
            "the attention by pocketvit.model.make_attention(config, rotary)"
        )


def check_trains(model: nn.Module, *, device: torch.device, bf16: bool, compile: bool, cuda_graph: bool) -> None:
    """Try the user's own parts of a block as the training step will use them.

    Args:
        model: a `ViT` on the device.
        device: that trains.
        bf16: whether it trains under bf16 autocast.
        compile: whether it compiles the model, in one piece.
        cuda_graph: whether it captures the step in a CUDA graph, so that nothing may wait for the device.
    Raises:
        InputError: forward or backward fails; says why.
    """
    code = _own(model.config)
    if code is None:
        return
    block = _copy(code, model.blocks[0])
    tokens, keep = (x.to(device) for x in _probe(model.tokens.num_tokens, model.config.width))
    tokens = tokens.bfloat16() if bf16 else tokens
    hint = "compiled in one piece (--train.compile False does without)" if compile else "trained"
    if compile:
        block = torch.compile(block, fullgraph=True, dynamic=False, backend="eager")
    waiting = _without_waiting() if cuda_graph else nullcontext()
    with waiting, torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
        code.guard(lambda: block(tokens, keep).sum().backward(), f"cannot be {hint}")


def _own(config: ModelConfig) -> Code | None:
    """The user's own part to name where a block fails: the block, else the attention in it."""
    return next((code for code in (config.block, config.attention) if isinstance(code, Code)), None)


def _copy(code: Code, block: nn.Module) -> nn.Module:
    """A block to try things on, so that running means and the like in the model stay as they are."""
    return code.guard(lambda: copy.deepcopy(block), "cannot be copied by copy.deepcopy, as an averaged model is")


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Make whatever waits for the GPU, such as `.item()`, an error: a step that waits cannot be captured."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _probe(num_tokens: int, width: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, N, D) to try a block on, and factors of stochastic depth (2, B) that keep all."""
    tokens = torch.linspace(-1, 1, PROBE_IMAGES * num_tokens * width).reshape(PROBE_IMAGES, num_tokens, width)
    return tokens, torch.ones(2, PROBE_IMAGES)


def _check_tokens(code: Code, module: nn.Module, **arguments: Any) -> None:
    names, tokens = ", ".join(arguments), arguments["x"]
    found = code.guard(lambda: module(*arguments.values()), f"fails in forward({names}) on tokens of {_shape(tokens)}")
    if not isinstance(found, Tensor):
        got = f"a {type(found).__name__}"
    elif found.shape != tokens.shape or not found.is_floating_point():
        got = f"{found.dtype} {_shape(found)}".removeprefix("torch.")
    else:
        got = None
    if got is not None:
        raise InputError(f"{code}: forward({names}) gives {got}; it must give tokens {_shape(tokens)}")


def _shape(tensor: Tensor) -> str:
    """A shape for people, such as 2x65x192."""
    return "x".join(map(str, tensor.shape))
