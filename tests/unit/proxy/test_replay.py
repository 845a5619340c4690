"""A replay, request by request: what records tell, what they do not, and what is then not guessed."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from outcomes import refused
from tests_records import decision, outcome

from compliance.records import Decision, Outcome
from engines.model import Operation, Request
from proxy.auth import Principal
from proxy.config import load
from proxy.past import Past, contract_of, shape_of, states_of
from proxy.recording import shape_of as written
from proxy.replay import Replayer, Untold
from proxy.replay_report import Report

AT = int(datetime.datetime(2026, 3, 4, 12, tzinfo=datetime.UTC).timestamp() * 1e6)
ENGINES: dict[str, Any] = {
    "home": {"kind": "vllm", "replicas": ["http://127.0.0.1:9"], "models": {"small": {"context": 500}, "big": {}, "eye": {"vision": True}}},
    "sky": {"kind": "openai", "key": {"env": "K"}, "boundary": "cloud", "models": {"gpt-4o": {}}, "contract": {"baa": {"until": "2026-06-30"}}},
    "claude": {"kind": "anthropic", "key": {"env": "K"}, "boundary": "cloud", "models": {"x": {}}},
}  # fmt: skip


def replayer(tmp_path: Path, *, percentile: Any = None, **config: Any) -> Replayer:
    whole = {
        "engines": ENGINES, "models": {"m": ["home/small", "sky/gpt-4o"]}, "audit": {"dir": str(tmp_path)},
        "state": {"dir": str(tmp_path)}, **config,
    }  # fmt: skip
    stored = {
        "h": Principal(key="k", name="app"),
        "l": Principal(key="l", name="home only", boundaries=frozenset({"local"})),
    }
    return Replayer(load(yaml.safe_dump(whole), {}, secrets=False), stored, percentile)


def past(*records: Any, **first: Any) -> Past:
    """One request: by default one attempt at home/small that completed."""
    made = Past("r", AT, [], {})
    fields = {
        "at": AT,
        "shape": "100 1 0",
        "target": "home/small",
        "routing": "candidates in order, local first",
        **first,
    }
    for record in records or (decision("r", **fields), outcome("r", input=90, output=10)):
        if isinstance(record, Decision):
            made.decisions.append(record)
        elif isinstance(record, Outcome):
            made.outcomes[record.attempt] = record
        else:
            made.refused = record
    return made


def untold(one: Replayer, request: Past) -> str:
    with pytest.raises(Untold) as found:
        one.replay(request)
    return found.value.reason


def test_the_shape_that_is_written_is_the_one_that_is_read() -> None:
    def request(raw: bytes, needs: set[str], operation: Operation = Operation.CHAT, **body: Any) -> Request:
        return Request("openai", operation, "m", False, raw, body, False, body.get("max"), 1, frozenset(needs))

    plain = written(request(b"x" * 404, {"chat"}, messages=[1, 2], max=7))
    assert plain == "101 2 7"
    tools = written(request(b"x" * 404, {"chat", "tools", "logprobs"}, messages=[1]))
    assert tools == "101 1 0 logprobs,tools"
    assert written(request(b"x" * 99_999, {"chat", "vision"}, messages=[1])) == "? 1 0 vision"
    assert written(request(b"x" * 40, {"embeddings"}, Operation.EMBEDDINGS, input="x")) == "10 0 0"
    from compliance.model import Verdict

    read = shape_of(decision("r", shape=tools), Verdict("allow"))
    assert (read.prompt_tokens, read.messages, read.max_output, read.has_tools) == (101, 1, None, True)
    assert read.needs == {"chat", "tools", "logprobs"}
    assert shape_of(decision("r", shape="? 1 0 vision"), Verdict("allow")).prompt_tokens == -1
    assert shape_of(decision("r"), Verdict("allow")).prompt_tokens == -1  # of an earlier version


def test_engines_stand_as_they_stood(tmp_path: Path) -> None:
    one = replayer(tmp_path)
    went = one.replay(past(target="sky/gpt-4o", boundary="cloud", vetoes=("home/small:unhealthy:no replica answers",)))
    assert (went.after.target, went.before) == ("sky/gpt-4o", went.before) and went.after.where == "cloud"
    assert states_of(past(vetoes=("ollama/llama3:8b:saturated:1 in flight of 1", "a/b:boundary"))) == {
        "ollama/llama3:8b": "saturated"
    }
    wider = replayer(tmp_path, models={"m": ["home/small", "home/big", "sky/gpt-4o"]})
    went = wider.replay(
        past(target="sky/gpt-4o", boundary="cloud", vetoes=("home/small:unhealthy:no replica answers",))
    )
    assert went.after.target == "home/big"  # that was no candidate: it is up
    busy = past(
        refused(
            "r",
            "no_eligible_target",
            surface="openai.chat",
            model="m",
            key="k",
            at=AT,
            shape="9 1 0",
            vetoes=("home/small:saturated:1", "sky/gpt-4o:boundary"),
        )
    )
    assert replayer(tmp_path, models={"m": ["home/small"]}).replay(busy).after.target == "home/small"  # it waits


@pytest.mark.parametrize("state", ["unredactable", "pseudonyms"])
def test_what_could_not_be_redacted_then_cannot_be_now(state: str, tmp_path: Path) -> None:
    rules = {"rules": [{"name": "r", "when": {"found": ["ssn"]}, "action": "redact"}]}
    one = replayer(tmp_path, compliance=rules, models={"m": ["sky/gpt-4o", "home/big"]}, decisions=[
        {"name": "all", "models": ["m"], "use": ["sky/gpt-4o"]}])  # fmt: skip
    found = {"findings": ("ssn:1:messages[0].content:100:0-11",), "target": "home/big"}
    assert one.replay(past(**found)).after.where == "cloud"
    assert one.replay(past(**found, vetoes=(f"sky/gpt-4o:{state}:words",))).after.where == "local"


def test_a_contract_holds_on_the_day_of_the_request(tmp_path: Path) -> None:
    rules = {"rules": [{"name": "baa", "when": {"found": ["ssn"], "target": {"contract": "baa"}}, "action": "allow"}]}
    one = replayer(tmp_path, compliance=rules, models={"m": ["sky/gpt-4o"]})
    ssn = ("ssn:1:messages[0].content:100:0-11",)
    assert one.replay(past(findings=ssn)).after.leaves == {"ssn": frozenset({"sky/gpt-4o"})}
    later = past(findings=ssn)
    later.decisions[0].at = AT + 200 * 86_400_000_000
    assert one.replay(later).after == type(one.replay(later).after)("refused", rule="no_eligible_target")
    told = decision("r", at=AT, contract="baa until 2026-06-30, zero_retention")
    assert contract_of(told) == (True, True)
    told.at = AT + 200 * 86_400_000_000
    assert contract_of(told) == (False, True)


def test_sizes_needs_and_keys_decide_as_they_would(tmp_path: Path) -> None:
    one = replayer(tmp_path)
    assert one.replay(past(shape="501 1 0", target="sky/gpt-4o", boundary="cloud")).after.target == "sky/gpt-4o"
    assert one.replay(past(shape="500 1 0")).after.target == "home/small"
    assert (
        replayer(tmp_path, models={"m": ["home/big", "home/eye"]}).replay(past(shape="? 1 0 vision")).after.target
        == "home/eye"
    )
    assert "size" in untold(one, past(shape="? 1 0 vision"))  # a context is compared with it
    only = past(shape="501 1 0", key="l", target="sky/gpt-4o", boundary="cloud")
    assert one.replay(only).after.where == "refused"
    priced = one.replay(
        past(decision("r", at=AT, target="home/small", shape="501 1 0"), outcome("r", input=1000, output=100))
    )
    assert priced.after.cost == 1000 * 2_500_000 + 100 * 10_000_000  # gpt-4o on that day: $2.50 and $10 a million
    nobody = past(decision("r", at=AT, target="home/small", shape="501 1 0"))
    assert one.replay(nobody).after.cost is None


def test_size_and_code_are_told_where_they_were_asked(tmp_path: Path) -> None:
    models = {"m": {"route": {"small": ["home/small"], "large": ["home/big"], "long_at": 300}}}
    one = replayer(tmp_path, models=models)
    assert one.replay(past(shape="400 1 0")).after.target == "home/big"
    assert one.replay(past(shape="100 1 0 tools")).after.target == "home/big"
    assert one.replay(past(routing="complexity: large (holds code)")).after.target == "home/big"
    assert (
        one.replay(past(routing="complexity: small (about 100 tokens, under 1000, plain)")).after.target == "home/small"
    )
    assert "code" in untold(one, past())


def test_what_cannot_be_told_is_not(tmp_path: Path) -> None:
    one = replayer(tmp_path)
    assert "model" in untold(one, past(model="~1234"))
    assert "key" in untold(one, past(key="gone"))
    assert "budget" in untold(one, past(routing="budget spent: local_only"))
    assert "first attempt" in untold(one, past(attempt=1))
    many = tuple([f"ssn:1:messages[{n}].content" for n in range(32)])
    assert "more was found" in untold(one, past(findings=many))
    drawn = past()
    drawn.drawn = True
    assert "experiment" in untold(one, drawn)
    scanned = "not scanned: every candidate is local"
    assert "not scanned" in untold(one, past(rule=scanned, action="keep_local"))
    home = replayer(tmp_path, models={"m": ["home/small"]})
    assert home.replay(past(rule=scanned, action="keep_local")).after.target == "home/small"
    copies = past(surface="shadow")
    assert "application" in untold(one, copies)


def test_refusals_that_no_policy_decides_stand_and_others_are_decided_again(tmp_path: Path) -> None:
    common = {"surface": "openai.chat", "model": "m", "key": "k", "at": AT, "shape": "50 1 0"}
    one = replayer(tmp_path)
    late = past(refused("r", "queue_timeout", **common))
    assert one.replay(late).after == one.replay(late).before
    assert "budgets are not replayed" in untold(one, past(refused("r", "budget_exceeded", **common)))
    broke = past(refused("r", "budget_exceeded", **common, policy=one.settings.policy_hash))
    assert one.replay(broke).after == one.replay(broke).before
    for code in ("model_not_found", "not_scannable"):  # nobody looked at it, or at all of it
        assert "before all of it was looked at" in untold(one, past(refused("r", code, **common)))
    blocked = past(refused("r", "policy_blocked", findings=("card:1:messages[0].content:100:0-16",), **common))
    assert one.replay(blocked).after.target == "home/small"
    block = {"rules": [{"name": "b", "when": {"found": ["card"]}, "action": "block"}]}
    assert replayer(tmp_path, compliance=block).replay(blocked).after.rule == "policy_blocked"
    assert (
        one.replay(past(refused("r", "policy_blocked", **{**common, "model": "other"}))).after.rule == "model_not_found"
    )


def test_signals_are_read_as_they_were_written_and_faults_recur(tmp_path: Path) -> None:
    routes = [
        {"name": name, "description": f"about {name}", "utterances": [f"{name} {n}" for n in range(5)]}
        for name in ("tea", "coffee")
    ]
    decisions = [
        {"name": "t", "models": ["m"], "when": {"route": "tea", "probability": {"over": 0.5}}, "use": ["home/big"]}
    ]
    config = {"routes": routes, "decisions": decisions, "routing": {"default": ["sky/gpt-4o"]}}
    one = replayer(tmp_path, **config)
    policy = one.settings.policy_hash
    told = {"policy": policy, "signals": ("route=tea", "probability=0.9")}
    assert one.replay(past(**told)).after.target == "home/big"
    assert one.replay(past(policy=policy, signals=("route=coffee", "probability=0.9"))).after.target == "home/small"
    failed = past(policy=policy, signals=("fault=t: route failed (RuntimeError)",))
    assert one.replay(failed).after.target == "sky/gpt-4o"
    slow = past(policy=policy, signals=("fault=route took longer than 50 ms",))
    assert one.replay(slow).after.target == "sky/gpt-4o"
    assert "probability or route" in untold(
        one, past(signals=("route=tea", "probability=0.9"))
    )  # under other routes, it may be
    scored = [{"name": "c", "models": ["m"], "when": {"complexity": {"over": 60}}, "use": ["home/big"]}]
    asked: list[str] = []

    def percentile(request: str) -> float | None:
        asked.append(request)
        return 70.0

    two = replayer(tmp_path, decisions=scored, percentile=percentile)
    assert (
        two.replay(past(policy=two.settings.policy_hash, signals=("complexity=59.9",))).after.target == "home/small"
        and not asked
    )
    assert two.replay(past()).after.target == "home/big" and asked == ["r"]
    unknown = past(policy=two.settings.policy_hash, signals=("complexity=unknown",))
    assert two.replay(unknown).after.target == "home/small"  # neither over nor under


def test_answers_that_were_read_go_up_again_only_under_the_same_option(tmp_path: Path) -> None:
    def decisions(**more: Any) -> list[dict[str, Any]]:
        return [{"name": "d", "models": ["m"], "use": ["home/small"], **more}]

    up = {"to": ["sky/gpt-4o"], "share": "10%"}
    one = replayer(tmp_path, decisions=decisions(escalate=up))
    first = decision(
        "r",
        at=AT,
        target="home/small",
        shape="9 1 0",
        decision="d",
        policy=one.settings.policy_hash,
        routing="decision: d",
    )
    second = decision(
        "r",
        at=AT,
        attempt=1,
        target="sky/gpt-4o",
        boundary="cloud",
        shape="9 1 0",
        routing="d: its answer was doubtful",
    )
    went = past(first, second, outcome("r", input=9, output=9), outcome("r", attempt=1, cost=70))
    assert (one.replay(went).before, one.replay(went).after.target) == (one.replay(went).after, "sky/gpt-4o")
    plain = replayer(tmp_path, decisions=decisions())
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / f"{one.settings.policy_hash}.json").write_bytes(one.settings.policy_material)
    after = plain.replay(went).after
    assert (after.target, after.where, after.cost) == ("home/small", "local", 0)
    more = replayer(tmp_path, decisions=decisions(escalate={**up, "share": "20%"}))
    assert "doubtful" in untold(more, went)
    assert "doubtful" in untold(more, past())


def test_a_tag_of_health_that_is_gone_leaves_the_context_unknown(tmp_path: Path) -> None:
    old = replayer(tmp_path, compliance={"tenants": {"clinic": {"context": "health"}}})
    (tmp_path / "policies").mkdir()
    name = old.settings.policy_hash
    (tmp_path / "policies" / f"{name}.json").write_bytes(old.settings.policy_material)
    new = replayer(tmp_path)
    assert "tagged" in untold(new, past(policy=name, tenant="clinic", health=True))
    assert new.replay(past(policy=name, tenant="lab", health=True)).after.target == "home/small"


def test_the_report_adds_up_and_tells_what_may_leave(tmp_path: Path) -> None:
    rules = {"rules": [{"name": "a", "when": {"found": ["ssn"]}, "action": "allow"}]}
    decisions = [{"name": "k", "models": ["m"], "when": {"keywords": ["x"]}, "use": ["sky/gpt-4o"]}]
    one = replayer(tmp_path, compliance=rules, decisions=decisions)
    report = Report(one)
    ssn = past(findings=("ssn:1:messages[0].content:100:0-11",))
    assert one.may_leave(ssn) == {"ssn"}
    report.not_told(ssn, untold(one, ssn), one.may_leave(ssn))
    other = replayer(
        tmp_path, compliance=rules, models={"m": ["claude/x"]}, prices={"claude/x": {"input": "$1/M", "output": "$2/M"}}
    )
    leaves = other.replay(ssn)
    report.add(ssn, leaves)
    row = report.row()
    assert (row["requests"], row["replayed"], row["moved"]) == (2, 1, 1)
    assert row["egress"]["newly"][0]["type"] == "ssn" and row["egress"]["may"][0]["requests"] == 1
    assert report.more_leaves and "NEWLY LEAVES" in report.text() and "may newly leave" in report.text()
    assert float(row["after"]["cost"]) == pytest.approx(90e-6 + 20e-6)
