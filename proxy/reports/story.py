"""One request in words: who asked for what, what was found, what was decided and why, and how it ended.  Pure.

Records are taken as they are stored, so that kinds which another part or a later version writes are told as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from proxy.meaning import dollars

Fields = Mapping[str, Any]
Rule = Callable[[str, str], str]
_REASONS = "boundary|unredactable|pseudonyms|unhealthy|capability|context|saturated|unpriced|untranslatable|decision|size|outranked|scan_failed"
_VETO = re.compile(rf"(.+?):({_REASONS})(?::(.*))?")
_WHY_NOT = {
    "boundary": "neither the rules nor the key let it go there",
    "unredactable": "it could not be redacted",
    "pseudonyms": "the map of pseudonyms could not be kept",
    "unhealthy": "it was not healthy",
    "capability": "it cannot do what was asked for",
    "context": "the prompt was too long for it",
    "saturated": "it was busy",
    "unpriced": "it has no price",
    "untranslatable": "the request has no form that it understands",
    "size": "another size of model was asked for",
    "decision": "the decision that matched left it out",
    "outranked": "another one came first",
}
_ENDINGS = {
    "completed": "the answer was whole",
    "failed": "it failed",
    "abandoned": "the client left",
    "interrupted": "Spillway was killed meanwhile: what became of it is not known",
}
_MARGIN = 12
_SHOWN = ("kind", "seq", "at", "request", "signature")


def story(
    request: str,
    records: Sequence[Fields],
    where: Sequence[str],
    rule: Rule = lambda policy, name: "",
    gone: Sequence[Fields] = (),
) -> str:
    """The whole story.  `where`: the logs and the sequences in them, a line each; `rule`: what a policy's rule says; `gone`:
    every record of an erasure and of captures that expired, the oldest first."""
    lines = [f"request {request}"]
    lines += _who(next((r for r in records if r["kind"] in ("decision", "refused")), {}))
    start = records[0]["at"] if records else 0
    for record in records:
        tell = _TOLD.get(record["kind"], _other)
        told = tell(record, start)
        if record["kind"] == "captured" and record["state"] == "kept":
            told += _removed(request, record, gone)
        says = rule(record.get("policy", ""), record.get("rule", "")) if record.get("rule") else ""
        if says:
            told.insert(next(n for n, line in enumerate(told) if line.startswith("  policy")), _line("", f"({says})"))
        lines += ["", *told]
    ended = {record["attempt"] for record in records if record["kind"] == "outcome"}
    for record in records:
        if record["kind"] == "decision" and record["attempt"] not in ended:
            lines += ["", f"attempt {record['attempt']} is open: how it ends is not recorded yet"]
    lines += ["", *[_line("log" if not number else "", words) for number, words in enumerate(where)]]
    return "\n".join(_printable(line) for line in lines)


def _line(name: str, words: str) -> str:
    return f"  {name.ljust(_MARGIN)}{words}"


def _who(record: Fields) -> list[str]:
    if not record:
        return []
    stream = ", streamed" if record.get("stream") else ""
    lines = [
        _line(
            "asked for",
            f"{record.get('model') or 'no model that could be read'} on {record.get('surface') or '-'}{stream}",
        )
    ]
    whose = [
        f"application {record['project']}" if record.get("project") else "",
        f"team {record['team']}" if record.get("team") else "",
        f"of {record['organisation']}" if record.get("organisation") else "",
        f"tenant {record['tenant']}" if record.get("tenant") else "",
        f"key {record['key']}" if record.get("key") else "no key",
    ]
    lines.append(_line("by", ", ".join(filter(None, whose))))
    people = [f"{what} {record[what]}" for what in ("actor", "subject") if record.get(what)]
    if people:
        lines.append(_line("pseudonyms", ", ".join(people)))
    if record.get("purpose"):
        lines.append(_line("purpose", record["purpose"]))
    if record.get("tags"):
        lines.append(_line("tags", ", ".join(record["tags"])))
    if record.get("trace"):
        lines.append(_line("trace", record["trace"]))
    return lines


def _at(record: Fields, start: int) -> str:
    when = datetime.fromtimestamp(record["at"] / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    later = (record["at"] - start) / 1000
    return f"{when}Z  +{later:,.1f} ms" if later < 600_000 else f"{when}Z"


def _decision(record: Fields, start: int) -> list[str]:
    place = ", ".join(filter(None, (record["boundary"], record.get("provider"), record.get("region"))))
    lines = [f"{_at(record, start)}  attempt {record['attempt']}: to {record['target']} ({place})"]
    if record.get("served") and record["served"] != record["target"].partition("/")[2]:
        lines.append(_line("as model", record["served"]))
    why = f"; it left home because the first choice there: {record['overflow']}" if record["overflow"] else ""
    lines.append(_line("because", f"{record['routing']}{why}"))
    if record.get("route"):
        lines.append(_line("about", record["route"] if record["route"] != "none" else "no route"))
    lines += [_line("read" if not n else "", one) for n, one in enumerate(record.get("signals", ()))]
    if record["boundary"] != "local":
        lines.append(_line("contract", record.get("contract") or "none on record"))
    lines += _judged(record)
    if record.get("redacted"):
        lines.append(_line("replaced", ", ".join(_counted(one) for one in record["redacted"])))
    if record["edits"]:
        lines.append(_line("edits", ", ".join(record["edits"])))
    if record["hold"]:
        lines.append(_line("held", f"{dollars(record['hold'])} on {', '.join(record['scopes']) or 'no budget'}"))
    return lines


def _judged(record: Fields) -> list[str]:
    """What was found, what was decided by which rule, and why not otherwise."""
    lines = [_line("found" if not n else "", found_words(one)) for n, one in enumerate(record["findings"])]
    if not lines:
        lines.append(_line("found", "nothing"))
    if record.get("health"):
        lines.append(_line("context", "health"))
    if record.get("detectors"):
        lines.append(_line("detectors", record["detectors"]))
    version = f", version {record['rule_version']}" if record.get("rule_version") else ""
    if record["action"]:
        lines.append(_line("decided", f"{record['action']} by rule {record['rule']!r}{version}"))
    lines.append(_line("policy", record["policy"]))
    lines += [_line("not" if not n else "", veto_words(one)) for n, one in enumerate(record["vetoes"])]
    return lines


def found_words(finding: str) -> str:
    """`ssn:2:messages[0].content:95:4-15,20-31` in words."""
    kind, number, *rest = finding.split(":")
    path, sure, places = (*rest, "", "", "")[:3]
    words = (
        f"{kind}{f' x {number}' if number != '1' else ''} in {path or 'the request, in pieces or beside its fields'}"
    )
    if places:
        words += f", characters {places.replace(',', ', ')}"
    return f"{words} ({sure} % sure)" if sure else words


def veto_words(veto: str) -> str:
    """`gpu/llama:saturated:3 in flight of 3` in words."""
    match = _VETO.fullmatch(veto)
    if match is None:
        return veto
    target, reason, detail = match.groups()
    words = f"{target}: {reason}, {_WHY_NOT.get(reason, reason)}"
    return f"{words} ({detail})" if detail else words


def _counted(one: str) -> str:
    kind, _, number = one.partition(":")
    return f"{kind} x {number}"


def _outcome(record: Fields, start: int) -> list[str]:
    error = f" ({record['error']})" if record["error"] else ""
    ending = record["ending"]
    lines = [
        f"{_at(record, start)}  attempt {record['attempt']} {ending}{error}: {_ENDINGS.get(ending, ending)}"
        + (f", status {record['status']}" if record["status"] else "")
    ]
    sent = (
        "the connection was never opened: nothing was sent"
        if not record["connect_us"] and ending != "interrupted"
        else ""
    )
    times = [
        f"waited {record['queue_us'] / 1000:,.1f} ms" if record["queue_us"] else "",
        f"first words after {record['first_us'] / 1000:,.1f} ms" if record["first_us"] else "",
        f"all in {record['total_us'] / 1000:,.1f} ms" if record["total_us"] else "",
        f"{record['bytes_in']:,} bytes in, {record['bytes_out']:,} to the client" if record["bytes_in"] else "",
    ]
    if sent:
        lines.append(_line("sent", sent))
    if any(times):
        lines.append(_line("took", ", ".join(filter(None, times))))
    cached = record["cache_read"] + record["cache_write_5m"] + record["cache_write_1h"]
    tokens = record["input"] + cached
    if tokens or record["output"] or record["cost"]:
        words = f"{tokens:,} tokens in{f', {cached:,} of them by a cache' if cached else ''}, {record['output']:,} out"
        words += f", {record['reasoning']:,} of them reasoning" if record["reasoning"] else ""
        lines.append(_line("metered", f"{words} ({record['quality']})"))
        lines.append(_line("cost", f"{dollars(record['cost'])} at {record['price'] or 'no price'}"))
    lines += [_line("answer had" if not n else "", found_words(one)) for n, one in enumerate(record["findings"])]
    return lines


def _refused(record: Fields, start: int) -> list[str]:
    lines = [f"{_at(record, start)}  refused: {record['code']}, status {record['status']}"]
    if record["policy"] and (record["action"] or record["vetoes"]):
        return [*lines, *_judged(record)]
    return lines


def _looked(record: Fields, start: int) -> list[str]:
    return [f"{_at(record, start)}  looked at by {record['actor']}, with {record['command']}"]


_STAYED = {
    "up": "it went up",
    "good": "it was good enough",
    "share": "the share of answers that may go up was spent",
    "budget": "no budget allowed it",
    "boundary": "neither the rules nor the key let the request go up",
    "attempts": "the request had no attempt left",
    "too_large": "it was too large to be held",
    "late": "it was held for as long as it may be",
    "unread": "it could not be read",
    "failed": "whoever was asked further up failed",
}


def _held(record: Fields, start: int) -> list[str]:
    whose = f"the answer of attempt {record['attempt']}" if record["attempt"] >= 0 else "no answer"
    lines = [f"{_at(record, start)}  {whose} was read before it went out: {_STAYED.get(record['why'], record['why'])}"]
    if record["attempt"] >= 0:
        scored = f"doubt at percentile {record['percentile'] / 100:.1f}" if record["calibrated"] else "uncalibrated"
        lines.append(_line("judged", f"{'doubtful' if record['doubtful'] else 'good'}, {scored}"))
    if record["fault"]:
        lines.append(_line("fault", record["fault"]))
    lines += [_line("by" if not n else "", one) for n, one in enumerate(record["contributions"])]
    if record["up"]:
        lines.append(_line("asked", record["up"]))
    if record["given"] >= 0:
        lines.append(_line("given", f"the answer of attempt {record['given']}"))
    return lines


def _captured(record: Fields, start: int) -> list[str]:
    attempt = f"{_at(record, start)}  attempt {record['attempt']}:"
    if record["state"] != "kept":
        why = f": {record['why']}" if record["why"] else ""
        return [f"{attempt} its capture was {record['state']}{why}"]
    cut = f"; cut at the limit: {', '.join(record['cut'])}" if record["cut"] else ""
    lines = [f"{attempt} what it said was kept, encrypted: {', '.join(record['parts']) or 'commitments alone'}{cut}"]
    whose = "the subject" if record["subject"] else f"tenant {record['tenant'] or '(none)'}"
    lines.append(_line("data key", f"{record['data_key']}, of {whose}"))
    marks = [(part, record[part]) for part in ("original", "sent", "answered") if record[part]]
    return [*lines, *[_line("committed" if not n else "", f"{part} {mark}") for n, (part, mark) in enumerate(marks)]]


def _removed(request: str, record: Fields, gone: Sequence[Fields]) -> list[str]:
    """What became of a capture afterwards."""
    whose = {"request": request, "subject": record["subject"], "tenant": record["tenant"]}
    erased = [
        one
        for one in gone
        if one["kind"] == "erased"
        and one["at"] >= record["at"]
        and one["value"]
        and whose.get(one["scope"]) == one["value"]
    ]
    for one in erased:
        if one["state"] == "done":
            return [_line("no more", f"erased on {_day(one)} by {one['actor']}, with {_all_of(one)}: {one['reason']}")]
    expired = [one for one in gone if one["kind"] == "captures_expired" and record["at"] < one["before"]]
    if expired:
        but = f", unless a hold kept it ({expired[0]['held']} were kept)" if expired[0]["held"] else ""
        return [_line("no more", f"removed on {_day(expired[0])}: older than captures are kept{but}")]
    if any(one["state"] == "begun" for one in erased):
        return [_line("no more", f"an erasure was begun on {_day(erased[-1])}, and its end is not recorded")]
    return []


def _day(record: Fields) -> str:
    return f"{datetime.fromtimestamp(record['at'] / 1e6, UTC):%Y-%m-%d %H:%M:%S}Z"


def _all_of(erased: Fields) -> str:
    return "this request alone" if erased["scope"] == "request" else f"all of this {erased['scope']}"


_STEPS = {
    "asked": "asked to read what it said",
    "approved": "approved that it is read",
    "declined": "declined that it is read",
    "read": "read what it said",
    "denied": "was refused a step towards reading it",
    "expired": "came too late to read it",
}


def _break_glass(record: Fields, start: int) -> list[str]:
    why = f": {record['why']}" if record["why"] else ""
    minutes = f", for {record['seconds'] // 60} minutes" if record["step"] in ("asked", "approved") else ""
    step = _STEPS.get(record["step"], record["step"])
    lines = [f"{_at(record, start)}  operator {record['by']} {step}{minutes}{why}"]
    lines.append(_line("reason", record["reason"]))
    if record["until"]:
        until = datetime.fromtimestamp(record["until"] / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
        lines.append(_line("until", f"{until} (UTC)"))
    return [*lines, _line("opening", f"{record['opening']}, account {record['actor']}")]


def _drawn(record: Fields, start: int) -> list[str]:
    chance = f"{record['propensity'] / 10_000:g} %"
    arm = "API" if record["arm"] == "api" else record["arm"]
    lines = [f"{_at(record, start)}  experiment {record['experiment']} drew the {arm} arm, of a chance of {chance}"]
    lines.append(_line("drawn by", f"{record['unit_kind']} {record['unit']}, in phase {record['phase']}"))
    why = record["excluded"]
    return lines + ([_line("left out", f"of the comparison, in either arm: {why}")] if why else [])


def _copied(record: Fields, start: int) -> list[str]:
    lines = [f"{_at(record, start)}  experiment {record['experiment']} drew it for a copy to {record['target']}"]
    lines.append(_line("copy", record["copy"] or f"not sent: {record['why']}"))
    if record["score"] >= 0:
        lines.append(_line("compared", f"{record['score'] / 10:g} % by {record['how']}"))
    elif record["copy"] and record["why"]:
        lines.append(_line("compared", f"no: {record['why']}"))
    return lines


def _measured(record: Fields, start: int) -> list[str]:
    whose = f"by key {record['key']}" if record["key"] else "without a key"
    return [f"{_at(record, start)}  feedback {whose}: {record['metric']} = {record['value']}"]


def _other(record: Fields, start: int) -> list[str]:
    """A record of a kind that has no words of its own."""
    lines = [f"{_at(record, start)}  {record['kind'].replace('_', ' ')}"]
    for name, value in record.items():
        if name in _SHOWN or value in ("", 0, [], False):
            continue
        words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        lines.append(_line(name if len(name) < _MARGIN else f"{name} ", words))
    return lines


_TOLD: Mapping[str, Callable[[Fields, int], list[str]]] = {
    "decision": _decision,
    "outcome": _outcome,
    "refused": _refused,
    "log_access": _looked,
    "captured": _captured,
    "judged": _held,
    "break_glass": _break_glass,
    "assigned": _drawn,
    "shadowed": _copied,
    "feedback": _measured,
}


def _printable(line: str) -> str:
    """A name that a configuration gave may hold what would move the cursor."""
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)
