"""Structured logs on stderr: readable on a terminal, JSON elsewhere. Never a flow's content."""

import logging
import sys

import structlog

__all__ = ["configure_logging"]


def configure_logging(*, quiet: bool = False) -> None:
    """Set up structlog for a process; `quiet` leaves warnings and errors."""
    logging.getLogger("librdkafka").handlers = [_ToStructlog()]
    logging.getLogger("librdkafka").setLevel(logging.ERROR if quiet else logging.WARNING)
    terminal = sys.stderr.isatty()
    # structlog's own choice of traceback shows local variables: flows.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer = console if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if quiet else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),  # a line in one write: several workers share it
    )


class _ToStructlog(logging.Handler):
    """librdkafka's own log lines, in the form of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, "librdkafka", says=record.getMessage())
