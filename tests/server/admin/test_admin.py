"""The server's own socket, as commands ask over it."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from antefix import FrozenBase
from antefix.errors import InvalidArgument
from antefix.training.neutral_prefix import neutral_prefix
from antefix.wire.release import Privacy
from antefix_server.admin import admin_socket, operations
from antefix_server.errors import NameUnknown, ServerRefused
from antefix_server.vault import Vault
from tests.sdk.saved_models import save_base
from tests.support.loopback import serving
from tests.support.vaults import new_vault


def _answer(listening: socket.socket, content: bytes) -> None:
    asked, _ = listening.accept()
    with asked:
        asked.recv(65536)
        asked.sendall(content)


@pytest.mark.parametrize("body", [b"Internal Server Error", b"[]", b"{}", b'"text"', b"\xff"])
@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_is_none_of_ours_is_told(body: bytes, status: int, tmp_path: Path) -> None:
    """What a server says of an error that nobody thought of: plain text, with 500."""
    content = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )
    with admin_socket.listening(tmp_path) as listening:
        threading.Thread(target=_answer, args=(listening, content), daemon=True).start()
        with pytest.raises(ServerRefused, match=f"failed at 'status' .status {status}") as refused:
            admin_socket.ask(tmp_path, "status")
    assert refused.value.hint == "see its log"


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """A server's data."""
    made = new_vault(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def running(vault: Vault) -> Iterator[Path]:
    """The same, with a server that answers on its own socket."""
    app = admin_socket.application(vault)
    with admin_socket.listening(vault.folder) as listening, serving(app, listening):
        yield vault.folder


@pytest.fixture
def repeat() -> Iterator[None]:
    """One more operation: this function, and nothing elsewhere."""
    before = list(operations.router.routes)

    @operations.router.post("/repeat")
    def repeat(site: operations.TheSite, content: operations.Content, times: int) -> dict[str, str]:
        return {site.vault.tenant.hex(): (content * times).hex()}

    yield
    operations.router.routes[:] = before


@pytest.mark.usefixtures("repeat")
def test_an_operation_is_one_function_whether_a_server_runs_or_not(vault: Vault) -> None:
    expected = {vault.tenant.hex(): "00ff00ff"}
    app = admin_socket.application(vault)
    with admin_socket.listening(vault.folder) as listening, serving(app, listening):
        assert admin_socket.call(vault.folder, "repeat", b"\x00\xff", times=2) == expected
    vault.close()
    assert admin_socket.call(vault.folder, "repeat", b"\x00\xff", times=2) == expected


def test_the_socket_and_the_function_answer_alike(running: Path, vault: Vault) -> None:
    added = admin_socket.ask(running, "add_user", name="Ann & Bo?", invited_s=60)
    assert added["id"] == operations.show_user(operations.Site(vault), "Ann & Bo?")["id"]
    assert admin_socket.ask(running, "suspend", name="Ann & Bo?", suspended=True)["suspended"] is True
    assert admin_socket.ask(running, "list_users") == operations.list_users(operations.Site(vault))
    assert admin_socket.ask(running, "find_participants", [1, 2]) == []


def test_a_refusal_has_the_operations_own_words(running: Path, vault: Vault) -> None:
    with pytest.raises(NameUnknown) as here:
        operations.remove(operations.Site(vault), "nobody")
    with pytest.raises(ServerRefused) as there:
        admin_socket.ask(running, "remove", name="nobody")
    assert (there.value.message, there.value.hint) == (here.value.message, here.value.hint)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("no_such", {}),
        ("remove", {}),
        ("remove", {"name": "ann", "dry_run": True}),
        ("promote", {"version": "x"}),
        ("find_participants", {"content": b"1"}),
        ("Site", {}),
    ],
)
def test_what_this_version_does_not_know_is_refused(
    running: Path, vault: Vault, name: str, arguments: dict[str, object]
) -> None:
    """A newer command's argument must not be passed over: it may say that nothing is to be deleted."""
    operations.add_user(operations.Site(vault), "ann", 60)
    with pytest.raises(ServerRefused) as refused:
        admin_socket.ask(running, name, **arguments)  # type: ignore[arg-type]
    assert refused.value.hint == operations.SAME_VERSION
    assert len(operations.list_users(operations.Site(vault))) == 1


def test_a_release_is_published_with_the_shared_prefix_that_was_sent(running: Path, tmp_path: Path) -> None:
    """The body may be left out; one that is sent must arrive."""
    base = save_base(tmp_path / "base")
    shared = neutral_prefix(FrozenBase.load(str(base), progress=False), 2).to_bytes()
    admin_socket.ask(running, "publish", base=str(base))
    with pytest.raises(ServerRefused, match="no shared prefix"):
        admin_socket.ask(running, "latest_release")
    admin_socket.ask(running, "publish", shared, base=str(base))
    assert admin_socket.ask(running, "read_shared", version=2) == shared
    admin_socket.ask(running, "publish_shared", shared, note="of a round")
    guarantee = Privacy(epsilon=2.0, delta=1e-5, rounds=1, noise=1.0, clip=1.0, users=3)
    admin_socket.ask(
        running, "publish_shared", shared, note="of a private round", privacy=guarantee.model_dump_json()
    )
    assert admin_socket.ask(running, "latest_release")["version"] == 4


def test_an_argument_that_is_longer_than_an_address_is_refused_by_name(tmp_path: Path) -> None:
    with admin_socket.listening(tmp_path), pytest.raises(InvalidArgument, match="an argument of verify_log"):
        admin_socket.ask(tmp_path, "verify_log", since="x" * 70_000)
