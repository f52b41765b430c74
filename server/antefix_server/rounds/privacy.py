"""User-level differential privacy of the shared prefix: how much noise, and how much it promises.

Neighbouring runs differ in one user's texts (that user sends nothing instead). Each round adds Gaussian noise
of `noise` times the clip to the sum of clipped updates, and divides by the number of users that were asked,
which does not depend on who answered. Composed by Rényi accounting (Mironov 2017; `dp-accounting`).

Sampling makes the promise stronger only where it is real: `poisson` takes each user by an own coin flip, and
nobody but the server knows who was taken. `fixed` counts every round in full.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from antefix.errors import InvalidArgument

if TYPE_CHECKING:  # it brings SciPy: seconds, which rounds without noise need not wait for
    from dp_accounting import DpEvent, rdp

__all__ = ["Privacy", "Spent", "epsilon_of", "noise_for", "too_few"]

Sampling = Literal["fixed", "poisson"]
_MOST_NOISE = 1000.0
_ORDERS = [*range(2, 129), 192, 256, 512, 1024]


@dataclass(frozen=True)
class Spent:
    """Rounds that are over, or will be: noise in clips (0: none), how users were chosen, how many rounds."""

    noise: float
    sampling: Sampling
    fraction: float
    rounds: int

    @property
    def event(self) -> DpEvent:
        """One of them, for the accountant."""
        from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent

        event = GaussianDpEvent(self.noise)
        return PoissonSampledDpEvent(self.fraction, event) if self.sampling == "poisson" else event


@dataclass(frozen=True)
class Privacy:
    """How a run protects its users.

    Attributes:
        noise: deviation of the noise on the sum, in clips.
        delta: the δ at which ε is told; below one over the number of users.
        sampling: how users are chosen for a round.
        fraction: of the users in a round.
    """

    noise: float
    delta: float
    sampling: Sampling = "fixed"
    fraction: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what promises nothing."""
        if not 0 < self.noise <= _MOST_NOISE or not 0 < self.delta < 1:
            raise InvalidArgument(
                f"noise {self.noise} and delta {self.delta}", "noise above 0, delta between 0 and 1"
            )

    def rounds(self, count: int) -> Spent:
        """So many rounds of it."""
        return Spent(self.noise, self.sampling, self.fraction, count)

    def epsilon(self, rounds: int, before: Iterable[Spent] = ()) -> float:
        """ε after so many rounds; what earlier ones over the same users gave away is not given back."""
        return epsilon_of([*before, self.rounds(rounds)], self.delta)

    def rounds_within(self, epsilon: float, most: int, before: Iterable[Spent] = ()) -> int:
        """How many more rounds stay within an ε, `most` at most."""
        spent, low, high = list(before), 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.epsilon(middle, spent) <= epsilon else (low, middle - 1)
        return low


def epsilon_of(spent: Iterable[Spent], delta: float) -> float:
    """ε of rounds, all together; infinite where some had no noise."""
    from dp_accounting import SelfComposedDpEvent

    accountant = _accountant()
    for spending in spent:
        if spending.rounds and spending.noise == 0:
            return math.inf
        if spending.rounds:
            accountant.compose(SelfComposedDpEvent(spending.event, spending.rounds))
    return float(accountant.get_epsilon(delta))


def noise_for(
    epsilon: float, delta: float, rounds: int, sampling: Sampling = "fixed", fraction: float = 1.0
) -> float:
    """The least noise with which so many rounds stay within ε.

    Raises:
        InvalidArgument: there is none in bounds.
    """
    from dp_accounting import SelfComposedDpEvent, calibrate_dp_mechanism

    if not 0 < epsilon < math.inf:
        raise InvalidArgument(f"an epsilon of {epsilon}", "choose one above 0")

    def event(noise: float) -> DpEvent:
        return SelfComposedDpEvent(Spent(noise, sampling, fraction, 1).event, rounds)

    if Privacy(_MOST_NOISE, delta, sampling, fraction).epsilon(rounds) > epsilon:
        raise InvalidArgument(f"no noise makes {rounds} rounds as private as {epsilon}", "fewer rounds")
    return float(calibrate_dp_mechanism(_accountant, event, epsilon, delta))


def _accountant() -> rdp.RdpAccountant:
    """Whole orders alone: others do not converge for small noise, and hardly ever are the best."""
    from dp_accounting import NeighboringRelation, rdp

    return rdp.RdpAccountant(_ORDERS, NeighboringRelation.ADD_OR_REMOVE_ONE)


def too_few(noise: float, users: float, numbers: int) -> str | None:
    """A warning where the noise buries what a round could find: longer than one user's whole update.

    The mean of the updates is no longer than the clip, its noise about noise · √numbers / users clips.
    """
    length = noise * math.sqrt(numbers) / max(users, 1.0)
    if length <= 1:
        return None
    needed = math.ceil(noise * math.sqrt(numbers))
    return (
        f"the noise on the mean is {length:,.1f} times as long as the longest possible mean of the updates: "
        f"with {users:,.0f} users a round there is hardly anything to learn; {needed:,} users, a smaller "
        f"projection or a larger epsilon would do"
    )
