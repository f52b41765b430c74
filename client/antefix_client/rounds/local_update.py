"""Taking part in a round: a copy of the shared prefix is trained here, and the difference goes out sealed.

Before anything is computed: the release and the round are signed by the server that the invitation named, are
about this device's base and the very prefix that came along, and are not older than the last ones.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from antefix import Example, FrozenBase, Prefix, PrefixSpec, TrainingPlan, score, train
from antefix.errors import RoundRefused
from antefix.keys import DeviceKeys
from antefix.rounds import Round, Update
from antefix.rounds.transforms import update_pipeline
from antefix.wire import Release, ReleaseState, Signed
from antefix_client.learning.hyperparameters import MAX_PROMPT_TOKENS, MIN_TEXTS
from antefix_client.rounds.round_request import RoundRequest

_LONGEST_S = 7 * 86_400
_SKEW_S = 300
_ME = "me"


@dataclass(frozen=True)
class Checked:
    """A round that this device may take part in."""

    round: Round
    release: Release
    prefix: bytes


def verify_round(asked: RoundRequest, key: bytes, seen: ReleaseState, last: int) -> Checked:
    """Believe a round.

    Args:
        asked: from anyone.
        key: the server's release key, 32 bytes, pinned with the invitation.
        seen: what this device knows of the server's releases, its base among it.
        last: version of the release that the last round improved.

    Raises:
        RoundRefused, ReleaseRefused: says why.
    """
    release = Release.verified(Signed.parse(asked.release), key)
    seen.require_usable(release)
    round, now = Round.verified(Signed.parse(asked.round), key), time.time()
    if (round.tenant, round.release) != (release.tenant, release.digest):
        raise RoundRefused("it is about another release than the one that came along")
    if release.version < last:
        raise RoundRefused(f"it is about release {release.version}, the last one was about {last}")
    if not now - _SKEW_S < round.until < now + _LONGEST_S:
        raise RoundRefused("it is over, or this device's clock is wrong")
    if release.shared is None or hashlib.sha256(asked.prefix).hexdigest() != release.shared.sha256:
        raise RoundRefused("the shared prefix is not the one that the release names")
    return Checked(round, release, asked.prefix)


def answer(
    believed: Checked, node: int, base: FrozenBase, examples: Sequence[Example], device: DeviceKeys
) -> bytes:
    """The sealed update.

    Args:
        believed: what was `verify_round`.
        node: Flower's number of this device's node.
        base: of the profile.
        examples: this user's texts. Private; what is made of them goes out sealed and clipped.
        device: signs it.

    Raises:
        As `update_of`.
    """
    return update_of(believed, base, examples).sealed(believed.round, node, device)


def update_of(believed: Checked, base: FrozenBase, examples: Sequence[Example]) -> Update:
    """What this user's texts change in the shared prefix. Private.

    Raises:
        RoundRefused: too few texts, or nothing that could be learned from them.
        PrefixFileRefused, PrefixMismatch: the shared prefix is none of this base.
    """
    if len(examples) < MIN_TEXTS:
        raise RoundRefused(f"{len(examples)} texts are here, {MIN_TEXTS} are needed")
    round = believed.round
    start = Prefix.from_bytes(believed.prefix)
    start.require_base(base.fingerprint, base.layout)
    plan = TrainingPlan(
        max_steps=round.steps,
        learning_rate=round.learning_rate,
        evaluate=False,
        seed=int.from_bytes(bytes.fromhex(round.id)[:4]),  # other texts in each round
        batching="per-user",
        max_prompt_tokens=MAX_PROMPT_TOKENS,
    )
    spec = PrefixSpec(length=start.length)
    trained = train(base, {_ME: list(examples)}, spec, plan, start=start, progress=False)[_ME]
    if trained.diverged:
        raise RoundRefused("training with its learning rate diverges here")
    change = trained.prefix.values.numpy() - start.values.numpy()
    pipeline = update_pipeline(
        size=len(change), clip=round.clip, projection=round.projection, seed=bytes.fromhex(round.release)
    )
    part = pipeline.on_update(change, len(examples))
    loss = score(base, list(examples), start, max_prompt_tokens=MAX_PROMPT_TOKENS)
    return Update(part.vector, part.examples, loss)
