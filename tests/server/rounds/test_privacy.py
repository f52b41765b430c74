"""Noise and its accounting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antefix.errors import InvalidArgument
from antefix.rounds.noise import gaussian, on_grid
from antefix_server.rounds.privacy import Privacy, Spent, epsilon_of, noise_for, too_few


def test_noise_is_normal() -> None:
    found = gaussian(400_001, 3.0) / 3.0
    assert abs(found.mean()) < 0.01
    assert found.std() == pytest.approx(1, abs=0.01)
    assert (found**3).mean() == pytest.approx(0, abs=0.03)
    assert (found**4).mean() == pytest.approx(3, abs=0.1)
    inside = [np.mean(np.abs(found) < bound) for bound in (0.5, 1, 2, 3)]
    assert inside == pytest.approx([0.3829, 0.6827, 0.9545, 0.9973], abs=0.004)


def test_no_two_draws_are_alike_and_all_are_on_the_grid() -> None:
    first, second = gaussian(1000, 2.0), gaussian(1000, 2.0)
    assert not np.array_equal(first, second)
    summed = on_grid(np.linspace(0, 1, 1000), 2.0) + first
    step = 2.0 * 2.0**-20
    assert np.array_equal(np.round(summed / step) * step, summed)


def test_epsilon_is_the_librarys_for_the_gaussian_mechanism() -> None:
    from dp_accounting import GaussianDpEvent, SelfComposedDpEvent, rdp

    accountant = rdp.RdpAccountant().compose(SelfComposedDpEvent(GaussianDpEvent(1.3), 20))
    ours = Privacy(1.3, 1e-5).epsilon(20)
    assert ours == pytest.approx(accountant.get_epsilon(1e-5), rel=0.05)
    assert ours >= accountant.get_epsilon(1e-5) - 1e-9  # fewer orders can only promise less


def test_sampling_helps_only_where_users_are_really_sampled() -> None:
    whole, fixed = Privacy(1.0, 1e-5).epsilon(10), Privacy(1.0, 1e-5, "fixed", 0.1).epsilon(10)
    assert fixed == whole
    assert Privacy(1.0, 1e-5, "poisson", 0.1).epsilon(10) < whole / 3


@given(st.floats(0.5, 20), st.integers(1, 50))
@settings(max_examples=10, deadline=None)
def test_noise_for_an_epsilon_keeps_it(epsilon: float, rounds: int) -> None:
    noise = noise_for(epsilon, 1e-5, rounds)
    assert Privacy(noise, 1e-5).epsilon(rounds) <= epsilon
    assert Privacy(noise * 0.98, 1e-5).epsilon(rounds) > epsilon * 0.99


def test_what_was_spent_is_not_given_back() -> None:
    privacy = Privacy(2.0, 1e-5)
    spent = (Spent(2.0, "fixed", 1.0, 3),)
    assert privacy.epsilon(2, spent) == pytest.approx(privacy.epsilon(5))
    assert epsilon_of(spent, 1e-5) == pytest.approx(privacy.epsilon(3))
    assert privacy.rounds_within(privacy.epsilon(5) + 1e-9, 100, spent) == 2
    assert privacy.rounds_within(0.01, 100, spent) == 0


def test_what_promises_nothing_is_refused() -> None:
    for noise, delta in ((0.0, 1e-5), (1.0, 0.0), (1.0, 1.0), (-1.0, 0.1)):
        with pytest.raises(InvalidArgument):
            Privacy(noise, delta)
    with pytest.raises(InvalidArgument, match="no noise makes"):
        noise_for(1e-9, 1e-5, 1000)


def test_too_few_users_are_told_so() -> None:
    assert too_few(1.0, 1000, 90_000) is None
    said = too_few(1.0, 30, 90_000)
    assert said is not None
    assert "300 users" in said
