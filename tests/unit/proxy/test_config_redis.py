"""The way to Redis in a configuration: every mistake with its path, the password never shown."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from policies.budgets import StoreFailed
from proxy.config import Settings, load
from proxy.config_errors import ConfigInvalid
from proxy.meaning import meaning
from proxy.state.opening import open_budgets, slot_of
from proxy.state.redis import RedisBudgets
from proxy.state.sqlite import SQLiteBudgets

ADDRESS = "redis://redis.internal:6379/0"


def mistakes(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigInvalid) as invalid:
        load(text, {})
    return [(mistake.path, mistake.wrong, mistake.hint) for mistake in invalid.value.mistakes]


@pytest.mark.parametrize(
    "store",
    ["sqlite", "redis://h", "redis://h/", "redis://h:6380/15", "rediss://redis.example:6379/0", "redis://[::1]:6379"],
)
def test_stores_that_there_are(store: str) -> None:
    assert load(f"state: {{store: '{store}'}}", {}).state.store == store


@pytest.mark.parametrize(
    "store",
    [
        "mysql",
        "postgresql://h",
        "7",
        "redis",
        "redis://",
        "redis:h",
        "http://h",
        "redis://h:0",
        "redis://h:99999",
        "redis://[::1",
        "[]",
    ],
)
def test_what_is_no_store(store: str) -> None:
    assert mistakes(f"state: {{store: {store if store == '[]' else repr(store)}}}") == [
        ("state.store", "must be sqlite, or a Redis URL", "such as redis://redis.internal:6379/0, or rediss:// for TLS")
    ]


@pytest.mark.parametrize("store", ["redis://user:hunter2@h", "redis://:hunter2@h/0", "rediss://hunter2@h"])
def test_a_password_in_the_address_is_a_mistake_and_is_not_repeated(store: str) -> None:
    ((path, wrong, hint),) = mistakes(f"state: {{store: '{store}'}}")
    assert path == "state.store" and "a secret never stands in the file" in wrong
    assert hint == "write redis: {user: NAME, password: {env: NAME}} beside store"
    assert "hunter2" not in wrong + hint


@pytest.mark.parametrize("rest", ["?password=hunter2", "/zero", "/0/1", "#x", "/-1"])
def test_an_address_holds_nothing_else(rest: str) -> None:
    ((path, wrong, hint),) = mistakes(f"state: {{store: 'redis://h{rest}'}}")
    assert (path, wrong) == ("state.store", "holds more than an address and the number of a database")
    assert "hunter2" not in wrong + hint


@pytest.mark.parametrize(
    ("redis", "path", "wrong"),
    [
        ("password: hunter2", "state.redis.password", "a secret never stands in the file"),
        ("user: u", "state.redis", "has a user without a password"),
        (f"ca: {__file__}", "state.redis.ca", "is for TLS"),
        ("prefix: 'a b'", "state.redis.prefix", "must be letters, digits, dots, dashes and underscores"),
        ("prefix: '{x}'", "state.redis.prefix", "must be letters, digits, dots, dashes and underscores"),
        ("grace: 5", "state.redis.grace", "unit"),
        ("passwort: x", "state.redis.passwort", "setting"),
    ],
)
def test_mistakes_beside_the_address(redis: str, path: str, wrong: str) -> None:
    found = mistakes(f"state: {{store: '{ADDRESS}', redis: {{{redis}}}}}")
    assert len(found) == 1 and found[0][0] == path and wrong in found[0][1]
    assert "hunter2" not in str(found)


def test_a_certificate_goes_with_its_key() -> None:
    for one, other in (("cert", "key"), ("key", "cert")):
        text = f"state: {{store: 'rediss://h', redis: {{{one}: {__file__}}}}}"
        assert mistakes(text) == [("state.redis", f"has no {other}", "a certificate goes with its key")]


def test_files_for_tls_are_there_when_spillway_serves(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    file = tmp_path / "spillway.yaml"
    file.write_text(f"state: {{store: 'rediss://h', redis: {{ca: {tmp_path}/ca.pem}}}}")
    assert load(file, {}).state.redis.ca == f"{tmp_path}/ca.pem"
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(ConfigInvalid) as invalid:
        load(file, {})
    assert [mistake.path for mistake in invalid.value.mistakes] == ["state.redis.ca"]
    assert load(file, {}, secrets=False).state.redis.ca  # a command may run where it is not


def test_redis_without_a_store_in_it() -> None:
    ((path, wrong, _),) = mistakes("state: {redis: {prefix: x}}")
    assert (path, wrong) == ("state.redis", "says how to reach Redis, and nothing is kept there")
    ((path, _, _),) = mistakes("state: {store: mysql, redis: {prefix: x}}")  # what it should be is not known
    assert path == "state.store"


def test_without_the_extra_the_configuration_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "redis" else real(name))
    assert mistakes(f"state: {{store: '{ADDRESS}'}}") == [
        ("state.store", "needs Redis's client, which is not installed", "pip install 'spillway[redis]'")
    ]
    assert load("", {}).state.store == "sqlite"


def test_the_password_is_looked_up_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = f"state: {{dir: '{tmp_path}', store: '{ADDRESS}', redis: {{user: s, password: {{env: REDIS_PASSWORD}}}}}}"
    with pytest.raises(ConfigInvalid):
        load(text, {})
    settings = Settings.undump(load(text, {"REDIS_PASSWORD": "hunter2"}).dump())
    for shown in (repr(settings), str(settings), settings.model_dump_json(), " ".join(meaning(settings))):
        assert "hunter2" not in shown
    assert password_of(settings) == "hunter2"
    # commands read a configuration without its secrets
    bare = load(text, {}, secrets=False)
    with pytest.raises(StoreFailed, match="the environment variable REDIS_PASSWORD is not set"):
        open_budgets(bare)
    monkeypatch.setenv("REDIS_PASSWORD", "hunter3")
    assert password_of(bare) == "hunter3"


def password_of(settings: Settings) -> str:
    store = open_budgets(settings)
    assert isinstance(store, RedisBudgets)
    options = store._client.connection_pool.connection_kwargs
    store.close()
    assert (options["host"], options["port"], options["username"]) == ("redis.internal", 6379, "s")
    found: str = options["password"]
    return found


def test_a_worker_has_a_name_of_its_own_among_several_hosts(tmp_path: Path) -> None:
    here, shared = load(f"state: {{dir: '{tmp_path}'}}", {}), load(f"state: {{store: '{ADDRESS}'}}", {})
    assert slot_of(here, "slot-0", "spillway-1f2e/slot-0") == "slot-0"
    assert slot_of(shared, "slot-0", "spillway-1f2e/slot-0") == "spillway-1f2e/slot-0"
    store = open_budgets(here)
    assert isinstance(store, SQLiteBudgets)
    store.close()


def test_the_meaning_says_where_budgets_are_kept() -> None:
    limits = "budgets: [{scope: org, limit: $5}]"
    said = "budgets: in redis://redis.internal:6379/0, shared by every replica that names it as spillway"
    assert any(line.startswith(said) for line in meaning(load(f"state: {{store: '{ADDRESS}'}}\n{limits}", {})))
    assert not any("shared" in line for line in meaning(load(limits, {})))
