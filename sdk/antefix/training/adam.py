"""Adam for one user's trained numbers.

Each line rounds once (no fused multiply-add), so a value does not depend on where in a vector register
it happens to lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from antefix.training.config import TrainingPlan


@dataclass
class Adam:
    """Adam's state of one user (Kingma & Ba 2015, with bias correction, no weight decay).

    Attributes:
        trained: the numbers being trained [n].
        mean, square: running moments [n].
        step: steps taken.
    """

    trained: Tensor
    mean: Tensor
    square: Tensor
    step: int = 0

    @classmethod
    def of(cls, trained: Tensor) -> Adam:
        """Fresh state for `trained`."""
        return cls(trained, torch.zeros_like(trained), torch.zeros_like(trained))

    def update(self, gradient: Tensor, plan: TrainingPlan, total_steps: int) -> None:
        """Clip `gradient` to the plan's norm and take one step."""
        norm = gradient.norm().item()
        if norm > plan.clip_norm:
            gradient = gradient * (plan.clip_norm / norm)
        self.step += 1
        # All of shape [n], in place; `add_(x, alpha=…)` and `addcmul_` would fuse two roundings into one.
        self.mean.mul_(plan.beta1).add_(gradient.mul(1 - plan.beta1))
        self.square.mul_(plan.beta2).add_(gradient.square().mul_(1 - plan.beta2))
        # Both moments start at 0: dividing by 1 - beta ** step takes that bias away.
        spread = self.square.div(1 - plan.beta2**self.step).sqrt_().add_(plan.epsilon)
        rate = learning_rate(plan, self.step, total_steps) / (1 - plan.beta1**self.step)
        self.trained.sub_(self.mean.mul(rate).div_(spread))


def learning_rate(plan: TrainingPlan, step: int, total_steps: int) -> float:
    """Rate of step 1…total: a linear rise over the warm-up, then a linear fall towards 0."""
    if step <= plan.warmup_steps:
        return plan.learning_rate * step / plan.warmup_steps
    left = total_steps - step + 1
    return plan.learning_rate * left / max(1, total_steps - plan.warmup_steps)
