"""Say what an installation is about to download: `python dev/before_install.py TARGET`.

Needs nothing but Python. Without an NVIDIA GPU, it also says how to install PyTorch's CPU build instead.
"""

import importlib.util
import shutil
import sys

EXTRA = {
    "train": "",
    "test": " and the test tools",
    "test-long": ", the test tools, Ray, Gradio and the experiment trackers",
    "docs": " and what builds the site",
}
CUDA = "PyTorch's default build for Linux includes CUDA: about 3 GB to download, 6 GB on disk, two minutes or more."
NO_GPU = """\
No NVIDIA GPU was found (no nvidia-smi), so PyTorch's CPU build is enough: 0.3 GB to download, 1.3 GB on disk in all.
To install that one, press Ctrl-C, choose Linux, Pip and CPU on https://pytorch.org/get-started/locally, and run this
with the address that is shown there:
    make {target} TORCH='torch torchvision --index-url ADDRESS'"""
LAST = 'pip shows what it downloads; its last step, "Installing collected packages", takes a silent minute or two.'


def lines(target: str, platform: str, gpu: bool, torch: bool) -> list[str]:
    """What to say.

    Args:
        target: of make.
        platform: as `sys.platform` names it.
        gpu: whether there is an NVIDIA GPU.
        torch: whether PyTorch is there already, or is being installed by TORCH.
    """
    said = [f"Installing PocketViT{EXTRA[target]} into .venv, once."]
    if torch:
        said.append("PyTorch is installed; the rest is about 0.2 GB to download.")
    elif platform != "linux":
        said.append("About 0.3 GB to download, 1.5 GB on disk.")
    else:
        said += [CUDA] if gpu else [CUDA, NO_GPU.format(target=target)]
    return [*said, LAST]


if __name__ == "__main__":
    here = importlib.util.find_spec("torch") is not None
    print("\n".join(lines(sys.argv[1], sys.platform, shutil.which("nvidia-smi") is not None, here)), flush=True)
