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
from antefix_client.profile.version_history import Version, utc_now

if TYPE_CHECKING:
    from antefix import FrozenBase, Generated, GenerationRequest, Prefix
    from antefix.generation.interface import StepOutput


class ModelRuntime:
    """Computes for one profile; any number of threads at a time.

    A prefix in memory is in the clear. It is let go with `unload`; Python cannot promise that it is wiped.

    Attributes:
        session: of the profile.
        loaded_base: the base, once it is loaded.
    """

    def __init__(self, session: ProfileSession, base: FrozenBase | None, device: str, dtype: str) -> None:
        """Load nothing yet."""
        self.session, self._device, self._dtype = session, device, dtype
        self._loading = threading.Lock()
        self._supplied_base, self._load_number = base, 0
        self.loaded_base: FrozenBase | None = None
        self._in_use: tuple[Version, Prefix] | None = None

    @property
    def base(self) -> FrozenBase:
        """The base, loaded now if it is not yet.

        Raises:
            BaseChanged: it is not the one of the profile.
            ProfileClosed: also where it was closed while the base was loading.
            BaseNotFound, BaseUnavailable, BaseDamaged, BaseUnsuitable.
        """
        with self.active() as (_, base):
            return base

    @contextmanager
    def active(self) -> Iterator[tuple[Profile, FrozenBase]]:
        """The profile, which nobody else changes meanwhile, with its base, which is loaded before."""
        while True:
            with self.session.locked() as profile:
                if self.loaded_base is not None:
                    yield profile, self.loaded_base
                    return
            self._load()

    @property
    def prefix(self) -> Prefix | None:
        """The prefix in use: of the newest version, else the shared one; None before there is either.

        Raises:
            ProfileDamaged: its record does not open.
            BaseChanged: it is of another base.
        """
        return self._base_and_prefix()[1]

    def usable_prefix(self, profile: Profile, base: FrozenBase) -> Prefix | None:
        """As `prefix`; None where the newest version is of a base that the profile had before."""
        try:
            return self._prefix(profile, base)
        except BaseChanged:
            return self.shared_prefix(profile, base)

    def shared_prefix(self, profile: Profile, base: FrozenBase) -> Prefix | None:
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

    def stream(self, prompt: str, settings: Mapping[str, Any]) -> tuple[int, Iterator[StepOutput]]:
        """Tokens read, and one text piece by piece; what is refused is refused now, not with the first."""
        from antefix import generate
        from antefix.generation.engines import open_engine
        from antefix.generation.interface import StepOutput
        from antefix.generation.request import tokenize

        base, request = self._request(prompt, settings)
        tokenized = tokenize(base, request, "the prompt")
        prompt_tokens = len(tokenized.inputs) + len(tokenized.source)
        if request.num_beams > 1:
            generated = generate(base, [request], max_rows=1)[0]
            return prompt_tokens, iter([StepOutput(0, generated.text, generated)])

        def decode() -> Iterator[StepOutput]:
            batch = open_engine(base, 1, tokenized.size)
            batch.add(tokenized)
            while batch.busy:
                yield from batch.step()

        return prompt_tokens, decode()

    def score(self, texts: Sequence[Example]) -> float:
        """Nats per token under the prefix in use."""
        from antefix import score

        base, prefix = self._base_and_prefix()
        return score(base, texts, prefix)

    def roll_back(self, which: VersionChoice) -> Version:
        """Seal an older version, or one of a conflict, as the next one."""
        with self.active() as (profile, base):
            version = find_version(profile.history, which)
            prefix = self._prefix_of(profile, base, version)
            again = version.model_copy(update={"how": "rolled back", "of": version.number, "beside": False})
            return self.add_version(profile, prefix, again, version_to_follow(profile.history, version))

    def add_version(
        self, profile: Profile, prefix: Prefix, version: Version, follows: Version | None = None
    ) -> Version:
        """Seal a prefix as the next version, in use from then on; it follows the one in use, or another."""
        from antefix.records import shape_of

        shape = shape_of(prefix.layout.digest, prefix.length, "fp32")
        dated = version.model_copy(update={"made": utc_now(), "base": prefix.base_fingerprint})
        sealed = profile.prefixes.add(prefix.to_bytes(), shape, dated, follows)
        self._in_use = sealed, prefix
        return sealed

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
        """Go over to another base; one that is loading meanwhile is not kept."""
        name, supplied = resolve_base(base)
        with self.session.locked() as profile:
            profile.change_base(name)
            self._replace_base(supplied)

    def drop_prefix(self) -> None:
        """Let go of the prefix; whoever drops its version calls this."""
        self._in_use = None

    def unload(self) -> None:
        """Let go of base and prefix; whoever closes the profile calls this. A base on its way is not kept."""
        self._replace_base(None)

    def _replace_base(self, base: FrozenBase | None) -> None:
        self._supplied_base, self.loaded_base, self._in_use = base, None, None
        self._load_number += 1

    def _load(self) -> None:
        """Load the base without the profile's lock, which may take minutes; believe it with the lock."""
        from antefix import FrozenBase

        with self._loading:
            with self.session.locked() as profile:
                if self.loaded_base is not None:
                    return
                number, name, base = self._load_number, profile.manifest.base, self._supplied_base
            if base is None:
                base = FrozenBase.load(name, device=self._device, dtype=self._dtype)
            with self.session.locked() as profile:
                if number == self._load_number:
                    self._supplied_base = base
                    _pin(profile, base)
                    self.loaded_base = base

    def _base_and_prefix(self) -> tuple[FrozenBase, Prefix | None]:
        with self.active() as (profile, base):
            return base, self._prefix(profile, base)

    def _prefix(self, profile: Profile, base: FrozenBase) -> Prefix | None:
        newest = profile.history.newest
        if newest is None:
            return self.shared_prefix(profile, base)
        cached = self._in_use
        if cached is None or cached[0].digest != newest.digest:
            cached = self._in_use = newest, self._prefix_of(profile, base, newest)
        return cached[1]

    def _prefix_of(self, profile: Profile, base: FrozenBase, version: Version) -> Prefix:
        if version.base != base.fingerprint:
            raise BaseChanged(
                f"version {version.number} was trained on base {version.base[:16]}…, "
                f"the base in use is {base.fingerprint[:16]}…",
                "learn again",
            )
        with profile.prefixes.open(version) as opened:
            return opened.prefix()

    def _request(self, prompt: str, settings: Mapping[str, Any]) -> tuple[FrozenBase, GenerationRequest]:
        from antefix import GenerationRequest

        if "prefix" in settings:
            raise InvalidArgument("a personal model has its own prefix", "leave out prefix")
        base, prefix = self._base_and_prefix()
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
