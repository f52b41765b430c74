"""The checkpoint of an interrupted `learn`, sealed, with the plan that it was made under."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from pydantic import BaseModel, ConfigDict, ValidationError

from antefix import PrefixSpec, TrainingPlan
from antefix_client.errors import ProfileDamaged, ProfileFull
from antefix_client.profile.profile import Profile
from antefix_client.profile.session import ProfileSession
from antefix_client.profile.text_store import CHECKPOINT

_SIZE = 4


class Plan(BaseModel):
    """What a run trains and how; with another one its checkpoint is of no use.

    Attributes:
        task: digest of texts, start and base.
        spec, plan: as for `antefix.train`.
        shortened: the budget allowed fewer steps than the rule would take.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    task: str
    spec: PrefixSpec
    plan: TrainingPlan
    shortened: bool


class SealedCheckpoint(MutableMapping[str, bytes]):
    """The file `learning`: a mapping of one name, as `antefix.train` writes it."""

    def __init__(self, session: ProfileSession, profile: Profile) -> None:
        """Read what an earlier run left; a file that is damaged is as good as none.

        Args:
            session: for writing, later on.
            profile: of that session, which nobody else changes now.
        """
        self._session = session
        self.plan: Plan | None = None
        self._content: bytes | None = None
        try:
            stored = profile.sealed.read(CHECKPOINT)
        except ProfileDamaged:
            return
        if stored is None:
            return
        with stored:
            size = int.from_bytes(stored.data[:_SIZE], "big")
            try:
                self.plan = Plan.model_validate_json(bytes(stored.data[_SIZE : _SIZE + size]))
            except ValidationError:
                return
            self._content = bytes(stored.data[_SIZE + size :])

    @staticmethod
    def delete(profile: Profile) -> None:
        """Delete the file of a profile that nobody else changes now."""
        profile.sealed.delete(CHECKPOINT)

    def resume_or_start(self, plan: Plan) -> Plan:
        """The plan of the run that was cut off, if it was for the same task; else `plan`, from the start."""
        if self.plan is None or self.plan.task != plan.task or self._content is None:
            self.plan, self._content = plan, None
        return self.plan

    @property
    def resumable(self) -> bool:
        """Whether there is something to go on from."""
        return self._content is not None

    def clear(self) -> None:
        """Delete the file."""
        with self._session.locked() as profile:
            self.delete(profile)
        self.plan = self._content = None

    def __getitem__(self, name: str) -> bytes:
        """What was saved."""
        if self._content is None:
            raise KeyError(name)
        return self._content

    def __setitem__(self, name: str, content: bytes) -> None:
        """Save; where there is no space, training goes on without."""
        if self.plan is None:
            return
        head = self.plan.model_dump_json().encode()
        self._content = content
        try:
            with self._session.locked() as profile:
                profile.sealed.write(CHECKPOINT, len(head).to_bytes(_SIZE, "big") + head + content)
        except ProfileFull as error:
            raise OSError(error.message) from error

    def __delitem__(self, name: str) -> None:
        """Delete it."""
        self.clear()

    def __iter__(self) -> Iterator[str]:
        """No names: only `train` knows them."""
        return iter(())

    def __len__(self) -> int:
        """0 or 1."""
        return int(self._content is not None)
