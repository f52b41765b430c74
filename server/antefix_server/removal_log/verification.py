"""Goes through a whole copy of the removal log: every mark, and the tree computed anew from its leaves."""

from __future__ import annotations

from collections.abc import Callable

from antefix.crypto.merkle import Node, root_from_inclusion_proof
from antefix.receipts import Checkpoint
from antefix_server.errors import VaultDamaged
from antefix_server.removal_log.log_file import Entry, LogFile, grown
from antefix_server.removal_log.statement import Statement

Mark = Callable[[int, Entry | Statement], bytes]
_HINT = "put the mirror back in its place, and see who could write there"


def computed_root(copy: LogFile, mark: Mark, earlier: Checkpoint | None) -> bytes:
    """Root of a copy from its leaves.

    Args:
        copy: of the log.
        mark: of an entry at an index, as only this vault can make it.
        earlier: a checkpoint from before, verified; the log must have grown from it.

    Raises:
        VaultDamaged: a mark, the stored tree, or the history is not what it should be.
    """
    name, peaks, count = copy.database.name, list[tuple[Node, bytes]](), 0
    for batch in copy.entries():
        for index, entry in batch:
            if index != count:
                raise VaultDamaged(f"{name} has no entry {count}", _HINT)
            if entry.mark != mark(index, entry):
                raise VaultDamaged(f"entry {index} of {name} is not what this vault wrote", _HINT)
            grown(peaks, index, entry.leaf)
            count += 1
            if earlier is not None and count == earlier.size and _root(peaks) != earlier.root:
                raise VaultDamaged(f"{name} is not what it was at {count} entries", _HINT)
    if earlier is not None and earlier.size > count:
        raise VaultDamaged(f"{name} has {count} entries, the checkpoint has {earlier.size}", _HINT)
    if copy.root() != _root(peaks):
        raise VaultDamaged(f"the tree stored in {name} is not that of its entries", _HINT)
    return _root(peaks)


def _root(peaks: list[tuple[Node, bytes]]) -> bytes:
    return root_from_inclusion_proof([value for _, value in peaks])
