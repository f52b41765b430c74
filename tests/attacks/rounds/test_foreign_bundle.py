"""A SuperLink hands a device a run with other code: nothing of it is fetched, let alone imported."""

import hashlib
import importlib.util
from pathlib import Path

import pytest
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.task_identity import TaskIdentity

import antefix_server
from antefix.rounds.fab_digest import DIGEST
from antefix_client.rounds import fleet_client, node
from antefix_client.rounds.fleet_client import FleetClient
from antefix_server.gateway.fleet_proxy import CALLS

# Flower reads patterns in a form that its library calls old.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
BUNDLE = Path(antefix_server.__file__).parent / "bundle"


class Recording(FleetClient):
    """A link whose server names a bundle; asking for anything else ends the test."""

    def __init__(self, digest: str) -> None:
        self.digest = digest

    def bundle_of(self, message: Message) -> str:
        return self.digest

    def pull_content(self, message: Message, tree: ObjectTree) -> Message:
        return message


def app(message: Message, context: Context) -> Message:
    return Message(RecordDict(), reply_to=message)


def message() -> Message:
    # Flower's own process has these from its SuperLink.
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    made = Message(RecordDict(), dst_node_id=7, message_type=MessageType.TRAIN)
    made.metadata.__dict__["_message_id"] = "1"
    return made


def test_the_known_bundle_is_the_one_that_flower_builds() -> None:
    assert hashlib.sha256(build_fab_from_disk(BUNDLE)).hexdigest() == DIGEST


def test_one_more_line_of_code_is_another_bundle(tmp_path: Path) -> None:
    for path in (BUNDLE / "pyproject.toml", *(BUNDLE / "antefix_rounds").glob("*.py")):
        target = tmp_path / path.relative_to(BUNDLE)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert hashlib.sha256(build_fab_from_disk(tmp_path)).hexdigest() == DIGEST
    with (tmp_path / "antefix_rounds" / "client_app.py").open("a") as file:
        file.write("import os\n")
    assert hashlib.sha256(build_fab_from_disk(tmp_path)).hexdigest() != DIGEST


def test_a_run_with_another_bundle_gets_an_error_and_nothing_runs() -> None:
    def never(message: Message, context: Context) -> Message:
        raise AssertionError("the app was called")

    reply = node.answer(Recording("0" * 64), never, message(), ObjectTree())
    assert reply.has_error()
    assert reply.error.code == ErrorCode.INVALID_FAB
    assert not node.answer(Recording(DIGEST), app, message(), ObjectTree()).has_error()


def test_no_module_of_the_device_installs_or_fetches_a_bundle() -> None:
    """Neither the call that brings one, nor what installs it; the gateway does not pass that call on."""
    for module in (node, fleet_client):
        spec = importlib.util.find_spec(module.__name__)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text()
        assert not [word for word in ("GetFab", "install_from_fab", "importlib", "exec(") if word in source]
    assert "get-fab" not in CALLS
