"""Around every request: a bound on its body, and what Prometheus is told of it."""

import time
from collections.abc import Collection

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stream.api.metrics import ApiMetrics

__all__ = ["LimitBody", "Observe"]


class LimitBody:
    """413 for a body of more than `max_bytes`, whether the request says how long it is or not."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(413, f"the body has more than {self._max_bytes} bytes (api.max_body_bytes)")
            return message

        await self._app(scope, bounded, send)


class Observe:
    """Counts and times what is answered; paths that there are not are one."""

    def __init__(self, app: ASGIApp, *, metrics: ApiMetrics, paths: Collection[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        status = "500"
        began = time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._metrics.requests.labels(path, status).inc()
            self._metrics.latency_seconds.labels(path).observe(time.perf_counter() - began)
