"""Time the token mixers at 65, 257 and 1,025 tokens: milliseconds of one layer, forward and with backward.

    python -m benchmarks.mixers [--device cpu] [--batch 16] [--mixers standard,linear]

The layers have the paper's width and heads and are followed by nothing. On a GPU they are compiled, run in bfloat16 and are
replayed as CUDA graphs, as in training; on the CPU they run as they are, in float32. Standard attention has our fused kernel
up to 257 tokens on a GPU, and PyTorch's beyond.
"""

import argparse

import torch

from pocketvit.bench.clock import captured, time_repeats
from pocketvit.config import ModelConfig
from pocketvit.device import choose_device, device_name, uses_bf16
from pocketvit.model.mixers import MIXERS
from pocketvit.model.positions import arranged

GRIDS = (8, 16, 32)  # patches to a side: of 4, 2 and 1 pixels in 32 × 32 images
REPEATS = 7


def times_ms(name: str, grid: int, batch_size: int, device: torch.device) -> tuple[float, float]:
    """Median milliseconds of a layer on a batch: forward, and forward with backward."""
    config = ModelConfig(attention=name)
    torch.manual_seed(0)
    layer = arranged(MIXERS[name](config), (grid, grid), 1).to(device)
    mixer, parameters = layer, list(layer.parameters())
    if device.type == "cuda":
        torch.compiler.reset()
        mixer = torch.compile(layer, fullgraph=True, dynamic=False)
    bf16 = uses_bf16("auto", device)
    dtype = torch.bfloat16 if bf16 else torch.float32
    x = torch.randn(batch_size, grid**2 + 1, config.width, device=device, dtype=dtype, requires_grad=True)
    dout = torch.randn_like(x)

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            return mixer(x)

    @torch.no_grad()
    def alone() -> torch.Tensor:
        return forward()

    def with_backward() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(forward(), [x, *parameters], dout)

    works = [captured(work) if device.type == "cuda" else work for work in (alone, with_backward)]
    forward_ms, both_ms = (time_repeats(work, device, REPEATS).median_s * 1e3 for work in works)
    return forward_ms, both_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"))
    parser.add_argument("--batch", type=int, default=None, help="images; by default 256 on a GPU, 16 on the CPU")
    parser.add_argument("--mixers", default=",".join(MIXERS))
    options = parser.parse_args()
    device = choose_device(options.device)
    batch_size = options.batch or (256 if device.type == "cuda" else 16)
    print(
        f"{device_name(device)}, PyTorch {torch.__version__}, {batch_size} images, ms a layer: forward, with backward"
    )
    print(f"{'mixer':>10}" + "".join(f"{f'{grid**2 + 1:,} tokens':>22}" for grid in GRIDS))
    for name in options.mixers.split(","):
        print(f"{name:>10}", end="", flush=True)
        for grid in GRIDS:
            forward_ms, both_ms = times_ms(name, grid, batch_size, device)
            print(f"{forward_ms:12.2f}{both_ms:10.2f}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
