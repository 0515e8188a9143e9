"""The operations that the fused augmentation knows; a new one may run in plain PyTorch only."""

from pocketvit.augment.autoaugment import OPS
from pocketvit.kernels.launch import triton

if triton is not None:
    from pocketvit.kernels.augment_ops import UNFUSED
else:
    UNFUSED = {}
FUSED_OPS = tuple(op for op in OPS if op not in UNFUSED.values())
