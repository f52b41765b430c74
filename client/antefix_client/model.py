"""The personal model: what an application embeds.

from antefix_client import PersonalModel

model = PersonalModel.create("notes.profile", unlock="a few words of your own")
model.remember(texts)
print(model.learn())
print(model.generate("Dear all, "))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from antefix.common.validation import path_of, require
from antefix.data.example import Example
from antefix.errors import InvalidArgument
from antefix_client.devices.api import DeviceLinking
from antefix_client.devices.conflicts import VersionChoice, open_conflicts
from antefix_client.devices.recovery import recover
from antefix_client.inference import export as export_module
from antefix_client.inference.runtime import ModelRuntime, resolve_base
from antefix_client.learning.budget import Budget
from antefix_client.learning.report import LearnReport
from antefix_client.profile.profile import Profile
from antefix_client.profile.rescue import rescue
from antefix_client.profile.session import ProfileSession
from antefix_client.profile.unlock_slots import Keyring, Unlock, resolve
from antefix_client.profile.version_history import Version

if TYPE_CHECKING:
    from antefix import FrozenBase
    from antefix.keys import Cost

__all__ = ["Budget", "Keyring", "LearnReport", "PersonalModel", "Status", "Version"]

DEFAULT_BASE = "smollm2-135m-q4"
Progress = bool | Callable[[int, int], None]


@dataclass(frozen=True)
class Status:
    """A profile at a glance; nothing in it is private but the numbers.

    Attributes:
        folder: of the profile.
        base: as it was named.
        fingerprint: of the base, once it was loaded.
        texts: remembered.
        version: in use; None for none.
        conflicts: versions of another device that wait for a choice, as `roll_back` takes them.
        interrupted: a `learn` was cut off; the next one goes on from there.
        learn_due: texts were removed that the versions may know; the next `learn` starts afresh.
        bytes: on the disk.
        damaged: what could not be read; the rest can.
    """

    folder: Path
    base: str
    fingerprint: str | None
    texts: int
    version: int | None
    conflicts: tuple[str, ...]
    interrupted: bool
    learn_due: bool
    bytes: int
    damaged: tuple[str, ...]


class PersonalModel(DeviceLinking):
    """One user's model on this device: remembers texts, learns from them, writes like them.

    Nothing leaves the device, and nothing private is on its disk but sealed. The base is loaded with the
    first call that needs it. Any thread may call anything: what changes something waits for its turn, the
    rest runs beside it. Close it, or use it in a `with` block.

    Attributes:
        session: the open profile, for the other parts of this package; it may change with any release.
        runtime: computes with base and prefix; likewise.
    """

    def __init__(self, profile: Profile, base: FrozenBase | None, device: str, dtype: str) -> None:
        """Use `create` or `open`."""
        self.session = ProfileSession(profile)
        self.runtime = ModelRuntime(self.session, base, device, dtype)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        unlock: Unlock,
        base: str | FrozenBase = DEFAULT_BASE,
        device: str = "cpu",
        dtype: str = "fp32",
        cost: Cost | None = None,
    ) -> Self:
        """Make a profile and open it.

        Args:
            folder: new or empty.
            unlock: a passphrase (a `str`), a key of 32 bytes, a `Keyring`, or a function that gives one of
                the first two. Whoever loses it loses the profile: nobody else has it.
            base: catalogue name, folder or hub id; or a base that is loaded already.
            device, dtype: of the base, as `FrozenBase.load` takes them.
            cost: of guessing the passphrase; the default takes a tenth of a second.

        Raises:
            ProfileExists, ProfileInUse, ProfileFull, ProfileUnwritable, InvalidArgument.
        """
        name, loaded = resolve_base(base)
        if cost is not None and not hasattr(cost, "allowed"):  # antefix.keys is not imported for this
            raise InvalidArgument(f"cost is of type {type(cost).__name__}", "give an antefix.keys.Cost")
        profile = recover(Profile.create(path_of(folder, "folder"), name, unlock, cost))
        return cls(profile, loaded, device, dtype)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        unlock: Unlock,
        base: FrozenBase | None = None,
        device: str = "cpu",
        dtype: str = "fp32",
    ) -> Self:
        """Open a profile. The base is not loaded yet.

        Args:
            folder: of the profile.
            unlock: as it was created or last changed.
            base: a loaded base to use, that several profiles share, say.
            device, dtype: of the base otherwise.

        Raises:
            ProfileAbsent, ProfileInUse, UnlockRefused, ProfileDamaged, ProfileUnwritable.
        """
        if isinstance(base, str):
            raise InvalidArgument(
                "base is a name", "the profile knows its base: leave it out, or give a loaded one"
            )
        return cls(recover(Profile.open(path_of(folder, "folder"), unlock)), base, device, dtype)

    @staticmethod
    def rescue(folder: str | Path, *, unlock: Unlock) -> list[Example]:
        """The texts of a profile that does not open any more, its `keys` being damaged. Private.

        Raises:
            ProfileAbsent, ProfileInUse, UnlockRefused, ProfileDamaged.
        """
        return rescue(path_of(folder, "folder"), unlock)

    def remember(self, texts: Iterable[str | Example]) -> int:
        """Keep texts to learn from; how many of them are new. Durable on return; all or none.

        A text that is kept already is not kept twice. Above the profile's limits (4,096 texts, 16 MiB) the
        oldest are dropped.

        Raises:
            TextRefused, InvalidArgument: one of them cannot be kept; its number is said, never its text.
            ProfileFull, ProfileUnwritable: nothing was kept.
        """
        _require_list(texts)
        with self.session.locked() as profile:
            return profile.texts.add(map(_example, texts))

    def texts(self) -> dict[int, Example]:
        """What is remembered, by number, oldest first. Private."""
        with self.session.locked() as profile:
            return dict(profile.texts.by_number)

    def remove_texts(self, numbers: Iterable[int]) -> int:
        """Forget some texts; how many there were.

        On return they are gone from the disk. What was learned from them is in use until the next `learn`:
        that one starts afresh from what is left, and drops every older version, even where it brings no gain
        or fewer than four texts are left. `status().learn_due` says that it is due. What other devices or a
        server already have of these versions, this does not reach.
        """
        given: object = numbers
        items = list(given) if isinstance(given, Iterable) else []
        chosen = [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
        if not isinstance(given, Iterable) or len(chosen) < len(items):
            raise InvalidArgument("numbers is not a list of whole numbers", "texts() has them")
        with self.session.locked() as profile:
            return profile.texts.remove(chosen)

    def learn(self, *, budget: Budget | None = None, progress: Progress = True) -> LearnReport:
        """Train a new version, and keep it if it predicts texts better that it was not trained on.

        Some of the texts are kept aside to judge, always the same ones. Interrupted, by Ctrl-C or a crash,
        the next call goes on where it was. Meanwhile everything else goes on; texts that are removed
        meanwhile make it begin again, `close` and `forget` end it. After a removal: see `remove_texts`.

        Args:
            budget: what it may take.
            progress: show a bar on stderr; or a function, as in `antefix.train`.

        Raises:
            TooFewTexts: fewer than four.
            BaseChanged, ProfileFull, and what loading the base may raise.
        """
        from antefix_client.learning.learn import learn

        budget = Budget() if budget is None else budget
        require(budget, Budget, "budget")
        return learn(self.runtime, budget, progress)

    def generate(self, prompt: str, **settings: Any) -> str:
        """What follows the prompt, in one's own way.

        Args:
            prompt: what the base reads first. Best without a space at its end: most tokenizers put the space
                before a word into its token, and go astray after a lone one.
            settings: as in `antefix.GenerationRequest`: `max_new_tokens`, `temperature`, `stop`, `chat` …

        Raises:
            InvalidArgument, TextTooLong, BaseChanged, ProfileDamaged.
        """
        return self.runtime.generate(prompt, settings).text

    def stream(self, prompt: str, **settings: Any) -> Iterator[str]:
        """As `generate`, piece by piece as they come."""
        _, outputs = self.runtime.stream(prompt, settings)
        return (output.text for output in outputs if output.text)

    def load_base(self) -> None:
        """Load the base now, not with the first text."""
        _ = self.base

    @property
    def base(self) -> FrozenBase:
        """The base, loaded now if it is not yet."""
        return self.runtime.base

    def score(self, texts: Iterable[str | Example]) -> float:
        """How well texts are predicted: mean nats per token, lower is better."""
        _require_list(texts)
        return self.runtime.score([_example(text) for text in texts])

    def versions(self) -> list[Version]:
        """What was learned, oldest first; the last one that is not `beside` is in use."""
        with self.session.locked() as profile:
            return list(profile.history.versions)

    def roll_back(self, which: VersionChoice = None) -> Version:
        """Use an older version again: it is sealed as a new one, so that versions only grow.

        In a conflict this chooses: a version that is beside, or the one in use. The other device takes the
        choice over when it receives it.

        Args:
            which: a number; where two versions have it, `Version.name` or the version itself; None for the
                one before the one in use.

        Raises:
            InvalidArgument: there is no such version, or there are two.
            ProfileDamaged: it does not open.
        """
        return self.runtime.roll_back(which)

    def receive(self, record: bytes) -> Version:
        """Keep a version of another device of yours, as `export(what="record")` writes it there.

        What comes next after the version in use is in use from now on. What was made from another version
        than ours is a conflict: it is kept, `beside` is true, and the one in use stays in use until somebody
        chooses with `roll_back`. A version that is here already is returned as it is.

        Raises:
            BaseChanged: it is for another base.
            RecordMismatch: another user's, of a device that was not linked, or older than all that is kept.
            RecordRefused: damaged.
            ProfileFull, ProfileUnwritable, and what loading the base may raise, if it never was.
        """
        from antefix_client.devices.receiving import receive

        with self.session.locked() as profile:
            pinned = profile.manifest.fingerprint
        if pinned is None:
            self.load_base()
        with self.session.locked() as profile:
            return receive(profile, record)

    def export(
        self, path: str | Path, *, what: Literal["prefix", "peft", "record", "texts"] = "prefix"
    ) -> Path:
        """Write something of the profile to `path`.

        Args:
            path: new file; a folder for `peft`.
            what: `prefix`, safetensors in the clear; `peft`, an adapter folder in the clear; `record`, the
                sealed record; `texts`, JSON lines in the clear.

        Raises:
            InvalidArgument: it is there already, or nothing was learned yet.
        """
        return export_module.export(self.runtime, path_of(path, "path"), what)

    def use_shared(self, path: str | Path | None) -> None:
        """Start from a shared prefix: what is used before the first `learn`, and what each one begins with.

        Args:
            path: a prefix file of this base, as a release has it; not private, and copied. None for none.

        Raises:
            PrefixFileRefused, PrefixMismatch.
        """
        self.runtime.use_shared(None if path is None else path_of(path, "path"))

    def change_base(self, base: str | FrozenBase) -> None:
        """Go over to another base: texts and versions stay, but versions of the old base are not used.

        Until the next `learn`, generating raises `BaseChanged`.
        """
        self.runtime.change_base(base)

    def status(self) -> Status:
        """The profile at a glance."""
        with self.session.locked() as profile:
            texts, newest = len(profile.texts.by_number), profile.history.newest
            return Status(
                folder=profile.folder,
                base=profile.manifest.base,
                fingerprint=profile.manifest.fingerprint,
                texts=texts,
                version=None if newest is None else newest.number,
                conflicts=tuple(version.name for version in open_conflicts(profile.history)),
                interrupted=profile.interrupted,
                learn_due=profile.history.state.removed,
                bytes=profile.bytes_on_disk,
                damaged=tuple(profile.damaged),
            )

    def change_unlock(self, unlock: Unlock, *, cost: Cost | None = None) -> None:
        """Unlock with something else from now on."""
        _ = self.session.profile  # or says that it is closed
        resolved = resolve(unlock)  # asks somebody, perhaps: nobody else waits for the answer
        with self.session.locked() as profile:
            profile.change_unlock(resolved, cost)

    def forget(self) -> None:
        """Destroy the profile: keys, texts, versions. There is no way back. The object is closed."""
        with self.session.locked() as profile:
            try:
                profile.forget()
            finally:
                if not profile.lock.held:
                    self.runtime.unload()

    def close(self) -> None:
        """Wipe the keys and let the next one in."""
        self.session.close(self.runtime.unload)

    def __enter__(self) -> Self:
        """The model itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _require_list(texts: object) -> None:
    """A text is iterable too, by letters; so is a mapping, by its keys."""
    require(texts, Iterable, "texts", "give a list")
    if isinstance(texts, str | Example):
        raise InvalidArgument("texts is one text", "put it in a list")
    if isinstance(texts, Mapping | bytes):
        raise InvalidArgument(f"texts is a {type(texts).__name__}", "give a list of texts")


def _example(text: object) -> Example:
    if isinstance(text, Example):
        return text
    if isinstance(text, str):
        return Example(completion=text)
    raise InvalidArgument(
        f"a text is of type {type(text).__name__}", "give a str, or Example(completion=…, prompt=…)"
    )
