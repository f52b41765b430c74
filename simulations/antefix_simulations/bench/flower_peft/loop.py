"""Without Flower: `python -m antefix_simulations.bench.flower_peft.loop`.

Arguments: POPULATION BASE DTYPE LENGTH STEPS ROUNDS.
"""

from __future__ import annotations

import sys

import numpy as np

from antefix_simulations.bench.flower_peft.training import PeftUsers


def main() -> None:
    """All users, one after another; their mean is the next round's start."""
    population, base, dtype, length, steps, rounds = sys.argv[1:]
    users = PeftUsers(population, base, dtype, int(length), int(steps))
    shared = users.start
    for _ in range(int(rounds)):
        total, weight = np.zeros_like(shared, dtype=np.float64), 0
        for user in range(users.count):
            values, texts = users.train(user, shared)
            total += texts * values.astype(np.float64)
            weight += texts
        shared = (total / weight).astype(np.float32)


if __name__ == "__main__":
    main()
