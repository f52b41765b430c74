"""A server as its device sees it: HTTP over TLS, with the device's token. Needs the extra `federated`."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from antefix.records.header import RECORD_LIMIT
from antefix.wire import Enrol, Enrolled, Invitation, NodeKey, ServerKeys
from antefix_client.errors import DeviceRefused, ServerNotTrusted, ServerRefused, ServerUnreachable

_WAIT_S = 30.0
_CLOCK_MIN = 4
_MAX_KEYS_BYTES = 2**16
_MAX_ANSWER_BYTES = 2**20
_MIN_RATE = 1024.0  # bytes per second, on average


class _Numbered(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    node: int


class ApiClient:
    """The requests of one device; close it, or use it in a `with` block."""

    def __init__(self, url: str, authority: str, token: str | None = None) -> None:
        """Connect with the first request.

        Args:
            url: of the server.
            authority: certificate of who signed the server's, PEM; empty for those that the system knows.
            token: of the device.
        """
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(
            base_url=url, headers=headers, verify=_context(authority), timeout=_WAIT_S, trust_env=False
        )
        self._url = url

    def enrol(self, request: Enrol) -> Enrolled:
        """Let this device in.

        Raises:
            ServerRefused: the invitation is used or expired.
            ServerUnreachable, ServerNotTrusted.
        """
        answer = self.request("POST", "/v1/enrol", json=request.model_dump())
        try:
            return Enrolled.model_validate_json(answer.content)
        except ValidationError:
            raise unexpected_answer() from None

    def record(self, prefix: bytes, known: str | None) -> tuple[bytes | None, str | None]:
        """The stored record and its tag; the tag alone where it is known, neither where none is stored.

        Raises:
            DeviceRefused, ServerUnreachable, ServerRefused.
        """
        headers = {} if known is None else {"If-None-Match": known}
        path = f"/v1/records/{prefix.hex()}"
        answer = self.request("GET", path, also=(304, 404), max_bytes=RECORD_LIMIT, headers=headers)
        if answer.status_code == 404:
            return None, None
        return (answer.content if answer.status_code == 200 else None), answer.headers.get("ETag")

    def put(self, prefix: bytes, record: bytes, replaces: int) -> bool:
        """Store a record in place of a version; whether that was still the one stored.

        Raises:
            DeviceRefused, ServerUnreachable, ServerRefused.
        """
        path = f"/v1/records/{prefix.hex()}"
        answer = self.request("PUT", path, params={"replaces": replaces}, content=record, also=(409,))
        return answer.status_code == 200

    def change(self, version: int) -> bytes | None:
        """The change that made a version of the list of devices; None where there is none.

        Raises:
            DeviceRefused, ServerUnreachable, ServerRefused.
        """
        answer = self.request("GET", f"/v1/devices/{version}", also=(404,))
        return answer.content if answer.status_code == 200 else None

    def add_change(self, content: bytes) -> bool:
        """Hand on a change of devices; whether it was still the next one.

        Raises:
            DeviceRefused, ServerUnreachable, ServerRefused.
        """
        return self.request("PUT", "/v1/devices", content=content, also=(409,)).status_code == 200

    def register_node(self, key: NodeKey) -> int | None:
        """Number of this device's node in rounds; None where the key was used before.

        Raises:
            DeviceRefused, ServerUnreachable.
            ServerRefused: also where this device's clock is so wrong that Flower would take no signature.
        """
        answer = self.request("PUT", "/v1/node", json=key.model_dump(), also=(409,))
        _require_clock(answer)
        if answer.status_code == 409:
            return None
        try:
            return _Numbered.model_validate_json(answer.content).node
        except ValidationError:
            raise unexpected_answer() from None

    def request(
        self,
        method: str,
        path: str,
        *,
        also: tuple[int, ...] = (),
        max_bytes: int = _MAX_ANSWER_BYTES,
        **options: Any,
    ) -> httpx.Response:
        """An answer with status 200, or one of those that are also expected; of `most` bytes at most.

        Raises:
            DeviceRefused: the token is no good.
            ServerRefused: any other status.
            ServerUnreachable, ServerNotTrusted.
        """
        try:
            answer = _read_limited(self.http, method, path, max_bytes, **options)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            raise _translated(self._url, error) from None
        if answer.status_code == 200 or answer.status_code in also:
            return answer
        if answer.status_code == 401:
            raise DeviceRefused
        raise _refusal(answer)

    def close(self) -> None:
        """Let go of the connection."""
        self.http.close()

    def __enter__(self) -> Self:
        """The server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _read_limited(
    client: httpx.Client, method: str, path: str, max_bytes: int, **options: Any
) -> httpx.Response:
    """A whole answer. A server may send without end, or packed a thousandfold, or a byte a minute.

    Raises:
        ServerRefused: too much, or packed.
        ServerUnreachable: too slow.
        httpx.HTTPError, ssl.SSLError: as the library does.
    """
    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
    began, body = time.monotonic(), bytearray()
    with client.stream(method, path, headers=headers, **options) as answer:
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise ServerRefused("the server packs what it sends", "ask the operator: a proxy may do it")
        for chunk in answer.iter_raw():
            body += chunk
            seconds = time.monotonic() - began
            if len(body) > max_bytes:
                raise ServerRefused(f"the server sends more than {max_bytes:,} bytes", "ask the operator")
            if seconds > _WAIT_S and len(body) < _MIN_RATE * seconds:
                raise ServerUnreachable(
                    f"the server sent {len(body):,} bytes in {seconds:.0f} s", "try again on a better network"
                )
    known_headers = {name: answer.headers[name] for name in ("ETag", "Date") if name in answer.headers}
    return httpx.Response(answer.status_code, headers=known_headers, content=bytes(body))


def _require_clock(answer: httpx.Response) -> None:
    """Flower's signatures are of a time, and good for five minutes."""
    try:
        there = parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError, TypeError):
        return
    if there.tzinfo is None:  # the zone -0000: universal time, of a clock whose own zone is not told
        there = there.replace(tzinfo=UTC)
    minutes = round((datetime.now(UTC) - there).total_seconds() / 60)
    if abs(minutes) >= _CLOCK_MIN:
        ahead = "ahead of" if minutes > 0 else "behind"
        raise ServerRefused(
            f"this device's clock is {abs(minutes):,} minutes {ahead} the server's", "set it, then try again"
        )


def fetch_server_keys(url: str, invitation: Invitation) -> ServerKeys:
    """What the server is known by, checked against the invitation.

    Asked without looking at the certificate: nothing is told, and what comes back is signed.

    Raises:
        ServerNotTrusted: another server, or somebody in between.
        ServerUnreachable.
    """
    host = _host_of(url)
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        with httpx.Client(base_url=url, verify=unverified, timeout=_WAIT_S, trust_env=False) as client:
            answer = _read_limited(client, "GET", "/v1/server", _MAX_KEYS_BYTES)
            keys = ServerKeys.model_validate_json(answer.content)
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, UnicodeError) as error:
        raise _translated(url, error) from None
    except ValidationError:
        raise ServerNotTrusted(f"{url} is no server of Antefix", "check the address") from None
    if not keys.are_of(invitation.server):
        raise ServerNotTrusted(
            f"{url} is not the server that gave this invitation",
            "ask who sent it to you for the right address",
        )
    if not keys.are_for(host):
        names = ", ".join(keys.names)[:200] or "nothing"
        raise ServerNotTrusted(
            f"the server of this invitation is not called {host!r:.200}, but {names}",
            "check the address: somebody may be in between",
        )
    return keys


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname
    except ValueError:  # half of an address in brackets, say
        scheme, host = "", None
    if scheme != "https" or not host:
        raise ServerUnreachable(f"{url!r:.200} is no address of a server", "it begins with https://")
    return host


def unexpected_answer() -> ServerRefused:
    """An answer that no server of Antefix gives."""
    return ServerRefused("the server answers what is not understood", "is there a proxy that changes it?")


def _context(authority: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=authority or None)
    except (ssl.SSLError, ValueError, TypeError):  # a TypeError where it is not ASCII
        raise ServerNotTrusted("the server's authority is no certificate", "ask the operator") from None


def _translated(url: str, error: Exception) -> ServerUnreachable | ServerNotTrusted:
    """Which of the reasons it is: the name, the certificate, this device's clock, the network."""
    reason = _certificate_reason(error)
    if reason is not None:
        return ServerNotTrusted(
            f"the certificate of {url} is refused: {reason}",
            "check the address and this device's clock, then ask the operator",
        )
    why = str(error.__cause__ or error) or type(error).__name__
    return ServerUnreachable(
        f"{url} does not answer: {why:.200}", "check address and network, then try again"
    )


def _certificate_reason(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message)
        if isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            return str(error).split(": ", 1)[-1].split(" (_ssl", 1)[0]
        error = error.__cause__ or error.__context__
    return None


def _refusal(answer: httpx.Response) -> ServerRefused:
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, Mapping) or not isinstance(body.get("message"), str):
        return ServerRefused(f"status {answer.status_code}", "try again later", answer.status_code)
    hint = body.get("hint")
    # A server's words are shown to a person: no control characters, no end.
    shown = _shown(hint) if isinstance(hint, str) else ""
    return ServerRefused(_shown(body["message"]), shown, answer.status_code)


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])
