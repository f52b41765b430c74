"""`antefix-server up`: the whole server with one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from antefix_server.config import Configuration
    from antefix_server.processes.supervisor import Part

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port for devices.", show_default="8443")]
Rounds = Annotated[
    bool | None, typer.Option("--rounds/--no-rounds", help="Start Flower, for rounds.", show_default="yes")
]


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command()(up)


def up(context: typer.Context, host: Host = None, port: Port = None, rounds: Rounds = None) -> None:
    """Start the server and keep it running: the gateway for devices, and Flower beside it. Ctrl-C stops it.

    More settings are in server.toml in the data, and in the environment: ANTEFIX_SERVER_HOST and so on.
    """
    from antefix_server.config import Configuration
    from antefix_server.processes.supervisor import Supervisor

    data: Path = context.obj
    configuration = Configuration.read(data, host=host, port=port, rounds=rounds)
    _require_startable(data, configuration)
    parts = _parts(data, configuration)
    typer.echo(f"antefix-server: logs are in {data / 'logs'}; Ctrl-C stops", err=True)
    typer.echo(f"https://{configuration.host}:{configuration.port}")
    Supervisor(parts, data / "logs").run()


def _require_startable(data: Path, configuration: Configuration) -> None:
    """Say now what would otherwise be in a log."""
    from antefix.errors import InvalidArgument
    from antefix.loading.names import origin_of
    from antefix_server.gateway.process import certificate_of
    from antefix_server.http.listener import bound
    from antefix_server.vault import Vault

    if configuration.rounds:
        try:
            import flwr  # noqa: F401
        except ImportError:
            raise InvalidArgument(
                "Flower is not installed", "pip install 'antefix[federated]', or up --no-rounds"
            ) from None
    if configuration.inference:
        origin_of(configuration.inference)
    Vault.open(data).close()
    certificate_of(data, configuration)
    bound(configuration.host, configuration.port).close()


def _parts(data: Path, configuration: Configuration) -> list[Part]:
    import sys

    from antefix_server.flower import processes
    from antefix_server.http import tls
    from antefix_server.processes.supervisor import Part
    from antefix_server.storage import secure_malloc

    environment = {
        "ANTEFIX_SERVER_HOST": configuration.host,
        "ANTEFIX_SERVER_PORT": str(configuration.port),
        **secure_malloc.FORGETFUL,
    }
    command = [sys.executable, "-m", "antefix_server.gateway.process", str(data)]
    if not configuration.rounds:
        return [Part("gateway", command, environment)]
    own = tls.own(data, configuration.names)
    address = processes.prepared(data, own, configuration.flower_port)
    superlink, superexec = processes.parts(data, own, address)
    return [superlink, Part("gateway", [*command, address], environment), superexec]
