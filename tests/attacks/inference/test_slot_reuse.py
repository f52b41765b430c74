"""The previous occupant of a slot must not influence, or be readable by, the next one."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from antefix import FrozenBase, Prefix
from antefix.generation.request import Generated, GenerationRequest, Size, TokenizedRequest, tokenize
from antefix.generation.torch_engine import ContinuousBatch
from tests.support import tiny_models
from tests.support.poisoned_prefix import poisoned

EXACT = pytest.mark.parametrize("exact", [False, True])
FAMILY = pytest.mark.parametrize("family", ["llama", "bart", *tiny_models.slow("t5")])


def prefix(base: FrozenBase, value: float, length: int = 9) -> Prefix:
    return poisoned(base, torch.full((base.layout.size(length),), value))


def finish(batch: ContinuousBatch, *joining: TokenizedRequest) -> list[tuple[Generated, Tensor]]:
    """Results and logits of requests that join together."""
    logits: dict[int, list[Tensor]] = {}
    results: dict[int, Generated] = {}
    batch.on_logits = lambda ticket, seen: logits.setdefault(ticket, []).append(seen)
    tickets = [batch.add(one) for one in joining]
    while batch.busy:
        results |= {piece.request_id: piece.result for piece in batch.step() if piece.result is not None}
    return [(results[ticket], torch.stack(logits[ticket])) for ticket in tickets]


def fresh(base: FrozenBase, exact: bool) -> ContinuousBatch:
    return ContinuousBatch(base, 2, Size(64, 64 if base.is_encoder_decoder else 0), exact=exact)


def same(found: tuple[Generated, Tensor], wanted: tuple[Generated, Tensor]) -> bool:
    return found[0] == wanted[0] and torch.equal(found[1], wanted[1])


@EXACT
@FAMILY
@pytest.mark.parametrize("value", [0.5, 1e4, float("inf"), float("nan")])
def test_the_previous_prefix_is_gone(family: str, exact: bool, value: float) -> None:
    base = tiny_models.base(family)
    victim = tokenize(base, GenerationRequest(prompt="An ornament", max_new_tokens=9))
    wanted = finish(fresh(base, exact), victim)
    batch = fresh(base, exact)
    attacker = GenerationRequest(prompt="An ornament", prefix=prefix(base, value), max_new_tokens=20)
    finish(batch, tokenize(base, attacker))
    assert same(finish(batch, victim)[0], wanted[0])


@EXACT
@FAMILY
def test_a_poisoned_neighbour_that_leaves_early_is_gone(family: str, exact: bool) -> None:
    """Its slot is filled by the row behind it, or stays empty beside a row that goes on."""
    base = tiny_models.base(family)
    victim = tokenize(base, GenerationRequest(prompt="An ornament", max_new_tokens=12))
    nobody = tokenize(base, GenerationRequest(prompt="The roof", max_new_tokens=3))
    poison = GenerationRequest(prompt="The roof", prefix=prefix(base, float("nan")), max_new_tokens=3)
    wanted = finish(fresh(base, exact), nobody, victim)
    found = finish(fresh(base, exact), tokenize(base, poison), victim)
    if exact or not base.is_encoder_decoder:
        torch.testing.assert_close(found[1][1], wanted[1][1], rtol=1e-3, atol=1e-4)
    assert found[1][0] == wanted[1][0]
    assert not found[0][1].isfinite().all()  # the poison did work on its own row


@EXACT
@FAMILY
def test_a_poisoned_free_slot_is_cleaned_before_use(family: str, exact: bool) -> None:
    base = tiny_models.base(family)
    victim = tokenize(base, GenerationRequest(prompt="An ornament", max_new_tokens=9))
    wanted = finish(fresh(base, exact), victim)
    batch = fresh(base, exact)
    for stored in batch._cache._stored.values():
        stored[:, 0].fill_(float("nan"))
    assert same(finish(batch, victim)[0], wanted[0])


@EXACT
@FAMILY
def test_nothing_of_a_row_lingers_when_it_has_left(family: str, exact: bool) -> None:
    base = tiny_models.base(family)
    batch = fresh(base, exact)
    ask = GenerationRequest(prompt="secret", prefix=prefix(base, 0.5), max_new_tokens=20)
    finish(batch, *[tokenize(base, ask.model_copy(update={"max_new_tokens": n})) for n in (3, 20)])
    for stored in batch._cache._stored.values():
        assert not stored[:, :2].any()


@EXACT
@FAMILY
def test_masked_slots_hold_zeros(family: str, exact: bool) -> None:
    """What hides behind a mask is multiplied by zero, and zero times NaN is NaN."""
    base = tiny_models.base(family)
    batch = fresh(base, exact)
    victim = tokenize(
        base, GenerationRequest(prompt="An ornament", prefix=prefix(base, 0.5), max_new_tokens=9)
    )
    batch.add(victim)
    batch.step()
    for number, stored in batch._cache._stored.items():
        used = victim.length + len(victim.inputs)
        used = victim.size.cross if base.layout.slots[number].kind == "cross" else used
        assert stored[:, 0, :, :used].abs().amax(-1).all()
        assert not stored[:, 0, :, used:].any()


def test_a_prompt_without_room_for_padding_stays_in_its_slot() -> None:
    """In exact mode prompts are padded; past the end of a slot lies the next user's."""
    base = tiny_models.base("llama")
    long = tokenize(base, GenerationRequest(prompt="An", prefix=prefix(base, 0.5), max_new_tokens=3))
    long = replace(long, inputs=tuple(range(4, 64 - long.length - 3 + 4)))
    assert long.size.decoder == 64
    victim = tokenize(base, GenerationRequest(prompt="An ornament", max_new_tokens=9))
    wanted = finish(fresh(base, exact=True), victim)[0]
    batch = fresh(base, exact=True)
    logits: list[Tensor] = []
    gone, ticket = (
        batch.add(replace(victim, stop_token_ids=frozenset(range(tiny_models.VOCABULARY)))),
        batch.add(victim),
    )
    batch.on_logits = lambda seen_of, seen: logits.append(seen) if seen_of == ticket else None
    assert [piece.request_id for piece in batch.step() if piece.result is not None] == [gone]
    batch.add(long)  # into the slot before the victim's
    while batch.busy:
        batch.step()
    assert torch.equal(torch.stack(logits), wanted[1])


@EXACT
@FAMILY
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_cancelled_row_is_gone_and_its_neighbour_goes_on(family: str, exact: bool, after: int) -> None:
    base = tiny_models.base(family)
    victim = tokenize(base, GenerationRequest(prompt="An ornament", max_new_tokens=12))
    wanted = finish(fresh(base, exact), victim)[0]
    poison = GenerationRequest(prompt="An ornament", prefix=prefix(base, 1e4), max_new_tokens=20)
    batch = fresh(base, exact)
    leaving = batch.add(tokenize(base, poison))
    found = {batch.add(victim): wanted[0]}
    for _ in range(after):
        batch.step()
    assert batch.cancel(leaving)
    assert not batch.cancel(leaving)
    results: dict[int, Generated] = {}
    while batch.busy:
        results |= {piece.request_id: piece.result for piece in batch.step() if piece.result is not None}
    assert results == found
    assert same(finish(batch, victim)[0], wanted)
    assert not any(stored[:, : batch._cache.rows].any() for stored in batch._cache._stored.values())
