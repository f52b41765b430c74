"""A training run's checkpoint: an interrupted run goes on from it, bit for bit.

One safetensors file per user, replaced whole at step boundaries. It holds the user's prefix in the
clear, as private as the prefix itself; delete the folder when the run is done. Who must not write such a
thing gives a mapping instead, from names to bytes, and keeps those where it likes. A file has one tensor
`state` [3 or 4, n]: trained numbers, Adam's two moments, and the best trained numbers if there are any; its
metadata are `run` (JSON of `_Saved`) and `digest` (SHA-256 of that text and the tensor's bytes).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import MutableMapping
from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save
from torch import Tensor

from antefix.common.files import atomic_write
from antefix.data.tokenization import Row
from antefix.errors import CheckpointMismatch, InvalidArgument
from antefix.prefix.strict_safetensors import HEADER_LIMIT, Unreadable, content_of, read_tensor
from antefix.training.adam import Adam
from antefix.training.config import FORMER_BATCHING, PrefixSpec, TrainingPlan
from antefix.training.user_state import Progress, UserState

_SECONDS_BETWEEN_SAVES = 30.0
_log = logging.getLogger("antefix")


class _Saved(BaseModel):
    """What a file says beside its numbers; of other types or beyond these bounds it is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    identity: str
    step: int = Field(ge=0)
    tokens: int = Field(ge=0)
    first_loss: float | None
    last_loss: float | None
    best_loss: float | None
    misses: int = Field(ge=0)
    evaluated_at: int = Field(ge=-1)
    finished: bool
    diverged: bool


class Checkpoint:
    """Saves and restores users of one run; without a place it does nothing."""

    def __init__(
        self, place: Path | MutableMapping[str, bytes] | None, base_fingerprint: str, spec: PrefixSpec
    ) -> None:
        """Take the place and what all users of the run have in common.

        Raises:
            InvalidArgument: the folder cannot be made; said now, not after hours of training.
        """
        try:
            if isinstance(place, Path):
                place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidArgument(f"checkpoint is {place}: {error.strerror}", "choose a folder") from error
        self._place = place
        self._common = f"{base_fingerprint}\n{spec.model_dump_json()}"
        self._saved_at = time.monotonic()
        self._failed = False

    def restore(self, user: UserState) -> None:
        """Put a user where an earlier run left it, if there is one.

        Raises:
            CheckpointMismatch: the file is of other texts, settings or another base, or is damaged.
        """
        size, path = user.adam.trained.numel(), self._shown(user)
        try:
            content = self._content(user, 4 * 4 * size + 8 + HEADER_LIMIT)
            if content is None:
                return
            saved, numbers = _read(content, size)
        except Unreadable as error:
            raise CheckpointMismatch(
                f"{path} cannot be used: {error}", "delete it to start that user anew"
            ) from error
        if saved.identity != self._identity(user):
            theirs, ours = saved.identity[:12], self._identity(user)[:12]
            raise CheckpointMismatch(
                f"{path} belongs to another run: it was made for {theirs}…, "
                f"this run is {ours}… (texts, start, spec, plan and base must be the same)",
                "use another checkpoint folder, or delete this one",
            )
        if saved.step > user.total_steps or saved.evaluated_at > saved.step:
            raise CheckpointMismatch(
                f"{path} cannot be used: it is at step {saved.step:.3g} of {user.total_steps}",
                "delete it to start that user anew",
            )
        trained, mean, square, *best = numbers.to(user.adam.trained.device).unbind()
        user.adam = Adam(trained.clone(), mean.clone(), square.clone(), saved.step)
        user.progress = Progress(
            **saved.model_dump(exclude={"identity", "step", "best_loss"}),
            best=best[0].clone() if best else None,
            best_loss=float("inf") if saved.best_loss is None else saved.best_loss,
        )

    def save(self, user: UserState) -> None:
        """Write one user's state; within a step, as an interrupt may find it, the last file stays.

        Where it cannot be written (a full disk) training goes on, and a log line says so once: the
        results of all users are worth more than the way back.
        """
        if self._place is None or not user.at_step_boundary:
            return
        state = vars(user.progress).copy()
        best = state.pop("best")
        rows = [user.adam.trained, user.adam.mean, user.adam.square, *([] if best is None else [best])]
        numbers = torch.stack(rows).cpu()
        saved = _Saved(
            **{**state, "best_loss": None if best is None else user.progress.best_loss},
            identity=self._identity(user),
            step=user.adam.step,
        ).model_dump_json()
        fields = {"run": saved, "digest": _digest(saved, numbers)}
        try:
            self._write(user, save({"state": numbers}, metadata=fields))
        except OSError as error:
            if not self._failed:
                _log.warning(
                    "checkpoint %s cannot be written (%s): training goes on, but an interrupted run "
                    "will start at its last save",
                    self._place if isinstance(self._place, Path) else "",
                    error.strerror or error,
                )
            self._failed = True

    def save_now_and_then(self, users: list[UserState]) -> None:
        """Save all `users` if the last time was a while ago."""
        if self._place is not None and time.monotonic() - self._saved_at > _SECONDS_BETWEEN_SAVES:
            for user in users:
                self.save(user)
            self._saved_at = time.monotonic()

    def _content(self, user: UserState, limit: int) -> bytes | None:
        if isinstance(self._place, Path):
            path = self._place / _name(user)
            return content_of(path, limit) if os.path.lexists(path) else None
        return None if self._place is None else self._place.get(_name(user))

    def _write(self, user: UserState, content: bytes) -> None:
        if isinstance(self._place, Path):
            atomic_write(self._place / _name(user), content)
        elif self._place is not None:
            self._place[_name(user)] = content

    def _shown(self, user: UserState) -> str:
        return (
            str(self._place / _name(user)) if isinstance(self._place, Path) else f"checkpoint {_name(user)}"
        )

    def _identity(self, user: UserState) -> str:
        """Digest of everything that this user's result is a function of."""
        digest = hashlib.sha256(f"{self._common}\n{_stored_plan(user.plan)}\n".encode())
        for row in (*user.rows, *user.validation_rows):
            digest.update(_stored_row(row))
        digest.update(user.start_digest.encode())
        return digest.hexdigest()


def _stored_plan(plan: TrainingPlan) -> str:
    """The plan as checkpoints have always had it: a run that was interrupted before an update goes on."""
    former = FORMER_BATCHING[plan.batching]
    return plan.model_dump_json().replace(f'"batching":"{plan.batching}"', f'"batching":"{former}"')


def _stored_row(row: Row) -> bytes:
    """A text as checkpoints have always had it, with the former name of its last field."""
    fields = asdict(row)
    fields["blind"] = fields.pop("prefix_hidden_until")
    return json.dumps(fields).encode()


def _name(user: UserState) -> str:
    digest = hashlib.sha256(user.name.encode(errors="surrogatepass"))
    return f"{digest.hexdigest()[:32]}.safetensors"


def _read(content: bytes, size: int) -> tuple[_Saved, Tensor]:
    """What a file holds [3 or 4, size], read as if an attacker had written it.

    Raises:
        Unreadable: anything unexpected; the message names the first difference.
    """
    stored = read_tensor(content, "state", 2)
    if stored.dtype != "F32" or stored.metadata.keys() != {"run", "digest"}:
        raise Unreadable("it is not of the kind that this version writes")
    if stored.metadata["digest"] != _digest(stored.metadata["run"], stored.values):
        raise Unreadable("its digest is not that of what it holds")
    try:
        saved = _Saved.model_validate_json(stored.metadata["run"])
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise Unreadable(f"its field {'.'.join(map(str, first['loc']))!r}: {first['msg']}") from None
    rows = 3 if saved.best_loss is None else 4
    if list(stored.values.shape) != [rows, size] or stored.values[2].min() < 0:
        raise Unreadable(f"its numbers are not the [{rows}, {size}] of this run")
    return saved, stored.values


def _digest(saved: str, numbers: Tensor) -> str:
    digest = hashlib.sha256(saved.encode(errors="surrogatepass"))
    digest.update(numbers.numpy().tobytes())
    return digest.hexdigest()
