"""What happens to every request, before and after it is answered."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import limits
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carspotter.serve.logs import FIELDS
from carspotter.serve.metrics import Metrics
from carspotter.serve.problems import BusyError, ProblemError
from carspotter.serve.settings import Settings

_log = logging.getLogger("carspotter.serve.access")

SECURITY_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

LINGER = 2.0
"""Seconds for which the rest of an upload is read and thrown away, once it is answered: clients
that are still sending would not see the answer if the connection were closed at once."""

LINGER_BYTES = 16 << 20
"""How much of it is read."""

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
"""What an address may allow, and what metrics tell apart."""

_OPEN = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json"})
GONE = 499
"""The status in the log where the client went away before its answer."""


@dataclass
class Note:
    """What the log says of a request beside its head.

    Attributes:
        photos: how many it brought.
        levels: how many were answered at each level.
    """

    photos: int = 0
    levels: Counter[str] = field(default_factory=Counter)


def note(scope: Scope) -> Note:
    """The note of the request of this scope."""
    found: Note = scope["state"]["note"]
    return found


class Observed:
    """Gives each request an id, its answer the headers that all have, and the log a line.

    Args:
        app: answers.
        metrics: counts.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id, note=Note())

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.setdefault("Cache-Control", "no-store")
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            await self.app(scope, receive, send_on)
        except Exception:  # whatever it is: the log has it, the client gets no traceback
            _log.exception("a request failed", extra={FIELDS: {"id": request_id}})
            if status:
                raise  # the answer has begun: the connection must be cut
            problem = ProblemError(500, "internal", "this is a fault of the service")
            await problem.response(scope)(scope, receive, send_on)
        finally:
            self._done(scope, request_id, status or GONE, time.monotonic() - began)

    def _done(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        # Without labels of the client's making: each would cost memory for ever.
        path = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.requests.labels(method, path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        said = note(scope)
        line: dict[str, Any] = {
            "id": request_id,
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "seconds": round(seconds, 4),
            "photos": said.photos,
            "levels": dict(said.levels),
        }
        _log.info("request", extra={FIELDS: line})


class EarlyAnswers:
    """Lets clients see an answer that is given before their whole body has come.

    Args:
        app: answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        begun = finished = False

        async def receive_on() -> Message:
            nonlocal begun, finished
            message = await receive()
            begun = True
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                finished = True
            return message

        async def drain() -> None:
            left = LINGER_BYTES
            while not finished and left > 0:
                left -= len((await receive_on()).get("body", b""))

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and not finished:
                MutableHeaders(scope=message)["Connection"] = "close"
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not last or finished:
                await send(message)
                return
            await send({**message, "more_body": True})
            if begun or "expect" not in Headers(scope=scope):
                try:
                    async with asyncio.timeout(LINGER):
                        await drain()
                except TimeoutError:
                    pass
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self.app(scope, receive_on, send_on)


class Guard:
    """Turns away who has no key, comes too often, or is another host's page.

    Args:
        app: answers.
        settings: names, key, rate, origins.
        metrics: counts.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics
        self._key = None if settings.api_key is None else settings.api_key.encode()
        self._origins = frozenset(settings.origins)
        self._names = settings.names
        self._rate = None if settings.rate is None else limits.parse(settings.rate)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                _check_name(scope, self._names)
                self._check_key(scope)
                _check_origin(scope, self._origins)
                await self._check_rate(scope)
            except ProblemError as problem:
                await problem.response(scope)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check_key(self, scope: Scope) -> None:
        if self._key is None or is_open(scope["path"]):
            return
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._key)
        if scheme.lower() != "bearer" or not right:
            raise ProblemError(
                401,
                "no_key",
                "this needs the header Authorization: Bearer KEY, with the operator's key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _check_rate(self, scope: Scope) -> None:
        if self._rate is None or not scope["path"].startswith("/v1/"):
            return
        client = _client(scope)
        if await self._limiter.hit(self._rate, client):
            return
        reset, _ = await self._limiter.get_window_stats(self._rate, client)
        self.metrics.refused("rate")
        raise BusyError(
            "rate",
            f"more than {self._rate}; try again later",
            seconds=max(1, round(reset - time.time())),
            status=429,
        )


def is_open(path: str) -> bool:
    """Whether a path is for everybody, with a key or without."""
    return path in _OPEN or path.startswith(("/page/", "/docs/"))


def _check_name(scope: Scope, names: Collection[str] | None) -> None:
    """Refuse requests to a name that is not the service's.

    A page of another host whose name is made to point at this machine (DNS rebinding) is of the
    same origin to a browser; only the name by which it asks gives it away.
    """
    if names is None:
        return
    try:
        name = urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname or ""
    except ValueError:  # an address with one bracket
        name = ""
    if name not in names:
        raise ProblemError(
            421,
            "wrong_host",
            "this service does not go by the name that was asked for; the operator can add it by "
            "--allow-host",
        )


def _check_origin(scope: Scope, allowed: Collection[str]) -> None:
    """Refuse what another host's page sends through the browser of someone who may use this one.

    Browsers send such forms without asking first, and from inside of a firewall.
    """
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return
    headers = Headers(scope=scope)
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin in allowed or site in ("same-origin", "none"):
        return
    if site is None and (origin is None or origin.partition("://")[2] == headers.get("host")):
        return
    raise ProblemError(403, "cross_origin", "pages of other hosts may not use this service")


def _client(scope: Scope) -> str:
    """Who counts as one client: an IPv4 address, or the network of an IPv6 one."""
    host = scope["client"][0] if scope.get("client") else "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
