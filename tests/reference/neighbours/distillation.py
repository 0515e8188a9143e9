"""Hard distillation with a token of its own (DeiT).

Source: Touvron et al. 2021, https://arxiv.org/abs/2012.12877, section 4, equation 3: half the cross-entropy of the class
token's logits with the label, half that of the distillation token's logits with the class that the teacher finds likeliest in
the same augmented image. The teacher's label is never smoothed. At test, the softmaxes of both heads are added; the authors'
code averages the logits instead.
"""

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def deit_hard_distillation(
    logits: np.ndarray,
    distillation_logits: np.ndarray,
    targets: np.ndarray,
    teacher_logits: np.ndarray,
    share: float = 0.5,
) -> float:
    """(1 - share) CE(logits, targets) + share CE(distillation_logits, argmax of the teacher), the mean over the batch.

    Args:
        logits, distillation_logits, teacher_logits: float64, (B, K).
        targets: probabilities, rows sum to 1, mixed and smoothed as the images' labels are, (B, K).
    """
    losses = []
    for own, distilled, target, teacher in zip(logits, distillation_logits, targets, teacher_logits):
        label = -(target * log_softmax(own)).sum()
        hard = -log_softmax(distilled)[np.argmax(teacher)]
        losses.append((1 - share) * label + share * hard)
    return float(np.mean(losses))


def fused_probabilities(logits: np.ndarray, distillation_logits: np.ndarray) -> np.ndarray:
    """The paper's prediction at test: the mean of both softmaxes, (B, K)."""
    return np.stack(
        [(np.exp(log_softmax(a)) + np.exp(log_softmax(b))) / 2 for a, b in zip(logits, distillation_logits)]
    )
