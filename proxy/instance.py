"""Who this Spillway is towards its logs: its name, where their signing key lies, and its metrics (effects: files)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from compliance.journal import JournalError, load_or_create_key
from proxy.config import Settings

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names, to `prometheus_client`, the directory of the metrics of all workers."""


def metrics_directory(settings: Settings) -> Path:
    """Where workers write their metrics, for the supervisor to sum."""
    return Path(settings.state.dir) / "metrics"


def signing_key_path(settings: Settings) -> Path:
    """Where the log's signing key lies."""
    if settings.audit.key is not None and settings.audit.key.file is not None:
        return Path(settings.audit.key.file)
    return Path(settings.audit.dir) / "key"


def signing_key(settings: Settings) -> Ed25519PrivateKey | None:
    """The log's signing key; None where it is not here, as in a copy of the logs.  Raises `OSError`."""
    path = signing_key_path(settings)
    try:
        return load_or_create_key(path) if path.exists() else None
    except JournalError as error:
        raise PermissionError(errno.EACCES, str(error), str(path)) from None


def instance_name(directory: Path) -> str:
    """The instance's name: made once, kept beside the logs; the first of several workers wins."""
    path = directory / "instance"
    if not path.exists():
        part = path.with_name(f"instance.{os.getpid()}")
        part.write_text(f"spillway-{os.urandom(4).hex()}")
        try:
            os.link(part, path)
        except FileExistsError:
            pass
        finally:
            part.unlink()
    return path.read_text()
