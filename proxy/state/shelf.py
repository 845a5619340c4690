"""What takes long to make, between starts and between processes: compiled automata in the user's cache directory, fitted
routes in the state directory.

A damaged automaton could do anything to the process that loads it, so a file counts only where it and its directory
are this user's and nobody else may write to them.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

MAX_FILES = 32
"""Kept; the oldest go first."""
PATIENCE = 900.0
"""Seconds that one process waits for what another makes; then it makes its own."""
_LOCK = "lock"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class FileShelf:
    """A directory of `KEY.hs`, or with another suffix.  Its calls never raise: without a shelf, all is made anew."""

    def __init__(self, directory: Path, suffix: str = ".hs") -> None:
        self._directory = directory
        self._suffix = suffix

    def get(self, key: str) -> bytes | None:
        try:
            if not _ours(self._directory.lstat()):
                return None
            with open(self._file(key), "rb", opener=_no_links) as file:
                return file.read() if _ours(os.fstat(file.fileno())) else None
        except OSError:
            return None

    def has(self, key: str) -> bool:
        """Is there something that `get` would give?"""
        return self.path(key) is not None

    def path(self, key: str) -> Path | None:
        """The file, for who loads it by itself: nobody else can change it, as its directory is this user's."""
        file = self._file(key)
        try:
            return file if _ours(self._directory.lstat()) and _ours(file.lstat()) else None
        except OSError:
            return None

    def mapped(self, key: str) -> memoryview | None:
        """The same without reading it: its memory is shared by all who map it.  A file is replaced, never changed."""
        try:
            if not _ours(self._directory.lstat()):
                return None
            with open(self._file(key), "rb", opener=_no_links) as file:
                if not _ours(os.fstat(file.fileno())):
                    return None
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError):  # an empty file cannot be mapped
            return None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While one process makes something for this directory, the others wait.  Blocks: not for an event loop."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = stack.enter_context(open(self._directory / _LOCK, "ab", opener=_private))
                until = time.monotonic() + PATIENCE
                while not _locked(lock.fileno()) and time.monotonic() < until:
                    time.sleep(0.02)
            yield

    def put(self, key: str, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _ours(self._directory.lstat()):
                return
            fresh = self._directory / f"{key}.{os.getpid()}.new"
            try:
                with open(fresh, "xb", opener=_private) as file:
                    file.write(data)
                fresh.replace(self._file(key))
            finally:
                fresh.unlink(missing_ok=True)
            self._forget()

    def _file(self, key: str) -> Path:
        return self._directory / f"{key}{self._suffix}"

    def _forget(self) -> None:
        files = sorted(self._directory.glob(f"*{self._suffix}"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[MAX_FILES:]:
            file.unlink(missing_ok=True)


class Shelves:
    """Two shelves: what either has is found, and new things go to the first that keeps them."""

    def __init__(self, first: FileShelf, second: FileShelf | None) -> None:
        self._shelves = [shelf for shelf in (first, second) if shelf is not None]

    def get(self, key: str) -> bytes | None:
        return next((found for shelf in self._shelves if (found := shelf.get(key)) is not None), None)

    def mapped(self, key: str) -> memoryview | None:
        return next((found for shelf in self._shelves if (found := shelf.mapped(key)) is not None), None)

    def alone(self) -> contextlib.AbstractContextManager[None]:
        return self._shelves[0].alone()

    def put(self, key: str, data: bytes) -> None:
        for shelf in self._shelves:
            shelf.put(key, data)
            if shelf.get(key) is not None:
                return


def user_shelf(environ: Mapping[str, str], suffix: str = ".hs") -> FileShelf | None:
    """The shelf below XDG_CACHE_HOME or ~/.cache; None where the user has no home."""
    base = environ.get("XDG_CACHE_HOME") or (os.path.join(environ["HOME"], ".cache") if environ.get("HOME") else "")
    return FileShelf(Path(base) / "spillway", suffix) if os.path.isabs(base) else None


def _ours(found: os.stat_result) -> bool:
    return found.st_uid == os.getuid() and not found.st_mode & _OTHERS_WRITE and not stat.S_ISLNK(found.st_mode)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _no_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
