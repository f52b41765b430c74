"""A receipt proves one removal to who has the log's key, and nothing else passes."""

import base64
import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from typer.testing import CliRunner

from antefix.crypto.merkle import node_hash, root_from_inclusion_proof
from antefix.errors import InvalidArgument, ReceiptRefused
from antefix.receipts import Checkpoint, LogKey, Receipt, Removal, heads_digest, verify_receipt
from antefix_client.cli import app
from tests.support.records import some_bytes

SIGNING = Ed25519PrivateKey.from_private_bytes(some_bytes("log", 32))
WITNESS = Ed25519PrivateKey.from_private_bytes(some_bytes("witness", 32))
KEY = LogKey("example.com/removals", SIGNING.public_key().public_bytes_raw())
WITNESS_KEY = LogKey("witness.example", WITNESS.public_key().public_bytes_raw(), 4)
USER = some_bytes("ann", 16)
REMOVAL = Removal(some_bytes("salt", 32), some_bytes("tenant", 16), USER, heads_digest([]), 20_000)
NEIGHBOUR = some_bytes("leaf 0", 32)


def receipt() -> Receipt:
    """Leaf 1 of 2."""
    tree = Checkpoint(KEY.name, 2, node_hash(NEIGHBOUR, REMOVAL.leaf)).signed(SIGNING)
    return Receipt(REMOVAL, 1, (NEIGHBOUR,), tree)


GOOD = receipt().text()


def test_an_honest_receipt_passes() -> None:
    assert verify_receipt(GOOD, KEY, user=USER) == receipt()
    assert verify_receipt(GOOD, LogKey.parse(KEY.text())).removal.date.isoformat() == "2024-10-04"


def test_no_changed_character_passes() -> None:
    tried = 0
    for at in range(len(GOOD)):
        for other in ("A", "0", "\n", " ", "\N{FULLWIDTH DIGIT ONE}"):
            forged = GOOD[:at] + other + GOOD[at + 1 :]
            if forged == GOOD:
                continue
            with pytest.raises(ReceiptRefused):
                verify_receipt(forged, KEY, user=USER)
            tried += 1
    assert tried > 2000


@pytest.mark.parametrize("character", ["\ud800", "\x1b", "\u2028", "\u202e", "\r"])
def test_a_character_that_cannot_be_shown_is_refused_by_our_own_error(character: str) -> None:
    """Half a character cannot be encoded, an escape sequence would reach the terminal with the message."""
    for at in range(len(GOOD)):
        with pytest.raises(ReceiptRefused) as caught:
            verify_receipt(GOOD[:at] + character + GOOD[at + 1 :], KEY)
        assert character not in caught.value.message


def test_a_receipt_does_not_show_its_salt() -> None:
    """With it, the leaf in the public log can be told to be of this user."""
    assert "salt" not in repr(receipt())


def test_no_cut_and_no_addition_passes() -> None:
    for at in range(len(GOOD)):
        with pytest.raises(ReceiptRefused):
            verify_receipt(GOOD[:at], KEY)
    for more in ("\n", "x", GOOD, "\0"):
        with pytest.raises(ReceiptRefused):
            verify_receipt(GOOD + more, KEY)
    with pytest.raises(ReceiptRefused, match="10,000,000 characters"):
        verify_receipt("x" * 10_000_000, KEY)


def test_the_receipt_of_someone_else_is_refused() -> None:
    with pytest.raises(ReceiptRefused, match=f"it is of user {USER.hex()}, expected"):
        verify_receipt(GOOD, KEY, user=some_bytes("bob", 16))
    with pytest.raises(InvalidArgument, match="a user id has 3 bytes"):
        verify_receipt(GOOD, KEY, user=b"ann")


def test_another_log_is_refused() -> None:
    rogue = Ed25519PrivateKey.generate()
    same_name = LogKey(KEY.name, rogue.public_key().public_bytes_raw())
    with pytest.raises(ReceiptRefused, match=r"not signed by example\.com/removals"):
        verify_receipt(GOOD, same_name)
    forged = replace(receipt(), checkpoint=replace(receipt().checkpoint, signatures=()).signed(rogue))
    with pytest.raises(ReceiptRefused, match=r"not signed by example\.com/removals"):
        verify_receipt(forged.text(), KEY)
    stolen = Checkpoint("other.example/log", 2, receipt().checkpoint.root).signed(SIGNING)
    with pytest.raises(ReceiptRefused):
        verify_receipt(replace(receipt(), checkpoint=stolen).text(), KEY)
    with pytest.raises(ReceiptRefused, match=r"is of other\.example/log, the key of example"):
        replace(stolen, signatures=receipt().checkpoint.signatures).verify(KEY)


def test_a_statement_that_is_not_in_the_tree_is_refused() -> None:
    for forged in (
        replace(receipt(), removal=replace(REMOVAL, day=20_001)),
        replace(receipt(), removal=replace(REMOVAL, heads=bytes(32))),
        replace(receipt(), index=0),
        replace(receipt(), index=2),
        replace(receipt(), proof=()),
        replace(receipt(), proof=(NEIGHBOUR, NEIGHBOUR)),
    ):
        with pytest.raises(ReceiptRefused, match=r"is not leaf \d of the 2 that are signed"):
            verify_receipt(forged.text(), KEY)
    with pytest.raises(ReceiptRefused):
        verify_receipt(replace(receipt(), proof=(bytes(32),) * 64).text(), KEY)
    with pytest.raises(ReceiptRefused, match="days after 1970"):
        verify_receipt(replace(receipt(), removal=replace(REMOVAL, day=2**32 - 1)).text(), KEY)


def test_a_node_cannot_pose_as_a_leaf() -> None:
    """RFC 9162's reason for the first byte: the inner node of a larger tree, offered as a leaf hash."""
    assert root_from_inclusion_proof([NEIGHBOUR, REMOVAL.leaf]) == receipt().checkpoint.root
    assert REMOVAL.leaf != node_hash(NEIGHBOUR, NEIGHBOUR)


def test_a_witness_must_have_signed_where_one_is_asked_for() -> None:
    with pytest.raises(ReceiptRefused, match=r"not signed by witness\.example"):
        verify_receipt(GOOD, KEY, witnesses=[WITNESS_KEY])
    tree = receipt().checkpoint
    at = (1_700_000_000).to_bytes(8, "big")
    signature = WITNESS.sign(b"cosignature/v1\ntime 1700000000\n" + tree.body.encode())
    for stamp, passes in ((at, True), (bytes(8), False)):
        content = base64.b64encode(WITNESS_KEY.id + stamp + signature).decode()
        line = f"\N{EM DASH} witness.example {content}"
        text = replace(receipt(), checkpoint=replace(tree, signatures=(*tree.signatures, line))).text()
        if passes:
            assert verify_receipt(text, KEY, witnesses=[WITNESS_KEY]).index == 1
        else:
            with pytest.raises(ReceiptRefused, match=r"signature of witness\.example"):
                verify_receipt(text, KEY, witnesses=[WITNESS_KEY])


def test_keys_of_other_logs_are_read_as_others_read_them() -> None:
    """The key of sum.golang.org, and the signed note in the documentation of Go's x/mod/sumdb/note."""
    assert (
        LogKey.parse("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8").id.hex()
        == "033de0ae"
    )
    key = LogKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = b"If you think cryptography is the answer to your problem,\n"
    text += b"then you don't know what your problem is.\n"
    line = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    content = base64.b64decode(line)
    assert content[:4] == key.id
    Ed25519PublicKey.from_public_bytes(key.public).verify(content[4:], text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "a+b+c",
        KEY.text()[:-2],
        KEY.text().replace("removals", "removed"),
        "+" + KEY.text(),
        "é" * 2000,
    ],
)
def test_what_is_no_log_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="log key"):
        LogKey.parse(text)


def test_a_receipt_without_its_salt_says_nothing() -> None:
    """Same user, same day, another salt: the leaf shares nothing, and no hash of the id alone is in it."""
    again = replace(REMOVAL, salt=some_bytes("other salt", 32))
    assert again.leaf != REMOVAL.leaf
    assert hashlib.sha256(USER).digest() not in (again.leaf, REMOVAL.leaf)


@pytest.mark.parametrize("words", [[], ["--user", USER.hex()], ["--json"]])
def test_the_command_checks_a_receipt(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("receipt")
    (folder / "receipt").write_text(GOOD)
    (folder / "key").write_text(KEY.text() + "\n")
    for key in (KEY.text(), str(folder / "key")):
        done = CliRunner().invoke(app, ["receipt", "verify", str(folder / "receipt"), "--key", key, *words])
        assert done.exit_code == 0, done.output
        assert USER.hex() in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{good}", "--key", "nonsense+"], "this is no log key"),
        (["{good}", "--key", "/no/such/file"], "/no/such/file cannot be read"),
        (["/no/such/file", "--key", KEY.text()], "/no/such/file cannot be read"),
        (["{forged}", "--key", KEY.text()], "the receipt is refused"),
        (["{binary}", "--key", KEY.text()], "the receipt is refused: it is no text"),
        (["{good}", "--key", KEY.text(), "--user", "ann"], "a user id of 3 characters"),
        (["{good}", "--key", KEY.text(), "--user", "0" * 32], "it is of user"),
    ],
)
def test_the_command_refuses_in_two_lines(
    words: list[str], said: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("receipt")
    for name, content in (("good", GOOD), ("forged", GOOD.replace("index 1", "index 0"))):
        (folder / name).write_text(content)
    (folder / "binary").write_bytes(b"\xff\xfe\0")
    files = {name: str(folder / name) for name in ("good", "forged", "binary")}
    done = CliRunner().invoke(
        app, ["receipt", "verify", *(word.format(**files) for word in words)], prog_name="antefix"
    )
    assert (done.exit_code, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("antefix: error: ")
    assert said in lines[0]
    assert len(lines) == 2
    assert lines[1].startswith("antefix: hint: ")
