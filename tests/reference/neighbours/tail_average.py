"""Averaging the weights over the end of training alone.

Source: modded-nanogpt's optimization track, github.com/KellerJordan/modded-nanogpt/pull/325 (Tail-EMA): after the update of
step `start` the average is a copy of the weights; after each later one, average += (weights - average) / tau. At the end the
weights are (1 - share) weights + share * average, there with tau = 150 of 2,730 steps, start = 2,400 and share = 0.6.
"""

import numpy as np


def tail_average(weights: list[np.ndarray], start: int, tau: float, share: float) -> np.ndarray:
    """The final weights.

    Args:
        weights: the weights after each step, the first step's at index 0.
        start: index of the step whose weights start the average.
        tau: steps that the average remembers; 1 / tau is 1 - decay.
        share: the average's part in the result.
    """
    average = np.array(weights[start], dtype=np.float64)
    for later in weights[start + 1 :]:
        average = average + (later - average) / tau
    return (1 - share) * weights[-1] + share * average
