"""Real file systems that fill up, break or cannot be written: a small tmpfs, and ext4 in a file that is shut down."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), linux/fs/ext4/ext4.h
_NOLOGFLUSH = 2


class SmallDisk:
    """A mounted file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Until not one byte more goes in."""
        with open(self._filler, "ab", buffering=0) as file:
            for size in (4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def free(self) -> None:
        self._filler.unlink()

    def break_down(self) -> None:
        """Every write and every sync fails with EIO from now on (ext4 only)."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NOLOGFLUSH))
        finally:
            os.close(directory)

    def remount(self, how: str) -> None:
        _run("mount", "-o", f"remount,{how}", str(self.path))


@contextlib.contextmanager
def small_disk(path: Path, size: str = "1m") -> Iterator[SmallDisk]:
    """A tmpfs of this size; the test is skipped where it may not be mounted."""
    path.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))
    try:
        yield SmallDisk(path)
    finally:
        _run("umount", "--lazy", str(path))


@contextlib.contextmanager
def ext4(path: Path, image: Path) -> Iterator[SmallDisk]:
    """ext4 in a file, made where there is none; mounted again after a breakdown it has what was synced."""
    path.mkdir(parents=True, exist_ok=True)
    if not image.exists():
        with open(image, "wb") as file:
            file.truncate(8 << 20)
        try:
            _run("mkfs.ext4", "-q", str(image))
        except (FileNotFoundError, subprocess.CalledProcessError):
            pytest.skip("there is no mkfs.ext4")
    _mount("-o", "loop", str(image), str(path))
    try:
        yield SmallDisk(path)
    finally:
        _run("umount", "--lazy", str(path))  # a test that failed may have left it open


def _mount(*arguments: str) -> None:
    if os.geteuid() != 0 or subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode:
        pytest.skip("file systems may not be mounted here")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
