"""Every mistake at once, each with its line, its path and what would be right; secrets never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.app import build_catalog
from proxy.config import Settings, load
from proxy.config_errors import ConfigInvalid
from proxy.meaning import meaning

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
        (2, "listen.port"), (2, "listen.prot"), (4, "engines.gpu"), (4, "engines.gpu.models.llama.contxt"), (4, "engines.gpu.timeouts.connect"),
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
        "engines: {g: {kind: vllm, managed: {model: smoke-test}, models: {a: {}}}}",
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
    ("budgets: [{limit: $1}, {limit: $2, scope: org}]", "budgets[1]", "limits what an earlier one does", "one limit"),
    ("budgets: [{scope: user/alice, limit: $1}]", "budgets[0].scope", "by their pseudonyms", "each user"),
    ("budgets: [{scope: each key}]", "budgets[0]", "limits nothing", "limit: $2000"),
    ("budgets: [{limit: $1, zone: Europe/Berlim}]", "budgets[0].zone", "no time zone", "Europe/Berlin"),
    ("budgets: [{limit: $1, at_limit: {downgrade: [x/y]}}]", "budgets[0].at_limit.downgrade[0]", "no engine/model", ""),
    ("budgets: [{limit: $1, count: all}]", "budgets[0].count", "cloud attempts only", ""),
    ("budgets: [{tokens: 5, at_limit: local_only}]", "budgets[0].at_limit", "none would be left", "count: cloud"),
    ("budgets: [{limit: $1, soft: [80%]}]", "budgets[0].soft", "nobody to tell", "alerts"),
    ("alerts: {url: 'ftp://x'}", "alerts.url", "no http or https URL", "https"),
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


def test_the_policy_has_a_hash_that_changes_with_what_decides() -> None:
    base = load(GOOD, {"K": "a"}).policy_hash
    assert load(GOOD, {"K": "other-key"}).policy_hash == base
    assert load(GOOD + "listen: {port: 1234}\n", {"K": "a"}).policy_hash == base
    assert load(GOOD + "compliance: {opaque: allow}\n", {"K": "a"}).policy_hash != base
    managed = load("engines: {cpu: {kind: llama.cpp, managed: {model: smoke-test}, models: {m: {}}}}", {})
    assert managed.with_replicas({"cpu": ("http://127.0.0.1:4711",)}).policy_hash == managed.policy_hash


# --- what people type wrong: (text, path, what is said of it, what is said to be right) ---------------------

HASH = "sha256:" + "0" * 64
LOCAL = "engines: {g: {kind: vllm, replicas: ['http://127.0.0.1:1'], models: {a: {}}}}\n"
CLOUD = "engines: {o: {kind: openai, key: {env: K}, models: {a: {}}}}\n"


def engine(part: str, *, models: str = "{a: {}}") -> str:
    return f"engines: {{g: {{kind: vllm, models: {models}, {part}}}}}\n"


def rule(when: str) -> str:
    return f"compliance: {{rules: [{{name: r, action: block, when: {{{when}}}}}]}}\n"


TYPED = [
    # structure
    ("listen: 8800", "listen", "must be a mapping", "port: 8800"),
    ("engines:", "engines", "is empty", "leave the name out"),
    ("engines: [a]", "engines", "must be a mapping", "kind: vllm"),
    ("engines: {g: vllm}", "engines.g", "must be a mapping", ""),
    ("engines: {int: {kin: vllm, models: {a: {}}}}", "engines.int.kin", "is not a setting", "'kind'"),
    ("engines: {g: {models: {a: {}}}}", "engines.g.kind", "is required", "kind: vllm"),
    (engine("replicas: 'http://127.0.0.1:1'"), "engines.g.replicas", "must be a list", "[http://gpu-a:8000]"),
    (engine("replicas: ['http://127.0.0.1:1']", models="[a, b]"), "engines.g.models", "must be a mapping", "llama-70b"),
    (LOCAL + "models: {x: g/a}", "models.x", "list of targets", "[gpu/llama-70b"),
    (LOCAL + "models: {x: [5]}", "models.x[0]", "must be text", "quotes"),
    (LOCAL + "models: {x: {route: small}}", "models.x.route", "must be true, or small and large", "small:"),
    (LOCAL + "models: {x: {route: {smal: [g/a], large: [g/a]}}}", "models.x.route.smal", "not a setting", "'small'"),
    ("compliance: {rules: [{name: r, action: block, when: {found: {card: 1}}}]}", "compliance.rules[0].when.found", "list", "[card, secret]"),
    ("budgets: {scope: org, limit: $5}", "budgets", "must be a list", "[{scope: org"),
    ("port: 80", "port", "is not a setting here", "'listen.port'"),
    ("engine: {}", "engine", "is not a setting", "'engines'"),
    # numbers and choices
    ("listen: {port: http}", "listen.port", "must be a whole number", ""),
    ("listen: {port: 8800:80}", "listen.port", "must be a whole number", ""),
    ("listen: {workers: many}", "listen.workers", "must be auto", "2"),
    ("listen: {workers: 0}", "listen.workers", "at least 1", ""),
    ("listen: {host: 'http://127.0.0.1'}", "listen.host", "no name or address", "listen.port"),
    (engine("replicas: ['http://127.0.0.1:1']", models="{a: {context: 8k}}"), "engines.g.models.a.context", "whole number", "8192 or 8000"),
    (LOCAL + "models: {x: {route: {small: [g/a], large: [g/a], long_at: 2000 tokens}}}", "models.x.route.long_at", "whole number", "write 2000"),
    ("compliance: {rules: [{name: r, action: keep-local}]}", "compliance.rules[0].action", "must be one of", "'keep_local'"),
    ("telemetry: {prometheus: 8801}", "telemetry.prometheus", "true, false", "port: 8801"),
    ("telemetry: {prometheus: {port: 8800}}", "telemetry.prometheus", "as Spillway does", ""),
    ("budgets: [{limit: $20,000}]", "budgets[0].000", "not a setting", "without commas"),
    ("budgets: [{limit: 20000}]", "budgets[0].limit", "in dollars", "write $20000"),
    ("limits: {body: 64mb}", "limits.body", "needs a unit: KB, MB", "write 64MB"),
    (engine("replicas: ['http://127.0.0.1:1'], timeouts: {connect: 0s}"), "engines.g.timeouts.connect", "more than nothing", ""),
    # addresses
    (engine("replicas: ['http://127.0.0.1:1/v1']"), "engines.g.replicas[0]", "ends in /v1", "leave /v1 out"),
    (engine("replicas: ['http://127.0.0.1:99999']"), "engines.g.replicas[0]", "no http or https URL", "http://"),
    (engine("replicas: ['http://[::1']"), "engines.g.replicas[0]", "no http or https URL", "http://"),
    (engine("replicas: ['http://127.0.0.1:1', 'http://127.0.0.1:1/']"), "engines.g.replicas[1]", "stands twice", ""),
    ("telemetry: {otlp: collector}", "telemetry.otlp", "no http or https URL", "http://collector:4318"),
    ("egress_proxy: proxy", "egress_proxy", "no http or https URL", "http://proxy:3128"),
    ("engines: {o: {kind: openai, boundary: local, key: {env: K}, models: {a: {}}}}", "engines.o.boundary", "in the cloud", "leave"),
    ("engines: {o: {kind: openai, models: {a: {}}}}", "engines.o", "has no key", "{env: NAME}"),
    ("engines: {g: {kind: llama.cpp, managed: {model: /no/such.gguf}, models: {a: {}}}}", "engines.g.managed.model", "no GGUF file", "smoke-test"),
    ("engines: {g: {kind: llama.cpp, managed: {model: smoke-test}, replicas: ['http://127.0.0.1:1'], models: {a: {}}}}", "engines.g.managed", "beside replicas", "one of them"),
    ("engines: {g: {kind: vLLM, replicas: ['http://127.0.0.1:1'], models: {a: {}}}}", "engines.g.kind", "no engine kind", "'vllm'"),
    ("engines: {\"a\\nb\": {kind: openai, key: {env: K}, models: {a: {}}}}", "engines.a\nb", "letters, digits", ""),
    # rate cards
    (engine("replicas: ['http://127.0.0.1:1'], cost: {}"), "engines.g.cost", "names no cost", "purchase: $60000"),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {purchase: 60000}"), "engines.g.cost.purchase", "in dollars", "write $60000"),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {purchase: $1, life_years: 0}"), "engines.g.cost.life_years", "at least 0.25", ""),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {purchase: $1, life_years: 4y}"), "engines.g.cost.life_years", "must be a number", "without a unit"),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {purchase: $1, residual: 0.1}"), "engines.g.cost.residual", "in percent", "write 10%"),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {purchase: $1, financing: 5}"), "engines.g.cost.financing", "in percent", "write 5%"),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {kwh: $1, watts: {idle: 9, load: 5}}"), "engines.g.cost.watts", "less under load", "watts:"),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {kwh: $1, watts: {idle: -9, load: 5}}"), "engines.g.cost.watts.idle", "at least 0", ""),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {watts: 1400, kwh: $1}"), "engines.g.cost.watts", "must be a mapping", "load: 1400"),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {watts: {load: 5}}"), "engines.g.cost", "no price for them", "kwh: $0.12"),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {kwh: $0.12}"), "engines.g.cost", "no watts", "watts:"),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {purchase: $1, pue: 0.9}"), "engines.g.cost.pue", "at least 1", ""),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {rent: $500}"), "engines.g.cost.rent", "a month", "write $500/month"),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {staff: $6000/year}"), "engines.g.cost.staff", "a month", "write $500/month"),
    (engine("replicas: ['http://127.0.0.1:1'], cost: {price: $1}"), "engines.g.cost.price", "is not a setting", ""),
    ("engines: {o: {kind: openai, key: {env: K}, models: {a: {}}, cost: {rent: $1/month}}}", "engines.o.cost", "for a local engine", "prices"),
    # targets
    (LOCAL + "models: {x: [a]}", "models.x[0]", "no engine/model", "'g/a'"),
    (LOCAL + "models: {x: [g]}", "models.x[0]", "no engine/model", "'g/a'"),
    (LOCAL + "models: {x: [g/a, g/a]}", "models.x[1]", "stands twice", ""),
    (LOCAL + "models: {'*': [g/a]}", "models.*", "no name", '{"*": {}}'),
    ("engines: {o: {kind: openai, key: {env: K}, models: {'*': {}}}}\nmodels: {x: [o/]}", "models.x[0]", "names no model", "o/MODEL"),
    ("engines: {o: {kind: openai, key: {env: K}, models: {'*': {}}}}\nmodels: {x: ['o/*']}", "models.x[0]", "names no model", "o/MODEL"),
    # days, prices, keys
    (CLOUD + "prices: {o/a: {input: $1/M, output: $1/M, from: 2026-02-30}}", "prices.o/a.from", "is no day", "2026-01-31"),
    (CLOUD + "prices: {o/b: {input: $1/M, output: $1/M}}", "prices.o/b", "no engine/model", "'o/a'"),
    ("unpriced: allow", "unpriced", "must be refuse", "input:"),
    (f"keys: {{k: {{hash: '{HASH}', expires: tomorrow}}}}", "keys.k.expires", "is no day", "2026-01-31"),
    (f"keys: {{k: {{hash: '{HASH}', boundaries: [locl]}}}}", "keys.k.boundaries[0]", "no boundary", "'local'"),
    (LOCAL + f"keys: {{k: {{hash: '{HASH}', models: [b]}}}}", "keys.k.models[0]", "no model is called", ""),
    (f"keys: {{k: {{hash: '{HASH}'}}, l: {{hash: '{HASH}'}}}}", "keys.l.hash", "also that of 'k'", ""),
    (f"keys: {{k: {{hash: '{'0' * 64}'}}}}", "keys.k.hash", "sha256:", "before the hash"),
    ("audit: {key: {env: K}}", "audit.key", "is a file", "{file: ./audit.key}"),
    # rules
    (rule("found: [sssn]"), "compliance.rules[0].when.found[0]", "nothing that is found", "'ssn'"),
    (rule("surface: chat"), "compliance.rules[0].when.surface", "no surface", ""),
    (rule("target: {provider: opnai}"), "compliance.rules[0].when.target.provider", "no provider", "'openai'"),
    (rule("target: {boundary: clod}"), "compliance.rules[0].when.target.boundary", "no boundary", "'cloud'"),
    (rule("target: {contract: bba}"), "compliance.rules[0].when.target.contract", "no contract", "'baa'"),
    (rule("target: {region: eu}"), "compliance.rules[0].when.target.region", "no engine's contract", ""),
    ("compliance: {tenants: {clinic: {}}, rules: [{name: r, action: block, when: {tenant: clinc}}]}", "compliance.rules[0].when.tenant", "no key has the tenant", "'clinic'"),
    (rule("cel: 'found =='"), "compliance.rules[0].when.cel", "no expression in CEL", "in found"),
    (rule("cel: 'user == 1'"), "compliance.rules[0].when.cel", "speaks of 'user'", "tenant"),
    (rule("cel: 'target.baas'"), "compliance.rules[0].when.cel", "a field that is not there", "baa"),
    (rule("cel: 'tenant'"), "compliance.rules[0].when.cel", "neither true nor false", "tenant =="),
    (rule("cel: 'is_home(tenant)'"), "compliance.rules[0].when.cel", "has not got", ""),
    ("compliance: {rules: [{name: r, action: block}, {name: r, when: {found: ssn}, action: allow}]}", "compliance.rules[1].name", "stands twice", ""),
    ("compliance: {rules: [{name: all, action: block}, {name: some, when: {found: ssn}, action: allow}]}", "compliance.rules[1]", "'some' is never reached, because of rule 'all'", "first"),
    ("compliance: {rules: [{name: a, when: {found: ssn}, action: block}, {name: b, when: {found: ssn}, action: allow}]}", "compliance.rules[1]", "'b' contradicts rule 'a'", "first"),
    ("compliance: {answers: {scan: false, found: mask}}", "compliance.answers.found", "needs answers to be scanned", "leave scan"),
    (engine("replicas: ['http://127.0.0.1:1'], contract: {baa: {until: 2027-02-30}}"), "engines.g.contract.baa.until", "must be a day", "2027-03-31"),
    # of later versions
    ("budgets: [{scope: teams/x, limit: $5}]", "budgets[0].scope", "must be org, LEVEL/NAME or each LEVEL", "team/oncology"),
    ("budgets: [{scope: key/*, limit: $5}]", "budgets[0].scope", "written with each", "each key"),
    ("budgets: [{window: weak, limit: $5}]", "budgets[0].window", "must be month, week", "'week'"),
    ("budgets: [{window: rolling 24, limit: $5}]", "budgets[0].window", "rolling and a duration", "rolling 24h"),
    ("budgets: [{limit: $5, soft: [0.8]}]", "budgets[0].soft[0]", "written in percent", "80%"),
    ("budgets: [{limit: $5, at_limit: stop}]", "budgets[0].at_limit", "must be refuse, local_only, or a downgrade", "downgrade"),
    ("state: {ledger: 'postgresql://x'}", "state.ledger", "not there yet", "leave it out"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "wrong", "hint"), TYPED, ids=[f"{row[1]} {row[2]}" for row in TYPED])
def test_what_people_type_wrong_is_named(text: str, path: str, wrong: str, hint: str) -> None:
    found = [row for row in from_file(text) if row[1] == path]
    assert len(found) == 1, from_file(text)
    line, _, said, right = found[0]
    assert wrong in said and hint in right
    assert line >= 1
    for jargon in ("tuple", "dictionary", "string", "integer", "Input", "valid "):
        assert jargon not in said


def from_file(text: str) -> list[tuple[int, str, str, str]]:
    return mistakes(text, {"K": "x"})


LATER = ("overflow", "console")


@pytest.mark.parametrize("section", LATER)
def test_a_section_of_a_later_version_is_not_accepted_in_silence(section: str) -> None:
    assert mistakes(f"{section}: []") == [(1, section, "is not there yet in this version", "leave it out")]


def test_one_mistake_hides_no_other() -> None:
    found = mistakes(
        """
listen: {port: http}
engines:
  gpu: {kind: vllm, replicas: ['http://10.0.0.1'], models: {llama: {contxt: 5}}}
  sky: {kind: openai, key: {env: NOPE}, models: {gpt-4o: {}}}
models:
  a: [gpu/llama, gpu/lama]
  b: [sky/gpt-4]
limits: {body: 5}
"""
    )
    assert [(line, path) for line, path, _, _ in found] == [
        (2, "listen.port"), (4, "engines.gpu.models.llama.contxt"), (5, "engines.sky.key"), (7, "models.a[1]"), (8, "models.b[0]"), (9, "limits.body"),
    ]  # fmt: skip


def test_one_mistake_brings_no_others_with_it() -> None:
    broken = (
        "engines: {gpu: {kind: vllm, replicas: no, models: [a, b]}, o: {models: {m: {}}}}\nmodels: {x: [gpu/a, o/m]}\n"
    )
    assert [path for _, path, _, _ in mistakes(broken)] == [
        "engines.gpu.models",
        "engines.gpu.replicas",
        "engines.o.kind",
    ]


# --- YAML as people write it --------------------------------------------------------------------------------

YAML = [
    ("listen:\n\tport: 1", 2, "tabs"),
    ("engines: {o: {models: {*: {}}}}", 1, 'in quotes: "*"'),
    ("telemetry:\n  sample: %5", 2, "in quotes"),
    ("listen: {}\n---\nlisten: {}", 2, "one document"),
    ("listen: {port: 1", 1, "not closed"),
    ("a: b: c", 1, "colon"),
    ("listen: !!python/object:os.system {}", 1, "!"),
    ("listen: {port: 1, port: 2}", 1, "first in line 1"),
    ("a: &a {x: *a}", 1, ""),
    ("a: &a [*a]", 1, ""),
    ("a: " + "[" * 3000 + "]" * 3000, 1, ""),
    ("a: &a [x, x]\nb: &b [*a, *a]\n" + "".join(f"{chr(99 + i)}: &{chr(99 + i)} [{', '.join(['*' + chr(98 + i)] * 9)}]\n" for i in range(12)), 0, ""),
    ("listen: {port: ._}", 1, ""),
    ("listen: {port: " + "9" * 5000 + "}", 1, ""),
    ("a: \x00", 1, ""),
    ("? [a, b]\n: 1", 1, ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "hint"), YAML, ids=[str(index) for index in range(len(YAML))])
def test_what_yaml_makes_of_slips(text: str, line: int, hint: str) -> None:
    found = mistakes(text)
    assert found[0][0] == line or not line
    assert hint in found[0][3]


def test_days_and_numbers_need_no_quotes() -> None:
    settings = load(
        "engines: {7: {kind: openai, key: {env: K}, models: {3.1: {}}}}\n"
        "models: {4: [7/3.1]}\n"
        "prices: {7/3.1: {input: $1/M, output: $2/M, from: 2026-01-01}}\n"
        f"keys: {{k: {{hash: '{HASH}', expires: 2027-12-31, models: ['4']}}}}\n",
        {"K": "x"},
    )
    assert settings.prices["7/3.1"].since == "2026-01-01" and settings.keys["k"].expires == "2027-12-31"
    assert build_catalog(settings).find("4") is not None


def test_anchors_may_be_used() -> None:
    text = "engines:\n  a: &base {kind: vllm, replicas: ['http://127.0.0.1:1'], models: {m: {}}}\n  b: {<<: *base, replicas: ['http://127.0.0.1:2']}\n"
    settings = load(text, {})
    assert settings.engines["b"].kind == "vllm" and settings.engines["b"].replicas == ("http://127.0.0.1:2",)


@given(st.text(max_size=200))
def test_no_text_ends_in_anything_but_settings_or_mistakes(text: str) -> None:
    try:
        load(text, {})
    except ConfigInvalid as invalid:
        assert invalid.mistakes


NAMES = st.sampled_from(["engines", "models", "kind", "replicas", "key", "env", "gpu", "a", "*", "listen", "port", "prices", "keys", "budgets", "limit", "vllm", "gpu/a", "$5", "2s", "route", "small", "when", "found"])  # fmt: skip
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(NAMES, TREES, max_size=4))
def test_no_structure_ends_in_anything_but_settings_or_mistakes(tree: dict[str, object]) -> None:
    import yaml

    try:
        settings = load(yaml.safe_dump(tree), {})
    except ConfigInvalid as invalid:
        assert invalid.mistakes
        assert all(mistake.wrong and "\n" not in mistake.wrong for mistake in invalid.mistakes)
    else:
        assert Settings.undump(settings.dump()) == settings
        assert meaning(settings)


# --- secrets ------------------------------------------------------------------------------------------------

PASTED = "sk-ant-Zq83kfVerySecret"
LEAKS = [
    f"engines: {{o: {{kind: openai, key: {PASTED}, models: {{a: {{}}}}}}}}",
    f"engines: {{o: {{kind: openai, key: [{PASTED}], models: {{a: {{}}}}}}}}",
    f"engines: {{o: {{kind: openai, key: {{{PASTED}}}, models: {{a: {{}}}}}}}}",
    f"engines: {{o: {{kind: openai, key: {{env: {PASTED}}}, models: {{a: {{}}}}}}}}",
    f"engines: {{o: {{kind: openai, key: {{env: {PASTED.replace('-', '_')}}}, models: {{a: {{}}}}}}}}",
    f"engines: {{o: {{kind: openai, key: {{file: {PASTED}}}, models: {{a: {{}}}}}}}}",
    f"engines: {{o: {{kind: openai, key: {{env: A, file: {PASTED}}}, models: {{a: {{}}}}}}}}",
    f"engines: {{o: {{kind: openai, api_key: {PASTED}, models: {{a: {{}}}}}}}}",
    f"engines: {{g: {{kind: vllm, replicas: ['http://me:{PASTED}@127.0.0.1:1'], models: {{a: {{}}}}}}}}",
    f"engines: {{g: {{kind: vllm, replicas: ['me:{PASTED}@127.0.0.1:1'], models: {{a: {{}}}}}}}}",
    f"egress_proxy: http://me:{PASTED}@proxy:3128",
    f"audit: {{key: {PASTED}}}",
    f"budgets: [{{limit: {PASTED}, window: {PASTED}, scope: {PASTED}}}]",
    f"listen: {{port: {PASTED}, host: '{PASTED} x'}}",
    f"keys: {{k: {{hash: spw_{PASTED}}}}}",
]  # fmt: skip


@pytest.mark.parametrize("text", LEAKS, ids=[str(index) for index in range(len(LEAKS))])
def test_a_secret_that_was_pasted_is_a_mistake_and_is_not_repeated(text: str) -> None:
    with pytest.raises(ConfigInvalid) as invalid:
        load(text, {})
    said = f"{invalid.value!r} {invalid.value} {invalid.value.mistakes} {invalid.value.__context__!r}"
    for form in (PASTED, PASTED.replace("-", "_"), "VerySecret"):
        assert form not in said


@pytest.mark.parametrize("held", ["two words", "line\nline", "x" * 20_000, "kéy", "\x00"])
def test_a_file_that_holds_more_than_a_secret_is_said_plainly(held: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(held)
    text = f"engines: {{o: {{kind: openai, key: {{file: {tmp_path / 'key'}}}, models: {{a: {{}}}}}}}}"
    assert "more than a secret" in mistakes(text)[0][2]
    (tmp_path / "key").write_text("  sk-1\n")
    assert load(text, {}).secret("engines.o.key") == "sk-1"


def test_a_proxy_with_a_password_comes_from_the_environment() -> None:
    text = "egress_proxy: {env: PROXY_URL}"
    settings = load(text, {"PROXY_URL": "http://me:hidden@proxy:3128"})
    assert settings.egress_proxy == Settings.undump(settings.dump()).egress_proxy == "http://me:hidden@proxy:3128"
    assert "hidden" not in f"{settings!r}{settings.model_dump()}"
    assert load("egress_proxy: http://proxy:3128", {}).egress_proxy == "http://proxy:3128"


def test_commands_that_reach_no_engine_need_no_secret() -> None:
    assert load(GOOD, {}, secrets=False).secret("engines.openai.key") is None
    with pytest.raises(ConfigInvalid, match="K is not set"):
        load(GOOD, {})


# --- in words -----------------------------------------------------------------------------------------------


def test_the_meaning_says_what_happens_and_not_what_was_written() -> None:
    lines = meaning(
        load(
            GOOD.replace("[gpu/llama, openai/gpt-4o]", "[openai/gpt-4o, gpu/llama]")
            + "compliance: {opaque: block, rules: [{name: r, action: block, when: {found: [card], tenant: [a, b]}}]}\nbudgets: [{limit: $500}]\n",
            {"K": "x"},
        )
    )
    assert "model gpt-4o: gpu/llama, then openai/gpt-4o" in lines  # local before cloud, whatever the order in the file
    assert "rule r: card found for tenant a or b: block" in lines
    assert any("what cannot be scanned is refused" in line for line in lines)
    assert any("stop at $500.00 a month" in line for line in lines)
    rule = "{name: r, action: redact, when: {found: [phi], health: true, key: k, target: {region: eu, contract: [baa, zero_retention]}, cel: 'true'}}"
    lines = meaning(load("engines: {e: {kind: vllm, replicas: ['http://127.0.0.1:9'], models: {m: {}}, contract: {region: eu}}}\n"
                         f"compliance: {{tenants: {{t: {{context: health}}}}, rules: [{rule}]}}", {}))  # fmt: skip
    assert (
        "rule r: phi found under health context for key k towards a target of region eu, baa and zero_retention in force"
        " where true: redact" in lines
    )
    assert "tenant t: every request counts as under health context" in lines
