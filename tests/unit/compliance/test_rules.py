from __future__ import annotations

import pytest

from compliance.model import Action, Finding, Verdict
from compliance.rules import TYPES, Rule, Ruleset, policy_hash


def finding(kind: str) -> Finding:
    return Finding(kind, "messages[0].content", 0, 1)


@pytest.mark.parametrize("kind", TYPES)
def test_without_rules_everything_found_stays_local(kind: str) -> None:
    verdict = Ruleset().verdict([finding(kind)], tenant=None)
    assert verdict.action == "keep_local"
    assert verdict.allows("local")
    assert not verdict.allows("cloud") and not verdict.allows("partner")
    assert verdict.findings == (finding(kind),)


def test_nothing_found_may_leave() -> None:
    verdict = Ruleset([Rule("x", "block", frozenset({"card"}))]).verdict([], tenant=None)
    assert verdict.action == "allow" and verdict.allows("cloud")


def test_the_first_rule_that_matches_decides() -> None:
    rules = Ruleset(
        [
            Rule("cards never", "block", frozenset({"card"})),
            Rule("the lab may mail", "allow", frozenset({"email"}), frozenset({"lab"})),
            Rule("cards may", "allow", frozenset({"card"})),
        ]
    )
    assert rules.verdict([finding("card")], tenant="lab") == Verdict("block", (finding("card"),), "cards never")
    assert rules.verdict([finding("email")], tenant="lab").rule == "the lab may mail"
    assert rules.verdict([finding("email")], tenant="lab").allows("cloud")
    assert rules.verdict([finding("email")], tenant="clinic").rule == "default: email stays local"
    assert rules.verdict([finding("email")], tenant=None).action == "keep_local"


def test_the_strictest_action_over_all_findings_wins() -> None:
    rules = Ruleset([Rule("a", "allow", frozenset({"email"})), Rule("b", "block", frozenset({"secret"}))])
    assert rules.verdict([finding("email"), finding("ssn")], tenant=None).rule == "default: ssn stays local"
    assert rules.verdict([finding("ssn"), finding("email"), finding("secret")], tenant=None).action == "block"


def test_a_blocked_request_goes_nowhere_and_a_redacted_one_is_not_sent_as_it_is() -> None:
    assert not Verdict("block").allows("local")
    assert Verdict("redact").allows("local") and not Verdict("redact").allows("cloud")


@pytest.mark.parametrize("action", ["allow", "redact"])
def test_law_08_no_rule_lets_out_what_was_not_scanned(action: Action) -> None:
    for rule in (Rule("all", action), Rule("failed", action, frozenset({"scan_failed"}))):
        verdict = Ruleset([rule], opaque="allow").verdict([finding("scan_failed")], tenant="any")
        assert verdict.action == "keep_local"
        assert verdict.rule == "default: not scanned"


def test_a_rule_may_be_stricter_over_what_was_not_scanned() -> None:
    verdict = Ruleset([Rule("no", "block", frozenset({"scan_failed"}))]).verdict([finding("scan_failed")], tenant=None)
    assert (verdict.action, verdict.rule) == ("block", "no")


def test_opaque_is_the_operators_choice() -> None:
    assert Ruleset(opaque="allow").verdict([finding("opaque")], tenant=None).allows("cloud")
    assert Ruleset(opaque="allow").verdict([finding("opaque"), finding("ssn")], tenant=None).action == "keep_local"
    rules = Ruleset([Rule("pictures never", "block", frozenset({"opaque"}))], opaque="allow")
    assert rules.verdict([finding("opaque")], tenant=None).action == "block"


def test_the_rule_named_does_not_depend_on_hashing() -> None:
    found = [finding("secret"), finding("card"), finding("email"), finding("ssn")]
    assert Ruleset().verdict(found, tenant=None).rule == "default: secret stays local"
    assert Ruleset().verdict(found[::-1], tenant=None).rule == "default: ssn stays local"


def test_policy_hash_names_its_material() -> None:
    assert policy_hash(b"") == "e3b0c44298fc1c14"  # SHA-256 of nothing (FIPS 180-4)
    assert policy_hash(b"a") != policy_hash(b"b")
