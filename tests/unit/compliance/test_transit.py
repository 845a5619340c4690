"""HashiCorp Vault's Transit engine as the master key: a scripted server on a real socket, with its key in the server alone."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from captures import capture

from compliance.masterkeys import MasterKeyFailed, TransitMaster
from compliance.sealing import SealBroken, new_key, seal, unseal
from compliance.vault import Vault, VaultFailed


class Transit(ThreadingHTTPServer):
    """encrypt and decrypt as https://developer.hashicorp.com/vault/api-docs/secret/transit describes them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = new_key()
        self.asked: list[str] = []
        self.answer: tuple[int, bytes] | None = None  # instead of the right one

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/transit/"


class _Handler(BaseHTTPRequestHandler):
    server: Transit

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(self.path)
        if self.server.answer is not None:
            return self._send(*self.server.answer)
        if self.headers["x-vault-token"] != "hvs.token":
            return self._send(403, b'{"errors":["permission denied"]}')
        try:
            data = self._encrypt(body) if self.path == "/v1/transit/encrypt/patients" else self._decrypt(body)
        except (SealBroken, KeyError, ValueError):
            return self._send(400, b'{"errors":["invalid ciphertext"]}')
        return self._send(200, json.dumps({"data": data}).encode())

    def _encrypt(self, body: dict[str, Any]) -> dict[str, str]:
        sealed = seal(self.server.key, base64.b64decode(body["plaintext"], validate=True), b"")
        return {"ciphertext": f"vault:v1:{base64.b64encode(sealed).decode()}"}

    def _decrypt(self, body: dict[str, Any]) -> dict[str, str]:
        if self.path != "/v1/transit/decrypt/patients" or not body["ciphertext"].startswith("vault:v1:"):
            raise KeyError
        plain = unseal(self.server.key, base64.b64decode(body["ciphertext"][9:], validate=True), b"")
        return {"plaintext": base64.b64encode(plain).decode()}

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def transit() -> Iterator[Transit]:
    with Transit() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_service_wraps_each_data_key_once_and_unwraps_it_for_another_worker(
    transit: Transit, tmp_path: Path
) -> None:
    one = Vault(tmp_path / "v.db", TransitMaster(transit.url, "patients", "hvs.token"))
    one.put([capture("a"), capture("b")])
    one.put([capture("c")])
    two = Vault(tmp_path / "v.db", TransitMaster(transit.url, "patients", "hvs.token"))
    assert [row.data for row in two.read("a")] and two.read("c")
    paths = [path.split("/")[3] for path in transit.asked]
    assert paths == ["encrypt", "decrypt"]
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((403, b"{}"), "answered 403 to encrypt"),
        ((200, b"<html>"), "no answer of Transit"),
        ((200, b'{"data": 3}'), "no answer of Transit"),
        ((200, b'{"data": {}}'), "with nothing"),
        ((503, b"sealed"), "answered 503"),
    ],
)
def test_a_service_that_fails_is_named_and_nothing_is_half_kept(
    transit: Transit, tmp_path: Path, answer: tuple[int, bytes], words: str
) -> None:
    transit.answer = answer
    vault = Vault(tmp_path / "v.db", TransitMaster(transit.url, "patients", "hvs.token"))
    with pytest.raises(VaultFailed, match=words):
        vault.put([capture("a")])
    transit.answer = None
    assert vault.put([capture("a")])[0].state == "kept"
    vault.close()


def test_a_wrong_token_and_a_service_that_is_away(transit: Transit) -> None:
    with pytest.raises(MasterKeyFailed, match="403"):
        TransitMaster(transit.url, "patients", "hvs.other").wrap(b"x")
    blob = TransitMaster(transit.url, "patients", "hvs.token").wrap(b"x" * 64)
    with pytest.raises(MasterKeyFailed, match="400"):
        TransitMaster(transit.url, "patients", "hvs.token").unwrap(blob[:-8] + b"AAAAAAA=")
    with pytest.raises(MasterKeyFailed, match="cannot be reached") as failure:
        TransitMaster("http://127.0.0.1:9/v1/transit", "patients", "hvs.token", seconds=1).wrap(b"x")
    assert "hvs" not in str(failure.value)
