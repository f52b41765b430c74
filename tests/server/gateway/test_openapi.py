"""The gateway's own description, asked in every way it allows and many that it does not: no server error."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from antefix.keys import DeviceKeys
from antefix_server.engine.core import Engine
from antefix_server.engine.interface import Hosting
from antefix_server.engine.limits import Limits as EngineLimits
from antefix_server.gateway import Limits, application
from antefix_server.gateway.inference_routes import PROMPTS
from antefix_server.registry import Registry
from tests.support import tiny_models
from tests.support.records import some_bytes
from tests.support.server.hosted_server import Host
from tests.support.vaults import new_vault

pytestmark = pytest.mark.slow
HOSTED = {"/v1/epoch", "/v1/grants", "/v1/grants/{id}", "/v1/grants/revocations", "/v1/models", *PROMPTS}
PHONE = DeviceKeys(some_bytes("phone", 64))
MANY = settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)


def test_nothing_that_anybody_asks_is_a_server_error(tmp_path: Path) -> None:
    with new_vault(tmp_path / "vault") as vault:
        limits = Limits(requests_per_minute=10**6, enrolments_per_minute=10**6)
        invitation = Registry(vault).add("ann").invitation
        token = Registry(vault).enrol(invitation, PHONE.public, invitation.proof(PHONE)).token
        schema = described(application(vault, limits))
        asked = 0
        for operation in map(found, schema.get_all_operations()):
            for headers in ({}, {"Authorization": f"Bearer {token}"}):
                asked += all_answered(operation, headers)
        assert asked > 500


def test_nothing_that_anybody_asks_of_hosted_inference_is_a_server_error(tmp_path: Path) -> None:
    base = tiny_models.base("llama")
    with new_vault(tmp_path / "vault") as vault:
        host = Host(vault)
        ann, _ = host.hosted("ann", base)
        limits = Limits(requests_per_minute=10**6, enrolments_per_minute=10**6)
        with Engine(base, host.grants, EngineLimits(rows=4, new_tokens=32)) as engine:
            made = application(vault, limits, hosting=Hosting(engine, host.grants, host.epochs))
            schema = described(made)
            asked = 0
            for operation in map(found, schema.get_all_operations()):
                if operation.path in HOSTED:
                    asked += all_answered(operation, {"Authorization": f"Bearer {ann.token}"})
        assert asked > 150


def described(made: Any) -> Any:
    """What an application says of itself."""
    import schemathesis  # not above: its two hundred modules would be loaded wherever tests are collected

    return schemathesis.openapi.from_asgi("/openapi.json", made)


def all_answered(operation: Any, headers: dict[str, str]) -> int:
    """Ask one operation in many ways; how many."""
    asked = 0

    @MANY
    @given(case=operation.as_strategy())
    def once(case: Any) -> None:
        nonlocal asked
        asked += 1
        answer = case.call(headers=headers)
        assert answer.status_code < 500, answer.text

    once()
    return asked


def found(result: Any) -> Any:
    """An operation of the description."""
    return result.ok()
