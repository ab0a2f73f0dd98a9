"""A TCP proxy on loopback between the service and its broker that can stall, delay, cut and refuse.

with Proxy(port, target) as proxy:
    proxy.stall()      # connections stay, nothing passes
    proxy.resume()
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

__all__ = ["Proxy"]

_TIMEOUT_S = 10.0
_CHUNK_BYTES = 65_536
_CHUNKS_AHEAD = 64
_RESET = struct.pack("ii", 1, 0)  # linger for no time: closing sends RST


class Proxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`, from entering the context until leaving it."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._delay_s = 0.0
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.resume()
        self.accept()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()

    def stall(self) -> None:
        """Keep the connections, also new ones, and forward nothing."""
        self._do(self._pass(False))

    def delay(self, seconds: float) -> None:
        """What comes from now on arrives that much later, in both directions."""
        self._delay_s = seconds

    def resume(self) -> None:
        """End a stall and a delay; what was held back is forwarded."""
        self._delay_s = 0.0
        self._do(self._pass(True))

    def cut(self) -> None:
        """Reset every connection."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Reset every connection and refuse new ones."""
        self._do(self._refuse())

    def accept(self) -> None:
        """Take connections again."""
        self._do(self._accept())

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(_TIMEOUT_S)

    async def _pass(self, passing: bool) -> None:
        (self._passing.set if passing else self._passing.clear)()

    async def _cut(self) -> None:
        for writer in self._open:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def _end(self) -> None:
        self._delay_s = 0.0
        self._passing.set()
        await self._refuse()
        await asyncio.gather(*self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the broker is away
            self._forget(task, writer)
            return
        self._open.add(far_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, far_writer, back=writer))
                both.create_task(self._forward(far_reader, writer, back=None))
        except* OSError:
            pass  # an end is gone, or was cut
        finally:
            self._forget(task, writer, far_writer)

    def _forget(self, task: asyncio.Task[None], *writers: asyncio.StreamWriter) -> None:
        self._tasks.discard(task)
        for writer in writers:
            self._open.discard(writer)
            writer.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: asyncio.StreamWriter | None
    ) -> None:
        """One direction, until an end closes: then the whole connection ends, by an `OSError`.

        `back` is where an answer to what is read would go; None in the direction of answers.
        """
        ahead: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_AHEAD)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._read(reader, ahead, back))
            both.create_task(self._write(writer, ahead))

    async def _read(
        self,
        reader: asyncio.StreamReader,
        ahead: asyncio.Queue[tuple[float, bytes]],
        back: asyncio.StreamWriter | None,
    ) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            await ahead.put((self._loop.time() + self._delay_s, chunk))
        await ahead.put((self._loop.time(), b""))

    async def _write(self, writer: asyncio.StreamWriter, ahead: asyncio.Queue[tuple[float, bytes]]) -> None:
        while True:
            due_s, chunk = await ahead.get()
            if (early_s := due_s - self._loop.time()) > 0:
                await asyncio.sleep(early_s)
            await self._passing.wait()
            if not chunk:
                raise ConnectionResetError("an end has closed")
            writer.write(chunk)
            await writer.drain()
