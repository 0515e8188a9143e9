"""What a trained model says of image files, for tests that expect all of them to be read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pocketvit.inference.evaluate import predict_each


def predict_files(run: str | Path, files: Sequence[str | Path], **options: Any) -> list[dict[str, Any]]:
    """All answers of `predict_each`; raises the first error among them."""
    answers = []
    for answer in predict_each(run, files, **options):
        if "error" in answer:
            raise answer["error"]
        answers.append(answer)
    return answers
