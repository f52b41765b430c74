"""Merkle tree hashing and proofs of an append-only log, as in RFC 9162, section 2.1.

A log stores the hash of every complete subtree as `(level, position)`: level 0 are the leaves, and the
subtree at `(level, position)` covers leaves `position << level` up to `(position + 1) << level`. Every hash
that a proof needs is that of a range of leaves, folded from a few of those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

Range = tuple[int, int]
"""Leaves from, up to and without."""
Node = tuple[int, int]
"""Level and position of a complete subtree."""

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Hash of an entry, 32 bytes (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of two subtrees, 32 bytes; not a leaf's first byte, so that no leaf can pose as a node."""
    return hashlib.sha256(b"\1" + left + right).digest()


def complete_subtrees(leaves: Range) -> list[Node]:
    """Complete subtrees that make up a range of a proof, from left to right."""
    start, end = leaves
    nodes = []
    for level in reversed(range((end - start).bit_length())):
        if (end - start) >> level & 1:
            nodes.append((level, start >> level))
            start += 1 << level
    return nodes


def root_from_inclusion_proof(hashes: Sequence[bytes]) -> bytes:
    """Hash of a range from those of its `complete_subtrees`."""
    root = hashes[-1] if hashes else EMPTY_ROOT
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def inclusion_proof_ranges(index: int, size: int) -> list[Range]:
    """Ranges whose hashes prove that leaf `index` is in the tree of `size`, the leaf's neighbour first."""
    start, end = 0, size
    path: list[Range] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return path[::-1]


def consistency_proof_ranges(first: int, second: int) -> list[Range]:
    """Ranges whose hashes prove that the tree of `second` leaves begins with that of `first`, 0 < first."""
    start, end, whole = 0, second, True
    path: list[Range] = []
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start, whole = middle, False
    if not whole:
        path.append((start, end))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof shows that leaf hash `leaf` has `index` under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            result = node_hash(sibling, result)
            position, last = _to_right_child(position, last)
        else:
            result = node_hash(result, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(
    first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether the proof shows that nothing of the first tree was changed (RFC 9162, 2.1.4.2)."""
    if first == second or first == 0:
        return not proof and (first_root == second_root if first == second else second > 0)
    hashes = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not 0 < first < second or not hashes:
        return False
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    first_hash = second_hash = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            first_hash, second_hash = node_hash(sibling, first_hash), node_hash(sibling, second_hash)
            position, last = _to_right_child(position, last)
        else:
            second_hash = node_hash(second_hash, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and first_hash == first_root and second_hash == second_root


def _to_right_child(position: int, last: int) -> tuple[int, int]:
    """Up to the level where `here` is a right child, or the root."""
    while position and not position & 1:
        position, last = position >> 1, last >> 1
    return position, last


def _split(size: int) -> int:
    """Largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
