"""`trainer dashboard`: settings → the app, on Streamlit's server in this process."""

import signal
import socket
import sys
from pathlib import Path

from schemas.errors import FlowsentryError
from trainer.dashboard.look import THEMES
from trainer.dashboard.settings import Settings, give

__all__ = ["serve"]

_APP = Path(__file__).with_name("app.py")
_OPTIONS = {
    "server.headless": "true",  # opens no browser and asks for no e-mail address
    "browser.gatherUsageStats": "false",
    "server.fileWatcherType": "none",
    "server.maxUploadSize": "256",  # MB
    "client.toolbarMode": "viewer",  # with the choice between dark and light
    "client.showErrorDetails": "type",  # a bug's traceback goes to the log, not to whoever looks
    "logger.hideWelcomeMessage": "true",
}


def serve(settings: Settings, host: str, port: int) -> int:
    """Serve the pages until SIGTERM or Ctrl-C; the exit status.

    Args:
        port: 0 takes a free one.

    Raises:
        FlowsentryError: the port is in use, or the address is none of this machine's.
    """
    port = _free(host, port)
    give(settings)
    from streamlit.web import cli

    options = _OPTIONS | THEMES | {"server.address": host, "server.port": str(port)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    print(f"the dashboard is at http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    signal.signal(signal.SIGTERM, _end)  # uvicorn has its own, and raises the signal anew when it has ended
    cli.main(["run", str(_APP), *words], standalone_mode=False)
    return 0


def _end(*_: object) -> None:
    sys.exit(0)


def _free(host: str, port: int) -> int:
    """The port, once it is known that nobody has it."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            taken: int = probe.getsockname()[1]
            return taken
    except OSError as error:
        raise FlowsentryError(
            f"--port {port} on {host}: {error.strerror}. Choose another with --port, 0 for any"
        ) from None
