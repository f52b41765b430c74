"""The output head: logits of hidden states, and the loss at target tokens only.

A language model's head costs a fifth of SmolLM2's work and as much memory per token as all its layers
together. Training needs it only where a target token is predicted, in chunks of one constant shape (the
shape of a matrix product is part of its bits). The head is frozen, so its gradient with respect to the
hidden state is computed at once and no logits are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_TOKENS = 64
GPU_CHUNK_TOKENS = 1024


@dataclass(frozen=True)
class Head:
    """Frozen linear head: `logits = scale * hidden @ weight.T + bias`.

    Attributes:
        weight: [vocabulary, hidden].
        bias: [vocabulary] or None.
        scale: factor on the product (T5 and some others scale the hidden state first).
    """

    weight: Tensor
    bias: Tensor | None
    scale: float

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocabulary] of hidden states [..., hidden]."""
        product = F.linear(hidden if self.scale == 1.0 else hidden * self.scale, self.weight)
        return product if self.bias is None else product + self.bias

    def losses(self, hidden: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy in nats per target, and the gradient of the weighted sum.

        Args:
            hidden: [n, hidden], any n; padded to whole chunks here.
            targets: [n] token ids.
            weights: [n] factors of the sum whose gradient is wanted; None for no gradient.

        Returns:
            losses [n] in fp32, and the gradient [n, hidden] in fp32 or None.
        """
        count = len(targets)
        size = CHUNK_TOKENS if hidden.device.type == "cpu" else GPU_CHUNK_TOKENS
        short = -count % size
        # Whole chunks of zeros at the end: every product has one shape, in which a row's bits are its own.
        hidden = F.pad(hidden, (0, 0, 0, short))
        targets = F.pad(targets, (0, short))
        weights = None if weights is None else F.pad(weights, (0, short))
        losses, gradients = [], []
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            weight = None if weights is None else weights[part]
            loss, gradient = self._chunk(hidden[part], targets[part], weight)
            losses.append(loss)
            gradients.append(gradient)
        joined = torch.cat([g for g in gradients if g is not None])[:count] if weights is not None else None
        return torch.cat(losses)[:count], joined

    def _chunk(self, hidden: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        logits = self.logits(hidden).float()  # (chunk, vocabulary): the one large block; all happens in it
        top = logits.amax(1, keepdim=True)  # (chunk, 1): without it exp overflows
        picked = logits.gather(1, targets[:, None]) - top  # (chunk, 1): the targets' own
        shares = logits.sub_(top).exp_()  # (chunk, vocabulary): softmax times `total`
        total = shares.sum(1, keepdim=True)  # (chunk, 1)
        losses = (total.log() - picked)[:, 0]
        if weights is None:
            return losses, None
        # d loss / d logits = softmax - one-hot; what is the same along a row waits until the row is short
        shares.scatter_add_(1, targets[:, None], -total)
        gradient = (shares.to(self.weight.dtype) @ self.weight).float()  # (chunk, hidden)
        return losses, gradient.mul_(weights[:, None] * self.scale / total)
