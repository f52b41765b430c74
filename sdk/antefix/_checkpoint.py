"""A training run's folder: an interrupted run goes on from it, bit for bit.

One safetensors file per user, replaced whole at step boundaries. It holds the user's prefix in the
clear, as private as the prefix itself; delete the folder when the run is done.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from antefix._adam import Adam
from antefix._files import write_whole
from antefix._spec import PrefixSpec
from antefix._users import Progress, UserRun
from antefix.errors import CheckpointMismatch, InvalidArgument

_SECONDS_BETWEEN_SAVES = 30.0


class Checkpoint:
    """Saves and restores users of one run; without a folder it does nothing."""

    def __init__(self, folder: Path | None, base_fingerprint: str, spec: PrefixSpec) -> None:
        """Take the folder and what all users of the run have in common.

        Raises:
            InvalidArgument: the folder cannot be made; said now, not after hours of training.
        """
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidArgument(f"checkpoint is {folder}: {error.strerror}", "choose a folder") from error
        self._folder = folder
        self._common = f"{base_fingerprint}\n{spec.model_dump_json()}"
        self._saved_at = time.monotonic()

    def restore(self, run: UserRun) -> None:
        """Put a user where an earlier run left it, if there is one.

        Raises:
            CheckpointMismatch: the file is of other texts, settings or another base, or is damaged.
        """
        path = self._path(run)
        if path is None or not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as file:
                fields = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise CheckpointMismatch(
                f"{path} is damaged ({error})", "delete it to start that user anew"
            ) from error
        if fields.get("identity") != self._identity(run) or not _fits(tensors, run):
            theirs, ours = fields.get("identity", "nothing")[:12], self._identity(run)[:12]
            raise CheckpointMismatch(
                f"{path} belongs to another run of user {run.name!r}: it was made for {theirs}…, "
                f"this run is {ours}… (texts, start, spec, plan and base must be the same)",
                "use another checkpoint folder, or delete this one",
            )
        state = json.loads(fields["progress"])
        tensors = {name: tensor.to(run.adam.trained.device) for name, tensor in tensors.items()}
        run.progress = Progress(**state, best=tensors.get("best"))
        run.adam = Adam(tensors["trained"], tensors["mean"], tensors["square"], int(fields["step"]))

    def save(self, run: UserRun) -> None:
        """Write one user's state; within a step, as an interrupt may find it, the last file stays."""
        path = self._path(run)
        if path is None or not run.settled:
            return
        tensors = {"trained": run.adam.trained, "mean": run.adam.mean, "square": run.adam.square}
        state = {key: value for key, value in vars(run.progress).items() if key != "best"}
        if run.progress.best is not None:
            tensors["best"] = run.progress.best
        fields = {
            "identity": self._identity(run),
            "step": str(run.adam.step),
            "progress": json.dumps(state),
        }
        write_whole(path, save({name: t.cpu() for name, t in tensors.items()}, metadata=fields))

    def save_now_and_then(self, runs: list[UserRun]) -> None:
        """Save all `runs` if the last time was a while ago."""
        if self._folder is not None and time.monotonic() - self._saved_at > _SECONDS_BETWEEN_SAVES:
            for run in runs:
                self.save(run)
            self._saved_at = time.monotonic()

    def _path(self, run: UserRun) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"{hashlib.sha256(run.name.encode()).hexdigest()[:32]}.safetensors"

    def _identity(self, run: UserRun) -> str:
        """Digest of everything that this user's result is a function of."""
        digest = hashlib.sha256(f"{self._common}\n{run.plan.model_dump_json()}\n".encode())
        for row in (*run.rows, *run.judging):
            digest.update(json.dumps(asdict(row)).encode())
        digest.update(run.start_digest.encode())
        return digest.hexdigest()


def _fits(tensors: dict[str, Tensor], run: UserRun) -> bool:
    shape = run.adam.trained.shape
    names = {"trained", "mean", "square"}
    return names <= set(tensors) <= names | {"best"} and all(
        t.shape == shape and t.dtype == torch.float32 for t in tensors.values()
    )
