from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.expressions import Cel
from compliance.identifiers import FAMILY, IDENTIFIERS, NAMES
from compliance.model import Action, Finding, Verdict
from compliance.rules import CLOUD, HOME, UNREAD, Facts, Labels, Rule, Where, policy_hash
from compliance.rulings import CLEAN, Fixed, Ruleset, Ruling, default

DAY = 20_000
PARTNER = Labels("cloud", "openai", "us", DAY, True)  # its agreement ends with this day


def finding(kind: str) -> Finding:
    return Finding(kind, "messages[0].content", 0, 1)


def judge(rules: Ruleset, *kinds: str, **facts: object) -> Ruling:
    return rules.judge([finding(kind) for kind in kinds], Facts(**{"today": DAY, **facts}))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [kind.name for kind in IDENTIFIERS if kind.family == "always"])
@pytest.mark.parametrize("health", [False, True])
def test_law_01_without_rules_issued_numbers_and_secrets_stay_local(kind: str, health: bool) -> None:
    verdict = judge(Ruleset(), kind, health=health).on(PARTNER)
    assert verdict.action == "keep_local"
    assert verdict.allows("local")
    assert not verdict.allows("cloud") and not verdict.allows("partner") and not verdict.allows("cloud", redacted=True)
    assert verdict.findings == (finding(kind),)


@pytest.mark.parametrize("kind", [kind.name for kind in IDENTIFIERS if kind.family == "context"])
def test_law_01_without_rules_names_and_places_stay_local_under_health_context(kind: str) -> None:
    assert judge(Ruleset(), kind, health=True).on(PARTNER).action == "keep_local"
    assert judge(Ruleset(), kind).on(CLOUD).action == "allow"


def test_law_01_a_kind_that_nobody_knows_stays_local() -> None:
    assert judge(Ruleset(), "ward_badge").on(CLOUD).action == "keep_local"


def test_nothing_found_may_leave_and_costs_no_object() -> None:
    ruling = Ruleset([Rule("x", "block", found=frozenset({"card"}), tenants=frozenset({"a"}))]).judge([], Facts())
    assert ruling is CLEAN
    assert ruling.on(CLOUD).action == "allow" and ruling.on(CLOUD) is ruling.on(CLOUD)


def test_the_first_rule_that_matches_decides() -> None:
    rules = Ruleset(
        [
            Rule("cards never", "block", found=frozenset({"card"})),
            Rule("the lab may mail", "allow", found=frozenset({"email"}), tenants=frozenset({"lab"})),
            Rule("cards may", "allow", found=frozenset({"card"})),
        ]
    )
    verdict = judge(rules, "card", tenant="lab").on(CLOUD)
    assert verdict == Verdict("block", (finding("card"),), "cards never")
    assert judge(rules, "email", tenant="lab", health=True).on(CLOUD).rule == "the lab may mail"
    assert judge(rules, "email", tenant="lab", health=True).on(CLOUD).allows("cloud")
    kept = judge(rules, "email", tenant="clinic", health=True).on(CLOUD)
    assert (kept.action, kept.rule) == ("keep_local", "default: email under health context stays local")


def test_the_strictest_action_over_all_findings_wins() -> None:
    rules = Ruleset([Rule("a", "allow", found=frozenset({"email"})), Rule("b", "block", found=frozenset({"secret"}))])
    assert judge(rules, "email", "ssn").on(CLOUD).rule == "default: ssn stays local"
    assert judge(rules, "ssn", "email", "secret").on(CLOUD).action == "block"


def test_a_rule_without_found_speaks_of_the_whole_request() -> None:
    rules = Ruleset([Rule("night", "keep_local", keys=frozenset({"nightly"}))])
    assert judge(rules, key="nightly").on(CLOUD) == Verdict("keep_local", (), "night")
    assert judge(rules, key="other") is CLEAN


@pytest.mark.parametrize(
    ("condition", "facts"),
    [
        ("tenants", "tenant"), ("applications", "application"), ("keys", "key"), ("surfaces", "surface"), ("models", "model"),
    ],
)  # fmt: skip
def test_each_condition_on_the_request_is_looked_at(condition: str, facts: str) -> None:
    rules = Ruleset([Rule("r", "block", **{condition: frozenset({"a", "b"})})])  # type: ignore[arg-type]
    assert judge(rules, "date", **{facts: "b"}).on(HOME).action == "block"
    assert judge(rules, "date", **{facts: "c"}).on(HOME).action == "allow"


@pytest.mark.parametrize(
    ("where", "other"),
    [
        (Where(boundaries=frozenset({"cloud"})), HOME),
        (Where(providers=frozenset({"openai"})), Labels("cloud", "anthropic", "us", DAY, True)),
        (Where(regions=frozenset({"us"})), Labels("cloud", "openai", "eu", DAY, True)),
        (Where(contracts=frozenset({"baa"})), Labels("cloud", "openai", "us", DAY - 1, True)),
        (Where(contracts=frozenset({"baa"})), Labels("cloud", "openai", "us", None, True)),
        (Where(contracts=frozenset({"baa", "zero_retention"})), Labels("cloud", "openai", "us", DAY, False)),
    ],
)
def test_a_verdict_is_a_function_of_the_targets_labels(where: Where, other: Labels) -> None:
    ruling = judge(Ruleset([Rule("here", "block", target=where)]), "date")
    assert ruling.on(PARTNER).rule == "here"
    assert ruling.on(other).action == "allow"


def test_an_agreement_stops_counting_by_itself() -> None:
    rules = Ruleset([Rule("under baa", "redact", found=frozenset({"phi"}), target=Where(contracts=frozenset({"baa"})))])
    on_its_last_day = judge(rules, "name", health=True, today=DAY)
    assert on_its_last_day.on(PARTNER).action == "redact"
    the_day_after = judge(rules, "name", health=True, today=DAY + 1)
    assert the_day_after.on(PARTNER) == Verdict(
        "keep_local", (finding("name"),), "default: name under health context stays local"
    )


def test_pii_is_any_identifier_and_phi_one_under_health_context() -> None:
    rules = Ruleset([Rule("phi", "block", found=frozenset({"phi"})), Rule("pii", "allow", found=frozenset({"pii"}))])
    assert judge(rules, "ssn", health=True).on(CLOUD).rule == "phi"
    assert judge(rules, "ssn").on(CLOUD).rule == "pii"
    assert judge(rules, "opaque", health=True).on(CLOUD).rule == "default: opaque"


def test_redaction_names_what_is_to_be_replaced() -> None:
    rules = Ruleset(
        [Rule("mail", "allow", found=frozenset({"email"})), Rule("rest", "redact", found=frozenset({"pii"}))]
    )
    ruling = judge(rules, "name", "email", "ssn", health=True)
    verdict = ruling.on(CLOUD)
    assert (verdict.action, verdict.redact) == ("redact", {"name", "ssn"})
    assert not verdict.allows("cloud") and verdict.allows("cloud", redacted=True) and verdict.allows("local")
    assert ruling.on(HOME).action == "keep_local"  # it gets the text as it is


def test_a_ruling_says_of_every_kind_what_may_be_done_with_it() -> None:
    """Also of one that comes up only when the rest is replaced."""
    rules = Ruleset([Rule("names", "redact", found=frozenset({"name"}), target=Where(boundaries=frozenset({"cloud"})))])
    ruling = judge(rules, "name", health=True)
    assert (ruling.over("name", CLOUD), ruling.over("ssn", CLOUD), ruling.over("opaque", CLOUD)) == (
        "redact",
        "keep_local",
        "keep_local",
    )
    assert ruling.over("name", Labels("partner")) == "keep_local"
    assert ruling.health and not judge(rules, "name").health


def test_law_01_one_finding_that_may_not_be_redacted_keeps_all_at_home() -> None:
    rules = Ruleset([Rule("names", "redact", found=frozenset({"name"}))])
    assert judge(rules, "name", "ssn", health=True).on(CLOUD).action == "keep_local"


def test_where_nothing_was_found_there_is_nothing_to_redact() -> None:
    verdict = judge(Ruleset([Rule("all", "redact")])).on(CLOUD)
    assert (verdict.action, verdict.rule) == ("allow", "all")


@pytest.mark.parametrize("action", ["allow", "redact"])
def test_law_08_no_rule_lets_out_what_was_not_scanned(action: Action) -> None:
    for rule in (Rule("all", action), Rule("failed", action, found=frozenset({"scan_failed"}))):
        verdict = judge(Ruleset([rule], opaque="allow"), "scan_failed").on(CLOUD)
        assert (verdict.action, verdict.rule) == ("keep_local", "default: not scanned")


def test_a_rule_may_be_stricter_over_what_was_not_scanned() -> None:
    verdict = judge(Ruleset([Rule("no", "block", found=frozenset({"scan_failed"}))]), "scan_failed").on(CLOUD)
    assert (verdict.action, verdict.rule) == ("block", "no")


def test_opaque_is_the_operators_choice() -> None:
    assert judge(Ruleset(opaque="allow"), "opaque").on(CLOUD).allows("cloud")
    assert judge(Ruleset(opaque="allow"), "opaque", "ssn").on(CLOUD).action == "keep_local"
    never = Ruleset([Rule("pictures never", "block", found=frozenset({"opaque"}))], opaque="allow")
    assert judge(never, "opaque").on(CLOUD).action == "block"
    redacting = Ruleset([Rule("all", "redact")])
    assert judge(redacting, "opaque", "ssn").on(CLOUD).action == "keep_local"  # a picture has no text to replace


def test_the_rule_named_does_not_depend_on_hashing() -> None:
    found = ["secret", "card", "ssn"]
    assert judge(Ruleset(), *found).on(CLOUD).rule == "default: secret stays local"
    assert judge(Ruleset(), *found[::-1]).on(CLOUD).rule == "default: ssn stays local"


def test_a_ruling_remembers_what_it_said_and_not_without_end() -> None:
    ruling = judge(Ruleset(), "ssn")
    assert ruling.on(CLOUD) is ruling.on(Labels("cloud"))
    for number in range(1000):
        ruling.on(Labels("cloud", region=str(number)))
    assert len(ruling._known) <= 64


def test_what_was_not_scanned_has_one_verdict() -> None:
    fixed = Fixed(Verdict("keep_local", rule="not scanned"))
    assert fixed.on(CLOUD) is fixed.on(HOME) is fixed.on(PARTNER)


# --- expressions -----------------------------------------------------------------------------------------------


def test_an_expression_says_what_a_table_cannot() -> None:
    rule = Rule("two kinds", "block", expression=Cel('size(found) >= 2 && target.boundary != "local"'))
    ruling = judge(Ruleset([rule]), "date", "email")
    assert ruling.on(CLOUD).action == "block" and ruling.on(HOME).action == "allow"
    assert judge(Ruleset([rule]), "date").on(CLOUD).action == "allow"


@dataclass(frozen=True)
class Broken:
    """An expression that cannot be evaluated."""

    def holds(self, names: object) -> bool | None:
        return None


@pytest.mark.parametrize(
    ("action", "decided"),
    [("block", "block"), ("keep_local", "keep_local"), ("allow", "keep_local"), ("redact", "keep_local")],
)
def test_law_01_an_expression_that_fails_opens_nothing(action: Action, decided: Action) -> None:
    assert judge(Ruleset([Rule("r", action, expression=Broken())]), "ssn").on(CLOUD).action == decided


# --- laws over any rules ---------------------------------------------------------------------------------------

kinds = st.sampled_from([*NAMES, *UNREAD])
words = st.frozensets(st.sampled_from(["a", "b"]), max_size=1)
wheres = st.builds(
    Where, st.frozensets(st.sampled_from(["local", "cloud"]), max_size=1), st.just(frozenset()), words,
    st.frozensets(st.sampled_from(["baa", "zero_retention"]), max_size=1),
)  # fmt: skip
rules = st.builds(
    Rule, st.sampled_from(["r1", "r2"]), st.sampled_from(["allow", "redact", "keep_local", "block"]),
    found=st.frozensets(kinds | st.sampled_from(["pii", "phi"]), max_size=3), tenants=words, keys=words,
    health=st.none() | st.booleans(), target=wheres, expression=st.none() | st.just(Broken()),
)  # fmt: skip
labels = st.builds(
    Labels, st.sampled_from(["local", "cloud", "partner"]), st.just("openai"), st.sampled_from(["", "a"]),
    st.none() | st.integers(DAY - 1, DAY + 1), st.booleans(),
)  # fmt: skip
facts = st.builds(
    Facts, tenant=st.sampled_from("ab"), key=st.sampled_from("ab"), health=st.booleans(), today=st.just(DAY)
)


@given(
    st.lists(rules, max_size=4), st.lists(kinds, max_size=4), facts, labels, st.sampled_from(["keep_local", "allow"])
)
def test_law_01_nothing_leaves_but_by_a_rule_that_speaks_of_it(
    given_rules: list[Rule], found: list[str], about: Facts, target: Labels, opaque: Action
) -> None:
    verdict = Ruleset(given_rules, opaque=opaque).judge([finding(kind) for kind in found], about).on(target)
    if target.boundary == "local" or not verdict.allows(target.boundary, redacted=True):
        assert verdict.action != "redact"
        return
    for kind in found:
        by_default = default(kind, about.health, opaque)[0] == "allow"
        by_rule = any(
            rule.action in ("allow", "redact") and rule.suits(about) and rule.speaks_of(kind, about.health)
            and rule.expression is None and rule.target.matches(target, DAY) and kind != "scan_failed"
            for rule in given_rules
        )  # fmt: skip
        assert by_default or by_rule
        if verdict.action == "redact" and kind not in verdict.redact:
            assert kind not in UNREAD or opaque == "allow" or by_rule


@given(st.lists(rules, max_size=4), st.lists(kinds, max_size=4), facts, labels)
def test_law_08_what_was_not_scanned_never_leaves(
    given_rules: list[Rule], found: list[str], about: Facts, target: Labels
) -> None:
    ruling = Ruleset(given_rules, opaque="allow").judge([finding(kind) for kind in [*found, "scan_failed"]], about)
    assert target.boundary == "local" or not ruling.on(target).allows(target.boundary, redacted=True)


def test_every_kind_has_a_family_and_policies_have_a_hash() -> None:
    assert set(FAMILY) == set(NAMES)
    assert policy_hash(b"") == "e3b0c44298fc1c149afbf4c8996fb924"  # SHA-256 of nothing (FIPS 180-4)
    assert policy_hash(b"a") != policy_hash(b"b")
