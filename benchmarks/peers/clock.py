"""The clock of a peer's run: what it measures is the same for all, and its calls count to no peer's lines."""

import json
import os
import time

import torch

BEGAN = "PEERS_BEGAN"  # the environment variable with the time at which Python was started, as time.time()
WARM = 0.2  # share of the images before speed is measured


class Clock:
    """Times of one run, in seconds from starting Python.

    Args:
        images: that the run will train on, repetitions counted.
    """

    def __init__(self, images: int) -> None:
        self.began, self.images, self.seen = float(os.environ[BEGAN]), images, 0
        self.first_step_s = 0.0
        self.warm: tuple[int, float] | None = None

    def now(self) -> float:
        """Seconds since Python was started, once the GPU has done its work."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.time() - self.began

    def step(self, images: int) -> None:
        """More images have been trained on."""
        if not self.seen:
            self.first_step_s = self.now()
        self.seen += images
        if self.warm is None and self.seen >= WARM * self.images:
            self.warm = self.seen, self.now()

    def trained(self) -> None:
        """Training has ended; evaluation comes next."""
        assert self.warm is not None
        seen, at = self.warm
        self.trained_s = self.now()
        self.images_per_s = (self.seen - seen) / (self.trained_s - at)

    def result(self, accuracy: float) -> None:
        """Print what was measured as the last line of the output.

        Args:
            accuracy: of the test images, 0 to 1.
        """
        measured = {
            "images": self.seen,
            "images_per_s": self.images_per_s,
            "first_step_s": self.first_step_s,
            "trained_s": self.trained_s,
            "accuracy": accuracy,
            "gpu_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
        }
        print(json.dumps(measured), flush=True)
