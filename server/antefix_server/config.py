"""How a server runs: `server.toml` in its data, and over it the environment (`ANTEFIX_SERVER_HOST` …)."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from antefix_server.errors import ServerUnfit
from antefix_server.storage.os_errors import files

NAME = "server.toml"
_PREFIX = "ANTEFIX_SERVER_"
Port = Annotated[int, Field(ge=0, le=65535)]


class Configuration(BaseSettings):
    """What may be chosen with each start.

    Attributes:
        host, port: where devices reach the gateway.
        names: host names and addresses by which devices call it, for the certificate that it makes itself.
        certificate, key: PEM files of a certificate that every machine knows, instead.
        rounds: start Flower, for rounds.
        flower_port: of Flower's SuperLink on loopback; 0 for any that is free.
        connections_per_address: open at once.
        inference: base that generates under granted prefixes, a name or a folder; empty for none.
        inference_device, inference_dtype: as for `FrozenBase.load`.
        inference_rows, inference_waiting: requests that run together, and that may wait.
        inference_bank_bytes: opened prefixes in memory.
        inference_engines: processes that compute, each user at one of them; 1 for the gateway's own.
        inference_exact: answers' bits do not depend on who else asks; slower.
        metrics_port: on loopback, for Prometheus; 0 for none.
        requests_per_minute, enrolments_per_minute, record_bytes, user_bytes, user_records: as
            `gateway.Limits`.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    port: Port = 8443
    names: list[str] = ["localhost", "127.0.0.1"]
    certificate: Path | None = None
    key: Path | None = None
    rounds: bool = True
    flower_port: Port = 0
    requests_per_minute: Annotated[int, Field(ge=1)] = 600
    enrolments_per_minute: Annotated[int, Field(ge=1)] = 30
    record_bytes: Annotated[int, Field(ge=4096)] = 64 * 2**20
    user_bytes: Annotated[int, Field(ge=4096)] = 2**30
    user_records: Annotated[int, Field(ge=1)] = 64
    connections_per_address: Annotated[int, Field(ge=1)] = 200
    inference: str = ""
    inference_device: str = "cpu"
    inference_dtype: str = "fp32"
    inference_rows: Annotated[int, Field(ge=1)] = 16
    inference_waiting: Annotated[int, Field(ge=1)] = 1024
    inference_bank_bytes: Annotated[int, Field(ge=2**20)] = 2**30
    inference_engines: Annotated[int, Field(ge=1, le=64)] = 1
    inference_exact: bool = False
    metrics_port: Port = 0

    @classmethod
    def read(cls, folder: Path, **given: Any) -> Self:
        """That of a server's data; what is given as an option counts most, None for not given.

        Raises:
            ServerUnfit: it cannot be understood; says where.
        """
        path = folder / NAME
        try:
            with files(path):
                settings = tomllib.loads(path.read_text()) if path.is_file() else {}
            below = {
                name: value for name, value in settings.items() if _PREFIX + name.upper() not in os.environ
            }
            options = {name: value for name, value in given.items() if value is not None}
            result = cls(**{**below, **options})  # what is given here counts more than the environment
        except ValidationError as error:
            raise _unfit(error, path, list(cls.model_fields)) from None
        except SettingsError as error:  # of a list in the environment, before anything is validated
            name = next((field for field in cls.model_fields if f'"{field}"' in str(error)), "")
            raise ServerUnfit(
                f"{_PREFIX}{name.upper()} is no list in JSON", f'write {_PREFIX}{name.upper()}=["one", "two"]'
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ServerUnfit(f"{path} is no TOML: {error}", "mend it by hand") from None
        if (result.certificate is None) != (result.key is None):
            raise ServerUnfit("a certificate without its key, or a key without its certificate", "give both")
        return result


def _unfit(error: ValidationError, path: Path, names: list[str]) -> ServerUnfit:
    first = error.errors(include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return ServerUnfit(f"setting {where!r}: {first['msg'].lower()}", f"mend {path} or the environment")
    near = difflib.get_close_matches(where, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(sorted(names))}"
    return ServerUnfit(f"there is no setting {where!r:.60} in {path}", hint)
