"""The request of a new device to be linked: its public keys. And the fingerprint that a person compares."""

from __future__ import annotations

import struct

from antefix.common.validation import require
from antefix.errors import InvalidArgument
from antefix.keys import DevicePublic
from antefix_client.errors import LinkRefused

_FORM = struct.Struct(">8s1216s32s")
_MAGIC = b"ANTEFIXQ"
_DIGITS = 32


def to_bytes(device: DevicePublic) -> bytes:
    """The request of a device, 1,256 bytes. Nothing in it is private, and nothing proves whose it is."""
    return _FORM.pack(_MAGIC, device.kem_bytes, device.signing_bytes)


def from_bytes(content: bytes, *, device: str) -> DevicePublic:
    """The device of a request.

    Args:
        content: the request, from anywhere.
        device: fingerprint that a person has read off the new device's screen. Whoever carries the request
            can put keys of his own into it; the fingerprint did not go through his hands.

    Raises:
        LinkRefused: it is none, or of another device.
        InvalidArgument: the fingerprint is none.
    """
    wanted = parse_fingerprint(device)
    require(content, bytes, "the request")
    if len(content) != _FORM.size or content[:8] != _MAGIC:
        raise LinkRefused("this is not a request of a device", "make one there: antefix device request")
    public = DevicePublic(*_FORM.unpack(content)[1:])
    if public.id != wanted:
        raise LinkRefused(
            f"the request is of device {public.fingerprint}, you compared {format_fingerprint(wanted)}"
        )
    return public


def parse_fingerprint(fingerprint: str) -> bytes:
    """The id of the device with a fingerprint, 16 bytes; the groups may be apart or not.

    Raises:
        InvalidArgument: it is no fingerprint.
    """
    require(fingerprint, str, "device", "give the fingerprint that the other device shows")
    digits = "".join(fingerprint.split()).lower()
    if len(digits) != _DIGITS or set(digits) - set("0123456789abcdef"):
        raise InvalidArgument(
            f"a fingerprint has {_DIGITS} digits 0-9, a-f; this has {len(digits)} characters",
            "read it off the other device: antefix device show",
        )
    return bytes.fromhex(digits)


def format_fingerprint(device: bytes) -> str:
    """The fingerprint of an id."""
    text = device.hex()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))
