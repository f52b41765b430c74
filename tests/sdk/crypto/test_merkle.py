"""Merkle hashing and proofs against the published tree, and against RFC 9162's definition written naively."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antefix.crypto.merkle import (
    EMPTY_ROOT,
    complete_subtrees,
    consistency_proof_ranges,
    inclusion_proof_ranges,
    leaf_hash,
    node_hash,
    root_from_inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from antefix.errors import ReceiptRefused
from antefix.receipts import Checkpoint, verify_growth

# The tree of eight leaves that certificate transparency implementations have been tested with since 2013.
LEAVES = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
LEAVES.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive(hashes: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, word by word."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(naive(hashes[:split]), naive(hashes[split:]))


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(count)]


def completed(index: int) -> Iterator[tuple[int, int]]:
    """Subtrees that leaf `index` completes, without the leaf itself, from below."""
    level = 0
    while index & 1:
        level, index = level + 1, index >> 1
        yield level, index


def proof(hashes: list[bytes], ranges: list[tuple[int, int]]) -> list[bytes]:
    """From stored subtrees only, as the log makes it."""
    nodes = {(0, at): one for at, one in enumerate(hashes)}
    for at in range(len(hashes)):
        for level, position in completed(at):
            below = nodes[level - 1, 2 * position], nodes[level - 1, 2 * position + 1]
            nodes[level, position] = node_hash(*below)
    return [root_from_inclusion_proof([nodes[node] for node in complete_subtrees(one)]) for one in ranges]


@pytest.mark.parametrize("size", range(1, 9))
def test_the_published_tree_has_its_roots(size: int) -> None:
    assert naive([leaf_hash(leaf) for leaf in LEAVES[:size]]).hex() == ROOTS[size - 1]


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(1, 130), st.data())
def test_honest_proofs_pass_and_others_do_not(size: int, data: st.DataObject) -> None:
    hashes, index = leaves(size), data.draw(st.integers(0, size - 1))
    root, path = naive(hashes), proof(hashes, inclusion_proof_ranges(index, size))
    assert proof(hashes, [(0, size)]) == [root]
    assert verify_inclusion(hashes[index], index, size, path, root)
    other = data.draw(st.integers(0, size + 1))
    if other != index:
        assert not verify_inclusion(hashes[index], other, size, path, root)
    assert not verify_inclusion(leaf_hash(b"other"), index, size, path, root)
    assert not verify_inclusion(hashes[index], index, size, [*path, bytes(32)], root)
    if path:
        assert not verify_inclusion(hashes[index], index, size, path[:-1], root)

    first = data.draw(st.integers(1, size))
    growth = proof(hashes, consistency_proof_ranges(first, size))
    assert verify_consistency(first, naive(hashes[:first]), size, root, growth)
    before, after = Checkpoint("log", first, naive(hashes[:first])), Checkpoint("log", size, root)
    verify_growth(before, after, growth)
    with pytest.raises(ReceiptRefused, match="the one before was other"):
        verify_growth(replace(before, origin="other"), after, growth)
    with pytest.raises(ReceiptRefused, match=f"not shown to begin with the {first}"):
        verify_growth(replace(before, root=leaf_hash(b"other")), after, growth)
    assert not verify_consistency(first, leaf_hash(b"other"), size, root, growth)
    changed = leaves(size)
    changed[data.draw(st.integers(0, first - 1))] = leaf_hash(b"rewritten")
    if first < size:
        assert not verify_consistency(first, naive(hashes[:first]), size, naive(changed), growth)
        rewritten = proof(changed, consistency_proof_ranges(first, size))
        assert not verify_consistency(first, naive(hashes[:first]), size, naive(changed), rewritten)
        assert not verify_consistency(first, naive(hashes[:first]), size, root, growth[:-1])
        assert not verify_consistency(first, naive(hashes[:first]), size, root, [*growth, bytes(32)])
