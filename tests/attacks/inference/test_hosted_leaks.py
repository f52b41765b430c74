"""Hosted inference: nothing of one user's prefix reaches another's text, whoever was there before or beside.

The leaks that others have had: prompt caches that forget whose prefix it was, slots that keep what was in
them, versions that come back.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from antefix import GenerationRequest, Prefix, generate
from antefix.errors import GrantRefused
from antefix_server.engine.core import Engine
from antefix_server.engine.limits import Limits
from antefix_server.engine.output_stream import OutputStream
from antefix_server.engine.prefix_cache import PrefixCache
from antefix_server.engine.prefix_key import PrefixKey
from antefix_server.errors import NoGrant, VersionConflict
from antefix_server.vault import Vault
from tests.support import tiny_models
from tests.support.records import some_bytes
from tests.support.server.hosted_server import Host, prefix_of
from tests.support.vaults import new_vault

pytestmark = pytest.mark.slow

BASE = tiny_models.base("llama")
ASKED: dict[str, Any] = {"prompt": "An ornament", "max_new_tokens": 10, "ignore_eos": True}


@pytest.fixture
def host(tmp_path: Any) -> Iterator[Host]:
    vault: Vault = new_vault(tmp_path / "vault")
    yield Host(vault)
    vault.close()


def alone(prefix: Prefix | None) -> str:
    return generate(BASE, [GenerationRequest(**ASKED, prefix=prefix)])[0].text


def text(stream: OutputStream) -> str:
    return "".join(stream)


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_the_same_prompt_under_many_prefixes_and_none(host: Host, rows: int) -> None:
    """Side by side, and one after another in the same slot."""
    members = [host.hosted(f"user {n}", BASE) for n in range(6)]
    own, none = [alone(prefix) for _, prefix in members], alone(None)
    with Engine(BASE, host.grants, Limits(rows=rows)) as engine:
        for _ in range(2):
            plain = [engine.ask(members[0][0].user, ASKED, personal=False)]
            streams = [engine.ask(member.user, ASKED) for member, _ in members]
            plain.append(engine.ask(members[3][0].user, ASKED, personal=False))
            assert [text(one) for one in streams] == own
            assert [text(one) for one in plain] == [none] * 2
    assert len({*own, none}) == 7


def test_who_comes_after_a_revoked_user_gets_nothing_of_it(host: Host) -> None:
    ann, anns = host.hosted("ann", BASE)
    bob, bobs = host.hosted("bob", BASE)
    with Engine(BASE, host.grants, Limits(rows=1)) as engine:
        assert text(engine.ask(ann.user, ASKED)) == alone(anns)
        host.registry.remove("ann")
        engine.recheck(ann.user)
        assert text(engine.ask(bob.user, ASKED)) == alone(bobs)
        assert text(engine.ask(bob.user, ASKED, personal=False)) == alone(None)


def test_a_version_that_was_replaced_comes_back_neither_by_its_grant_nor_by_its_record(host: Host) -> None:
    ann, _ = host.hosted("ann", BASE)
    old_record, old_grant = ann.person.record, host.signed(ann)
    newer = prefix_of(BASE, "ann, later")
    host.store(ann, newer)
    with Engine(BASE, host.grants) as engine:
        with pytest.raises(NoGrant):
            engine.ask(ann.user, ASKED)
        with pytest.raises(GrantRefused):
            host.grants.put(ann.session, old_grant)
        with pytest.raises(VersionConflict):
            host.vault.put(old_record, replaces=2)
        host.grant(ann)
        assert text(engine.ask(ann.user, ASKED)) == alone(newer)


def test_the_grant_of_another_is_no_use(host: Host) -> None:
    ann, _ = host.hosted("ann", BASE)
    bob = host.add("bob")
    with pytest.raises(GrantRefused):
        host.grants.put(bob.session, host.signed(ann))
    with Engine(BASE, host.grants) as engine, pytest.raises(NoGrant):
        engine.ask(bob.user, ASKED)
    (grant,) = host.grants.of(ann.user)
    with pytest.raises(GrantRefused):
        host.grants.open(bob.user, grant.id, bytes.fromhex(BASE.fingerprint))
    assert not host.grants.revoke(bob.user, bytes.fromhex(grant.id))
    assert host.grants.of(ann.user) == [grant]


@pytest.mark.parametrize("field", [one.name for one in fields(PrefixKey)])
def test_keys_that_differ_in_anything_are_two(field: str) -> None:
    tenant, user, prefix = (some_bytes(part, 16) for part in ("tenant", "user", "prefix"))
    one = PrefixKey(tenant, user, prefix, some_bytes("base", 32), 1, some_bytes("digest", 32), "ab")
    was: Any = getattr(one, field)
    change: Any = {field: was + 1 if isinstance(was, int) else was[:-1] + was[:1]}
    other = replace(one, **change)
    bank = PrefixCache(2**20)
    bank.keep(one, prefix_of(BASE, "one"))
    assert bank.acquire(other) is None
    bank.keep(other, prefix_of(BASE, "other"))
    assert bank.acquire(one) == prefix_of(BASE, "one")
    assert bank.acquire(other) == prefix_of(BASE, "other")
