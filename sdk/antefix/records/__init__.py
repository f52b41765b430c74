"""Sealed records: one version of one user's private prefix, encrypted, signed, bound to its place.

The format, and why each field is there: `docs/format.md`. Nothing here trusts a record: what it should be
comes from the caller, is compared first, and is what the decryption is bound to.

    record = seal(prefix.to_bytes(), Edition(address, version=1, previous=FIRST), key=user_key, device=device)
    with open_record(record, address, key=user_key, writers=devices.writers) as opened:
        prefix = opened.prefix()
"""

from antefix.records.record import (
    FIRST,
    Address,
    Cover,
    Edition,
    Known,
    OpenedRecord,
    cover_of,
    digest_of,
    open_record,
    rewrap,
    seal,
    shape_of,
)

__all__ = [
    "FIRST",
    "Address",
    "Cover",
    "Edition",
    "Known",
    "OpenedRecord",
    "cover_of",
    "digest_of",
    "open_record",
    "rewrap",
    "seal",
    "shape_of",
]
