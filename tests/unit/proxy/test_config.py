"""Every mistake at once, each with its line, its path and what would be right; secrets never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy import quantities
from proxy.app import build_catalog
from proxy.config import Settings, load
from proxy.config_errors import ConfigInvalid

GOOD = """
engines:
  gpu: {kind: vllm, replicas: ['http://10.0.0.1:8000'], models: {llama: {id: meta/llama, context: 1000}}}
  openai: {kind: openai, key: {env: K}, models: {"*": {}}}
models: {gpt-4o: [gpu/llama, openai/gpt-4o]}
"""


def mistakes(text: str, environ: dict[str, str] | None = None) -> list[tuple[int, str, str, str]]:
    with pytest.raises(ConfigInvalid) as invalid:
        load(text, environ or {})
    return [tuple(mistake) for mistake in invalid.value.mistakes]


def test_an_empty_file_is_valid() -> None:
    assert load("", {}) == load("# nothing", {})
    assert load("", {}).listen.port == 8800


def test_a_configuration_resolves() -> None:
    settings = load(GOOD, {"K": "sk-secret"})
    entry = build_catalog(settings).find("gpt-4o")
    assert entry is not None
    assert [(t.name, t.model, t.boundary) for t in entry.targets] == [
        ("gpu/llama", "meta/llama", "local"),
        ("openai/gpt-4o", "gpt-4o", "cloud"),
    ]
    assert entry.targets[1].key == "sk-secret"


def test_secrets_are_never_shown() -> None:
    settings = load(GOOD, {"K": "sk-secret"})
    target = build_catalog(settings).targets[0]
    for shown in (
        repr(settings),
        str(settings.model_dump()),
        settings.model_dump_json(),
        repr(target),
        settings.policy_hash,
    ):
        assert "sk-secret" not in shown
    assert Settings.undump(settings.dump()).secret("engines.openai.key") == "sk-secret"


def test_every_mistake_of_a_kind_is_reported_at_once() -> None:
    found = mistakes(
        """
listen: {prot: 8800, port: 99999}
engines:
  gpu: {kind: vllm, models: {llama: {contxt: 1000}}, timeouts: {connect: 2}}
  o: {kind: openai, key: sk-123, models: {"*": {}}}
budgets: [{limit: 20000}]
overflow: []
"""
    )
    assert [(line, path) for line, path, _, _ in found] == [
        (2, "listen.port"), (2, "listen.prot"), (4, "engines.gpu.models.llama.contxt"), (4, "engines.gpu.timeouts.connect"),
        (5, "engines.o.key"), (6, "budgets[0].limit"), (7, "overflow"),
    ]  # fmt: skip
    hints = {path: hint for _, path, _, hint in found}
    assert hints["listen.prot"] == "did you mean 'port'?"
    assert hints["engines.o.key"] == "write {env: NAME} or {file: PATH}"
    assert "sk-123" not in str(found)


UNRESOLVED: list[tuple[str, str, str, str]] = [
    (
        "engines: {g: {kind: vlm, replicas: ['http://127.0.0.1'], models: {a: {}}}}",
        "engines.g.kind",
        "no engine kind",
        "vllm",
    ),
    ("engines: {g: {kind: vllm, models: {a: {}}}}", "engines.g", "no address", "replicas"),
    (
        "engines: {g: {kind: vllm, replicas: ['8.8.8.8'], models: {a: {}}}}",
        "engines.g.replicas[0]",
        "no http",
        "http://",
    ),
    (
        "engines: {g: {kind: vllm, replicas: ['http://8.8.8.8'], models: {a: {}}}}",
        "engines.g.replicas[0]",
        "not local",
        "peers",
    ),
    ("engines: {g: {kind: vllm, replicas: ['http://127.0.0.1']}}", "engines.g", "no models", "models"),
    (
        "engines: {g: {kind: vllm, managed: {model: x}, models: {a: {}}}}",
        "engines.g.managed",
        "does not run",
        "llama.cpp",
    ),
    ("engines: {g: {kind: openai, boundary: clout, models: {a: {}}}}", "engines.g.boundary", "no boundary", "cloud"),
    ("engines: {g: {kind: openai, peers: [x], models: {a: {}}}}", "engines.g.peers[0]", "no network", "CIDR"),
    ("engines: {a/b: {kind: openai, models: {a: {}}}}", "engines.a/b", "slash", "engine/model"),
    (
        "models: {m: [gpu/lama]}\nengines: {gpu: {kind: openai, models: {llama: {}}}}",
        "models.m[0]",
        "no engine/model",
        "gpu/llama",
    ),
    ("models: {m: []}", "models.m", "names no target", "such as"),
    (
        "compliance: {rules: [{name: r, action: block, when: {found: [crad]}}]}",
        "compliance.rules[0].when.found[0]",
        "nothing that is found",
        "card",
    ),
    ("prices: {x/y: {input: $1/M, output: $1/M}}", "prices.x/y", "no engine/model", ""),
    ("engines: {g: {kind: openai, key: {env: NOPE}, models: {a: {}}}}", "engines.g.key", "NOPE is not set", "export"),
    ("engines: {g: {kind: openai, key: {file: /no/such}, models: {a: {}}}}", "engines.g.key", "cannot be read", ""),
    ("engines: {g: {kind: openai, key: {}, models: {a: {}}}}", "engines.g.key", "one place", "env"),
    ("budgets: [{limit: $1}, {limit: $2, window: day}]", "budgets[1]", "only one budget", ""),
]


@pytest.mark.parametrize(
    ("text", "path", "wrong", "hint"), UNRESOLVED, ids=[row[1] + " " + row[2] for row in UNRESOLVED]
)
def test_what_does_not_resolve_is_named(text: str, path: str, wrong: str, hint: str) -> None:
    found = [row for row in mistakes(text) if row[1] == path]
    assert found and wrong in found[0][2] and hint in found[0][3]
    assert found[0][0] >= 1


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: 1\na: 2", "just words", "\ta: 1"])
def test_what_is_no_yaml_mapping_is_said_plainly(text: str) -> None:
    assert mistakes(text)


def test_a_missing_file_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="No such file"):
        load(tmp_path / "none.yaml", {})


def test_quantities() -> None:
    assert [quantities.duration(v) for v in ("2s", "1500ms", "5m", "1h", "0.5 s")] == [2.0, 1.5, 300.0, 3600.0, 0.5]
    assert [quantities.size(v) for v in ("64MB", "1KiB")] == [64_000_000, 1024]
    assert quantities.share("5%") == 0.05
    assert quantities.money("$20000") == 20_000 * 10**12
    assert quantities.token_price("$2.50/M") == 2_500_000
    wrong: list[tuple[Any, Any]] = [
        (quantities.duration, 2), (quantities.duration, "2"), (quantities.duration, "2 parsecs"), (quantities.size, 64), (quantities.share, 0.05),
        (quantities.share, "120%"), (quantities.money, 20000), (quantities.money, "20000€"), (quantities.token_price, "$2.50"),
        (quantities.duration, True), (quantities.duration, None), (quantities.duration, "-2s"),
    ]  # fmt: skip
    for parse, value in wrong:
        with pytest.raises(ValueError, match=r"needs a unit|written"):
            parse(value)


def test_the_policy_has_a_hash_that_changes_with_what_decides() -> None:
    base = load(GOOD, {"K": "a"}).policy_hash
    assert load(GOOD, {"K": "other key"}).policy_hash == base
    assert load(GOOD + "listen: {port: 1234}\n", {"K": "a"}).policy_hash == base
    assert load(GOOD + "compliance: {opaque: allow}\n", {"K": "a"}).policy_hash != base
