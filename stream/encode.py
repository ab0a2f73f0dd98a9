"""Alerts, rejects and events → messages to publish."""

from collections.abc import Collection, Sequence

from schemas.dead_letter import Reject
from schemas.event import DriftEvent
from stream.alert_json import json_of
from stream.batch import FlowRecord
from stream.detect import dead_letter
from stream.judge import Judged
from stream.sink import Outgoing

__all__ = ["SOURCE_TIME_HEADER", "messages_of", "messages_of_events"]

SOURCE_TIME_HEADER = "flowsentry-source-time-ms"


def messages_of(
    judged: Judged,
    *,
    alerts_topic: str,
    dead_letters_topic: str,
    alone: Collection[str] = (),
    cut: Collection[str] = (),
) -> list[Outgoing]:
    """One message for each alert and each reject.

    Args:
        alone: ids of records whose messages are sent one by one.
        cut: ids of records of whose dead letters only the headers are sent that say why.
    """
    alerts = [
        Outgoing(
            record_id=id_,
            topic=alerts_topic,
            key=id_.encode(),
            value=value,
            headers=[(SOURCE_TIME_HEADER, b"%d" % sent_ms)],
            alone=id_ in alone,
        )
        for part in judged.alerts
        for id_, sent_ms, value in zip(part.ids, part.sent_ms.tolist(), json_of(part), strict=True)
    ]
    return alerts + [
        _letter(dead_letters_topic, record, reject, alone=record.id in alone, cut=record.id in cut)
        for record, reject in judged.rejects
    ]


def messages_of_events(events: Sequence[DriftEvent], topic: str, *, alone: Collection[str] = ()) -> list[Outgoing]:
    """One message for each event; `alone`: ids of those that are sent one by one."""
    ids = [f"{event.kind} of {event.feature} at {event.window_end.isoformat()}" for event in events]
    return [
        Outgoing(
            record_id=id_,
            topic=topic,
            key=event.feature.encode(),
            value=event.model_dump_json().encode(),
            headers=[],
            alone=id_ in alone,
        )
        for id_, event in zip(ids, events, strict=True)
    ]


def _letter(topic: str, record: FlowRecord, reject: Reject, *, alone: bool, cut: bool) -> Outgoing:
    letter = dead_letter(record, reject)
    if cut:
        headers = letter.model_copy(update={"cut": record.size}).to_headers()
        return Outgoing(record.id, topic, None, None, [*headers], alone)
    return Outgoing(record.id, topic, record.key, record.value, [*record.headers, *letter.to_headers()], alone)
