"""Flows of requests that arrive together are scored together."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from schemas.dead_letter import Reject
from schemas.prediction import Prediction
from stream.api.metrics import ApiMetrics
from stream.api.predictor import Predictor

__all__ = ["Batcher", "Busy"]

log = structlog.get_logger()

Answers = list[Prediction | Reject]


class Busy(Exception):
    """As many flows as may wait are waiting."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    records: Sequence[bytes]
    answers: "asyncio.Future[Answers]"


class Batcher:
    """One batch is scored at a time, in a thread; what arrives meanwhile is the next one.

    Args:
        max_flows: most flows of a batch; a request with more is a batch of its own.
        max_wait_s: how long the first request of a batch waits for others.
        max_waiting: most flows that wait.
    """

    def __init__(
        self, predictor: Predictor, metrics: ApiMetrics, *, max_flows: int, max_wait_s: float, max_waiting: int
    ) -> None:
        self._predictor = predictor
        self._metrics = metrics
        self._max_flows = max_flows
        self._max_wait_s = max_wait_s
        self._max_waiting = max_waiting
        self._asked: asyncio.Queue[_Asked] = asyncio.Queue()
        self._waiting = 0

    @property
    def is_full(self) -> bool:
        return self._waiting >= self._max_waiting

    async def predict(self, records: Sequence[bytes]) -> Answers:
        """The answers to some flow records, in their order.

        Raises:
            Busy: too many flows wait already.
        """
        if self._waiting + len(records) > self._max_waiting:
            raise Busy
        asked = _Asked(records, asyncio.get_running_loop().create_future())
        self._waiting += len(records)
        self._metrics.waiting.set(self._waiting)
        self._asked.put_nowait(asked)
        return await asked.answers

    async def run(self) -> None:
        """Score what is asked for, until cancelled."""
        left_over: _Asked | None = None
        while True:
            batch = [left_over or await self._asked.get()]
            left_over = await self._fill(batch)
            self._waiting -= sum(len(asked.records) for asked in batch)
            self._metrics.waiting.set(self._waiting)
            wanted = [asked for asked in batch if not asked.answers.cancelled()]
            if wanted:
                await self._answer(wanted)

    async def _fill(self, batch: list[_Asked]) -> _Asked | None:
        """Add what arrives in time and has room; one that has none is left over."""
        flows = len(batch[0].records)
        try:
            async with asyncio.timeout(self._max_wait_s):
                while flows < self._max_flows:
                    asked = await self._asked.get()
                    if flows + len(asked.records) > self._max_flows:
                        return asked
                    batch.append(asked)
                    flows += len(asked.records)
        except TimeoutError:
            pass
        return None

    async def _answer(self, batch: list[_Asked]) -> None:
        records = [record for asked in batch for record in asked.records]
        self._metrics.batch_size.observe(len(records))
        try:
            with self._metrics.seconds.time():
                answers = await asyncio.to_thread(self._predictor.predict, records)
        except Exception as error:  # a bug; the others of the batch shall not suffer from the request that it meets
            if len(batch) > 1:
                for asked in batch:
                    await self._answer([asked])
                return
            log.exception("flows cannot be scored, by a bug", flows=len(records))
            if not batch[0].answers.done():
                batch[0].answers.set_exception(error)
            return
        for asked in batch:
            own, answers = answers[: len(asked.records)], answers[len(asked.records) :]
            if not asked.answers.done():
                asked.answers.set_result(own)
