"""The base and the prefix in use, loaded when they are first needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from antefix.common.validation import require_text
from antefix.data.example import Example
from antefix.errors import InvalidArgument
from antefix_client.devices.conflicts import VersionChoice, find_version, version_to_follow
from antefix_client.errors import BaseChanged
from antefix_client.profile.os_errors import translate_os_errors
from antefix_client.profile.profile import SHARED, Profile
from antefix_client.profile.safe_files import replace_file
from antefix_client.profile.session import ProfileSession
from antefix_client.profile.version_history import Version, now

if TYPE_CHECKING:
    from antefix import FrozenBase, Generated, GenerationRequest, Prefix
    from antefix.generation.interface import StepOutput


class ModelRuntime:
    """Computes for one profile; any number of threads at a time.

    A prefix in memory is in the clear. It is let go with `drop`; Python cannot promise that it is wiped.
    """

    def __init__(self, held: ProfileSession, base: FrozenBase | None, device: str, dtype: str) -> None:
        """Load nothing yet."""
        self.session, self._device, self._dtype = held, device, dtype
        self._loading = threading.Lock()
        self._given, self._turn = base, 0
        self._ready: FrozenBase | None = None
        self._in_use: tuple[Version, Prefix] | None = None

    @property
    def base(self) -> FrozenBase:
        """The base, loaded now if it is not yet.

        Raises:
            BaseChanged: it is not the one of the profile.
            ProfileClosed: also where it was closed while the base was loading.
            BaseNotFound, BaseUnavailable, BaseDamaged, BaseUnsuitable.
        """
        while True:
            with self.session.locked():
                if self._ready is not None:
                    return self._ready
            self._load()

    @contextmanager
    def active(self) -> Iterator[tuple[Profile, FrozenBase]]:
        """The profile, which nobody else changes meanwhile, with its base, which is loaded before."""
        while True:
            base = self.base
            with self.session.locked() as profile:
                if self._ready is base:
                    yield profile, base
                    return

    @property
    def prefix(self) -> Prefix | None:
        """The prefix in use: of the newest version, else the shared one; None before there is either.

        Raises:
            ProfileDamaged: its record does not open.
            BaseChanged: it is of another base.
        """
        return self._ready_to_write()[1]

    def prefix_or_none(self, profile: Profile, base: FrozenBase) -> Prefix | None:
        """As `prefix`; None where the newest version is of a base that the profile had before."""
        try:
            return self._prefix(profile, base)
        except BaseChanged:
            return self.shared(profile, base)

    def shared(self, profile: Profile, base: FrozenBase) -> Prefix | None:
        """The shared prefix of the release, if the profile has one for this base."""
        from antefix import Prefix

        path = profile.folder / SHARED
        if not path.is_file():
            return None
        shared = Prefix.load(path)
        return shared if shared.base_fingerprint == base.fingerprint else None

    def generate(self, prompt: str, settings: Mapping[str, Any]) -> Generated:
        """One text."""
        from antefix import generate

        base, request = self._request(prompt, settings)
        return generate(base, [request], max_rows=1)[0]

    def pieces(self, prompt: str, settings: Mapping[str, Any]) -> tuple[int, Iterator[StepOutput]]:
        """Tokens read, and one text piece by piece; what is refused is refused now, not with the first."""
        from antefix import generate
        from antefix.generation.engines import open_engine
        from antefix.generation.interface import StepOutput
        from antefix.generation.request import tokenize

        base, request = self._request(prompt, settings)
        prepared = tokenize(base, request, "the prompt")
        read = len(prepared.inputs) + len(prepared.source)
        if request.num_beams > 1:
            found = generate(base, [request], max_rows=1)[0]
            return read, iter([StepOutput(0, found.text, found)])

        def running() -> Iterator[StepOutput]:
            batch = open_engine(base, 1, prepared.size)
            batch.add(prepared)
            while batch.busy:
                yield from batch.step()

        return read, running()

    def score(self, texts: Sequence[Example]) -> float:
        """Nats per token under the prefix in use."""
        from antefix import score

        base, prefix = self._ready_to_write()
        return score(base, texts, prefix)

    def roll_back(self, which: VersionChoice) -> Version:
        """Seal an older version, or one of a conflict, as the next one."""
        with self.active() as (profile, base):
            version = find_version(profile.history, which)
            prefix = self._prefix_of(profile, base, version)
            made = version.model_copy(update={"how": "rolled back", "of": version.number, "beside": False})
            return self.keep(profile, prefix, made, version_to_follow(profile.history, version))

    def keep(
        self, profile: Profile, prefix: Prefix, version: Version, follows: Version | None = None
    ) -> Version:
        """Seal a prefix as the next version, in use from then on; it follows the one in use, or another."""
        from antefix.records import shape_of

        shape = shape_of(prefix.layout.digest, prefix.length, "fp32")
        made = version.model_copy(update={"made": now(), "base": prefix.base_fingerprint})
        made = profile.add_version(prefix.to_bytes(), shape, made, follows)
        self._in_use = made, prefix
        return made

    def use_shared(self, path: Path | None) -> None:
        """Copy a shared prefix into the profile, or have none."""
        from antefix import Prefix

        if path is None:
            with self.session.locked() as profile, translate_os_errors(profile.folder / SHARED):
                (profile.folder / SHARED).unlink(missing_ok=True)
            return
        with self.active() as (profile, base):
            shared = Prefix.load(path, base_fingerprint=base.fingerprint)
            replace_file(profile.folder / SHARED, shared.to_bytes())

    def change_base(self, base: str | FrozenBase) -> None:
        """Go over to another base; one that is loading meanwhile comes to nothing."""
        name, given = resolve_base(base)
        with self.session.locked() as profile:
            profile.unpin_base(name)
            self._forget(given)

    def release(self) -> None:
        """Let go of the prefix, by who dropped its version."""
        self._in_use = None

    def drop(self) -> None:
        """Let go of base and prefix, by who closes the profile; one that is loading comes to nothing."""
        self._forget(None)

    def _forget(self, given: FrozenBase | None) -> None:
        self._given, self._ready, self._in_use = given, None, None
        self._turn += 1

    def _load(self) -> None:
        """Load the base without the profile's lock, which may take minutes; believe it with the lock."""
        from antefix import FrozenBase

        with self._loading:
            with self.session.locked() as profile:
                if self._ready is not None:
                    return
                turn, name, base = self._turn, profile.manifest.base, self._given
            if base is None:
                base = FrozenBase.load(name, device=self._device, dtype=self._dtype)
            with self.session.locked() as profile:
                if turn == self._turn:
                    self._given = base
                    _pin(profile, base)
                    self._ready = base

    def _ready_to_write(self) -> tuple[FrozenBase, Prefix | None]:
        with self.active() as (profile, base):
            return base, self._prefix(profile, base)

    def _prefix(self, profile: Profile, base: FrozenBase) -> Prefix | None:
        newest = profile.history.newest
        if newest is None:
            return self.shared(profile, base)
        held = self._in_use
        if held is None or held[0].digest != newest.digest:
            held = self._in_use = newest, self._prefix_of(profile, base, newest)
        return held[1]

    def _prefix_of(self, profile: Profile, base: FrozenBase, version: Version) -> Prefix:
        if version.base != base.fingerprint:
            raise BaseChanged(
                f"version {version.number} was trained on base {version.base[:16]}…, "
                f"the base in use is {base.fingerprint[:16]}…",
                "learn again",
            )
        with profile.open_version(version) as opened:
            return opened.prefix()

    def _request(self, prompt: str, settings: Mapping[str, Any]) -> tuple[FrozenBase, GenerationRequest]:
        from antefix import GenerationRequest

        if "prefix" in settings:
            raise InvalidArgument("a personal model has its own prefix", "leave out prefix")
        base, prefix = self._ready_to_write()
        return base, GenerationRequest(prompt=prompt, prefix=prefix, **settings)


def _pin(profile: Profile, base: FrozenBase) -> None:
    pinned = profile.manifest.fingerprint
    if pinned is None:
        profile.pin_base(base.fingerprint)
    elif pinned != base.fingerprint:
        raise BaseChanged(
            f"base {base.name!r} has fingerprint {base.fingerprint[:16]}…, "
            f"this profile is for {pinned[:16]}…",
            "bring the old base back; or call change_base() and learn() again: no text is lost",
        )


def resolve_base(base: object) -> tuple[str, FrozenBase | None]:
    """Name of a base, and the base itself where it is loaded.

    Raises:
        InvalidArgument: neither a name nor a base.
    """
    if isinstance(base, str):
        require_text(base, "base")
        return base, None
    name = getattr(base, "name", None)
    if not isinstance(name, str) or not hasattr(base, "fingerprint"):
        raise InvalidArgument(
            f"base is of type {type(base).__name__}", "give a name, a folder or a FrozenBase"
        )
    return name, cast("FrozenBase", base)
