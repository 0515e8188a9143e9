"""Say what an installation is about to download, before it does: `python dev/before_install.py TARGET`.

Needs nothing but Python; says how to have PyTorch's CPU build where its usual one would bring CUDA for nothing.
"""

import importlib.util
import shutil
import sys

EXTRA = {"train": "", "test": " and the test tools", "test-long": ", the test tools and Ray"}
CUDA = "PyTorch's usual build for Linux brings CUDA along: about 3 GB to download, 6 GB on disk, two minutes and more."
NO_GPU = """\
No NVIDIA GPU was found (no nvidia-smi). PyTorch's CPU build is enough then: 0.3 GB to download, 1.3 GB on disk in all.
To have it instead, press Ctrl-C, choose Linux, Pip and CPU on https://pytorch.org/get-started/locally, and give make
what stands there behind "install":
    make {target} TORCH='torch torchvision --index-url ADDRESS'"""
LAST = 'pip shows what it downloads; its last step, "Installing collected packages", is silent for a minute or two.'


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
        said.append("PyTorch is there; the rest is about 0.2 GB to download.")
    elif platform != "linux":
        said.append("About 0.3 GB to download, 1.5 GB on disk.")
    else:
        said += [CUDA] if gpu else [CUDA, NO_GPU.format(target=target)]
    return [*said, LAST]


if __name__ == "__main__":
    here = importlib.util.find_spec("torch") is not None
    print("\n".join(lines(sys.argv[1], sys.platform, shutil.which("nvidia-smi") is not None, here)), flush=True)
