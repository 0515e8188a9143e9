"""Time the augmentation of a pass of 50,000 images of 32x32, by the fused kernel and by its reference implementation.

    python -m benchmarks.augmentation [--candidates] [--size 32] [--images 50000]

All times are milliseconds. host: until Python continues; device: sum over kernels and copies by the profiler; whole:
from one synchronization to the next. The lower bound is reading and writing all images once per operation at 3.0 TB/s. A
star marks the block in use.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pocketvit.augment.augment import ImageTable, augment, draw_images
from pocketvit.config import AugmentConfig
from pocketvit.kernels import augment_ops as ops

REPEATS = 20
BYTES_PER_MS = 3.0e9
POLICIES = ("cifar10", "svhn", "imagenet", "randaugment", "trivialaugment", "none")
CANDIDATES = [(256, 4), (512, 4), (512, 8), (1024, 4), (1024, 8), (1024, 16), (2048, 8), (2048, 16)]
"""Bytes at a time and warps."""


def timed(work: Callable[[], Tensor]) -> dict[str, float]:
    """Median milliseconds of host and whole, and the mean of device."""
    for _ in range(3):
        work()
    host, whole = [], []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        host.append(1e3 * (time.perf_counter() - began))
        torch.cuda.synchronize()
        whole.append(1e3 * (time.perf_counter() - began))
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(REPEATS):
            work()
        torch.cuda.synchronize()
    device = sum(event.self_device_time_total for event in profiled.key_averages()) / 1e3 / REPEATS
    return {"host": median(host), "device": device, "whole": median(whole)}


def random_images(count: int, size: int) -> Tensor:
    """Smooth noise, uint8, (B, H, W, 3)."""
    coarse = torch.rand(count, 3, 8, 8, device="cuda")
    images = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")  # (B, 3, H, W)
    return (255 * images).to(torch.uint8).permute(0, 2, 3, 1).contiguous()  # (B, H, W, 3)


def compare(policy: str, images: Tensor) -> ImageTable:
    """Print two rows of the table, the kernel's and the reference's; returns the drawn operations."""
    config = AugmentConfig(policy=policy)
    size = tuple(images.shape[1:3])
    table = draw_images(config, seed=0, pass_index=0, size=len(images), image_size=size)
    stages = 1 if table.ops is None else table.ops.op.shape[1]
    floor = 2 * stages * images.numel() / BYTES_PER_MS
    for kernels in ("fused", "reference"):
        row = timed(lambda kernels=kernels: augment(images, table, kernels=kernels))
        print(f"{policy:>15}{kernels:>11}" + "".join(f"{ms:9.2f}" for ms in (*row.values(), floor)), flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", action="store_true", help="also time other blocks and warps")
    parser.add_argument("--size", type=int, default=32, help="height and width, pixels")
    parser.add_argument("--images", type=int, default=50_000)
    options = parser.parse_args()
    images = random_images(options.images, options.size)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, milliseconds for {len(images):,} images")
    print(f"{'policy':>15}{'kernels':>11}" + "".join(f"{name:>9}" for name in ("host", "device", "whole", "bound")))
    tables = {policy: compare(policy, images) for policy in POLICIES}
    if not options.candidates:
        return
    table = tables["cifar10"]
    rows = torch.from_numpy(ops.table_rows(table.flip, table.shift, table.ops.op, table.ops.value)).cuda()
    for block, num_warps in CANDIDATES:
        row = timed(lambda block=block, warps=num_warps: ops.run_stages(images, rows, block=block, num_warps=warps))
        used = "*" if (block, num_warps) == (ops.BLOCK, ops.NUM_WARPS) else " "
        print(f"block {block:5} warps {num_warps:2}{used}{row['device']:9.2f} ms on the device", flush=True)


if __name__ == "__main__":
    main()
