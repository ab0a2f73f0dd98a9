"""Records written into Kafka by hand: what no client library would send, and any program can.

    produce(servers, topic, [Raw(value=b"x", headers=((b"\\xff", None),))])

One batch of format 2, not compressed, by Produce request 3 over a plain connection; acknowledged when it returns.
"""

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Raw", "produce"]

_TIMEOUT_S = 30.0
_CRC32C = 0x82F63B78


@dataclass(frozen=True, slots=True)
class Raw:
    """A record, its header names as bytes."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[bytes, bytes | None], ...] = ()


def produce(
    servers: str, topic: str, records: Sequence[Raw], *, partition: int = 0, timestamp_ms: int | None = None
) -> None:
    """Append one batch; the broker must take it."""
    name, data = topic.encode(), _batch(records, round(time.time() * 1000) if timestamp_ms is None else timestamp_ms)
    request = struct.pack(">hhih", 0, 3, 1, -1)  # Produce, its version, correlation id, no client id
    request += struct.pack(">hhii", -1, -1, int(_TIMEOUT_S * 1000), 1) + struct.pack(">h", len(name)) + name
    request += struct.pack(">iii", 1, partition, len(data)) + data
    host, port = servers.split(",")[0].rsplit(":", 1)
    with socket.create_connection((host, int(port)), _TIMEOUT_S) as connection, connection.makefile("rb") as answers:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = answers.read(struct.unpack(">i", answers.read(4))[0])
    error, _ = struct.unpack_from(">hq", answer, 4 + 4 + 2 + len(name) + 4 + 4)
    assert error == 0, f"the broker refuses the batch: error {error}"


def _batch(records: Sequence[Raw], timestamp_ms: int) -> bytes:
    last = len(records) - 1
    checked = struct.pack(">hiqqqhii", 0, last, timestamp_ms, timestamp_ms, -1, -1, -1, len(records))
    checked += b"".join(_record(record, index) for index, record in enumerate(records))
    return struct.pack(">qiibI", 0, 9 + len(checked), -1, 2, _crc32c(checked)) + checked


def _record(record: Raw, index: int) -> bytes:
    headers = b"".join(_sized(name) + _sized(value) for name, value in record.headers)
    body = b"\0" + _varint(0) + _varint(index) + _sized(record.key) + _sized(record.value)
    return _sized(body + _varint(len(record.headers)) + headers)


def _sized(data: bytes | None) -> bytes:
    return _varint(-1) if data is None else _varint(len(data)) + data


def _varint(number: int) -> bytes:
    left, encoded = (number << 1 ^ number >> 63) & (1 << 64) - 1, bytearray()
    while left > 127:
        encoded.append(left & 127 | 128)
        left >>= 7
    return bytes([*encoded, left])


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC32C if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
