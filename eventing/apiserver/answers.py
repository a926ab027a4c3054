"""Sending answers, and reading bodies up to the limit."""

from collections.abc import Iterable
from typing import Final

import msgspec
from starlette.types import Receive, Send

from eventing.apiserver.failures import too_large
from eventing.errors import ApiError

__all__ = ["BODY_LIMIT", "ClientGoneError", "answer", "answer_error", "read_body"]

BODY_LIMIT: Final = 3 * 1024 * 1024  # as Kubernetes
_JSON: Final = b"application/json"
_PART: Final = 128 * 1024


class ClientGoneError(Exception):
    """The client went away before its request was read."""


async def answer(
    send: Send, code: int, body: bytes, *, content_type: bytes = _JSON, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    lines = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-cache, private"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": code, "headers": lines})
    # In parts: what TLS has to hold at a time stays with the connection for as long as that lives.
    for start in range(0, len(body) - _PART, _PART):
        await send({"type": "http.response.body", "body": body[start : start + _PART], "more_body": True})
    await send({"type": "http.response.body", "body": body[max(0, -(-len(body) // _PART) - 1) * _PART :]})


async def answer_error(send: Send, error: ApiError) -> None:
    """Send the error's Status."""
    headers = []
    if error.code == 401:
        headers.append((b"www-authenticate", b'Bearer realm="eventing-mesh"'))
    if error.code in {429, 503}:
        headers.append((b"retry-after", b"1"))
    await answer(send, error.code, msgspec.json.encode(error.status), headers=headers)


async def read_body(receive: Receive, declared: str) -> bytes:
    """The whole body. Raises 413 beyond the limit, by what the client declares if it does."""
    if declared.isdigit() and int(declared[:12]) > BODY_LIMIT:
        raise too_large(BODY_LIMIT)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        if part := message.get("body", b""):
            size += len(part)
            if size > BODY_LIMIT:
                raise too_large(BODY_LIMIT)
            parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
