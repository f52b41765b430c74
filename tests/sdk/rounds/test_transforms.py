"""The pipeline of updates against the same steps written out, and a step that is added to it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from antefix.errors import InvalidArgument
from antefix.rounds import Projection, clip_to_norm
from antefix.rounds.noise import on_grid
from antefix.rounds.transforms import Clip, Contribution, Total, UpdatePipeline, Weigh, update_pipeline

SIZE, SEED = 50, b"release"
EXAMPLES = [3, 10_000, 12]


def changes() -> list[NDArray[np.float32]]:
    dice = np.random.default_rng(0)
    return [(scale * dice.standard_normal(SIZE)).astype(np.float32) for scale in (0.01, 1.0, 30.0)]


def summed(pipeline: UpdatePipeline) -> Total:
    parts = [pipeline.on_update(change, count) for change, count in zip(changes(), EXAMPLES, strict=True)]
    vector = sum(
        (part.weight * part.vector.astype(np.float64) for part in parts), np.zeros(len(parts[0].vector))
    )
    return Total(vector, sum(part.weight for part in parts))


@pytest.mark.parametrize("projection", [0, 16])
@pytest.mark.parametrize("by_examples", [False, True])
def test_the_mean_is_that_of_the_steps_written_out(projection: int, by_examples: bool) -> None:
    pipeline = update_pipeline(size=SIZE, clip=0.7, projection=projection, seed=SEED, by_examples=by_examples)
    subspace = Projection(SIZE, projection, SEED) if projection else None
    vectors = [change if subspace is None else subspace.down(change) for change in changes()]
    weights = [3.0, 4096.0, 12.0] if by_examples else [1.0, 1.0, 1.0]
    clipped = [clip_to_norm(vector, 0.7).astype(np.float64) for vector in vectors]
    mean = np.average(clipped, axis=0, weights=weights)
    expected = mean if subspace is None else subspace.up(mean)

    found = pipeline.on_sum(summed(pipeline))

    np.testing.assert_allclose(found.vector, expected, rtol=1e-6, atol=1e-9)
    assert found.weight == sum(weights)


def test_with_privacy_the_noisy_sum_is_divided_by_the_users_that_were_expected() -> None:
    def draw(count: int, deviation: float) -> NDArray[np.float64]:
        return np.full(count, deviation)

    pipeline = update_pipeline(size=SIZE, clip=0.5, expected=10.0, deviation=0.25, draw=draw)
    total = summed(pipeline)
    found = pipeline.on_sum(total)
    np.testing.assert_array_equal(found.vector, (on_grid(total.vector, 0.25) + 0.25) / 10.0)
    assert found.weight == 10.0


def test_the_server_weighs_what_a_device_has_prepared_and_clips_nothing_twice() -> None:
    device = update_pipeline(size=SIZE, clip=0.7, projection=16, seed=SEED)
    server = update_pipeline(size=SIZE, clip=0.7, projection=16, seed=SEED, by_examples=True)
    for change, examples in zip(changes(), EXAMPLES, strict=True):
        prepared = device.on_update(change, examples)
        weighed = server.weigh(prepared.vector, prepared.examples)
        whole = server.on_update(change, examples)
        np.testing.assert_array_equal(weighed.vector, whole.vector)
        assert weighed.weight == whole.weight
        np.testing.assert_array_equal(
            server.expand(prepared.vector), Projection(SIZE, 16, SEED).up(prepared.vector.astype(np.float64))
        )


def test_the_norm_before_the_clip_is_known_and_the_vector_is_never_longer_than_the_clip() -> None:
    pipeline = update_pipeline(size=SIZE, clip=0.7)
    for change in changes():
        part = pipeline.on_update(change, 5)
        assert part.norm == pytest.approx(float(np.linalg.norm(change)))
        assert np.linalg.norm(part.vector.astype(np.float64)) <= 0.7


def test_a_projection_to_more_numbers_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="a projection of 50 numbers to 51"):
        update_pipeline(size=SIZE, clip=1.0, projection=51)


@dataclass(frozen=True)
class Mask:
    """A step as secure aggregation adds one: what it puts on an update, the sum loses."""

    mask: NDArray[np.float32]

    def on_update(self, part: Contribution) -> Contribution:
        return replace(part, vector=part.vector + self.mask)

    def on_sum(self, total: Total) -> Total:
        return replace(total, vector=total.vector - total.weight * self.mask.astype(np.float64))


def test_a_new_step_is_one_class_with_both_halves() -> None:
    mask = np.full(SIZE, 1024.0, np.float32)
    plain, masked = (
        UpdatePipeline([Clip(0.7), Weigh(False, None)]),
        UpdatePipeline([Clip(0.7), Weigh(False, None), Mask(mask)]),
    )
    assert np.abs(masked.on_update(changes()[0], 5).vector).min() > 1000
    np.testing.assert_allclose(
        masked.on_sum(summed(masked)).vector, plain.on_sum(summed(plain)).vector, atol=1e-3
    )


def test_a_contribution_shows_no_number_of_its_vector() -> None:
    part = update_pipeline(size=SIZE, clip=0.7).on_update(changes()[0], 5)
    assert "vector" not in repr(part)
