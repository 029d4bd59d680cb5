"""Who may ask: hosts, tokens, visitors' keys, requests of other sites, and sizes of bodies."""

from __future__ import annotations

import hashlib
import hmac
import http.cookies
import json
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "fastnst_studio"
LOCAL = ("127.0.0.1", "localhost", "::1")
UPLOAD_BYTES = 64 * 2**20
JSON_BYTES = 2**20
_YEAR = 365 * 24 * 3600
_SAFE = ("GET", "HEAD", "OPTIONS")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Keys:
    """Keys of visitors, signed with a secret in the studio's folder: a key is checked without a record of it."""

    def __init__(self, folder: Path) -> None:
        path = folder / "secret"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_bytes(secrets.token_bytes(32))
        self._secret = path.read_bytes()

    def owner(self) -> str:
        """The key of whoever started the studio: the same at each start."""
        return self._signed("owner")

    def new(self) -> str:
        """A key for a new visitor."""
        return self._signed(secrets.token_hex(16))

    def visitor(self, key: str) -> str | None:
        """The name of the visitor's folder; None for a key that was not made here."""
        name = key.partition(".")[0]
        if not hmac.compare_digest(self._signed(name).encode(), key.encode("utf-8", "replace")):
            return None
        return hashlib.sha256(key.encode()).hexdigest()[:16]

    def _signed(self, name: str) -> str:
        return f"{name}.{hmac.new(self._secret, name.encode('utf-8', 'replace'), 'sha256').hexdigest()[:32]}"


@dataclass(frozen=True)
class Access:
    """Where the studio listens and who may enter. ``token`` is None where only this machine can reach it."""

    host: str
    port: int
    keys: Keys
    token: str | None = None

    def link(self, key: str, host: str | None = None) -> str:
        """The address that opens the gallery of the visitor with this key."""
        return f"http://{host or self._place}/?{urlencode({'key': key})}"

    def invitation(self) -> str:
        """The address with the token, which gives each visitor a gallery of its own."""
        return f"http://{self._place}/?{urlencode({'token': self.token or ''})}"

    @property
    def _place(self) -> str:
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


class Guard:
    """ASGI middleware that refuses requests, and names the visitor in ``scope["state"]["visitor"]`` and ``["key"]``.

    A key comes in the cookie or as ``Authorization: Bearer KEY``. The page gives a new visitor a key: on this machine
    to everyone, elsewhere to those with the token in the address.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is None and scope["path"] == "/" and scope["method"] == "GET":
            key = self._entering(scope, headers)
            if key is not None:
                await _answer(send, 303, b"", location="/", **{"set-cookie": _cookie(key)})
                return
        if refusal is None:
            refusal = self._identify(scope, headers)
        if refusal is not None:
            body = json.dumps({"error": refusal[1]}).encode()
            await _answer(send, refusal[0], body, **{"content-type": "application/json"})
            return
        await self.app(scope, _limited(receive, _limit(headers)), _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Status and reason for a request that is refused whoever asks."""
        host = urlsplit(f"//{headers.get('host', '')}").hostname
        if self.access.token is None and host not in (*LOCAL, self.access.host):
            # A page of another site whose name leads to this machine (DNS rebinding).
            return 403, f"this studio is at {self.access.host}:{self.access.port}"
        if scope["path"] == "/":
            return None
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "requests of other sites are refused"
        origin = headers.get("origin")
        if scope["method"] not in _SAFE and origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return 403, "requests of other sites are refused"
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > (limit := _limit(headers)):
            return 413, f"expected at most {limit} bytes"
        return None

    def _entering(self, scope: Scope, headers: Headers) -> str | None:
        """The key to give to whoever opens the page; None if it has one, or may not enter."""
        asked = parse_qs(scope["query_string"].decode("latin-1"))
        given: str = asked.get("key", [""])[0]
        if self.access.keys.visitor(given) is not None:
            return given
        if self._key(headers) is not None:
            return None
        token = self.access.token
        if token is None or hmac.compare_digest(asked.get("token", [""])[0].encode(), token.encode()):
            return self.access.keys.new()
        return None

    def _identify(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Put the visitor into the scope; return why it may not enter."""
        key = self._key(headers)
        if key is None and not scope["path"].startswith("/static/"):
            return 401, "open the link that `fastnst studio` prints, or send its key as Authorization: Bearer KEY"
        state = scope.setdefault("state", {})
        state["key"], state["visitor"] = key, None if key is None else self.access.keys.visitor(key)
        return None

    def _key(self, headers: Headers) -> str | None:
        """The valid key of a request."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        cookies: http.cookies.SimpleCookie = http.cookies.SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except http.cookies.CookieError:
            cookies.clear()
        morsel = cookies.get(COOKIE)
        found = bearer.strip() if scheme.lower() == "bearer" else "" if morsel is None else morsel.value
        return found if self.access.keys.visitor(found) is not None else None


def _limit(headers: Headers) -> int:
    """The bytes of a body, at most."""
    return UPLOAD_BYTES + 2**16 if headers.get("content-type", "").startswith("multipart/") else JSON_BYTES


def _cookie(key: str) -> str:
    return f"{COOKIE}={key}; Path=/; Max-Age={_YEAR}; HttpOnly; SameSite=Lax"


async def _answer(send: Send, status: int, body: bytes, **headers: str) -> None:
    found = {**_HEADERS, **headers, "content-length": str(len(body)), "cache-control": "no-store"}
    raw = [(name.encode(), value.encode()) for name, value in found.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            more = [(name.encode(), value.encode()) for name, value in _HEADERS.items() if name.encode() not in present]
            if b"cache-control" not in present:
                more.append((b"cache-control", b"no-cache"))
            message["headers"] = [*message["headers"], *more]
        await send(message)

    return sending


class TooLarge(Exception):
    """A body above its limit."""


def _limited(receive: Receive, limit: int) -> Receive:
    read = 0

    async def receiving() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise TooLarge(f"expected at most {limit} bytes")
        return message

    return receiving
