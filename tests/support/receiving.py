"""The other side of `engines.transport` for tests: a receiver, two targets, a certificate."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engines.errors import EngineError
from engines.http1 import Connection, Header, header_block
from engines.model import Target
from engines.transport import Transport

LOCAL = Target("e/m", "e", "vllm", "m", "local", (), frozenset())
CLOUD = Target("c/m", "c", "openai", "m", "cloud", (), frozenset())


class Collector:
    """An `engines.http1.Receiver` that writes everything down, and insists on the order that was promised."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.body = bytearray()
        self.error: EngineError | None = None
        self.over = asyncio.get_running_loop().create_future()
        self.moves = 0

    def on_head(self, status: int, headers: list[Header]) -> None:
        assert self.status == 0 and not self.over.done()
        self.status, self.headers = status, headers

    def on_body(self, data: bytes) -> None:
        assert self.status and not self.over.done()
        self.body += data

    def on_answer(self, headers: list[Header], body: bytes) -> None:
        self.on_head(200, headers)
        if body:
            self.on_body(body)
        self.on_end()

    def on_end(self) -> None:
        self.over.set_result(None)

    def on_error(self, error: EngineError) -> None:
        self.error = error
        self.over.set_result(None)

    def moved(self, connection: Connection) -> bool:
        self.moves += 1
        return True


async def exchange(transport: Transport, url: str, target: Target = LOCAL, **options: Any) -> Collector:
    connection = await transport.open(target, url, timeout=1)
    collector = Collector()
    connection.request(b"POST", b"/v1/x", header_block([(b"a", b"b")]), b"hello", collector, **options)
    await asyncio.wait_for(collector.over, 3)
    return collector


async def until(condition: Callable[[], object], seconds: float = 2.0) -> None:
    """Wait for what another party does."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it did not happen in time"
        await asyncio.sleep(0.001)


def certificates(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's context, client's context that trusts it)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    built = built.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    built = built.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
    )
    certificate = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "tls.pem").write_bytes(certificate + private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "tls.pem")
    client = ssl.create_default_context(cadata=certificate.decode())
    return server, client
