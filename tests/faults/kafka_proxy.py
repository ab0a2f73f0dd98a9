"""A proxy that knows so much of Kafka's protocol that it can lose messages, and deny that the cluster has brokers.

Protocol: https://kafka.apache.org/protocol (Produce, API key 0; Metadata, API key 3, from version 9 on).
"""

import asyncio
import struct

from tests.faults.proxy import Proxy

__all__ = ["KafkaProxy"]

_PRODUCE, _METADATA = 0, 3
_FIRST_FLEXIBLE, _FIRST_WITH_IDS, _LAST_WITH_CLUSTER_RIGHTS, _FIRST_WITH_ERROR = 9, 10, 10, 13
_LEADER_NOT_AVAILABLE = 5
_NO_TAGS = b"\0"


class KafkaProxy(Proxy):
    """Forwards whole requests and answers."""

    def __init__(self, port: int, target: int) -> None:
        super().__init__(port, target)
        self._brokerless = False
        self._losing = False

    def name_no_broker(self) -> None:
        """Answer whoever asks which brokers there are that there are none, as the last one does that shuts down."""
        self._brokerless = True

    def name_brokers(self) -> None:
        """Let the broker answer again."""
        self._brokerless = False

    def lose_messages(self) -> None:
        """Forward all requests but those with messages to publish, which get no answer."""
        self._losing = True

    def forward_messages(self) -> None:
        """Lose no more of them."""
        self._losing = False

    async def _read(
        self,
        reader: asyncio.StreamReader,
        ahead: asyncio.Queue[tuple[float, bytes]],
        back: asyncio.StreamWriter | None,
    ) -> None:
        try:
            while True:
                size = await reader.readexactly(4)
                message = await reader.readexactly(int.from_bytes(size))
                asked = None if back is None else int.from_bytes(message[:2])
                if self._losing and asked == _PRODUCE:
                    continue
                if self._brokerless and back is not None and asked == _METADATA:
                    answer = _no_brokers(message)
                    back.write(struct.pack(">i", len(answer)) + answer)
                else:
                    await ahead.put((self._loop.time() + self._delay_s, size + message))
        except asyncio.IncompleteReadError:
            await ahead.put((self._loop.time(), b""))


def _no_brokers(request: bytes) -> bytes:
    """The answer to a Metadata request of a cluster without brokers: no topic has a leader."""
    _, version, correlation, client_chars = struct.unpack_from(">hhih", request)
    assert version >= _FIRST_FLEXIBLE, f"Metadata requests of version {version} are not known here"
    topics = _topics(request[10 + max(0, client_chars) + len(_NO_TAGS) :], version)
    return b"".join(
        [
            struct.pack(">i", correlation) + _NO_TAGS,
            struct.pack(">i", 0),  # not throttled
            _length(0),  # brokers
            b"\0",  # no cluster id
            struct.pack(">i", -1),  # no controller
            _length(len(topics)),
            *(_leaderless(topic_id, name, version) for topic_id, name in topics),
            struct.pack(">i", -1) if version <= _LAST_WITH_CLUSTER_RIGHTS else b"",
            struct.pack(">h", 0) if version >= _FIRST_WITH_ERROR else b"",
            _NO_TAGS,
        ]
    )


def _topics(body: bytes, version: int) -> list[tuple[bytes, bytes]]:
    """Id and name of each topic that a request asks for; lengths stand there in one byte, one too large."""
    if not body[0]:  # it asks for all that there are
        return [(bytes(16), b"some")]
    count, at, topics = body[0] - 1, 1, []
    for _ in range(count):
        topic_id = body[at : at + 16] if version >= _FIRST_WITH_IDS else b""
        at += len(topic_id)
        end = at + max(1, body[at])
        topics.append((topic_id, body[at + 1 : end]))
        at = end + len(_NO_TAGS)
    return topics


def _leaderless(topic_id: bytes, name: bytes, version: int) -> bytes:
    return b"".join(
        [
            struct.pack(">h", _LEADER_NOT_AVAILABLE),
            _length(len(name)) + name,
            topic_id if version >= _FIRST_WITH_IDS else b"",
            b"\0",  # not internal
            _length(0),  # partitions
            struct.pack(">i", -1),  # rights were not asked for
            _NO_TAGS,
        ]
    )


def _length(count: int) -> bytes:
    assert count < 127  # else it takes more bytes
    return bytes([count + 1])
