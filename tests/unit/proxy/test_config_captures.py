"""`audit.captures`: every mistake with its path, and what it means in words."""

from __future__ import annotations

import pytest

from proxy.config import load
from proxy.config_errors import ConfigInvalid
from proxy.meaning import meaning
from proxy.vaulting import master_path

RULE = "compliance: {rules: [{name: cards, when: {found: [card]}, action: block}]}\n"


@pytest.mark.parametrize(
    ("part", "path", "wrong"),
    [
        ("{key: {env: MASTER}}", "audit.captures.key", "a master key is a file's"),
        ("{key: {file: k}, kms: {command: [kms]}}", "audit.captures.kms", "contradicts key"),
        ("{kms: {}}", "audit.captures.kms", "is one of two things"),
        (
            "{kms: {command: [k], transit: {url: 'https://v/', token: {env: T}}}}",
            "audit.captures.kms",
            "is one of two things",
        ),
        (
            "{kms: {transit: {url: 'vault:8200', token: {env: T}}}}",
            "audit.captures.kms.transit.url",
            "is no http or https URL",
        ),
        (
            "{kms: {transit: {url: 'https://v/', token: hvs.x}}}",
            "audit.captures.kms.transit.token",
            "a secret never stands",
        ),
        ("{rules: [card]}", "audit.captures.rules.0", "no rule is called 'card'"),
        ("{keep: 0s}", "audit.captures.keep", "must be more than nothing"),
        ("{limit: 65MB}", "audit.captures.limit", ""),
        ("{lost: drop}", "audit.captures.lost", ""),
        ("{parts: [prompt]}", "audit.captures.parts", ""),
    ],
)
def test_mistakes_have_their_path(part: str, path: str, wrong: str) -> None:
    with pytest.raises(ConfigInvalid) as invalid:
        load(f"{RULE}audit: {{captures: {part}}}", {"T": "t", "MASTER": "m"})
    assert [
        mistake.wrong
        for mistake in invalid.value.mistakes
        if mistake.path.replace("[", ".").replace("]", "").startswith(path) and wrong in mistake.wrong
    ]
    assert "hvs.x" not in str(invalid.value.mistakes)


def test_off_by_default_and_on_with_nothing_more_said() -> None:
    assert load("{}", {}).audit.captures is None
    part = load("audit: {captures: {}}", {}).audit.captures
    assert part is not None
    assert (part.tenants, part.rules, part.lost, part.limit, part.keep) == (
        None,
        None,
        "record",
        1_000_000,
        90 * 86_400,
    )


def test_what_it_means_in_words_and_where_the_key_is() -> None:
    settings = load(f"{RULE}audit: {{captures: {{tenants: [care], rules: [cards], lost: refuse, parts: []}}}}", {})
    (line,) = [line for line in meaning(settings) if line.startswith("captures")]
    assert line == (
        "captures: nothing kept but commitments of requests of care that cards decided for 90 days; what cannot be written is refused"
    )
    assert str(master_path(settings)) == "state/vault.key"
    assert str(master_path(load("audit: {captures: {key: {file: /keys/master}}}", {}))) == "/keys/master"
    assert not any(line.startswith("captures") for line in meaning(load("{}", {})))


def test_the_token_of_a_key_service_is_a_secret_by_reference() -> None:
    text = "audit: {captures: {kms: {transit: {url: 'https://vault:8200/v1/transit', token: {env: VAULT_TOKEN}}}}}"
    settings = load(text, {"VAULT_TOKEN": "hvs.token"})
    assert settings.secret("audit.captures.kms.transit.token") == "hvs.token" and "hvs" not in repr(settings)
    with pytest.raises(ConfigInvalid) as invalid:
        load(text, {})
    assert [mistake.path for mistake in invalid.value.mistakes] == ["audit.captures.kms.transit.token"]
