"""The master key of captures: in a file, or kept by a key management service that is asked to wrap and unwrap.

A service is asked by a command of the operator's (`CommandMaster`), or over HTTP where it speaks as HashiCorp Vault's
Transit engine does (`TransitMaster`).  Its key never comes here; what comes here are data keys, for as long as a
worker remembers them.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from compliance.sealing import KEY_BYTES, SealBroken, framed, new_key, seal, unseal

SERVICE_SECONDS = 10.0
"""A service that takes longer has failed."""
LONGEST_BLOB = 65_536
_BOUND = framed("spillway vault 1", "data key")


class MasterKeyFailed(Exception):
    """A key cannot be wrapped or unwrapped now; the message names no secret."""


class MasterKey(Protocol):
    """Wraps data keys.  Both raise `MasterKeyFailed`; they block, so they are for a thread."""

    def wrap(self, key: bytes) -> bytes: ...
    def unwrap(self, blob: bytes) -> bytes: ...


class FileMaster:
    """A key in a file: 32 bytes in base64, which only its owner may read."""

    def __init__(self, path: Path) -> None:
        self._key = _read_key(path)

    def wrap(self, key: bytes) -> bytes:
        return seal(self._key, key, _BOUND)

    def unwrap(self, blob: bytes) -> bytes:
        try:
            return unseal(self._key, blob, _BOUND)
        except SealBroken:
            raise MasterKeyFailed("a data key was not wrapped with this master key, or is damaged") from None


class NoMaster:
    """For what needs no key: looking at names, and erasing."""

    def wrap(self, key: bytes) -> bytes:
        raise MasterKeyFailed("the master key was not asked for")

    def unwrap(self, blob: bytes) -> bytes:
        raise MasterKeyFailed("the master key was not asked for")


class CommandMaster:
    """A command that gets `wrap` or `unwrap` as its last argument and the bytes on standard input, and prints the result."""

    def __init__(self, command: Sequence[str], *, seconds: float = SERVICE_SECONDS) -> None:
        self._command = list(command)
        self._seconds = seconds

    def wrap(self, key: bytes) -> bytes:
        return self._ask("wrap", key)

    def unwrap(self, blob: bytes) -> bytes:
        return self._ask("unwrap", blob)

    def _ask(self, what: str, data: bytes) -> bytes:
        try:
            done = subprocess.run(
                [*self._command, what],
                input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=self._seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise MasterKeyFailed(f"the command for the master key did not {what} in {self._seconds:g} s") from None
        except OSError as error:
            raise MasterKeyFailed(f"the command for the master key cannot be run: {error.strerror}") from None
        if done.returncode != 0:
            raise MasterKeyFailed(f"the command for the master key ended with {done.returncode} on {what}")
        return _plausible(done.stdout)


class TransitMaster:
    """HashiCorp Vault's Transit engine (or OpenBao's): `url` is its mount, such as https://vault:8200/v1/transit."""

    def __init__(
        self, url: str, key: str, token: str, *, seconds: float = SERVICE_SECONDS, context: ssl.SSLContext | None = None
    ) -> None:
        self._parts = urlsplit(url)
        self._name = quote(key, safe="")
        self._token = token
        self._seconds = seconds
        self._context = context

    def wrap(self, key: bytes) -> bytes:
        answer = self._ask("encrypt", {"plaintext": base64.b64encode(key).decode()})
        return _plausible(str(answer.get("ciphertext", "")).encode())

    def unwrap(self, blob: bytes) -> bytes:
        answer = self._ask("decrypt", {"ciphertext": blob.decode("ascii", "replace")})
        try:
            return _plausible(base64.b64decode(str(answer.get("plaintext", "")), validate=True))
        except ValueError:
            raise MasterKeyFailed("the key service answered with what is no key") from None

    def _ask(self, what: str, body: dict[str, str]) -> dict[str, object]:
        path = f"{self._parts.path.rstrip('/')}/{what}/{self._name}"
        headers = {"x-vault-token": self._token, "content-type": "application/json"}
        connection = self._connection()
        try:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read(LONGEST_BLOB + 1)
        except (OSError, http.client.HTTPException) as error:
            raise MasterKeyFailed(f"the key service cannot be reached: {type(error).__name__}") from None
        finally:
            connection.close()
        if answer.status != 200:
            raise MasterKeyFailed(f"the key service answered {answer.status} to {what}")
        try:
            found = json.loads(data)["data"]
        except (ValueError, KeyError, TypeError):
            found = None
        if not isinstance(found, dict):
            raise MasterKeyFailed("the key service answered with what is no answer of Transit")
        return found

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._seconds, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=self._seconds)


def create_key(path: Path) -> bool:
    """Make a master key's file; False: there is one already, which is left as it is.  Raises `MasterKeyFailed`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(new_key()) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(part, path)
        except FileExistsError:
            return False
        finally:
            part.unlink()
    except OSError as error:
        raise MasterKeyFailed(f"{path} cannot be made: {error.strerror}") from None
    return True


def _read_key(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            others = os.fstat(file.fileno()).st_mode & 0o077
            key = base64.b64decode(file.read(LONGEST_BLOB), validate=False)
    except FileNotFoundError:
        raise MasterKeyFailed(
            f"there is no master key in {path}; restore your copy of it, or make the first one with `spillway vault init`"
        ) from None
    except (OSError, ValueError) as error:
        raise MasterKeyFailed(f"the master key in {path} cannot be read: {type(error).__name__}") from None
    if others:
        raise MasterKeyFailed(f"{path} can be read by others; chmod 600 {path}")
    if len(key) != KEY_BYTES:
        raise MasterKeyFailed(f"{path} does not hold a key of {KEY_BYTES} bytes")
    return key


def _plausible(answer: bytes) -> bytes:
    if not answer or len(answer) > LONGEST_BLOB:
        raise MasterKeyFailed("the key service answered with nothing, or with too much")
    return answer
