"""A worker over HTTP: `/metrics` for Prometheus, `/health` and `/ready` for whoever starts and stops it."""

import json
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from stream.status import Status

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["serve"]

_TIMEOUT_S = 5.0


def serve(registry: CollectorRegistry, status: Status, host: str, port: int) -> int:
    """Serve from a thread, for as long as the process lives; the port that was taken (0 takes a free one).

    `/health` is 503 when only a restart helps, `/ready` while flows cannot be judged; both say why, as JSON.

    Raises:
        OSError: the port is in use.
    """
    metrics = make_wsgi_app(registry)

    def app(environment: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        checks: dict[str, Callable[[], list[str]]] = {"/health": status.unhealthy, "/ready": status.unready}
        path = environment["PATH_INFO"]
        if path == "/metrics":
            return metrics(environment, start_response)  # type: ignore[no-any-return]
        if path not in checks:
            return _answer(start_response, "404 Not Found", {"paths": ["/metrics", *checks]})
        problems = checks[path]()
        content = {"ok": not problems, "problems": problems, "partitions": status.partitions, "bundle": status.bundle}
        return _answer(start_response, "503 Service Unavailable" if problems else "200 OK", content)

    server = make_server(host, port, app, _Server6 if ":" in host else _Server, _Handler)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return int(server.server_port)


def _answer(start_response: "StartResponse", state: str, content: dict[str, Any]) -> list[bytes]:
    start_response(state, [("Content-Type", "application/json")])
    return [json.dumps(content).encode() + b"\n"]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT_S  # of a client that connects and says nothing

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""
