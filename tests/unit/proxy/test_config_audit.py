"""The configuration of the log: what happens when it cannot be written, and who gets its checkpoints."""

from __future__ import annotations

import pytest

from proxy.config import Settings, load
from proxy.config_errors import ConfigInvalid
from proxy.meaning import meaning

KEYS = "access_key: {env: ACCESS}, secret_key: {env: SECRET}"
ENVIRON = {"ACCESS": "AKID", "SECRET": "hush-hush", "HOOK": "the-secret-of-the-hook"}
GOOD = f"""
audit:
  lag: 2h
  on_failure: keep_local
  witness:
    - {{name: disk, directory: /mnt/witness, every: 5m}}
    - {{name: bucket, s3: {{endpoint: 'https://s3.us-east-1.amazonaws.com', bucket: kept, {KEYS}, retain: 2190d}}}}
    - {{name: hook, webhook: {{url: 'https://auditor.example/in', secret: {{env: HOOK}}}}}}
"""


def mistakes(witness: str = "", audit: str = "") -> dict[str, str]:
    """By path."""
    text = f"audit:\n  dir: ./audit\n{audit}" + (f"  witness:\n    - {witness}\n" if witness else "")
    with pytest.raises(ConfigInvalid) as invalid:
        load(text, ENVIRON)
    return {mistake.path: mistake.wrong for mistake in invalid.value.mistakes}


def test_witnesses_resolve_and_their_secrets_are_never_shown() -> None:
    settings = load(GOOD, ENVIRON)
    assert settings.secret("audit.witness[1].s3.secret_key") == "hush-hush"
    assert settings.secret("audit.witness[2].webhook.secret") == "the-secret-of-the-hook"
    assert Settings.undump(settings.dump()).secret("audit.witness[1].s3.access_key") == "AKID"
    for shown in (repr(settings), settings.model_dump_json(), *meaning(settings), settings.config_material.decode()):
        assert "hush-hush" not in shown and "the-secret-of-the-hook" not in shown


def test_what_it_means_is_said_in_words() -> None:
    said = meaning(load(GOOD, ENVIRON))
    assert "witness disk: the newest checkpoints every 5 minutes to /mnt/witness" in said
    assert "witness bucket: the newest checkpoints every 1 minute to the bucket kept, each locked for 2190 days" in said
    assert any(
        "what would leave is kept local where it can be, and local requests go on for 2 hours" in s for s in said
    )
    plain = meaning(load("", {}))
    assert any("what would leave is refused, and local requests go on for 1 s" in line for line in plain)
    assert any(line.startswith("witness: none") for line in plain)


def test_how_far_local_requests_may_run_ahead() -> None:
    assert load("", {}).audit.may_lag == 1
    assert load("audit: {on_failure: keep_local}", {}).audit.may_lag == 3600
    assert load("audit: {on_failure: keep_local, lag: 10s}", {}).audit.may_lag == 10


@pytest.mark.parametrize(
    ("audit", "path"),
    [
        ("  {on_failure: keep_local, local: durable}", "audit.on_failure"),
        ("  {local: durable, lag: 5s}", "audit.lag"),
    ],
)
def test_what_contradicts_itself_is_said(audit: str, path: str) -> None:
    with pytest.raises(ConfigInvalid) as invalid:
        load(f"audit:\n{audit}", {})
    assert [mistake.path for mistake in invalid.value.mistakes] == [path]


@pytest.mark.parametrize(
    ("witness", "path"),
    [
        ("{name: a}", ""),
        ("{name: a, directory: /mnt/x, webhook: {url: 'https://x.example', secret: {env: HOOK}}}", ""),
        ("{name: a, directory: ./audit/inside}", ".directory"),
        ("{name: a, directory: /mnt/x, every: 10ms}", ".every"),
        ("{name: 'a b', directory: /mnt/x}", ".name"),
        ("{name: a, webhook: {url: 'ftp://x', secret: {env: HOOK}}}", ".webhook.url"),
        ("{name: a, webhook: {url: 'https://x.example', secret: hush}}", ".webhook.secret"),
        ("{name: a, webhook: {url: 'https://x.example', secret: {env: UNSET}}}", ".webhook.secret"),
        (f"{{name: a, s3: {{endpoint: 'https://s3.example/kept', bucket: kept, {KEYS}}}}}", ".s3.endpoint"),
        (f"{{name: a, s3: {{endpoint: 'https://s3.example', bucket: Kept_, {KEYS}}}}}", ".s3.bucket"),
        (f"{{name: a, s3: {{endpoint: 'https://s3.example', bucket: kept, {KEYS}, retain: 0s}}}}", ".s3.retain"),
        (f"{{name: a, s3: {{endpoint: 'https://s3.example', bucket: kept, prefix: ../x, {KEYS}}}}}", ".s3.prefix"),
        (f"{{name: a, s3: {{endpoint: 'https://s3.example', bucket: kept, prefix: /x, {KEYS}}}}}", ".s3.prefix"),
        (f"{{name: a, s3: {{endpoint: 'https://s3.example', bucket: kept, region: 'a/b', {KEYS}}}}}", ".s3.region"),
    ],
)  # fmt: skip
def test_every_mistake_of_a_witness_is_said_with_its_place(witness: str, path: str) -> None:
    assert f"audit.witness[0]{path}" in mistakes(witness)


def test_two_witnesses_of_one_name_are_told_apart_by_nobody() -> None:
    two = "{name: a, directory: /mnt/x}\n    - {name: a, directory: /mnt/y}"
    assert list(mistakes(two)) == ["audit.witness[1].name"]
