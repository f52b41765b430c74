"""Measures hosted inference: a gateway in a process of its own, callers over TLS on loopback.

Callers under prefixes of their own are compared with callers of the same engine under none, whose prompts
are longer by a prefix's length; few users in the vault with many; prefixes that are open with such that
have to be opened.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from antefix import FrozenBase, Prefix
from antefix.errors import InvalidArgument
from antefix_server.bench import population
from antefix_server.bench.gateway_process import cpu_s, gateway
from antefix_server.bench.load_generator import Call, Load, arrivals, load
from antefix_server.bench.population import Hosted
from antefix_server.bench.vault import summary
from antefix_server.http import tls

_WORD = " the"
_SHARE = 0.8


@dataclass(frozen=True)
class ServeBench:
    """What to measure.

    Attributes:
        base, dtype: as for `FrozenBase.load`.
        users: of the vault, each size in turn.
        callers: at once, each number in turn.
        length: positions of each prefix.
        prompt_tokens, new_tokens: of each call.
        calls: of each caller and repetition.
        repetitions: of everything, in turn; medians count.
        openings: users whose prefix is opened for the first time.
        arrivals: calls at times of their own, at 80 % of what the most callers reach.
    """

    base: str
    dtype: str
    users: tuple[int, ...]
    callers: tuple[int, ...]
    length: int
    prompt_tokens: int
    new_tokens: int
    calls: int
    repetitions: int
    openings: int
    arrivals: int

    @property
    def most(self) -> int:
        """Users who call."""
        return max(self.callers) + self.openings


@dataclass
class _Server:
    """One size, as it runs."""

    users: int
    url: str
    authority: Path
    hosted: list[Hosted]
    process: subprocess.Popen[bytes]
    opened: dict[str, float]
    rates: dict[str, list[float]] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)

    def calls(self, calls: Sequence[Call], *, timed: bool = False) -> Load:
        tokens = [caller.token for caller in self.hosted]
        return load(self.url, self.authority, tokens, calls, timed=timed)


def run(settings: ServeBench, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it; a report for JSON."""
    if min(settings.users) < settings.most:
        raise InvalidArgument(
            f"{min(settings.users):,} users, of whom {settings.most:,} call", "lower --callers or --openings"
        )
    with ExitStack() as stack:
        servers = _servers(settings, stack, say)
        for server in servers:
            _checked(server.calls(_calls(settings, range(max(settings.callers)), 1)))  # opens their prefixes
        for number in range(settings.repetitions):
            say(f"repetition {number + 1} of {settings.repetitions}")
            for callers in settings.callers:
                for server in servers:
                    _compare(server, settings, callers)
        for server in servers:
            _first_calls(server, settings)
            _at_their_times(server, settings, say)
    sizes = [_shown(server) for server in servers]
    return {"bench": "serve", **asdict(settings), "threads": torch.get_num_threads(), "sizes": sizes}


def table(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [
        f"bench serve: {report['base']}, {report['dtype']}, prefixes of {report['length']}, prompts of "
        f"{report['prompt_tokens']}, {report['new_tokens']} new tokens; medians of {report['repetitions']}",
        "",
        f"{'users':>9}{'callers':>9}{'own prefix, tokens/s':>22}{'none':>9}{'ratio':>8}",
    ]
    for size in report["sizes"]:
        for callers in report["callers"]:
            own, none = (size["tokens_per_s"][f"{name} {callers}"] for name in ("own", "none"))
            lines.append(f"{size['users']:>9,}{callers:>9}{own:>22.1f}{none:>9.1f}{own / none:>8.2f}")
    lines += ["", f"{'users':>9}  {'ms':28}{'count':>7}{'p50':>9}{'p99':>9}{'max':>9}"]
    for size in report["sizes"]:
        for label, stats in size["times"].items():
            row = f"{stats['count']:>7,}{stats['p50_ms']:>9.2f}{stats['p99_ms']:>9.2f}{stats['max_ms']:>9.2f}"
            lines.append(f"{size['users']:>9,}  {label:28}{row}")
    errors = sum(size["errors"] for size in report["sizes"])
    return "\n".join([*lines, "", f"errors {errors}; at their times: 80 % of the most tokens/s"])


def _servers(settings: ServeBench, stack: ExitStack, say: Callable[[str], None]) -> list[_Server]:
    base = FrozenBase.load(settings.base, progress=False)
    dice = torch.Generator().manual_seed(0)
    size = base.layout.size(settings.length)
    prefixes = [
        Prefix(torch.randn(size, generator=dice), base.layout, base.fingerprint) for _ in range(settings.most)
    ]
    servers = []
    for users in settings.users:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="antefix-bench-")))
        data = folder / "data"
        hosted = population.fill(data, users, base, prefixes, say)
        opened = population.openings(data, base, hosted[-settings.openings :])
        authority = tls.own(data, []).authority
        if authority is None:
            raise InvalidArgument("no certificate of its own")
        say(f"a server with {users:,} users")
        url, process = stack.enter_context(
            gateway(
                data,
                inference=settings.base,
                inference_dtype=settings.dtype,
                inference_rows=str(max(settings.callers)),
                requests_per_minute="1000000",
                connections_per_address="10000",
            )
        )
        servers.append(_Server(users, url, authority, hosted, process, opened))
    return servers


def _calls(settings: ServeBench, callers: Sequence[int], each: int, model: str = "personal") -> list[Call]:
    """Calls of equal length, whether a prefix is a part of it or more of the prompt."""
    more = settings.length if model == "base" else 0
    prompt = _WORD * (settings.prompt_tokens + more)
    return [Call(caller, prompt, settings.new_tokens, model) for caller in callers for _ in range(each)]


def _compare(server: _Server, settings: ServeBench, callers: int) -> None:
    for name, model in (("own", "personal"), ("none", "base")):
        result = _checked(server.calls(_calls(settings, range(callers), settings.calls, model)))
        server.rates.setdefault(f"{name} {callers}", []).append(result.rate)


def _first_calls(server: _Server, settings: ServeBench) -> None:
    """To the first token under a prefix that has to be opened, and under one that is; one by one."""
    late = range(max(settings.callers), settings.most)
    for name in ("first piece, opened for it", "first piece, open"):
        results = [server.calls([Call(caller, _WORD * settings.prompt_tokens, 1)]) for caller in late]
        server.found[name] = summary([_checked(result).outcomes[0].first_s for result in results])


def _at_their_times(server: _Server, settings: ServeBench, say: Callable[[str], None]) -> None:
    callers = max(settings.callers)
    rate = statistics.median(server.rates[f"own {callers}"]) * _SHARE / settings.new_tokens
    say(f"{settings.arrivals} calls at {rate:.1f} a second")
    spread = [_calls(settings, [number % callers], 1)[0] for number in range(settings.arrivals)]
    start_cpu = cpu_s(server.process)
    result = server.calls(arrivals(spread, rate), timed=True)
    server.found["first piece, at their times"] = summary([outcome.first_s for outcome in result.outcomes])
    server.found["whole answer, at their times"] = summary([outcome.whole_s for outcome in result.outcomes])
    server.found["errors"] = len(result.errors)
    server.found["cpus"] = round((cpu_s(server.process) - start_cpu) / result.seconds, 2)


def _shown(server: _Server) -> dict[str, Any]:
    named = dict(server.found)
    errors, cpus = named.pop("errors"), named.pop("cpus")
    return {
        "users": server.users,
        "tokens_per_s": {name: statistics.median(rates) for name, rates in server.rates.items()},
        "all_tokens_per_s": server.rates,
        "times": {"opening": server.opened, **named},
        "errors": errors,
        "cpus": cpus,
    }


def _checked(result: Load) -> Load:
    """Calls of which none failed.

    Raises:
        InvalidArgument: one did; a figure of it would be worth nothing.
    """
    if result.errors:
        raise InvalidArgument(f"a call failed: {result.errors[0]}", "see the server's log")
    return result
