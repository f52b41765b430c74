"""The texts that a profile remembers: in memory while it is open, sealed in the file `texts`."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from antefix.crypto.aead import SecretBytes
from antefix.data.example import Example
from antefix_client.errors import TextRefused
from antefix_client.profile.encrypted_files import EncryptedFiles
from antefix_client.profile.text_log import TextLog, new_identity, stored_bytes
from antefix_client.profile.version_history import VersionHistory

NAME, CHECKPOINT = "texts", "learning"
_MAX_CHARS = 100_000


class TextStore:
    """Adds and removes texts. One thread at a time; the session that owns the profile sees to that.

    Attributes:
        max_texts, max_bytes: above these limits the oldest texts are dropped.
        removals: how often texts were removed since the profile was opened.
        damaged: what of the file could not be read, for a person.
    """

    def __init__(
        self, sealed: EncryptedFiles, history: VersionHistory, max_texts: int, max_bytes: int
    ) -> None:
        """Read nothing yet.

        Args:
            sealed: the profile's files, with its root key and its lock.
            history: keeps the identities of the file, and which numbers were given.
            max_texts, max_bytes: limits.
        """
        self._sealed, self._history = sealed, history
        self.max_texts, self.max_bytes = max_texts, max_bytes
        self._log = open_log(sealed.folder, sealed.profile, sealed.root)
        self._texts: dict[int, Example] | None = None
        self._digests: set[bytes] = set()
        self._identity: bytes | None = None
        self._end = 0
        self.removals = 0
        self.damaged: list[str] = []

    @property
    def by_number(self) -> dict[int, Example]:
        """What is remembered, oldest first. Private."""
        if self._texts is None:
            contents = self._log.read(map(bytes.fromhex, self._history.state.logs))
            damage = contents.describe_damage(NAME)
            if contents.damaged and damage not in self.damaged:
                self.damaged.append(damage)
            self._identity = contents.identity
            self._texts, self._end = contents.texts, contents.end
            self._digests = {self.digest(text) for text in contents.texts.values()}
        return self._texts

    @property
    def ever_added(self) -> int:
        """Texts that were ever remembered, also those that are gone; it never falls."""
        return self._next_number - 1

    def digest(self, text: Example) -> bytes:
        """Keyed digest of a text, 16 bytes: says nothing without the root key."""
        message = len(text.prompt).to_bytes(8, "big") + (text.prompt + text.completion).encode()
        return hmac.digest(self._sealed.root.data, b"antefix/v1/profile digest\0" + message, "sha256")[:16]

    def add(self, texts: Iterable[Example]) -> int:
        """Keep texts that are not kept yet; how many. Durable on return; all or none.

        Raises:
            TextRefused: one is empty or too long.
            ProfileFull, ProfileUnwritable: nothing was kept.
        """
        self._sealed.lock.require()
        present = self.by_number
        number, new, digests = self._next_number, dict[int, Example](), set[bytes]()
        for at, text in enumerate(texts):
            require_usable(text, f"text {at}")
            digest = self.digest(text)
            if digest not in self._digests and digest not in digests:
                new[number], number = text, number + 1
                digests.add(digest)
        if not new:
            return 0
        remaining = self._within_limits({**present, **new}, self._end + sum(map(stored_bytes, new.values())))
        if remaining is not None:
            self._rewrite(remaining)
            return len(new)
        if self._identity is not None and self._identity.hex() not in self._history.state.logs:
            # A profile of an older version has no identity noted yet.
            self._history.note(logs=[self._identity.hex()])
        with self._reread_after_failure():
            self._end = self._log.append(new.items(), self._end)
        present.update(new)
        self._digests |= digests
        return len(new)

    def remove(self, numbers: Iterable[int]) -> int:
        """Forget some texts: the file is written anew without them; how many there were.

        What was learned so far counts as learned from them, until a `learn` has started over.
        """
        self._sealed.lock.require()
        removed = set(numbers) & self.by_number.keys()
        if removed:
            self.removals += 1
            tainted = self._history.state.removed or bool(self._history.versions)
            remaining = {number: text for number, text in self.by_number.items() if number not in removed}
            self._sealed.delete(CHECKPOINT)  # it was trained on them
            # Noted first: a crash after it costs a warm start, and no promise.
            self._rewrite(remaining, removed=tainted)
        return len(removed)

    def unload(self) -> None:
        """Let go of the texts in memory."""
        self._texts, self._digests = None, set()

    @property
    def _next_number(self) -> int:
        """Of the next text; none that was ever given, so that nobody removes another one by it."""
        return max(max(self.by_number, default=0) + 1, self._history.state.next_text)

    def _within_limits(self, texts: dict[int, Example], size: int) -> dict[int, Example] | None:
        """Without the oldest above the limits, a tenth more than must be; None where all fit."""
        if len(texts) <= self.max_texts and size <= self.max_bytes:
            return None
        newest, room = {}, self.max_bytes * 9 // 10
        for number in sorted(texts, reverse=True)[: self.max_texts * 9 // 10]:
            room -= stored_bytes(texts[number])
            if room < 0:
                break
            newest[number] = texts[number]
        return dict(sorted(newest.items()))

    def _rewrite(self, texts: dict[int, Example], **facts: object) -> None:
        """Write the file of texts anew; its identity is noted before, beside the one that it has."""
        self._log.require()
        identity = new_identity()
        logs = [identity.hex()] + ([] if self._identity is None else [self._identity.hex()])
        next_text = max(self._next_number, max(texts, default=0) + 1)
        self._history.note(logs=logs, next_text=next_text, **facts)
        with self._reread_after_failure():
            self._end = self._log.rewrite(texts, identity)
        self._texts, self._identity = texts, identity
        self._digests = {self.digest(text) for text in texts.values()}

    @contextmanager
    def _reread_after_failure(self) -> Iterator[None]:
        """After a write that failed, what is on the disk counts, and is read when it is needed."""
        try:
            yield
        except BaseException:
            self._texts = None
            raise


def open_log(folder: Path, profile: bytes, root: SecretBytes) -> TextLog:
    """The file of a profile; whoever made the root key wipes it."""
    return TextLog(folder / NAME, profile, root)


def require_usable(text: Example, what: str) -> None:
    """Refuse a text that is not kept.

    Raises:
        TextRefused: empty or too long; `what` names it.
    """
    size = len(text.prompt) + len(text.completion)
    if size > _MAX_CHARS:
        raise TextRefused(
            f"{what} has {size:,} characters, more than {_MAX_CHARS:,}", "split it into several"
        )
    if not text.completion.strip():
        raise TextRefused(f"{what} is empty", "leave it out")
