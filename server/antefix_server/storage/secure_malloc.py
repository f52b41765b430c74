"""Memory that forgets: what a process frees is overwritten before it is used again."""

from __future__ import annotations

FORGETFUL = {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
}
"""Environment of a serving process, set before it starts; on Linux with glibc.

Shred keys are wiped by the vault itself. Ids and sealed bytes pass through Python's and SQLite's heap, where
without this they lie about, freed, until something else takes their place.
"""
