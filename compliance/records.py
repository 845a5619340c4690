"""Records of the log: what was decided and how it ended, in names and numbers.  Never content.

A record is flat: integers, strings, booleans and tuples of strings (nothing that the collector has to look
at).  Its canonical form is compact JSON with keys in byte order, one record a line; the hash of a line is a
leaf of the log's tree.  Fields are declared in that order, so that encoding is a plain walk.  The last record
of each group has one more in its line, `seq_mac` (`compliance.tails`), which only opening a log looks at.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

NAME_LIMIT = 128
"""Characters of a name that a caller chose, as stored."""


class Record(Struct, kw_only=True, gc=False):
    """Base of all: `at` is microseconds since the epoch, `seq` the index in this log (set by the journal)."""


class Decision(Record, kw_only=True):
    """One attempt was decided.  Durable before the first byte goes to a target outside `local`."""

    action: str
    actor: str
    at: int
    attempt: int
    boundary: str
    capture: bool = False  # to be captured: a record `captured` says what became of it
    contract: str = ""  # what was agreed with who runs the target: baa until DAY, zero_retention
    decision: str = ""  # the operator's that matched
    detectors: str = ""  # which detectors looked, as `proxy.fingerprints` names them
    edits: tuple[str, ...]
    findings: tuple[str, ...]  # type:count:path, then :confidence:start-end,... where they are known; see `proxy.recording`
    health: bool = False  # under health context
    hold: int  # pico-dollars reserved
    key: str
    kind: str = "decision"
    model: str
    operation: str
    organisation: str
    overflow: str
    policy: str
    project: str
    provider: str = ""  # the kind of engine
    purpose: str = ""  # what this tenant's requests are for, by the operator's word
    redacted: tuple[str, ...] = ()  # kind:count, of what was replaced in the text that this attempt sends
    region: str = ""
    request: str
    request_class: str = ""  # as the client asked
    route: str = ""  # what it is about, where a decision asked: a route's name, or none
    routing: str
    rule: str
    rule_version: str = ""  # of the rule's text, or of the defaults
    scopes: tuple[str, ...]  # scope|window
    seq: int = -1
    served: str = ""  # the engine's own name of the model
    shape: str = ""  # tokens messages max_output needs, as `proxy.recording.shape_of` writes them
    signals: tuple[str, ...] = ()  # name=value, of those that decisions asked for; never text
    stream: bool
    subject: str = ""  # whose data it is, as a keyed pseudonym
    surface: str
    tags: tuple[str, ...] = ()  # name=value, as the client set them for reports; see `proxy.tags`
    target: str
    team: str
    tenant: str
    trace: str
    vetoes: tuple[str, ...]  # target:reason


class Outcome(Record, kw_only=True):
    """How one attempt ended: one line of the money ledger (law 4)."""

    at: int
    attempt: int
    audio_input: int = 0  # part of input, tokens; as the next of output
    audio_output: int = 0
    boundary: str
    bytes_in: int
    bytes_out: int
    cache_read: int
    cache_write_1h: int
    cache_write_5m: int
    committed: bool
    connect_us: int
    cost: int  # pico-dollars
    decode_us: int = 0  # as the engine itself reports it; 0: it does not
    ending: str  # completed, failed, abandoned, interrupted
    error: str
    findings: tuple[str, ...]  # of the answer
    first_us: int
    hold: int
    input: int
    key: str
    kind: str = "outcome"
    model: str
    organisation: str
    output: int
    prefill_us: int = 0  # as the engine itself reports it; 0: it does not
    price: str
    project: str
    quality: str
    queue_us: int
    reasoning: int
    request: str
    scopes: tuple[str, ...]
    seq: int = -1
    status: int
    target: str
    team: str
    tenant: str = ""
    total_us: int


class Refused(Record, kw_only=True):
    """A request that Spillway refused before, or instead of, an attempt."""

    action: str
    actor: str = ""
    at: int
    code: str
    detectors: str = ""
    findings: tuple[str, ...]
    health: bool = False
    key: str
    kind: str = "refused"
    model: str
    organisation: str
    policy: str
    project: str
    request: str
    rule: str
    rule_version: str = ""
    seq: int = -1
    shape: str = ""  # as of a decision
    status: int
    subject: str = ""
    surface: str
    team: str = ""
    tenant: str
    trace: str = ""
    vetoes: tuple[str, ...]


class Started(Record, kw_only=True):
    """A worker began to write this log: what it found, and what a crash before it may have lost."""

    actor: str = ""  # the account that it runs under
    at: int
    config: str = ""  # hash of the whole configuration
    cut_bytes: int  # of a torn last line
    detectors: str = ""
    instance: str
    interrupted: int  # decisions that had no outcome; each gets one after this record
    kind: str = "started"
    lost_window_us: int  # local-only requests of this last window may be missing; 0 after a clean stop
    pid: int
    policy: str
    seq: int = -1
    slot: str
    unauthenticated: int = 0  # records that were set aside, since the log's key did not vouch for them
    unsigned: int = 0  # records before this one that no checkpoint covered: a crash leaves a second of them
    unvouched: int = 0  # of these, such as an earlier version left, which vouched for none: taken over as they stood
    version: str


class Stopped(Record, kw_only=True):
    """A clean stop: nothing is missing."""

    at: int
    kind: str = "stopped"
    seq: int = -1
    slot: str


class KeyChanged(Record, kw_only=True):
    """A virtual key was made or revoked, and what it may do."""

    actor: str  # the account, as the operating system knows it
    at: int
    boundaries: tuple[str, ...] = ()  # none: all
    change: str  # created, revoked
    expires: int = 0  # seconds since the epoch; 0: never
    key: str
    kind: str = "key_changed"
    models: tuple[str, ...] = ()  # none: all
    name: str = ""
    organisation: str = ""
    project: str = ""
    seq: int = -1
    team: str = ""
    tenant: str = ""


class PolicyChanged(Record, kw_only=True):
    """A worker began under another policy or configuration than the one before; the texts are kept by their hashes."""

    actor: str
    at: int
    changed: tuple[str, ...]  # paths in the configuration, never values
    config: str
    config_before: str
    kind: str = "policy_changed"
    policy: str
    policy_before: str
    seq: int = -1
    version: str


class LogAccess(Record, kw_only=True):
    """Somebody looked into the log.  By which fields records were chosen is told by their names alone."""

    actor: str
    at: int
    begin: int = 0  # of the period that was asked for; microseconds since the epoch
    command: str  # search, show, export, verify, checkpoint, report disclosures, ...
    end: int = 0
    filters: tuple[str, ...] = ()
    found: int = 0  # records, or lines, that were shown
    kind: str = "log_access"
    request: str = ""  # the one that was looked at
    result: str = ""
    seq: int = -1


class CanaryRun(Record, kw_only=True):
    """Synthetic identifiers were tried on the rules: how many promises held, and which did not."""

    actor: str
    at: int
    broken: int
    canaries: int
    kind: str = "canary"
    live: bool  # through the running proxy
    policy: str
    problems: tuple[str, ...]  # surface, part, name, model: what was wrong; the first of them
    seed: int
    seq: int = -1
    unreached: tuple[str, ...]  # rules that decided over none of their canaries


class Attested(Record, kw_only=True):
    """A reviewer signed a period.  `signature` is Ed25519 over `spillway attestation` and a line end, then the record's
    canonical line without `at`, `seq`, `seq_mac` and `signature`."""

    actor: str
    at: int
    attempts: int  # of the period
    begin: int
    end: int
    kind: str = "attested"
    left: int  # attempts of these that went outside `local`
    refusals: int
    reviewer: str
    roots: tuple[str, ...]  # origin size root: the newest checkpoint of each log that the reviewer had before them
    seq: int = -1
    signature: str = ""  # base64
    signer: str  # reviewer: by a key of their own; instance: by the log's key, so that the name is only said
    signer_key: str  # base64 of the public key
    statement: str


class Captured(Record, kw_only=True):
    """What became of an attempt's capture; commitments are HMAC-SHA256 under a key that can be destroyed."""

    answered: str  # the commitment to what the engine answered, in hex; "" where nothing is kept
    at: int
    attempt: int
    cut: tuple[str, ...]  # parts that are longer than what is kept, and committed to
    data_key: str  # the id of the subject's or tenant's
    kind: str = "captured"
    original: str  # to what the client sent
    parts: tuple[str, ...]  # kept, encrypted
    request: str
    sent: str  # to what was sent to the engine
    seq: int = -1
    state: str  # kept, lost, erased (in the meantime)
    subject: str
    tenant: str
    why: str  # it was lost


class Judged(Record, kw_only=True):
    """An answer was to be read before it went out: what was made of it, whether it went further up, and which was given."""

    at: int
    attempt: int  # whose answer was read; -1: none was
    calibrated: bool  # by a scorer of the operator's own answers, too; else by what is plainly wrong alone
    contributions: tuple[str, ...] = ()  # feature=part of the score, the largest
    decision: str  # the operator's, whose option it is
    doubtful: bool
    fault: str  # what is plainly wrong with it, in words
    given: int  # the attempt whose answer the client got; -1: none
    held: int  # bytes
    held_us: int  # since the request came, until it was decided what becomes of the answer; 0: it was not judged
    kind: str = "judged"
    percentile: int  # of doubt, in hundredths of a percent; -1: not calibrated
    request: str
    seq: int = -1
    share: int  # of the latest answers that went up, this one included, in millionths
    target: str
    up: str  # the target that was asked further up; "" none
    why: str  # up, good, or why it stayed: share, budget, boundary, saturated, too_large, late, ...


class CapturesExpired(Record, kw_only=True):
    """Captures that were older than they are kept are gone, but for those under a hold."""

    at: int
    before: int  # microseconds since the epoch
    captures: int
    held: int  # records that a hold kept
    keys: int  # data keys that nothing needs any more
    kind: str = "captures_expired"
    records: int
    seq: int = -1


class Operator(Record, kw_only=True):
    """Who may ask for a capture, or approve that somebody else reads it."""

    actor: str  # the account on this host
    at: int
    by: str  # the operator who introduced this one; "" for the first three
    change: str  # added, removed
    kind: str = "operator"
    name: str
    public_key: str  # Ed25519, hex
    seq: int = -1
    signature: str  # of `by`, hex


class BreakGlass(Record, kw_only=True):
    """One step towards reading a capture, also one that was not granted.  Never content."""

    actor: str
    at: int
    by: str  # the operator
    kind: str = "break_glass"
    opening: str
    reason: str
    request: str
    seconds: int  # that are asked for
    seq: int = -1
    signature: str  # of `by`, hex: see `compliance.breakglass`
    step: str  # asked, approved, declined, read, denied, expired
    until: int  # microseconds since the epoch; of an approval, and what rests on it
    why: str  # it was denied


class HoldChanged(Record, kw_only=True):
    """A legal hold was placed or released."""

    actor: str
    at: int
    begin: int  # of a period, microseconds since the epoch; 0: it is none
    change: str  # placed, released
    end: int
    hold: str
    kind: str = "hold"
    reason: str
    scope: str  # subject, tenant, request, period
    seq: int = -1
    value: str  # of a subject, the pseudonym


class Erased(Record, kw_only=True):
    """Keys were destroyed: `begun` is durable before, `done` says what it came to; or a hold blocked it."""

    actor: str
    at: int
    captures: int
    features: int = 0  # requests of which numbers were kept to learn from
    hold: str  # that blocked it
    keys: int  # data keys destroyed
    kind: str = "erased"
    maps: int  # of pseudonyms
    reason: str
    records: int  # whose commitment keys are destroyed
    scope: str  # subject, tenant, request
    seq: int = -1
    state: str  # begun, done, blocked
    value: str


class Retention(Record, kw_only=True):
    """A sealed segment of a log was removed, because it was older than records are kept; its leaf hashes stay."""

    actor: str
    at: int
    before: int  # everything in it is older, microseconds since the epoch
    first: int  # sequence of its first record
    kind: str = "retention"
    last: int
    origin: str  # the log that it was of
    seq: int = -1
    since: int  # the time of its first record
    until: int  # of its last


class Correction(Record, kw_only=True):
    """What a vendor billed for a model over a period beyond what the ledger had of it: found by reconciliation.

    Amounts are pico-dollars, times microseconds since the epoch.
    """

    actor: str
    amount: int  # billed - booked: what the ledger is to have more; negative: less
    at: int
    begin: int
    billed: int
    booked: int  # by the attempts and earlier corrections
    cause: str  # price: the tokens agree; quantity: they do not
    end: int
    kind: str = "correction"
    model: str  # as the vendor calls it, without the day of its snapshot; "" for what is not billed by model
    seq: int = -1
    source: str  # api, or sha256: and the first 16 digits of what the files hold
    vendor: str  # engine kind: openai, anthropic


class BudgetAlert(Record, kw_only=True):
    """A threshold of a budget was reached, or its limit will be by the forecast.  Amounts are in the account's unit:
    pico-dollars, or the tokens or requests that follow `#` in its name."""

    at: int
    forecast: int  # at the window's end; 0: too early to say
    kind: str = "budget_alert"
    limit: int
    scope: str
    seq: int = -1
    settled: int  # over all workers
    threshold: str  # percent of the limit, or forecast
    window: str


class BudgetChanged(Record, kw_only=True):
    """An operator set another limit at run time, or took it back (`limit` -1: what the configuration says)."""

    actor: str
    at: int
    before: int  # -1: what the configuration says
    kind: str = "budget_changed"
    limit: int
    reason: str
    scope: str  # the account's name, with its unit
    seq: int = -1
    window: str  # the kind: month, r86400


class SlotRetired(Record, kw_only=True):
    """An operator said that a worker which shares budgets in Redis has stopped for good."""

    actor: str
    at: int
    kind: str = "slot_retired"
    reason: str
    seq: int = -1
    slot: str  # INSTANCE/slot-N


class Feedback(Record, kw_only=True):
    """What an application measured of one of its requests: a number or a yes or no, never text.  The last one of a metric
    holds; the earlier ones stay."""

    at: int
    key: str  # that gave it
    kind: str = "feedback"
    metric: str
    organisation: str
    project: str
    request: str  # the one that was measured
    seq: int = -1
    team: str
    tenant: str = ""
    value: str  # a number in decimal notation, true or false; see `feedback_number`


class Assigned(Record, kw_only=True):
    """A split experiment took a request; it stands before the request's decision."""

    arm: str  # local, api: as drawn, whatever served it then
    at: int
    excluded: str  # why it is not compared, the same for both arms: a veto's reason; "" where it is
    experiment: str
    key: str
    kind: str = "assigned"
    model: str
    organisation: str
    phase: int  # from 1
    project: str
    propensity: int  # of the arm that was drawn, in millionths
    request: str
    seq: int = -1
    team: str
    tenant: str = ""
    unit: str  # what was drawn by, as a keyed pseudonym
    unit_kind: str  # application, key, user, session, request


class Shadowed(Record, kw_only=True):
    """A shadow experiment drew a request, and what came of it.  Scores, never the answers."""

    at: int
    copy: str  # the request id of what was sent to the other target; "": nothing was
    experiment: str
    how: str  # the answers were compared: exact, json, number; "": they were not
    key: str
    kind: str = "shadowed"
    model: str
    organisation: str
    project: str
    propensity: int  # in millionths
    request: str
    score: int  # in thousandths: 1000, they agree; -1, they were not compared
    seq: int = -1
    target: str
    team: str
    tenant: str = ""
    why: str  # nothing was sent, or nothing compared


class ScorerPromoted(Record, kw_only=True):
    """A scorer that was learnt from one's own records passed the gate, and took the place of the one before.  Shares and
    measures are in millionths; what it decides begins with the next start of a worker, which is a record as well."""

    actor: str
    apgr: int  # held out
    at: int
    bytes: int  # of the file
    calibrated: int  # requests of the reference traffic
    change: str = "promoted"
    experiment: str  # whose draws the labels are from
    hash: str  # SHA-256 of the file, 32 hex digits of it
    hash_before: str  # "" for none
    high: int
    kind: str = "scorer"
    labels: int
    low: int  # the lower end of the interval
    metric: str  # the feedback's; "" where answers were compared
    option: str  # of the configuration's complexity: scorer, answers
    routes: int  # what each route's mean reaches; -1: no routes
    seq: int = -1
    strong_share: int
    words: int  # what the count of words reaches


AnyRecord = (
    Decision | Outcome | Refused | Started | Stopped | KeyChanged | PolicyChanged | LogAccess | CanaryRun | Attested
    | Captured | CapturesExpired | Judged | Operator | BreakGlass | HoldChanged | Erased | Retention | Correction
    | BudgetAlert | BudgetChanged | SlotRetired | ScorerPromoted | Feedback | Assigned | Shadowed
)  # fmt: skip

KINDS: dict[str, type[Record]] = {
    "decision": Decision,
    "outcome": Outcome,
    "refused": Refused,
    "started": Started,
    "stopped": Stopped,
    "key_changed": KeyChanged,
    "policy_changed": PolicyChanged,
    "log_access": LogAccess,
    "canary": CanaryRun,
    "attested": Attested,
    "captured": Captured,
    "judged": Judged,
    "captures_expired": CapturesExpired,
    "operator": Operator,
    "break_glass": BreakGlass,
    "budget_alert": BudgetAlert,
    "budget_changed": BudgetChanged,
    "slot_retired": SlotRetired,
    "scorer": ScorerPromoted,
    "hold": HoldChanged,
    "erased": Erased,
    "correction": Correction,
    "retention": Retention,
    "feedback": Feedback,
    "assigned": Assigned,
    "shadowed": Shadowed,
}
_encoder = msgspec.json.Encoder()
_decoders = {kind: msgspec.json.Decoder(cls) for kind, cls in KINDS.items()}
_kind = msgspec.json.Decoder(msgspec.defstruct("Kind", [("kind", str)]))


class UnknownRecord(ValueError):
    """A line that is no record of a known kind."""


def encode(record: Any) -> bytes:
    """The canonical line, without its line end."""
    return _encoder.encode(record)


def encode_all(records: Iterable[Any]) -> list[bytes]:
    """The canonical line of each, without line ends."""
    return list(map(_encoder.encode, records))


def decode(line: bytes) -> Any:
    """A record from its line; raises `UnknownRecord`."""
    try:
        return _decoders[_kind.decode(line).kind].decode(line)  # type: ignore[attr-defined]
    except (msgspec.DecodeError, KeyError) as error:
        raise UnknownRecord(f"not a record: {type(error).__name__}") from None


def feedback_number(value: str) -> float:
    """What a `Feedback` record's value is in sums: true is 1, false 0."""
    return 1.0 if value == "true" else 0.0 if value == "false" else float(value)


def bounded_name(name: str, limit: int = NAME_LIMIT) -> str:
    """A caller-chosen name as it may be stored: printable and bounded."""
    clean = name if name.isprintable() else "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
