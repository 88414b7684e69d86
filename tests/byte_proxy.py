"""A TCP relay that does to bytes what networks do: small pieces, silence, breaks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle, repeat


@dataclass(frozen=True, slots=True)
class ByteFault:
    """What happens to one connection; by default nothing.

    It breaks once `up` bytes came from the device or `down` bytes from the cloud.
    `frozen`: instead nothing passes any more, either way, and nobody is told.
    """

    refused: bool = False
    frozen: bool = False
    up: int | None = None
    down: int | None = None


class Proxy:
    """Relays to a loopback port, with TLS in front if `tls` is given.

    `pieces` are the sizes in which bytes are passed on, over and over. The n-th
    connection has the n-th fault, those beyond the list none.
    """

    def __init__(
        self,
        port: int,
        *,
        pieces: Sequence[int] = (2**16,),
        faults: Sequence[ByteFault] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._target = port
        self._pieces = pieces
        self._faults = chain(faults, repeat(ByteFault()))
        self._tls = tls
        self.connections: list[_Connection] = []

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Break every connection, without a farewell."""
        for connection in self.connections:
            connection.cut()

    def freeze(self) -> None:
        """Nothing passes any more, and nobody is told."""
        for connection in self.connections:
            connection.running.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(next(self._faults), writer)
        self.connections.append(connection)
        if connection.fault.refused:
            connection.cut()
            return
        there, writer_there = await asyncio.open_connection("127.0.0.1", self._target)
        connection.writers.append(writer_there)
        await asyncio.gather(
            connection.relay(reader, writer_there, "up", self._pieces),
            connection.relay(there, writer, "down", self._pieces),
        )


class _Connection:
    """`passed` counts the bytes of each direction."""

    def __init__(self, fault: ByteFault, writer: asyncio.StreamWriter) -> None:
        self.fault = fault
        self.writers = [writer]
        self.passed = {"up": 0, "down": 0}
        self.running = asyncio.Event()
        self.running.set()

    def cut(self) -> None:
        self.running.set()
        for writer in self.writers:
            writer.transport.abort()

    async def relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: str,
        pieces: Sequence[int],
    ) -> None:
        limit = {"up": self.fault.up, "down": self.fault.down}[way]
        sizes = cycle(pieces)
        try:
            while True:
                if self.passed[way] == limit:
                    self._break()
                left = 2**16 if limit is None else limit - self.passed[way]
                data = await reader.read(min(next(sizes), max(left, 1)))
                await self.running.wait()
                if not data:
                    return
                writer.write(data)
                self.passed[way] += len(data)
                await writer.drain()
                await asyncio.sleep(0)
        except OSError:
            pass
        finally:
            writer.close()

    def _break(self) -> None:
        if self.fault.frozen:
            self.running.clear()
        else:
            self.cut()
