"""`/report/N`: the report of the Nth bundle as a page of its own, in which nothing may run: it may have come with a bundle."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from export.bundle import read_bundle
from schemas.errors import FlowsentryError
from trainer.dashboard.curves import find_report
from trainer.dashboard.settings import given

__all__ = ["address", "report"]

_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def address(bundle: Path) -> str:
    """Where the report of one of the bundles is served."""
    return f"/report/{given().bundles.index(bundle)}"


def report(request: Request) -> Response:
    """Answer one request."""
    number = int(request.path_params["number"])
    try:
        bundle = given().bundles[number]
        found = find_report(bundle, read_bundle(bundle, given().trust).manifest, given().reports)
    except (IndexError, FlowsentryError) as error:
        return PlainTextResponse(f"no such report: {error}", 404)
    if found is None:
        return PlainTextResponse(f"no report of {bundle}", 404)
    return Response(found.page.read_bytes(), media_type="text/html", headers={"Content-Security-Policy": _POLICY})
