"""Self-distillation without labels (DINO).

Source: Caron et al. 2021, https://arxiv.org/abs/2104.14294, section 3.1: equations 1 (softmax with temperature), 3 (the
loss), 4 (the centre), and Algorithm 1. Gani et al. 2022, https://arxiv.org/abs/2210.07240, start ViTs on small data sets from
it.
"""

import numpy as np


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def dino_loss(
    student: np.ndarray,
    teacher: np.ndarray,
    center: np.ndarray,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> float:
    """Cross-entropy of each student view with each teacher view but its own: the mean over those pairs and over the images.

    Args:
        student: outputs of the head, (views, B, K); its first views are the teacher's views, the others are local crops.
        teacher: outputs for the global views, (global views, B, K).
        center: (K,), taken from the teacher's outputs before its softmax.
    """
    losses = []
    for t in range(len(teacher)):
        for s in range(len(student)):
            if s == t:
                continue
            for seen, other in zip(teacher[t], student[s]):
                wanted = softmax((seen - center) / teacher_temperature)
                losses.append(-(wanted * np.log(softmax(other / student_temperature))).sum())
    return float(np.mean(losses))


def update_center(center: np.ndarray, teacher: np.ndarray, momentum: float = 0.9) -> np.ndarray:
    """Equation 4, after the loss: c = m c + (1 - m) mean of the teacher's outputs over views and images, (views, B, K)."""
    return momentum * center + (1 - momentum) * teacher.reshape(-1, teacher.shape[-1]).mean(axis=0)


def teacher_momentum(step: int, steps: int, first: float = 0.996, last: float = 1.0) -> float:
    """lambda of theta_t = lambda theta_t + (1 - lambda) theta_s: from `first` to `last` by a cosine."""
    return last - (last - first) * (np.cos(np.pi * step / steps) + 1) / 2


def update_teacher(teacher: np.ndarray, student: np.ndarray, momentum: float) -> np.ndarray:
    return momentum * teacher + (1 - momentum) * student


def head_output(bottleneck: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The head's end: the bottleneck (B, D) scaled to length 1, against prototypes (K, D) of length 1. Returns (B, K)."""
    out = np.zeros((len(bottleneck), len(weight)))
    for image, vector in enumerate(bottleneck):
        for k, prototype in enumerate(weight):
            out[image, k] = np.dot(vector / np.linalg.norm(vector), prototype / np.linalg.norm(prototype))
    return out
