"""Tokens in, principals out; and who may ask while there is no key."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth import LOCAL_OPEN, Principal, credential, digest, host_allowed, new_token
from proxy.keyring import Keyring

NOW = 1_000_000_000


def test_keys_are_256_bits_of_chance() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"spw_[A-Za-z0-9_-]{43}", token) for token in made)


def test_only_a_key_in_force_is_served() -> None:
    token, late = new_token(), new_token()
    ring = Keyring({digest(token): Principal("key_1", "app"), digest(late): Principal("key_2", "old", expires=NOW)})
    assert not ring.is_open
    found = ring.authenticate(token, NOW, loopback=False)
    assert found is not None and found.key == "key_1"
    for wrong in (None, "", "spw_", token[:-1], token + "A", digest(token), "\ud800", late):
        assert ring.authenticate(wrong, NOW, loopback=True) is None
    assert ring.authenticate(late, NOW - 1, loopback=False) is not None
    ring.replace({digest(late): Principal("key_2", "old")})
    assert ring.authenticate(token, NOW, loopback=True) is None


def test_without_any_key_only_this_host_is_served() -> None:
    ring = Keyring({})
    assert ring.is_open
    assert ring.authenticate(None, NOW, loopback=True) is LOCAL_OPEN
    assert ring.authenticate("sk-whatever-the-sdk-sends", NOW, loopback=True) is LOCAL_OPEN
    assert ring.authenticate(None, NOW, loopback=False) is None


def test_a_key_reaches_what_it_is_for() -> None:
    scoped = Principal("k", "n", models=frozenset({"small"}), boundaries=frozenset({"local"}))
    assert scoped.may_use("small") and not scoped.may_use("large")
    assert scoped.may_reach("local") and not scoped.may_reach("cloud")
    assert Principal("k", "n").may_use("any") and Principal("k", "n").may_reach("cloud")
    nothing = Principal("k", "n", models=frozenset(), boundaries=frozenset())
    assert not nothing.may_use("small") and not nothing.may_reach("local")


@pytest.mark.parametrize(
    ("headers", "query", "found"),
    [
        ({"authorization": "Bearer spw_a"}, "", "spw_a"),
        ({"authorization": "bearer  spw_a "}, "", "spw_a"),
        ({"x-api-key": "spw_b"}, "", "spw_b"),
        ({"api-key": "spw_c"}, "", "spw_c"),
        ({"authorization": "Bearer spw_a", "x-api-key": "spw_b"}, "", "spw_a"),
        ({"authorization": "Basic dXNlcjpwYXNz", "x-api-key": "spw_b"}, "", "spw_b"),
        ({}, "alt=sse&key=spw_d", "spw_d"),
        ({}, "", None),
        ({}, "monkey=spw_d", None),
    ],
)
def test_a_credential_is_found_where_sdks_put_it(headers: dict[str, str], query: str, found: str | None) -> None:
    assert credential(headers, query) == found


OWN = ["127.0.0.1", "127.0.0.1:8800", "localhost", "LocalHost:1", "[::1]", "[::1]:8800"]
FOREIGN = [
    "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:8800", "10.0.0.1", "0.0.0.0", "", " localhost", "localhost ",
    "localhost.", "user@localhost", "evil.example@localhost", "localhost/x", "localhost#@evil.example", "localhost:", "localhost:123456", "localhost:8a",
    "127.1", "2130706433", "127.0.0.1\n", "::1", "[::1", "[::ffff:127.0.0.1]", "localhost:١",
]  # fmt: skip


@pytest.mark.parametrize("host", OWN)
def test_this_host_is_known_by_its_names(host: str) -> None:
    assert host_allowed(host, None)
    assert host_allowed(host, f"http://{host}") and host_allowed(host, f"https://{host}")


@pytest.mark.parametrize("host", FOREIGN)
def test_a_foreign_host_or_origin_is_refused(host: str) -> None:
    """What a page that resolves its own name to this host would send (DNS rebinding), and what a parser might misread."""
    assert not host_allowed(host, None)
    assert not host_allowed("localhost", f"http://{host}")


@pytest.mark.parametrize("origin", ["null", "", "localhost", "file://", "http://", "ftp://localhost", "http://localhost/", "http://localhost, http://evil.example"])  # fmt: skip
def test_an_origin_that_is_no_page_of_this_host_is_refused(origin: str) -> None:
    assert not host_allowed("localhost", origin)
    assert not host_allowed(None, None)


@given(st.text(max_size=40))
def test_no_other_text_is_this_host(text: str) -> None:
    bare = re.sub(r":\d{1,5}$", "", text, flags=re.ASCII).lower()
    assert host_allowed(text, None) == (bare in {"127.0.0.1", "localhost", "[::1]"})
