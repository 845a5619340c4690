"""Real Redis servers for tests: started on free ports, killed, frozen, replicated, failed over; and a relay in front.

A test that has no redis-server skips.  Every server has a directory of its own, so that it can be started again on
what it had written.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

BINARY = shutil.which("redis-server")


class RedisServer:
    """One redis-server process."""

    def __init__(self, directory: Path, *options: str, port: int | None = None, fsync: str | None = "always") -> None:
        if BINARY is None:
            pytest.skip("needs redis-server")
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = port or free_port()
        self._options = [*options]
        if fsync is not None:
            self._options += ["--appendonly", "yes", "--appendfsync", fsync]
        self.process: subprocess.Popen[bytes] | None = None
        self.password: str | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, or start again, on what the directory holds."""
        log = open(self.directory / "redis.log", "ab")  # noqa: SIM115  the child's from here on
        with log:
            self.process = subprocess.Popen(
                [BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", "",
                 "--repl-diskless-sync-delay", "0", "--enable-debug-command", "yes", *self._options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                if not client.info("persistence")["loading"]:
                    return
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError((self.directory / "redis.log").read_text()[-2000:])
            time.sleep(0.01)

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(
            port=self.port, password=self.password, decode_responses=True, protocol=2, socket_timeout=5, **options
        )

    def command(self, *words: str) -> Any:
        with self.client() as client:
            return client.execute_command(*words)

    def kill(self) -> None:
        """SIGKILL: what was written to the append-only file is there at the next start, synced or not."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()

    def follow(self, master: RedisServer, port: int | None = None) -> None:
        """Become its replica, reached at `port` where a relay stands between; wait until what it has is here."""
        self.command("REPLICAOF", "127.0.0.1", str(port or master.port))
        until = time.monotonic() + 20
        while time.monotonic() < until:
            mine, its = self._replication(), master._replication()
            if mine.get("master_link_status") == "up" and mine["slave_repl_offset"] >= its["master_repl_offset"]:
                return
            time.sleep(0.01)
        raise AssertionError("the replica did not catch up")

    def promote(self) -> None:
        self.command("REPLICAOF", "NO", "ONE")

    def _replication(self) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.info("replication")
            return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def redis_server(directory: Path, *options: str, fsync: str | None = "always") -> Iterator[RedisServer]:
    """A server of one's own, ended at the end."""
    server = RedisServer(directory, *options, fsync=fsync)
    try:
        yield server
    finally:
        server.stop()


class TcpRelay:
    """A relay of TCP connections: its target can change, it can be slow, cut connections, or swallow answers."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0  # seconds before each piece is passed on
        self.swallow = False  # answers do not come back
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """End every connection; new ones are accepted."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, function: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 2)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            self._spawn(self._pass, client, server, False)
            self._spawn(self._pass, server, client, True)

    def _pass(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.delay:
                    time.sleep(self.delay)
                if not (answers and self.swallow):
                    sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()


@contextlib.contextmanager
def tcp_relay(target: int) -> Iterator[TcpRelay]:
    relay = TcpRelay(target)
    try:
        yield relay
    finally:
        relay.close()
