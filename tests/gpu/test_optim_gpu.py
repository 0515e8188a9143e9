"""Optimizers on CUDA: a captured step equals an eager one, the flat ones equal float64, Muon equals torch's."""

from collections.abc import Callable, Iterator

import pytest
import torch
from optim_cases import PLAIN, assert_equals_float64
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from pocketvit.optim import flat
from pocketvit.optim.ema import EMA
from pocketvit.optim.lion import Lion
from pocketvit.optim.muon import Muon
from pocketvit.optim.sgd import SGD
from pocketvit.optim.soap_muon import SOAPMuon

pytestmark = pytest.mark.gpu

MATRICES = [(192, 192), (576, 192), (384, 192), (192, 384), (192, 192), (384, 192), (192, 384)]
SHAPES = [*MATRICES, (7, 5), (5,), (3, 2, 4, 4), (1025,), (33, 17)]
"""Some break the alignment of what follows, and the whole is no multiple of a block."""
STEPS = 5
LR = 0.02


def start(shapes: list[tuple[int, ...]] = MATRICES) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).cuda()) for shape in shapes]


def gradients(step: int, shapes: list[tuple[int, ...]] = MATRICES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.randn(shape, generator=generator).cuda() for shape in shapes]


def shapes_for(make: Callable) -> list[tuple[int, ...]]:
    """Muon and SOAP-Muon take matrices only."""
    return MATRICES if make in (muon, soap_muon, soap_muon_blocks) else SHAPES


def lr_at(step: int) -> float:
    return LR / (1 + step)


def adamw(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    """torch's own, as the training loop builds it."""
    return AdamW(params, lr=lr, weight_decay=0.1, fused=True, capturable=True)


def flat_adamw(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    """Ours, which moves the parameters' memory."""
    return flat.AdamW(params, lr=lr, weight_decay=0.1)


def flat_adam(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    return flat.Adam(params, lr=lr, weight_decay=0.1)


def sgd(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    return SGD(params, lr=lr, momentum=0.9, nesterov=True, weight_decay=0.1)


def flat_sgd(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    return flat.SGD(params, lr=lr, momentum=0.9, nesterov=True, weight_decay=0.1)


def lion(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    return Lion(params, lr=lr, weight_decay=0.1)


def flat_lion(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    return flat.Lion(params, lr=lr, weight_decay=0.1)


def muon(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    return Muon(params, lr=lr, weight_decay=0.1)


def soap_muon(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    return SOAPMuon(params, lr=lr, weight_decay=0.1)


def soap_muon_blocks(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    return SOAPMuon(params, lr=lr, weight_decay=0.1, blocks=True)


def eager_run(make: Callable[[list[nn.Parameter], Tensor], Optimizer]) -> tuple[list[nn.Parameter], EMA]:
    params, lr = start(shapes_for(make)), torch.zeros((), device="cuda")
    optimizer, ema = make(params, lr), EMA({str(i): param for i, param in enumerate(params)}, 0.9)
    for step in range(STEPS):
        lr.fill_(lr_at(step))
        for param, grad in zip(params, gradients(step, shapes_for(make)), strict=True):
            param.grad = grad
        optimizer.step()
        ema.update()
    return params, ema


def captured_run(make: Callable[[list[nn.Parameter], Tensor], Optimizer]) -> tuple[list[nn.Parameter], EMA]:
    """The same steps as replays of one graph, captured after a warm-up step that is undone in place."""
    params, lr = start(shapes_for(make)), torch.full((), LR, device="cuda")
    optimizer, ema = make(params, lr), EMA({str(i): param for i, param in enumerate(params)}, 0.9)
    for param, grad in zip(params, gradients(99, shapes_for(make)), strict=True):
        param.grad = grad

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        optimizer.step()
        ema.update()
    torch.cuda.current_stream().wait_stream(side)
    with torch.no_grad():
        for param, value in zip(params, start(shapes_for(make)), strict=True):
            param.copy_(value)
        for state in optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()
        for tensor in (*ema.state_dict()["averages"].values(), ema.state_dict()["window"]):
            tensor.zero_()

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
        ema.update()
    for step in range(STEPS):
        lr.fill_(lr_at(step))
        for param, grad in zip(params, gradients(step, shapes_for(make)), strict=True):
            param.grad.copy_(grad)
        graph.replay()
    torch.cuda.synchronize()
    return params, ema


# Elementwise kernels give the same bits. Muon's matrix products may be done by another cuBLAS kernel during capture,
# and then differ by bfloat16 rounding: a few hundredths of an entry of the step.
@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        *((make, 0.0) for make in (adamw, flat_adamw, flat_adam, sgd, flat_sgd, lion, flat_lion)),
        *((make, 0.05 * LR) for make in (muon, soap_muon, soap_muon_blocks)),
    ],
)
def test_captured_steps_equal_eager_ones(make, tolerance):
    params, ema = captured_run(make)
    expected, expected_ema = eager_run(make)
    for param, value, initial in zip(params, expected, start(shapes_for(make)), strict=True):
        torch.testing.assert_close(param, value, rtol=0, atol=tolerance)
        assert (param - initial).abs().max() > 0.2 * LR  # it has moved by more than the tolerance
    torch.testing.assert_close(ema.averages(), expected_ema.averages(), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("ours", "plain"), [(flat_adamw, adamw), (flat_sgd, sgd), (flat_lion, lion)])
def test_flat_captured_equals_plain(ours, plain):
    params, ema = captured_run(ours)
    expected, expected_ema = eager_run(plain)
    for param, other in zip(params, expected, strict=True):
        torch.testing.assert_close(param, other, rtol=1e-6, atol=1e-4 * LR)
    torch.testing.assert_close(ema.averages(), expected_ema.averages(), rtol=1e-6, atol=1e-4 * LR)


@pytest.mark.parametrize("size", [1, 5, 1023, 1024, 1025, 4097, 100_003])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9)], ids=str)
@pytest.mark.parametrize("name", PLAIN)
def test_flat_equals_float64_and_touches_nothing_else(name, betas, size):
    assert_equals_float64(name, size, betas, 0.3, device="cuda")


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_equals_torch(nesterov, adjust):
    shared = {"momentum": 0.95, "nesterov": nesterov, "weight_decay": 0.5, "adjust_lr_fn": adjust}
    params, reference = start(), start()
    ours, theirs = Muon(params, lr=LR, **shared), torch.optim.Muon(reference, lr=LR, **shared)
    for step in range(STEPS):
        for param, other, grad in zip(params, reference, gradients(step), strict=True):
            param.grad, other.grad = grad, grad.clone()
        ours.step()
        theirs.step()
    for param, other in zip(params, reference, strict=True):
        # Both compute in bfloat16, in products that add up in different orders.
        torch.testing.assert_close(param, other, rtol=0, atol=0.05 * LR)


@pytest.fixture
def exact_float32() -> Iterator[None]:
    """Float32 products without TF32, whatever was set before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("exact_float32")
def test_muon_in_float32_equals_the_cpu():
    params = start()
    on_cpu = [nn.Parameter(param.detach().cpu()) for param in params]
    ours = Muon(params, lr=LR, weight_decay=0.5, ns_dtype=torch.float32)
    theirs = Muon(on_cpu, lr=LR, weight_decay=0.5, ns_dtype=torch.float32)
    for step in range(STEPS):
        for param, other, grad in zip(params, on_cpu, gradients(step), strict=True):
            param.grad, other.grad = grad, grad.cpu()
        ours.step()
        theirs.step()
    for param, other in zip(params, on_cpu, strict=True):
        torch.testing.assert_close(param.cpu(), other, rtol=0, atol=1e-3 * LR)
