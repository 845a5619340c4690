"""Words and tables for people: what a configuration means, why a decision fell, what was spent.  Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engines.kinds import kind
from engines.ratecard import MICRO, MONTH, YEAR, RateCard, period_cost
from policies.conditions import parse, spoken
from policies.windows import words_of as in_words
from proxy.config_budgets import amount_words, budgets_of, words_of
from proxy.config_experiments import day_words
from proxy.config_redis import SQLITE

if TYPE_CHECKING:
    from proxy.config import Settings
    from proxy.config_experiments import ExperimentPart
    from proxy.config_parts import Cost, TargetWhen, When
    from proxy.state.keys import KeyRow

PICO = 1_000_000_000_000
_OPAQUE = {
    "keep_local": "so does what cannot be scanned",
    "allow": "what cannot be scanned may leave",
    "block": "what cannot be scanned is refused",
}


def meaning(settings: Settings) -> list[str]:
    """A configuration in words: which models go where, what may leave, what stops at which amount."""
    lines = []
    for name, engine in settings.engines.items():
        row = kind(engine.kind)
        where = "run by Spillway" if engine.managed else ", ".join(engine.replicas) or row.url or ""
        lines.append(f"engine {name}: {row.title}, {engine.boundary or row.boundary}, {where}")
        if engine.cost is not None:
            month = period_cost(card_of(engine.cost), MONTH, 0).total
            lines.append(f"engine {name}: costs {dollars(month)} a month when it is idle, all included")
    for public, entry in settings.models.items():
        if isinstance(entry, tuple):
            lines.append(f"model {public}: {', then '.join(_local_first(settings, entry))}")
        elif entry.route is True:
            lines.append(f"model {public}: its decisions choose; also {public}:cheap and {public}:best")
        else:
            route = entry.route
            large = f"from {route.long_at} tokens, code or tools to {', '.join(route.large)}"
            lines.append(f"model {public}: short and plain prompts to {', '.join(route.small)}; {large}")
    if not settings.models:
        lines.append("models: each engine's models under their own names, local first")
    lines += [
        f"route {route.name}: {route.description} ({len(route.utterances)} utterances)" for route in settings.routes
    ]
    if settings.routes and (second := settings.routing.second) is not None:
        lines.append(
            f"routes: where the first stage is unsure, MiniLM is asked, of at most {100 * second.share:g} % of the prompts, and "
            f"waited for {1000 * second.deadline:g} ms at most"
        )
    lines += _decisions(settings)
    lines += [_experiment(part) for part in settings.experiments]
    lines += [f"rule {rule.name}: {condition(rule.when)}: {rule.action}" for rule in settings.compliance.rules]
    for name, tenant in settings.compliance.tenants.items():
        if tenant.context is not None:
            lines.append(f"tenant {name}: every request counts as under {tenant.context} context")
        if tenant.purpose:
            lines.append(f"tenant {name}: its requests are for {tenant.purpose}")
    lines.append(
        "default: numbers that were issued to somebody and secrets stay local; so do names, contacts, places and dates under"
        f" health context; {_OPAQUE[settings.compliance.opaque]}"
    )
    for budget in budgets_of(settings):
        lines.append(words_of(budget, in_words(budget.window), amount_words(budget.unit, budget.limit)))
    if settings.budgets and settings.state.store != SQLITE:
        then = "stops" if settings.state.on_failure == "stop" else "goes on, and is settled later"
        lines.append(
            f"budgets: in {settings.state.store}, shared by every replica that names it as {settings.state.redis.prefix}; "
            f"while it cannot be asked, cloud spending {then}"
        )
    if not settings.budgets and any(
        (e.boundary or kind(e.kind).boundary) != "local" for e in settings.engines.values()
    ):
        lines.append("budget: none; cloud spending has no limit here")
    lines += _captures(settings)
    lines += _remembered(settings)
    lines += _log(settings)
    lines.append(
        f"keys: {len(settings.keys)} in the configuration, more with `spillway keys`; with none at all, only this host is served"
    )
    return lines


def _log(settings: Settings) -> list[str]:
    """What happens when the log cannot be written, and who else has its checkpoints."""
    audit = settings.audit
    home = "so is everything else" if audit.local == "durable" else f"local requests go on for {_span(audit.may_lag)}"
    leaves = "is kept local where it can be" if audit.on_failure == "keep_local" else "is refused"
    lines = [f"log: in {audit.dir}; while it cannot be written, what would leave {leaves}, and {home}"]
    for witness in audit.witness:
        if witness.s3 is not None:
            lock = "" if witness.s3.lock == "none" else f", each locked for {_span(witness.s3.retain)}"
            where = f"the bucket {witness.s3.bucket}{lock}"
        else:
            where = witness.directory or (f"POST to {witness.webhook.url}" if witness.webhook is not None else "")
        lines.append(f"witness {witness.name}: the newest checkpoints every {_span(witness.every)} to {where}")
    if not audit.witness:
        lines.append(
            "witness: none; whoever owns the log's key could rewrite it, unless its checkpoints are kept elsewhere"
        )
    return lines


def _span(seconds: float) -> str:
    """Seconds in the largest unit that has a whole number of them."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {unit if count != 1 else unit[:-1]}"
    return f"{seconds:g} s"


_OTHERWISE = {"others": "then the model's others", "refuse": "else refused", "wait": "waiting for a place"}


def _decisions(settings: Settings) -> list[str]:
    """Decisions in the order in which they are asked."""
    lines = []
    for part in sorted(settings.decisions, key=lambda part: -part.priority):
        whose = "every routed model" if part.models is None else " or ".join(part.models)
        when = spoken(parse(part.when)[0])
        lines.append(f"decision {part.name}: {whose}, {when}: {', then '.join(part.use)}; {_OTHERWISE[part.otherwise]}")
        if part.escalate is not None:
            up = part.escalate
            lines.append(
                f"decision {part.name}: its answers are read before they go out; doubtful ones, {100 * up.share:g} % at the most, go up to"
                f" {', then '.join(up.to)}"
            )
    if settings.routing.default:
        lines.append(f"decision default: {', then '.join(settings.routing.default)}")
    return lines


_UNITS = {"key": "keys", "application": "applications", "user": "users", "session": "sessions", "request": "requests"}


def _experiment(part: ExperimentPart) -> str:
    """What an experiment does with whose requests, and what it is judged on."""
    when = f", {spoken(parse(part.when)[0])}" if part.when else ""
    lines = f"experiment {part.name}: "
    if part.shadow is not None:
        shadow = part.shadow
        whose = f" for {' or '.join(part.models)}" if part.models else ""
        answered = f" that {shadow.source} answers" if shadow.source else ""
        cap = f", up to {dollars(shadow.cap)} a month" if shadow.cap is not None else ""
        compared = f"; answers are compared as {shadow.compare}" if shadow.compare else ""
        if shadow.judge:
            compared = f"; {shadow.judge} judges which answer is better"
        lines += f"{shadow.share * 100:g}% of requests{whose}{answered}{when} are copied to {shadow.to} as well{cap}{compared}"
    if part.split is not None:
        split = part.split
        days = [
            f"{phase.share * 100:g}% from {day_words(phase.since)}" for phase in split.phases if phase.since is not None
        ]
        number = split.phase or 1
        phase = (
            f"phase {number} of {len(split.phases)}, {split.phases[number - 1].share * 100:g}%"
            if not days
            else ", ".join(days)
        )
        lines += (
            f"{' or '.join(part.models or ())}{when}: {phase} of {_UNITS[split.by]} to {', then '.join(split.local)}, "
            f"the others to {', then '.join(split.api)}"
        )
    if part.metric is not None:
        lines += f"; judged on {part.metric}, within {part.margin}"
    return lines


def _captures(settings: Settings) -> list[str]:
    part = settings.audit.captures
    if part is None:
        return []
    what = f"{', '.join(part.parts)} kept encrypted" if part.parts else "nothing kept but commitments"
    whose = "of every request" if part.tenants is None else f"of requests of {' or '.join(part.tenants) or 'no tenant'}"
    where = "" if part.rules is None else f" that {' or '.join(part.rules) or 'no rule'} decided"
    else_ = "refused" if part.lost == "refuse" else "served, and recorded as lost"
    days = f"{part.keep / 86_400:g} days"
    return [f"captures: {what} {whose}{where} for {days}; what cannot be written is {else_}"]


def _remembered(settings: Settings) -> list[str]:
    part = settings.complexity.remember
    if part is None:
        return []
    whose = "" if part.tenants is None else f" of {' or '.join(part.tenants) or 'no tenant'}"
    found = "also where identifiers were found" if part.findings == "keep" else "but where identifiers were found"
    return [
        f"remembered: numbers of {100 * part.share:g} % of prompts{whose}, {found}, for {_span(part.keep)}; sealed, since they say"
        " much of a short text"
    ]


def card_of(part: Cost) -> RateCard:
    """The rate card of a configuration."""
    return RateCard(
        purchase=part.purchase,
        life_us=round(part.life_years * YEAR),
        residual=round(part.residual * MICRO),
        financing=round(part.financing * MICRO),
        watts_idle=part.watts.idle,
        watts_load=part.watts.load,
        pue=round(part.pue * MICRO),
        kwh=part.kwh,
        rent=part.rent,
        staff=part.staff,
        prefill_weight=round(part.prefill_weight * MICRO),
        prompt_speed=part.prompt_speed,
    )


def condition(when: When) -> str:
    """When a rule matches, in words."""
    health = {None: (), True: ("under health context",), False: ("without health context",)}[when.health]
    target = when.target
    of_target = [
        *(f"{what} {' or '.join(names)}" for what, names in _named(target, "boundary", "provider", "region")),
        *([f"{' and '.join(target.contract)} in force"] if target.contract else []),
    ]
    return " ".join(
        [
            f"{' or '.join(when.found) or 'anything'} found",
            *health,
            *(
                f"for {what} {' or '.join(names)}"
                for what, names in _named(when, "tenant", "application", "key", "surface", "model")
            ),
            *([f"towards a target of {', '.join(of_target)}"] if of_target else []),
            *([f"where {when.cel}"] if when.cel is not None else []),
        ]
    )


def _named(part: When | TargetWhen, *names: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(name, getattr(part, name)) for name in names if getattr(part, name)]


def _local_first(settings: Settings, targets: Sequence[str]) -> list[str]:
    """Candidates as they are tried: in order, local before cloud."""

    def leaves(target: str) -> bool:
        engine = settings.engines[target.partition("/")[0]]
        return (engine.boundary or kind(engine.kind).boundary) != "local"

    return sorted(targets, key=leaves)


def welcome(settings: Settings) -> list[str]:
    """What `serve` prints when it accepts requests: how to point the SDKs at it, with a line to paste."""
    host = settings.listen.host
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{settings.listen.port}"
    # Where public names are declared, no other name is known (404); else each engine's own are.
    names = list(settings.models) or [
        model for engine in settings.engines.values() for model in engine.models if model != "*"
    ]
    model = names[0] if names else "MODEL"
    ask = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
    return [
        "",
        f"Spillway serves on {url}",
        "",
        f"  OpenAI SDK      OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=none",
        f"  Anthropic SDK   ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY=none",
        f"  models          {', '.join(dict.fromkeys(names)) or 'whatever the engines take'}",
        "",
        f"  curl {url}/v1/chat/completions -H 'content-type: application/json' -d '{ask}'",
        "",
    ]


def decision_words(row: dict[str, Any]) -> str:
    """The decision of `explain`, for people."""
    lines = [f"model     {row['model']} on {row['surface']}, about {row['facts']['prompt_tokens']} tokens"]
    if row["facts"]["needs"]:
        lines.append(f"needs     {', '.join(row['facts']['needs'])}")
    lines.append(f"verdict   {row['action']} ({row['rule']})")
    for finding in row["findings"][:10]:
        lines.append(
            f"  found   {finding['type']} in {finding['path'] or 'the body'}, characters {finding['start']}-{finding['end']}"
        )
    lines.append(f"routing   {row['routing']}")
    if row["decided"] is not None:
        lines += _decided(row["decided"])
    for number, target in enumerate(row["ranked"], start=1):
        lines.append(f"  {number}.      {target}")
    for veto in row["vetoes"]:
        detail = f" ({veto['detail']})" if veto["detail"] else ""
        lines.append(f"  not     {veto['target']}: {veto['reason']}{detail}")
    if row["overflow"]:
        lines.append(f"overflow  {row['overflow']}")
    for experiment in row["experiments"] or ():
        lines.append(f"trial     {experiment['name']}: {_trial(experiment)}")
    if row["escalation"] is not None:
        lines += _escalation(row["escalation"])
    if not row["ranked"]:
        lines.append("nobody can answer it: the request would be refused")
    lines.append(f"policy    {row['policy']}, configuration {row['config']}; {row['assumed']}")
    return "\n".join(lines)


def _trial(row: dict[str, Any]) -> str:
    """What an experiment does with a request."""
    if "phase" not in row:
        return "has not begun"
    phase = f"phase {row['phase']}, {100 * row['share']:g}% of {_UNITS[row['by']]} local"
    if not row["takes"]:
        return f"is not about it ({phase})"
    if row["arm"] is not None:
        return f"{row['arm']} arm ({phase})"
    by = row["unit"] if row["unit"] != "request" else "request by itself"
    return f"either arm, drawn for each {by} ({phase})"


def _escalation(row: dict[str, Any]) -> list[str]:
    """What becomes of a doubtful answer."""
    if not row["held"]:
        lines = ["escalates  no: its answer goes out as it comes"]
    else:
        lines = [
            f"escalates  a doubtful answer goes up to {', then '.join(row['to'])}: {100 * row['share']:g} % of any {row['window']:,} at the most"
        ]
    known = row["calibrated"]
    by = f"from percentile {row['threshold']:g} of {known:,} answers" if known else "plain faults alone (uncalibrated)"
    lines.append(f"  doubt   {by}")
    return lines + [f"  not up  {veto['target']}: {veto['reason']}" for veto in row["vetoes"]]


def _decided(row: dict[str, Any]) -> list[str]:
    """Which decision matched, what it was told, and what weighed most."""
    lines = [f"decision  {row['matched'] or row['rule']}, in {row['us']:.0f} us"]
    lines += [f"  not     {one['decision']}: only for {one['does_not_hold']}" for one in row["rejected"]]
    if row["fault"]:
        lines.append(f"  fault   {row['fault']}: the default holds")
    lines += [f"  read    {name}: {value}" for name, value in row["signals"].items()]
    about = row["about"]
    if about is not None:
        best = ", ".join([f"{one['route']} {100 * one['probability']:.0f} %" for one in about["best"]])
        near = about["nearest"]
        lines.append(f"  about   {best}; margin {100 * about['margin']:.0f} %, scope {about['scope']:+.2f}")
        lines.append(f"  like    {near['route']}, utterance {near['utterance']} (likeness {near['likeness']:.2f})")
        second = f"; {about['second_stage']}" if about["second_stage"] else ""
        lines.append(f"  by      the {about['stage']} stage{second}")
        lines += _weighed(f"for {about['best'][0]['route']}", about["contributions"])
    if row["complexity"] is not None:
        lines += _complexity(row["complexity"])
    lines += [f"  model   {name.replace('_', ' ')} {hash_[:16]}" for name, hash_ in row["classifiers"].items()]
    return lines


def _complexity(row: dict[str, Any]) -> list[str]:
    if row["calibrated"] is None:
        return ["  gain    uncalibrated: no decision matches by it"]
    verdict = "" if row["strong_from"] is None else f"; the large model from {row['strong_from']:.0f}"
    return [
        f"  gain    {row['score']:+.3f}: percentile {row['percentile']:.1f} of the traffic{verdict}",
        f"  scale   calibrated on {row['calibrated']:,} prompts on {row['calibrated_on']}, learnt from {row['labels']:,} labels",
        *[f"  drift   {slot}: {what}" for slot, what in row["drift"].items()],
        *_weighed("for the gain", row["contributions"]),
    ]


def _weighed(what: str, parts: Sequence[dict[str, Any]]) -> list[str]:
    """The largest contributions, of which a score is the sum."""
    return [f"  weighs  {part['amount']:+.3f} {what}: {part['of']}" for part in parts]


def keys_table(rows: Sequence[KeyRow]) -> str:
    """Keys as an aligned table."""

    def day(at: int | None) -> str:
        return "" if at is None else datetime.fromtimestamp(at, UTC).date().isoformat()

    head = ("id", "name", "organisation", "project", "models", "boundaries", "created", "expires", "revoked")
    body = [
        (row.id, row.name, row.organisation, row.project, "all" if row.models is None else ",".join(row.models),
         "all" if row.boundaries is None else ",".join(row.boundaries), day(row.created), day(row.expires), day(row.revoked))
        for row in rows
    ]  # fmt: skip
    return table(head, body, numbers=False)


def table(head: Sequence[str], body: Sequence[Sequence[str]], *, numbers: bool = True, names: int = 1) -> str:
    """Columns that line up: names, which are the first so many, to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (head, *body)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i < names or not numbers else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), *(line(row) for row in body)])


def dollars(amount: int) -> str:
    """Pico-dollars for people: cents for large amounts, more places for small ones."""
    value = abs(amount) / PICO
    sign = "-" if amount < 0 else ""
    return f"{sign}${value:,.2f}" if value >= 1 or amount == 0 else f"{sign}${value:.6f}"


def instant(at: int) -> str:
    """Microseconds since the epoch as people write a time, in UTC."""
    return datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
