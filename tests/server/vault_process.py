"""A process that serves a vault for the removal scan: it does what it is told, one JSON line at a time."""

import json
import sys
from pathlib import Path

from antefix_server.backups import backup_keys, backup_records
from antefix_server.vault import Vault


def main() -> None:
    """Serve until standard input ends."""
    with Vault.open(Path(sys.argv[1])) as vault:
        print(json.dumps({"tenant": vault.tenant.hex()}), flush=True)
        for line in sys.stdin.buffer:
            call = json.loads(line)
            print(json.dumps(answer(vault, call)), flush=True)
            del line, call


def answer(vault: Vault, call: dict[str, str]) -> object:
    kind = call["call"]
    if kind == "enrol":
        return vault.enrol().hex()
    if kind == "put":
        return vault.put(Path(call["file"]).read_bytes(), replaces=int(call["replaces"])).version
    if kind == "get":
        user, prefix = bytes.fromhex(call["user"]), bytes.fromhex(call["prefix"])
        return len(vault.get(user, prefix)) + sum(map(len, vault.stream(user, prefix)))
    if kind == "backup":
        backup_keys(vault, Path(call["keys"]))
        return backup_records(vault, Path(call["records"]))
    if kind == "remove":
        return vault.remove(bytes.fromhex(call["user"])).text()
    raise ValueError(kind)


if __name__ == "__main__":
    main()
