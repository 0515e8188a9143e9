"""User-defined attention or blocks instead of the built-in ones.

They are called with the same arguments, and their forward must have the same inputs and outputs (docs/own-idea.md).

Shapes: B images, N tokens, D width.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.errors import InputError
from pocketvit.model.positions import RotaryPositions
from pocketvit.randomness import seeded
from pocketvit.usercode import Code

if TYPE_CHECKING:
    from pocketvit.model.vit import ViT

PROBE_IMAGES = 2


def part(choice: str | Code, built_in: Mapping[str, type[nn.Module]]) -> Callable[..., nn.Module]:
    """The constructor of a part of the model from (config, rotary): a built-in class, or the user's."""
    return partial(_make, choice) if isinstance(choice, Code) else built_in[choice]


def _make(code: Code, config: ModelConfig, rotary: RotaryPositions | None) -> nn.Module:
    module = code.call(config=config, rotary=rotary)
    if not isinstance(module, nn.Module):
        raise InputError(f"{code} makes a {type(module).__name__}; it must make a torch.nn.Module")
    return module


def fork_of(generator: torch.Generator | None) -> AbstractContextManager[None]:
    """Seed PyTorch's global generator from another one, for constructors that use it.

    So weights that a user's module draws are the same in every run with a seed. It is restored afterwards.
    """
    return nullcontext() if generator is None else seeded(generator.initial_seed())


@torch.no_grad()
def check_parts(config: ModelConfig, block: nn.Module, make: Callable[[], nn.Module], num_tokens: int) -> None:
    """Try user-defined parts of a block on synthetic tokens, before anything expensive begins.

    Args:
        block: on the CPU.
        make: makes another one.
    Raises:
        InputError: a part fails, is not used, does not return tokens of the same shape, or computes with
            other images, or with values that are not saved.
    """
    code = _custom_code(config)
    if code is None:
        return
    block = _copy(code, block)
    tokens, keep = _probe(num_tokens, config.width)
    with seeded(1):
        another = make()
    if isinstance(config.block, Code):
        _check_attention_used(config, block)
        _given(code, block, x=tokens, keep=None)
        _given(code, block, x=tokens, keep=keep)
        _check_saved(code, block, another, x=tokens, keep=None)
    else:
        attention = block.get_submodule("attn")
        _given(code, attention, x=tokens)
        _check_saved(code, attention, another.get_submodule("attn"), x=tokens)


def _check_saved(code: Code, module: nn.Module, another: nn.Module, **arguments: Any) -> None:
    """Refuse a part whose output for an image depends on other images or on values that a run does not save."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.is_floating_point():  # one that starts at zero would hide what it is multiplied with
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    code.guard(lambda: another.load_state_dict(module.state_dict()), "cannot be loaded again")
    module.eval()
    another.eval()
    found = _given(code, module, **arguments)
    known = set(map(id, module.parameters()))
    learned = ", ".join(
        _unsaved(module, lambda value: isinstance(value, Tensor) and value.requires_grad and id(value) not in known)
    )
    if learned or not _alike(found, _given(code, another, **arguments)):
        unsaved = learned or ", ".join(_unsaved(module)) or "something that the constructor draws"
        raise InputError(
            f"{code} computes with {unsaved}, which is neither trained nor saved; keep layers in nn.ModuleList or "
            "nn.ModuleDict, tensors in nn.Parameter or register_buffer"
        )
    tokens = arguments["x"]
    others = arguments | {"x": torch.cat([tokens[:1], -tokens[1:]])}
    if not _alike(found[:1], _given(code, module, **others)[:1]):
        raise InputError(
            f"{code} returns other tokens for an image if the other images of the batch change; after eval() an image "
            "must not depend on others"
        )


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two results are the same up to rounding, ignoring values that are not finite."""
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(a.nan_to_num(0, 0, 0).abs().max()), equal_nan=True)


def _unsaved(
    module: nn.Module, asked: Callable[[Any], bool] = lambda value: isinstance(value, Tensor | nn.Module)
) -> Iterator[str]:
    """The attributes with tensors or layers that PyTorch does not register, such as self.mix."""
    for path, layer in module.named_modules():
        for name, value in vars(layer).items():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            if not name.startswith("_") and any(asked(each) for each in held):
                yield ".".join(filter(None, ("self", path, name)))


def _check_attention_used(config: ModelConfig, block: nn.Module) -> None:
    """Refuse user-defined attention that a user-defined block does not use."""
    if not isinstance(config.attention, Code):
        return
    custom = config.attention.load()
    if isinstance(custom, type) and not any(isinstance(module, custom) for module in block.modules()):
        raise InputError(
            f"model.attention={config.attention} has no effect, because {config.block} does not use it; there, make "
            "the attention by pocketvit.model.make_attention(config, rotary)"
        )


def check_trains(
    model: "ViT", num_tokens: int, *, device: torch.device, bf16: bool, compile: bool, cuda_graph: bool
) -> None:
    """Try user-defined parts of a block as the training step will use them.

    Args:
        model: on the device.
        num_tokens: of an image in training.
        bf16: whether it trains under bf16 autocast.
        compile: whether it compiles the model, in one piece.
        cuda_graph: whether it captures the step in a CUDA graph, in which nothing may wait for the device.
    Raises:
        InputError: forward or backward fails; says why.
    """
    code = _custom_code(model.config)
    if code is None:
        return
    block = _copy(code, model.blocks[0])
    tokens, keep = (x.to(device) for x in _probe(num_tokens, model.config.width))
    tokens = tokens.bfloat16() if bf16 else tokens
    hint = "compiled in one piece (--train.compile False does without)" if compile else "trained"
    if compile:
        block = torch.compile(block, fullgraph=True, dynamic=False, backend="eager")
    waiting = _without_waiting() if cuda_graph else nullcontext()
    with waiting, torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
        code.guard(lambda: block(tokens, keep).sum().backward(), f"cannot be {hint}")


def _custom_code(config: ModelConfig) -> Code | None:
    """The user-defined part to name if a block fails: the block, else its attention."""
    return next((code for code in (config.block, config.attention) if isinstance(code, Code)), None)


def _copy(code: Code, block: nn.Module) -> nn.Module:
    """A copy of a block for tests, so that running means and the like in the model are not changed."""
    return code.guard(
        lambda: copy.deepcopy(block), "cannot be copied by copy.deepcopy, which averaging the weights needs"
    )


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Make everything that waits for the GPU, such as `.item()`, an error: a step that waits cannot be captured."""
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


def _given(code: Code, module: nn.Module, **arguments: Any) -> Tensor:
    """The output of a part for tokens x, always with the same random numbers; refused if it is not tokens."""
    names, tokens = ", ".join(arguments), arguments["x"]
    how = f"in forward({names})" if module.training else f"in forward({names}) after eval()"
    with seeded(0):
        found = code.guard(lambda: module(*arguments.values()), f"fails {how} on tokens of {_shape(tokens)}")
    if not isinstance(found, Tensor):
        got = f"a {type(found).__name__}"
    elif found.shape != tokens.shape or not found.is_floating_point():
        got = f"{found.dtype} {_shape(found)}".removeprefix("torch.")
    else:
        return found
    raise InputError(f"{code} returns {got} {how}; it must return tokens {_shape(tokens)}")


def _shape(tensor: Tensor) -> str:
    """A shape in messages, such as 2x65x192."""
    return "x".join(map(str, tensor.shape))
