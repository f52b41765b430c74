"""Arms of a bench whose users call a gateway, over TLS on loopback, that opened their sealed prefixes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from antefix import FrozenBase, Prefix
from antefix.errors import InvalidArgument
from antefix_server.bench import population
from antefix_server.bench.gateway_process import gateway
from antefix_server.bench.load_generator import Call, load
from antefix_server.http import tls
from antefix_simulations.bench.harness import Arm

_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@contextmanager
def serve_arms(
    base: FrozenBase, prompts: Mapping[str, str], prefixes: Mapping[str, Prefix], new_tokens: int
) -> Iterator[dict[str, Arm]]:
    """`served` and `served_base`, while the block runs; every user calls once at the same time.

    Raises:
        ServerUnreachable: the gateway does not come up.
        InvalidArgument, in an arm: a call failed.
    """
    number_of = {user: number for number, user in enumerate(prefixes)}
    longer = " the" * next(iter(prefixes.values())).length
    with tempfile.TemporaryDirectory(prefix="antefix-bench-") as work:
        data = Path(work) / "data"
        values = list(prefixes.values())
        hosted = population.fill(data, len(values), base, values, lambda _: None)
        authority = tls.own(data, []).authority or data
        settings = {
            "inference": base.name,
            "inference_device": base.device.type,
            "inference_dtype": _DTYPES[str(base.dtype).removeprefix("torch.")],
            "inference_rows": str(len(values)),
        }
        with gateway(data, **settings) as (url, _):

            def call(names: Sequence[str], model: str, more: str) -> int:
                calls = [Call(number_of[user], prompts[user] + more, new_tokens, model) for user in names]
                report = load(url, authority, [user.token for user in hosted], calls, timed=False)
                if report.errors:
                    raise InvalidArgument(f"a call failed: {report.errors[0]}", "see the server's log")
                return sum(outcome.tokens for outcome in report.outcomes)

            yield {
                "served": lambda names: call(names, "personal", ""),
                "served_base": lambda names: call(names, "base", longer),
            }
