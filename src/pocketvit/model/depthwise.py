"""A depth-wise convolution beside a block: a shortcut by which patches see their neighbors.

    x ← block(x) + convolution(GELU(x))    on the grid of patches; CLS tokens and registers get nothing of it

Each channel has a kernel of its own, so it costs few weights: 17,280 in the paper's model, with 3 × 3 kernels.

Shapes: B batch, N tokens, T special tokens (CLS, registers), D width.

Source: Zhang et al. 2024, https://arxiv.org/abs/2407.19394, with the kernels of 3 × 3 and the order of the authors' code
Differs: no batch normalization before the convolution, so that an image's tokens do not depend on other images; it is
neither scaled by `model.layer_scale` nor skipped by `model.drop_path`.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from pocketvit.config import ModelConfig
from pocketvit.model.positions import OnGrid


class DepthwiseConvolution(OnGrid):
    """What a depth-wise convolution adds to a block's output.

    Args:
        side: of the kernel, odd.
    """

    def __init__(self, config: ModelConfig, side: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(config.width, config.width, side, padding=side // 2, groups=config.width)

    def forward(self, x: Tensor) -> Tensor:
        """The block's input (B, N, D) -> (B, N, D), zero for the special tokens."""
        patches = F.gelu(x[:, self.num_special :]).mT.unflatten(2, self.grid)  # (B, D, rows, columns)
        return F.pad(self.convolution(patches).flatten(2).mT, (0, 0, self.num_special, 0))
