"""The gateway's HTTP interface, from the description that it serves at `/openapi.json`."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any, cast

from antefix.keys import RecoveryCode
from antefix_server.backups import operator_keys
from antefix_server.engine.interface import Hosting
from antefix_server.gateway import application
from antefix_server.vault import Vault
from website.markdown import attributes, code, plain, table


def page() -> str:
    """Every route with its parameters, body and answers; then the bodies."""
    whole = description()
    routes = (
        _route(path, verb, one) for path, verbs in whole["paths"].items() for verb, one in verbs.items()
    )
    bodies = sorted(whole["components"]["schemas"].items())
    schemas = (_schema(name, one) for name, one in bodies if "ValidationError" not in name)
    statuses = table(("status", "meaning"), _statuses().items())
    return "\n".join(["## Routes\n", *routes, "## Statuses of errors\n", statuses, "## Bodies\n", *schemas])


@functools.cache
def description() -> dict[str, Any]:
    """What a gateway with hosted inference says of itself. Nothing answers: no engine is needed for that."""
    operator, absent = operator_keys(RecoveryCode.generate()).public, cast(Any, None)
    with tempfile.TemporaryDirectory() as folder, Vault.create(Path(folder) / "vault", operator) as vault:
        return application(vault, hosting=Hosting(absent, absent, absent)).openapi()


def _route(path: str, verb: str, route: dict[str, Any]) -> str:
    needs = "The device's token is needed." if "security" in route else "No token is needed."
    parameters = [
        (code(one["name"]), one["in"], _kind(one["schema"]), plain(one.get("description")))
        for one in route.get("parameters", [])
    ]
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    given = [f"{status}: {_answered(one)}" for status, one in route["responses"].items() if status < "400"]
    refused = [status for status in route["responses"] if status in _statuses()]
    parts = [
        f"### {verb.upper()} {path}\n",
        f"{plain(route['description'])} {needs}\n",
        table(("parameter", "in", "type", "meaning"), parameters),
        f"Body: {_kind(body)}.\n" if body else "",
        f"Answer: {'; '.join(given)}. {'Errors: ' + ', '.join(refused) + '.' if refused else ''}\n",
    ]
    return "\n".join(part for part in parts if part)


@functools.cache
def _statuses() -> dict[str, str]:
    """What each status of an error means. 422 and its bodies are FastAPI's: the gateway answers 400."""
    routes = [route for verbs in description()["paths"].values() for route in verbs.values()]
    said = {status: one["description"] for route in routes for status, one in route["responses"].items()}
    return {status: said[status] for status in sorted(said) if status >= "400" and status != "422"}


def _answered(response: dict[str, Any]) -> str:
    schema = response.get("content", {}).get("application/json", {}).get("schema")
    said = str(response["description"])
    return (_kind(schema) or "bytes") if said == "Successful Response" else said.rstrip(".")


def _schema(name: str, schema: dict[str, Any]) -> str:
    about, _, _ = schema.get("description", "").partition("Attributes:")
    help_of, needed = attributes(schema.get("description", "")), schema.get("required", [])
    rows = [
        (
            code(field),
            _kind(one),
            "yes" if field in needed else "",
            plain(one.get("description") or help_of.get(field)),
        )
        for field, one in schema.get("properties", {}).items()
    ]
    parts = [f"### {name}\n", f"{plain(about)}\n", table(("field", "type", "required", "meaning"), rows)]
    return "\n".join(part for part in parts if part.strip())


def _kind(schema: dict[str, Any] | None) -> str:
    """A JSON schema in words."""
    if not schema:
        return ""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(code(one) for one in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_kind(schema.get('items')) or 'anything'}"
    if kind == "object" and schema.get("additionalProperties"):
        values = schema["additionalProperties"]
        return f"object of {_kind(values)}" if isinstance(values, dict) and values else "object"
    limits = {
        "minimum": "≥",
        "maximum": "≤",
        "exclusiveMinimum": ">",
        "minLength": "length ≥",
        "maxLength": "length ≤",
    }
    held = [f"{sign} {schema[word]:,}" for word, sign in limits.items() if word in schema]
    return ", ".join([kind, *held, *([code(schema["pattern"])] if "pattern" in schema else [])])
