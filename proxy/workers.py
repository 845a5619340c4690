"""A worker's process, from the side of whoever starts it: begun before anything is known, and told when it is.

Loading its modules takes a worker longer than everything else at a start, so `spillway serve` begins the first one before it
reads its own.  A Unix socket is the worker's standard input: the settings and the listening socket come in by it, `ready`
goes out by it, and its end tells each side that the other is gone.  Secrets travel by it, too: not in argv, not in the
environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

LENGTH = struct.Struct(">Q")
READY = b"ready\n"


class WorkerProcess:
    """`python -m proxy.worker`, which loads its modules and waits to be told what to do."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        with theirs, uninterrupted():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "proxy.worker", "--slot", str(slot)], stdin=theirs.fileno()
            )
        self._gone = asyncio.Event()
        self._hearing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    async def tell(self, settings: bytes, listener: socket.socket, ready: asyncio.Event) -> None:
        """What to serve, and where; `ready` is set when it accepts connections.  A process that is gone meanwhile hears
        nothing; `wait` says so."""
        loop = asyncio.get_running_loop()
        self._hearing = loop.create_task(self._hear(loop, ready))
        with contextlib.suppress(OSError):
            socket.send_fds(self._channel, [LENGTH.pack(len(settings))], [listener.fileno()])
            await loop.sock_sendall(self._channel, settings)

    async def wait(self) -> int:
        """Until it is gone; how it ended."""
        await self._gone.wait()
        return await asyncio.to_thread(self._process.wait)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def give_up(self) -> None:
        """It is not needed: it was told nothing, and ends."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    async def _hear(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Event) -> None:
        heard = b""
        with contextlib.suppress(OSError):
            while more := await loop.sock_recv(self._channel, 64):
                heard += more
                if heard == READY:
                    ready.set()
        self._channel.close()
        self._gone.set()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """What is started here does not hear Ctrl-C until it asks to: a terminal sends it to every process, and one that loads
    its modules would end in a traceback.  It is the supervisor who ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def told(channel: socket.socket) -> tuple[bytes, socket.socket] | None:
    """The worker's side, which waits: its settings and its listening socket; None: nobody wants it any more."""
    head, descriptors, _, _ = socket.recv_fds(channel, LENGTH.size, 1)
    if len(head) < LENGTH.size or not descriptors:
        return None
    (length,) = LENGTH.unpack(head)
    parts = []
    while length > 0 and (part := channel.recv(min(length, 1 << 20))):
        parts.append(part)
        length -= len(part)
    return (b"".join(parts), socket.socket(fileno=descriptors[0])) if not length else None
