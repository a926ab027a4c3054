"""Who may come in: the right host name, no browser, a known token.

A page in the user's browser could otherwise reach a server on loopback, by a name that it rebinds to 127.0.0.1 or by plain
requests across origins. So requests that name another host, or that come from a page, are refused before anything is read.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from eventing.apiserver.answers import answer, answer_error
from eventing.apiserver.failures import forbidden, unauthorized
from eventing.observe.health import TEXT, Health

__all__ = ["Access"]

_BROWSER_HEADERS: Final = (b"origin", b"sec-fetch-site", b"sec-fetch-mode")


class Access:
    """ASGI middleware. `users` maps tokens to user names; what passes has the name in `scope["user"]`."""

    def __init__(self, app: ASGIApp, *, users: Mapping[str, str], allowed_hosts: Iterable[str], health: Health) -> None:
        self._app = app
        self._health = health
        # Looked up by digest: how long it takes says nothing about the tokens.
        self._users = {_digest(token.encode()): user for token, user in users.items()}
        self._hosts = frozenset(host.strip("[]").lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope["path"] = scope["path"].rstrip("/") or "/"  # `/version/` is `/version`, as in Kubernetes
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if not self._host_allowed(headers.get(b"host", b"")):
            await answer_error(send, forbidden("this server does not go by the name in the Host header"))
        elif any(name in headers for name in _BROWSER_HEADERS):
            await answer_error(send, forbidden("this server does not answer to web pages"))
        elif found := self._health.answer(scope["path"], scope["query_string"].decode("latin-1")):
            await answer(send, found[0], found[1].encode(), content_type=TEXT.encode())
        else:
            user = self._user(headers.get(b"authorization", b""))
            if user is None:
                await answer_error(send, unauthorized())
            else:
                scope["user"] = user
                await self._app(scope, receive, send)

    def _host_allowed(self, host: bytes) -> bool:
        name = host.decode("latin-1").lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        return name in self._hosts

    def _user(self, authorization: bytes) -> str | None:
        scheme, _, token = authorization.partition(b" ")
        return self._users.get(_digest(token.strip())) if scheme.lower() == b"bearer" else None


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
