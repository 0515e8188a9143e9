"""Push an exported model to the Hugging Face Hub."""

from importlib.util import find_spec
from pathlib import Path

from pocketvit.config.weights import HUB_NAME
from pocketvit.errors import InputError


def check_push(name: str) -> None:
    """Refuse what cannot be pushed, before the work of exporting.

    Raises:
        InputError: a name that is not OWNER/NAME, huggingface_hub is missing, or there is no token.
    """
    if not HUB_NAME.fullmatch(name):
        raise InputError(f"--push {name!r} is not a name on the Hugging Face Hub: expected OWNER/NAME")
    if find_spec("huggingface_hub") is None:
        raise InputError("--push needs huggingface_hub: pip install 'pocketvit[export]'")
    from huggingface_hub import get_token

    if get_token() is None:
        raise InputError(
            f"--push {name} needs a token of the Hugging Face Hub that may write; run `hf auth login`, or set HF_TOKEN"
        )


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload a folder as a model, which is made if there is none, and return its address.

    Args:
        name: OWNER/NAME, as `check_push` lets through.
        private: of a new model.
    Raises:
        InputError: the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    hub = HfApi(library_name="pocketvit")
    try:
        address = hub.create_repo(name, private=private or None, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a model exported by PocketViT")
    # The library raises its own errors, those of its network libraries and those of the system.
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__  # the first of its lines may say nothing
        raise InputError(f"{folder} is complete, but cannot be pushed to {name}: {why}") from error
    return str(address)
