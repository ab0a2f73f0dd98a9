"""A page's own address, `/explore`, for links and reloads.

Streamlit's browser side looks for its server below the address that it was opened at, and logs errors until it finds it at the
root. So it is opened at the root and told the page: `/explore` → `/?page=explore`.
"""

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["PAGE", "PAGES", "Addresses"]

PAGE = "page"
PAGES = ("live", "explore", "models", "try")


class Addresses:
    """Middleware that sends whoever opens a page's address to the root."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        name = scope.get("path", "").strip("/")
        if scope["type"] == "http" and name in PAGES:
            await RedirectResponse(f"{scope.get('root_path', '')}/?{PAGE}={name}")(scope, receive, send)
        else:
            await self._app(scope, receive, send)
