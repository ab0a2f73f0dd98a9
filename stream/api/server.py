"""`python -m stream api`: params → the app, on uvicorn."""

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from export.bundle import read_bundle
from export.reference import load_checked
from export.signing import Trust
from schemas.errors import FlowsentryError
from schemas.params import Params
from stream.api.app import create_app
from stream.api.predictor import Predictor
from stream.decode import Decoder
from stream.record import limits_of

__all__ = ["predictor_of", "serve"]

log = structlog.get_logger()

_LOOPBACK = ("127.", "::1", "localhost")
_DRAIN_S = 10  # for requests that are under way when it is told to stop


def predictor_of(params: Params) -> Predictor:
    """The bundle that the section stream names, with its threshold: what the stream would judge with.

    Raises:
        BundleError: it is damaged, not signed as it must be, or has no such threshold.
    """
    stream = params.stream
    trust = Trust(stream.trusted_keys, required=stream.require_signature)
    detector = load_checked(read_bundle(stream.bundle, trust))
    decoder = Decoder(detector.schema, min_feature_coverage=stream.min_feature_coverage, limits=limits_of(stream))
    policy = detector.manifest.policy_of(stream.target_fpr, stream.threshold, novel=stream.novel_alerts)
    return Predictor(detector, decoder, policy)


def serve(params: Params) -> int:
    """Answer requests until SIGTERM or Ctrl-C, those under way then too; the exit status.

    Raises:
        FlowsentryError: the bundle is not as it must be, or the port is in use.
    """
    predictor = predictor_of(params)
    api, manifest = params.api, predictor.detector.manifest
    if api.key is None and not api.host.startswith(_LOOPBACK):
        log.warning("anyone who reaches this address may ask: api.key_file asks for a key", host=api.host)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    listening = _listening(api.host, api.port)
    config = uvicorn.Config(
        create_app(predictor, api),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_DRAIN_S,
        server_header=False,
    )
    log.info(
        "running",
        bundle=f"{manifest.name} {manifest.version} {manifest.hash[:12]}",
        signature=str(manifest.signature),
        threshold=predictor.policy.threshold,
        page=f"http://{api.host}:{listening.getsockname()[1]}/docs",
    )
    server = _Server(config)
    server.run(sockets=[listening])
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal and be done: uvicorn's own way is to die of it afterwards."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise FlowsentryError(
            f"api.port {port} on {host}: {error.strerror}. Choose another with --port, 0 for any"
        ) from None
