"""The base and the prefix in use, loaded when they are first needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from antefix._arguments import require_text
from antefix._example import Example
from antefix._files import write_whole
from antefix.errors import InvalidArgument
from antefix_client._conflict import Which, before_choice, chosen
from antefix_client._history import Version, now
from antefix_client._profile import SHARED, Profile
from antefix_client._seam import files
from antefix_client.errors import BaseChanged

if TYPE_CHECKING:
    from antefix import FrozenBase, Generated, GenerationRequest, Prefix
    from antefix._batch import Piece


class Wielder:
    """Computes for one profile; any number of threads at a time.

    A prefix in memory is in the clear. It is let go with `drop`; Python cannot promise that it is wiped.
    """

    def __init__(self, profile: Profile, base: FrozenBase | None, device: str, dtype: str) -> None:
        """Load nothing yet."""
        self._profile, self._base, self._device, self._dtype = profile, base, device, dtype
        self._loading = threading.Lock()
        self._checked = False
        self._in_use: tuple[Version, Prefix] | None = None

    @property
    def base(self) -> FrozenBase:
        """The base, loaded now if it is not yet.

        Raises:
            BaseChanged: it is not the one of the profile.
            BaseNotFound, BaseUnavailable, BaseDamaged, BaseUnsuitable.
        """
        from antefix import FrozenBase

        with self._loading:
            if self._base is None:
                name = self._profile.card.base
                self._base = FrozenBase.load(name, device=self._device, dtype=self._dtype)
            if not self._checked:
                self._check(self._base)
                self._checked = True
            return self._base

    @property
    def prefix(self) -> Prefix | None:
        """The prefix in use: of the newest version, else the shared one; None before there is either.

        Raises:
            ProfileDamaged: its record does not open.
            BaseChanged: it is of another base.
        """
        newest = self._profile.history.newest
        if newest is None:
            return self.shared
        held = self._in_use
        if held is None or held[0].digest != newest.digest:
            held = self._in_use = newest, self.prefix_of(newest)
        return held[1]

    @property
    def shared(self) -> Prefix | None:
        """The shared prefix of the release, if the profile has one for this base."""
        from antefix import Prefix

        path = self._profile.folder / SHARED
        if not path.is_file():
            return None
        shared = Prefix.load(path)
        return shared if shared.base_fingerprint == self.base.fingerprint else None

    def prefix_or_none(self) -> Prefix | None:
        """As `prefix`; None where the newest version is of a base that the profile had before."""
        try:
            return self.prefix
        except BaseChanged:
            return self.shared

    def prefix_of(self, version: Version) -> Prefix:
        """The prefix of any version.

        Raises:
            ProfileDamaged: its record does not open.
        """
        base = self.base
        if version.base != base.fingerprint:
            raise BaseChanged(
                f"version {version.number} was trained on base {version.base[:16]}…, "
                f"the base in use is {base.fingerprint[:16]}…",
                "learn again",
            )
        with self._profile.open_version(version) as opened:
            return opened.prefix()

    def generate(self, prompt: str, settings: Mapping[str, Any]) -> Generated:
        """One text."""
        from antefix import generate

        return generate(self.base, [self._request(prompt, settings)], max_rows=1)[0]

    def pieces(self, prompt: str, settings: Mapping[str, Any]) -> tuple[int, Iterator[Piece]]:
        """Tokens read, and one text piece by piece; what is refused is refused now, not with the first."""
        from antefix._batch import Piece, RunningBatch
        from antefix._request import prepare

        request = self._request(prompt, settings)
        prepared = prepare(self.base, request, "the prompt")
        read = len(prepared.inputs) + len(prepared.source)
        if request.num_beams > 1:
            found = self.generate(prompt, settings)
            return read, iter([Piece(0, found.text, found)])

        def running() -> Iterator[Piece]:
            batch = RunningBatch(self.base, 1, prepared.size)
            batch.join(prepared)
            while batch.busy:
                yield from batch.step()

        return read, running()

    def score(self, texts: Sequence[Example]) -> float:
        """Nats per token under the prefix in use."""
        from antefix import score

        return score(self.base, texts, self.prefix)

    def roll_back(self, profile: Profile, which: Which) -> Version:
        """Seal an older version, or one of a conflict, as the next one."""
        version = chosen(profile.history, which)
        prefix = self.prefix_of(version)
        made = version.model_copy(update={"how": "rolled back", "of": version.number, "beside": False})
        return self.keep(profile, prefix, made, before_choice(profile.history, version))

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

    def use_shared(self, profile: Profile, path: Path) -> None:
        """Copy a shared prefix into the profile."""
        from antefix import Prefix

        shared = Prefix.load(path, base_fingerprint=self.base.fingerprint)
        with files(profile.folder / SHARED):
            write_whole(profile.folder / SHARED, shared.to_bytes())

    def change_base(self, profile: Profile, base: str | FrozenBase) -> None:
        """Go over to another base."""
        name, self._base = named(base)
        self._in_use, self._checked = None, False
        profile.unpin_base(name)

    def drop(self) -> None:
        """Let go of base and prefix."""
        self._base = self._in_use = None

    def _request(self, prompt: str, settings: Mapping[str, Any]) -> GenerationRequest:
        from antefix import GenerationRequest

        if "prefix" in settings:
            raise InvalidArgument("a personal model has its own prefix", "leave out prefix")
        return GenerationRequest(prompt=prompt, prefix=self.prefix, **settings)

    def _check(self, base: FrozenBase) -> None:
        pinned = self._profile.card.fingerprint
        if pinned is None:
            self._profile.pin_base(base.fingerprint)
        elif pinned != base.fingerprint:
            raise BaseChanged(
                f"base {base.name!r} has fingerprint {base.fingerprint[:16]}…, "
                f"this profile is for {pinned[:16]}…",
                "bring the old base back; or call change_base() and learn() again: no text is lost",
            )


def named(base: object) -> tuple[str, FrozenBase | None]:
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
