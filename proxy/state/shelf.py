"""What takes long to make, between starts, in the user's cache directory: compiled automata, fitted routes.

A damaged automaton could do anything to the process that loads it, so a file counts only where it and its directory
are this user's and nobody else may write to them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

MAX_FILES = 32
"""Kept; the oldest go first."""
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


def user_shelf(environ: Mapping[str, str], suffix: str = ".hs") -> FileShelf | None:
    """The shelf below XDG_CACHE_HOME or ~/.cache; None where the user has no home."""
    base = environ.get("XDG_CACHE_HOME") or (os.path.join(environ["HOME"], ".cache") if environ.get("HOME") else "")
    return FileShelf(Path(base) / "spillway", suffix) if os.path.isabs(base) else None


def _ours(found: os.stat_result) -> bool:
    return found.st_uid == os.getuid() and not found.st_mode & _OTHERS_WRITE and not stat.S_ISLNK(found.st_mode)


def _no_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
