"""Generation for many users, side by side: ours, PEFT's prefixes in turn, and PEFT's LoRA in one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from pydantic import Field

from antefix import Example, FrozenBase, GenerationRequest, Prefix, generate
from antefix.data.tokenization import encode, prompt_tokens
from antefix.training.initialization import activations
from antefix_simulations.arms.peft import PeftLora, PeftPrefixes
from antefix_simulations.bench.gateway_arms import serve_arms
from antefix_simulations.bench.harness import Arm, BenchReport, BenchSettings, compare, require_texts
from antefix_simulations.common.machine import describe

_BYTES = 4  # of a stored value; both kinds of adapter are kept in fp32


class ServeBench(BenchSettings):
    """What is measured; defaults are those of `antefix-sim bench serve`.

    Attributes:
        new_tokens: tokens generated for each user, end-of-text or not.
        served: measure a gateway that hosts inference, too.
    """

    new_tokens: int = Field(default=32, ge=1)
    served: bool = False


def bench_serve(
    base: FrozenBase,
    users: Mapping[str, Sequence[Example]],
    settings: ServeBench | None = None,
    *,
    progress: bool = True,
) -> BenchReport:
    """Generate one text for every user in five ways and compare new tokens per second.

    Every arm answers the same prompts, the last of each user, greedily and with the same number of
    tokens. A user's prefix is what the base computes on the user's own text: real values, though not
    trained ones. Arms:

    * `ours`: all users in one running batch, each under its own prefix.
    * `peft`: PEFT's prefix tuning with the same prefixes, one user after another.
    * `peft_lora`: PEFT's LoRA with one adapter per user, as large as a prefix, in one mixed batch.
    * `one_user`: our own code with one user at a time.
    * `shared_prefix`: ours, where all users have the same prefix.
    * `served`, if asked for: callers over TLS of a gateway that opened the users' sealed prefixes.
    * `served_base`: the same under no prefix, with prompts that are longer by a prefix's length.

    Args:
        base: the frozen base.
        users: each user's texts.
        settings: what is measured.
        progress: show a bar on stderr.

    Raises:
        InvalidArgument: an encoder-decoder, for which PEFT has no such prefixes.
    """
    settings = settings or ServeBench()
    require_texts(users)
    machine = describe(base)
    prompts = {user: texts[-1].prompt for user, texts in users.items()}
    prefixes = {user: _prefix(base, texts, settings.length) for user, texts in users.items()}
    numbers = base.layout.size(settings.length)
    lora = PeftLora(base, list(users), numbers)
    arms = _our_arms(base, prompts, prefixes, settings.new_tokens)
    arms |= _peft_arms(base, prompts, PeftPrefixes(base, prefixes), lora, settings.new_tokens)
    order = ["ours", "peft", "peft_lora", "one_user", "shared_prefix"]
    with ExitStack() as stack:
        if settings.served:
            arms |= stack.enter_context(serve_arms(base, prompts, prefixes, settings.new_tokens))
            order += ["served", "served_base"]
        measured = compare(
            base, {name: arms[name] for name in order}, list(users), settings.repetitions, progress
        )
    facts = {
        "prefix_bytes": float(numbers * _BYTES),
        "lora_bytes": float(lora.numbers * _BYTES),
        "lora_rank": float(lora.rank),
    }
    conclusion = (
        f"A prefix has {numbers * _BYTES:,} bytes, a LoRA adapter of rank {lora.rank} "
        f"has {lora.numbers * _BYTES:,}."
    )
    described = {"base": base.name, "users": len(users), **settings.model_dump()}
    return BenchReport("serve", machine, described, measured, facts, conclusion)


def _our_arms(
    base: FrozenBase, prompts: Mapping[str, str], prefixes: Mapping[str, Prefix], new_tokens: int
) -> dict[str, Arm]:
    shared = next(iter(prefixes.values()))

    def ours(names: Sequence[str], prefix_of: Callable[[str], Prefix] = prefixes.__getitem__) -> int:
        requests = [
            GenerationRequest(
                prompt=prompts[user], prefix=prefix_of(user), max_new_tokens=new_tokens, ignore_eos=True
            )
            for user in names
        ]
        return sum(len(each.tokens) for each in generate(base, requests, max_rows=len(requests)))

    def one_user(names: Sequence[str]) -> int:
        return sum(ours([user]) for user in names)

    def shared_prefix(names: Sequence[str]) -> int:
        return ours(names, lambda _: shared)

    return {"ours": ours, "one_user": one_user, "shared_prefix": shared_prefix}


def _peft_arms(
    base: FrozenBase, prompts: Mapping[str, str], prefixes: PeftPrefixes, lora: PeftLora, new_tokens: int
) -> dict[str, Arm]:
    tokens = {user: prompt_tokens(base, prompt) for user, prompt in prompts.items()}

    def peft(names: Sequence[str]) -> int:
        return sum(len(prefixes.generate(user, tokens[user], new_tokens)) for user in names)

    def peft_lora(names: Sequence[str]) -> int:
        rows = lora.generate(names, [tokens[user] for user in names], new_tokens)
        return sum(len(row) for row in rows)

    return {"peft": peft, "peft_lora": peft_lora}


def _prefix(base: FrozenBase, texts: Sequence[Example], length: int) -> Prefix:
    """Keys and values of the first tokens of a user's texts."""
    tokens: list[int] = []
    while len(tokens) < length:
        tokens += [token for text in texts for token in encode(base, text, None).inputs]
    return Prefix(activations(base, [tokens[:length]])[0], base.layout, base.fingerprint)
