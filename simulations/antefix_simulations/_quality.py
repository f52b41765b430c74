"""`antefix-sim quality`: what a private prefix is worth to real users, against four other ways."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field
from tqdm import tqdm

from antefix import Example, FrozenBase, Prefix, PrefixSpec, TrainingPlan, score, train, train_shared
from antefix._examples import encode, encode_user
from antefix.errors import InvalidArgument
from antefix_simulations._in_context import examples_that_fit
from antefix_simulations._ledger import Ledger
from antefix_simulations._panel import Panel, PanelSize, cut_panel

_USERS_AT_ONCE = 4  # whose texts are read before the results are written


class Quality(PanelSize):
    """What is studied; defaults are those of `antefix-sim quality`.

    Attributes:
        users: whose private prefixes are measured.
        shared_users: other users, who train the shared prefix.
        train_texts: of each user, the newest before those held out.
        held_out: newest texts of each user, scored and never trained on.
        seeds: runs, seeded 0, 1, …
        length: positions of each prefix.
        learning_rate: Adam's, of private prefixes.
        passes: over a user's texts, for a private prefix.
        shared_passes: over the contributors' texts, for the shared prefix.
        shared_batch_size, shared_learning_rate: of the shared prefix.
        max_prompt_tokens: cut prompts to their first tokens.
        others: other users' prefixes that each user's texts are read under.
        context: tokens of a row with in-context examples; None for all that the base sees.
        in_context_users: users of that arm, the first ones; None for all.
        lone: also train private prefixes from the user's own texts, without the shared start.
    """

    users: int = Field(default=40, ge=2)
    shared_users: int = Field(default=24, ge=1)
    train_texts: int = Field(default=64, ge=1)
    held_out: int = Field(default=24, ge=1)
    seeds: int = Field(default=3, ge=1)
    length: int = Field(default=8, ge=2)
    learning_rate: float = Field(default=5e-3, gt=0)
    passes: float = Field(default=3, gt=0)
    shared_passes: float = Field(default=2, gt=0)
    shared_batch_size: int = Field(default=8, ge=1)
    shared_learning_rate: float = Field(default=1e-2, gt=0)
    max_prompt_tokens: int = Field(default=64, ge=1)
    others: int = Field(default=3, ge=1)
    context: int | None = Field(default=None, ge=64)
    in_context_users: int | None = Field(default=None, ge=0)
    lone: bool = False

    @property
    def fixed(self) -> dict[str, object]:
        """What must stay the same for a run to go on; the rest only adds results to it."""
        return self.model_dump(exclude={"seeds", "in_context_users", "lone"})


def run_quality(
    base: FrozenBase,
    panel: Panel,
    settings: Quality,
    out: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: bool = True,
) -> Ledger:
    """Train and score all arms; what an earlier run left in `out` is not done again.

    Arms, each scored on the user's held-out texts: `none`, `in_context`; and per seed `shared`, `own`
    (private, from the shared prefix), `others` (mean over other users' `own`), `lone` if asked for.

    Args:
        base: the frozen base.
        panel: from `choose_panel`.
        settings: as for the panel.
        out: folder of results and of checkpoints, which hold prefixes in the clear.
        say: takes a line about what comes next.
        progress: show bars on stderr.

    Raises:
        InvalidArgument: `out` is of another run, or the settings do not go together.
        CheckpointMismatch, EmptyText, TextTooLong.
    """
    if settings.others >= len(panel.evaluated):
        raise InvalidArgument(
            f"others is {settings.others} and there are {len(panel.evaluated)} users", "use fewer others"
        )
    panel = cut_panel(panel, base.tokenizer, settings.max_prompt_tokens)
    study = _Study(base, panel, settings, out, say, progress)
    say(study.cost())
    study.read_without_training()
    for seed in range(settings.seeds):
        study.read_after_training(seed)
    return study.ledger


class _Study:
    """One run's work, arm by arm."""

    def __init__(
        self,
        base: FrozenBase,
        panel: Panel,
        settings: Quality,
        out: Path,
        say: Callable[[str], None],
        progress: bool,
    ) -> None:
        self._base, self._panel, self._settings = base, panel, settings
        self._out, self._say, self._progress = out, say, progress
        self._held_out = {user: split.held_out for user, split in panel.evaluated.items()}
        self._training = {user: split.training for user, split in panel.evaluated.items()}
        self._spec = PrefixSpec(length=settings.length)
        first = list(panel.evaluated)[: settings.in_context_users]
        in_context = {
            user: examples_that_fit(base, self._training[user], self._held_out[user], settings.context)
            for user in first
        }
        self._check()
        # Last: a folder that was begun with settings that do not work would refuse the right ones.
        self.ledger = Ledger(out, _identity(base, panel, settings))
        self._in_context = {user: in_context[user] for user in self.ledger.missing("in_context", None, first)}

    def _check(self) -> None:
        """Refuse texts and settings that would fail later."""
        asked = self._settings
        for passes, rate in (
            (asked.passes, asked.learning_rate),
            (asked.shared_passes, asked.shared_learning_rate),
        ):
            self._plan(0, passes, asked.shared_batch_size, rate)
        for users in (self._held_out, self._training, self._panel.contributors):
            for user, texts in users.items():
                encode_user(self._base, user, texts, length=self._spec.length, max_prompt_tokens=None)

    def cost(self) -> str:
        """Roughly what is ahead; a seed that was begun counts whole."""
        asked = self._settings
        seeds = sum(bool(self._arms_ahead(seed)) for seed in range(asked.seeds))
        own, held = _tokens(self._base, self._training), _tokens(self._base, self._held_out)
        shared = _tokens(self._base, self._panel.contributors)
        private = asked.passes * own * (1 + asked.lone)
        trained = seeds * (asked.shared_passes * shared + private)
        reads = 1 + seeds * (2 + asked.others + asked.lone)
        read = held * reads + sum(len(front.tokens) for front in self._in_context.values())
        minutes = (trained / 330 + read / 900) / 60
        return (
            f"{trained:,.0f} tokens to train on and {read:,.0f} to read, about {minutes:,.0f} min "
            f"on two CPU cores; interrupted, the same command goes on"
        )

    def read_without_training(self) -> None:
        """Arms `none` and `in_context`: chance has no part in them."""
        self._read("none", None, self._held_out, dict.fromkeys(self._held_out))
        for group in self._groups("in_context", None, self._in_context):
            for user in group:  # one at a time, for such a prefix is large
                front = self._in_context[user]
                loss = score(self._base, self._held_out[user], front.prefix(self._base))
                self.ledger.add("in_context", None, user, loss, texts=front.texts)

    def read_after_training(self, seed: int) -> None:
        """All arms of one seed, unless they are there."""
        if not self._arms_ahead(seed):
            return
        folder = self._out / f"seed-{seed}"
        self._say(f"seed {seed}: training the shared prefix on {len(self._panel.contributors)} other users")
        asked = self._settings
        plan = self._plan(seed, asked.shared_passes, asked.shared_batch_size, asked.shared_learning_rate)
        shared = train_shared(
            self._base,
            self._panel.contributors,
            self._spec,
            plan,
            checkpoint=folder / "shared",
            progress=self._progress,
        ).prefix
        self._read("shared", seed, self._held_out, dict.fromkeys(self._held_out, shared))
        self._say(f"seed {seed}: training {len(self._training)} private prefixes")
        own = self._train(seed, folder / "private", shared)
        self._read("own", seed, self._held_out, own)
        self._read_others(seed, own)
        if self._settings.lone:
            self._say(f"seed {seed}: training them without the shared start")
            self._read("lone", seed, self._held_out, self._train(seed, folder / "lone", None))

    def _arms_ahead(self, seed: int) -> list[str]:
        """Arms of a seed that lack the result of some user."""
        arms = ["shared", "own", "others", *(["lone"] if self._settings.lone else [])]
        return [arm for arm in arms if self.ledger.missing(arm, seed, self._held_out)]

    def _train(self, seed: int, checkpoint: Path, start: Prefix | None) -> dict[str, Prefix]:
        trained = train(
            self._base,
            self._training,
            self._spec,
            self._plan(seed, self._settings.passes, 4, self._settings.learning_rate),
            start=start,
            checkpoint=checkpoint,
            progress=self._progress,
        )
        lost = sum(result.diverged for result in trained.values())
        if lost:
            self._say(f"seed {seed}: {lost} of {len(trained)} prefixes diverged, and count as their start")
        return {user: result.prefix for user, result in trained.items()}

    def _plan(self, seed: int, passes: float, batch_size: int, learning_rate: float) -> TrainingPlan:
        """Every text trains and the last step counts: nothing is chosen by looking."""
        return TrainingPlan(
            passes=passes,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation_fraction=0,
            evaluate=False,
            seed=seed,
        )

    def _read(
        self,
        arm: str,
        seed: int | None,
        texts: Mapping[str, Sequence[Example]],
        prefixes: Mapping[str, Prefix] | Mapping[str, None],
    ) -> None:
        for group in self._groups(arm, seed, texts):
            found = self._score({user: (texts[user], prefixes[user]) for user in group})
            for user in group:
                self.ledger.add(arm, seed, user, found[user])

    def _read_others(self, seed: int, own: Mapping[str, Prefix]) -> None:
        readers = rotation(list(own), self._settings.others, seed)
        for group in self._groups("others", seed, own):
            pairs = {
                f"{number} {user}": (self._held_out[user], own[other])
                for user in group
                for number, other in enumerate(readers[user])
            }
            found = self._score(pairs)
            for user in group:
                losses = [found[f"{number} {user}"] for number in range(len(readers[user]))]
                self.ledger.add("others", seed, user, sum(losses) / len(losses))

    def _score(self, pairs: Mapping[str, tuple[Sequence[Example], Prefix | None]]) -> dict[str, float]:
        texts = {name: examples for name, (examples, _) in pairs.items()}
        prefixes = {name: prefix for name, (_, prefix) in pairs.items() if prefix is not None}
        return score(self._base, texts, prefixes or None)

    def _groups(self, arm: str, seed: int | None, among: Iterable[str]) -> Iterator[list[str]]:
        """Users without a result, a few at a time."""
        users = self.ledger.missing(arm, seed, among)
        with tqdm(total=len(users), desc=f"reading: {arm}", unit="user", disable=not self._progress) as bar:
            for at in range(0, len(users), _USERS_AT_ONCE):
                group = users[at : at + _USERS_AT_ONCE]
                yield group
                bar.update(len(group))


def rotation(users: Sequence[str], count: int, seed: int) -> dict[str, list[str]]:
    """For each user `count` others: the next ones in a circle that the seed shuffles."""
    circle = list(users)
    random.Random(seed).shuffle(circle)
    size = len(circle)
    return {
        user: [circle[(at + step) % size] for step in range(1, count + 1)] for at, user in enumerate(circle)
    }


def _identity(base: FrozenBase, panel: Panel, settings: Quality) -> dict[str, object]:
    return {
        "run": "quality",
        "fingerprint": base.fingerprint,
        "dtype": str(base.dtype),
        **settings.fixed,
        "texts": panel.digest,
    }


def _tokens(base: FrozenBase, users: Mapping[str, Sequence[Example]]) -> int:
    return sum(encode(base, example, None).tokens for texts in users.values() for example in texts)
