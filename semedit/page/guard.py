"""Who may ask the page's server, and how much: a person's own browser, in bounded requests."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from util.errors import UserError

MOST_BODY = 64 << 20  # bytes of a request
MOST_BODIES = 4  # held at once; others wait for their turn
PATIENCE = 60.0  # seconds in which a request has to arrive
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class RefusedError(UserError):
    """A request that is not answered; `status` is HTTP's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """Refuses requests that other sites make a browser send, and sets headers that keep the page to itself.

    A site can point a name of its own at this address (DNS rebinding); the Host header then holds that name, so only
    addresses, `localhost` and the name that the server was started with are answered. Requests that a page of another
    site sends tell by their Origin.
    """

    def __init__(self, app: ASGIApp, *, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        problem = self.problem(Headers(scope=scope))
        app = JSONResponse({"error": problem}, 403) if problem else self.app
        await app(scope, receive, send_guarded)

    def problem(self, headers: Headers) -> str:
        """Return why a request is refused; empty if it is not."""
        asked = headers.get("host", "")
        try:
            name = urlsplit(f"//{asked}").hostname or ""
        except ValueError:
            name = ""
        if name not in ("localhost", self.host.lower()) and not _is_address(name):
            return f"the page is not served under the name {asked[:80]!r}"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != asked:
            return "requests from pages of other sites are refused"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "requests from pages of other sites are refused"
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class Bodies:
    """Reads the bodies of requests, a few at a time, so that many large ones do not fill the memory together."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(MOST_BODIES)

    async def read(self, request: Request) -> bytes:
        """Return a body of a length that is said before; raises `RefusedError` for one too large, or too slow."""
        said = request.headers.get("content-length", "")
        if not said.isdecimal():
            raise RefusedError("the request does not say its length", 411)
        if int(said) > MOST_BODY:
            raise RefusedError(f"the request is too large; {MOST_BODY >> 20} MiB are taken", 413)
        try:
            async with asyncio.timeout(PATIENCE):
                return await request.body()
        except TimeoutError:
            raise RefusedError(f"the request has not arrived within {PATIENCE:.0f} seconds", 408) from None
        except ClientDisconnect:
            raise RefusedError("the request broke off") from None
