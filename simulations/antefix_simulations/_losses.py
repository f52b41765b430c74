"""Every user's held-out texts under every prefix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tqdm import tqdm

from antefix import Example, FrozenBase, Prefix, score


@dataclass(frozen=True)
class Losses:
    """Held-out loss in nats per token: with no prefix, the shared one, and each user's private one."""

    none: dict[str, float]
    shared: dict[str, float]
    private: dict[str, dict[str, float]]

    def own(self, user: str) -> float:
        """Under the user's own prefix."""
        return self.private[user][user]

    def others(self, user: str) -> float:
        """Mean over the private prefixes of all other users."""
        losses = [loss for other, loss in self.private[user].items() if other != user]
        return sum(losses) / len(losses)

    def most_unlike(self) -> tuple[str, str]:
        """The two users who lose most under each other's prefix."""
        users = list(self.private)
        pairs = [(a, b) for at, a in enumerate(users) for b in users[at + 1 :]]

        def lost(pair: tuple[str, str]) -> float:
            a, b = pair
            return self.private[a][b] + self.private[b][a] - self.own(a) - self.own(b)

        return max(pairs, key=lost)


def measure(
    base: FrozenBase,
    held_out: Mapping[str, list[Example]],
    shared: Prefix,
    private: Mapping[str, Prefix],
    progress: bool,
) -> Losses:
    """Score all pairs, one user's texts under all prefixes at a time: they share micro-batches."""
    none = score(base, held_out, None)
    under = {"shared": shared} | {f"private {user}": prefix for user, prefix in private.items()}
    general: dict[str, float] = {}
    personal: dict[str, dict[str, float]] = {}
    for user, texts in tqdm(held_out.items(), desc="reading", unit="user", disable=not progress):
        found = score(base, dict.fromkeys(under, texts), under)
        general[user] = found["shared"]
        personal[user] = {other: found[f"private {other}"] for other in private}
    return Losses(none, general, personal)
