"""Count the memory that the paper's rows keep between forward and backward: results/activations/paper.json.

    python -m benchmarks.activations [--out results/activations/paper.json]

The tensors that autograd saves are counted for the reference model in float32, which is exact and the same on every
machine. Each storage counts once, however many tensors share it; weights do not count. The fused kernels merge the
factors of a low-rank projection, so their memory does not depend on the ranks.
"""

import argparse
import json
from pathlib import Path

import torch

from pocketvit.device import device_name
from pocketvit.model import ViT
from pocketvit.runs.provenance import environment
from pocketvit.studies.definition.choose import find_study

ROWS = ("baseline", "mla-q", "mla-k", "mla-qk", "mla-kv", "mla-qkv")


def saved_bytes(model: ViT, num_images: int) -> int:
    """Bytes that autograd saves in a forward pass with stochastic depth."""
    config, own = model.config, {p.untyped_storage().data_ptr() for p in model.parameters()}
    pieces: dict[int, torch.UntypedStorage] = {}  # kept alive, so that no address is reused

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        piece = tensor.untyped_storage()
        if piece.data_ptr() not in own:
            pieces[piece.data_ptr()] = piece
        return tensor

    images = torch.zeros(num_images, 3, *model.image_size)
    keep = torch.ones(config.depth, 2, num_images)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.train()(images, keep).sum().backward()
    return sum(piece.nbytes() for piece in pieces.values())


def mib_per_image(model: ViT) -> float:
    """The memory that one more image adds, in MiB."""
    return (saved_bytes(model, 2) - saved_bytes(model, 1)) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/activations/paper.json"))
    out = parser.parse_args().out
    rows = {row.name: row.config.model for row in find_study("paper-table2").rows}
    found = {name: mib_per_image(ViT(rows[name])) for name in ROWS}
    env = environment(device_name(torch.device("cpu")))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(env | {"precision": "fp32", "saved_mib_per_image": found}, indent=2) + "\n")
    print(
        "\n".join(f"{name:10} {mib:.2f} MiB per image, × {mib / found['baseline']:.3f}" for name, mib in found.items())
    )


if __name__ == "__main__":
    main()
