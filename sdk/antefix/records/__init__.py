"""Sealed records: one version of one user's private prefix, encrypted, signed, bound to its place.

The format, and why each field is there: `docs/reference/record-format.md`. Nothing here trusts a record. The
caller says what it should be: that is compared first, and the decryption is bound to it.

    version = RecordVersion(address, version=1, previous=NO_PREVIOUS)
    record = seal(prefix.to_bytes(), version, key=user_key, device=device)
    with open_record(record, address, key=user_key, writers=devices.writers) as opened:
        prefix = opened.prefix()
"""

from antefix.common.deprecation import former_names
from antefix.records.record import (
    NO_PREVIOUS,
    Address,
    Expected,
    OpenedRecord,
    RecordHeader,
    RecordVersion,
    digest_of,
    open_record,
    read_header,
    rewrap,
    seal,
    shape_of,
)

__all__ = [
    "NO_PREVIOUS",
    "Address",
    "Expected",
    "OpenedRecord",
    "RecordHeader",
    "RecordVersion",
    "digest_of",
    "open_record",
    "read_header",
    "rewrap",
    "seal",
    "shape_of",
]

__getattr__ = former_names(
    __name__,
    {
        "Cover": "RecordHeader",
        "Edition": "RecordVersion",
        "FIRST": "NO_PREVIOUS",
        "Known": "Expected",
        "cover_of": "read_header",
    },
)
