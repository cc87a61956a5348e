"""Who may ask: programs and pages of this machine alone, whatever a browser was lured into.

A page of the internet can have a browser send requests to 127.0.0.1, under a name of its own that points there (DNS
rebinding) or across sites. So a request's `Host` has to name this machine, what comes from another site is refused unless
a person followed a link, and no other page may show these in a frame.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OWN_NAMES = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that no other can have."""

_SAME_SITE = {"same-origin", "none"}
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses requests that do not come from this machine's own pages and programs, and adds what keeps pages apart."""

    def __init__(self, app: ASGIApp) -> None:
        """Take the application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(Headers(scope=scope), scope)
        if refusal is None:
            await self.app(scope, receive, send_guarded)
        else:
            response = JSONResponse({"error": {"kind": "Refused", "message": refusal}}, status_code=403)
            await response(scope, receive, send_guarded)

    def _refusal(self, headers: Headers, scope: Mapping[str, Any]) -> str | None:
        host = headers.get("host", "")
        if _name(host) not in _OWN_NAMES:
            return (
                f"this server answers to {', '.join(sorted(_OWN_NAMES))}, and was called {host!r}; open it by one of these "
                "names (from another machine, through an SSH tunnel)"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return f"the request comes from a page of {origin!r}, and is answered to pages of this server alone"
        is_navigation = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in _SAME_SITE and not is_navigation:
            return "the request comes from a page of another site, and is answered to pages of this server alone"
        return None


def _name(host: str) -> str | None:
    """Return the name of a `Host` header without its port, in lower case."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
