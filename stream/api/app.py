"""The routes: `create_app(detector, …)` is an ASGI application for any server; `python -m stream api` runs it."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.dead_letter import Reject
from schemas.flow import FlowSchema
from schemas.json_schemas import flow_schema
from schemas.params import ApiParams
from schemas.prediction import Features, Prediction, Predictions, PredictRequest
from stream.api.batching import Batcher, Busy
from stream.api.examples import examples_of
from stream.api.metrics import ApiMetrics
from stream.api.middleware import LimitBody, Observe
from stream.api.predictor import Predictor

__all__ = ["create_app"]

KEY_HEADER = "X-API-Key"


class _Refused(Exception):
    """A request that names flows which cannot be judged: `problems` are what FastAPI's own 422 lists."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        super().__init__(problems)
        self.problems = problems


def create_app(predictor: Predictor, params: ApiParams) -> FastAPI:
    """The API over a loaded detector."""
    detector = predictor.detector
    manifest, schema = detector.manifest, detector.schema
    metrics = ApiMetrics(manifest)
    batcher = Batcher(
        predictor,
        metrics,
        max_flows=params.batch_size,
        max_wait_s=params.max_wait_ms / 1000,
        max_waiting=params.max_waiting,
    )
    running: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running.append(asyncio.create_task(batcher.run()))
        yield
        running[0].cancel()

    app = FastAPI(
        title="Flowsentry",
        summary="Is this flow an attack? The verdict of the stream's detector, over HTTP.",
        version=manifest.version,
        lifespan=lifespan,
    )
    app.add_middleware(LimitBody, max_bytes=params.max_body_bytes)
    app.add_middleware(
        Observe, metrics=metrics, paths=("/predict", "/health", "/ready", "/metrics", "/schema", "/bundle")
    )

    key_header = APIKeyHeader(name=KEY_HEADER, auto_error=False, description="The key that the server was given.")
    wanted = params.key.get_secret_value().encode() if params.key else None

    def authorized(given: Annotated[str | None, Depends(key_header)]) -> None:
        if wanted is not None and not hmac.compare_digest((given or "").encode(), wanted):
            raise HTTPException(401, f"the header {KEY_HEADER} must hold this server's key")

    secured = [Depends(authorized)]
    refusals: dict[int | str, dict[str, Any]] = {
        400: {"description": "The body cannot be read."},
        401: {"description": f"The header {KEY_HEADER} does not hold the key."},
        413: {"description": f"The body has more than {params.max_body_bytes} bytes."},
        429: {"description": "Too many flows wait already; ask again after the seconds in Retry-After."},
    }

    @app.post("/predict", dependencies=secured, responses=refusals, openapi_extra=examples_of(detector))
    async def predict(request: PredictRequest) -> Prediction | Predictions:
        """Judge one flow (`features`) or several (`flows`)."""
        flows = [request.features] if request.flows is None else request.flows
        assert flows[0] is not None, "the contract has one of both"
        if len(flows) > params.max_flows:
            raise _Refused(
                [_problem(["flows"], f"{len(flows)} flows, expected at most {params.max_flows}", "too_many")]
            )
        places: list[list[Any]] = (
            [["features"]] if request.flows is None else [["flows", number] for number in range(len(flows))]
        )
        records = _records(flows, places, schema)
        try:
            answers = await batcher.predict(records)
        except Busy:
            raise HTTPException(429, "too many flows wait already", headers={"Retry-After": "1"}) from None
        problems = [
            _problem([*place, answer.field] if answer.field else place, answer.detail, answer.reason.value)
            for place, answer in zip(places, answers, strict=True)
            if isinstance(answer, Reject)
        ]
        if problems:
            raise _Refused(problems)
        predictions = [answer for answer in answers if isinstance(answer, Prediction)]
        for prediction in predictions:
            metrics.flows.labels(prediction.prediction).inc()
        return predictions[0] if request.flows is None else Predictions(predictions=tuple(predictions))

    @app.get("/schema", dependencies=secured, responses={401: refusals[401]})
    def features() -> dict[str, Any]:
        """The features in their order, and the contract of a flow as JSON Schema."""
        return {"dataset": schema.name, "features": list(schema.names), "flow": flow_schema(schema)}

    @app.get("/bundle", dependencies=secured, responses={401: refusals[401]})
    def bundle() -> dict[str, Any]:
        """The detector in use: its bundle.json, its hash and who signed it."""
        return {"hash": manifest.hash, "signature": str(manifest.signature), **manifest.content}

    @app.get("/health", responses={503: {"description": "Only a restart helps."}})
    def health() -> Response:
        """Whether it works at all."""
        return _state([] if running and not running[0].done() else ["flows are not scored any more"])

    @app.get("/ready", responses={503: {"description": "Too many flows wait."}})
    def ready() -> Response:
        """Whether it takes flows now."""
        return _state(["too many flows wait"] if batcher.is_full else [])

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def exposition() -> Response:
        """For Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(_Refused)
    async def refused(_: Request, error: _Refused) -> JSONResponse:
        return JSONResponse({"detail": error.problems}, status_code=422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Not with the input, as FastAPI's own: it may be large, and hold what JSON does not.
        problems = [_problem(list(each["loc"][1:]), each["msg"], each["type"]) for each in error.errors()]
        return JSONResponse({"detail": problems}, status_code=422)

    return app


def _records(flows: Sequence[Features | None], places: Sequence[list[Any]], schema: FlowSchema) -> list[bytes]:
    """Flows as they would stand on the input topic. A name that means nothing is refused here, where someone can mend it."""
    problems = [
        problem
        for flow, place in zip(flows, places, strict=True)
        for problem in (
            _misfits(flow, place, schema) if isinstance(flow, list) else _strangers(flow or {}, place, schema)
        )
    ]
    if problems:
        raise _Refused(problems)
    named = [dict(zip(schema.names, flow, strict=True)) if isinstance(flow, list) else flow for flow in flows]
    return [json.dumps(flow).encode() for flow in named]


def _misfits(flow: list[Any], place: list[Any], schema: FlowSchema) -> Iterator[dict[str, Any]]:
    if len(flow) != len(schema.names):
        expected = f"{len(flow)} values, expected {len(schema.names)}, in the order that GET /schema gives"
        yield _problem(place, expected, "wrong_length")


def _strangers(flow: dict[str, Any], place: list[Any], schema: FlowSchema) -> Iterator[dict[str, Any]]:
    for name in flow:
        if not schema.knows(name):
            yield _problem(
                [*place, name], f"no column of {schema.name} has this name; GET /schema lists them", "unknown"
            )


def _problem(place: Sequence[Any], text: str, kind: str) -> dict[str, Any]:
    path = ["body", *(_printable(step) if isinstance(step, str) else step for step in place)]
    return {"loc": path, "msg": _printable(text), "type": kind}


def _printable(text: str) -> str:
    """Half of a surrogate pair cannot be sent."""
    return text.encode(errors="backslashreplace").decode()[:500]


def _state(problems: list[str]) -> JSONResponse:
    return JSONResponse({"ok": not problems, "problems": problems}, status_code=503 if problems else 200)
