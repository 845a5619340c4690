"""Over-action on texts without identifiers, and recall by kind, by type and by hiding form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sets import BENIGN, TRAINED_WHOLE, Figure, Goal, Line, benign, rows, share, untrained
from subject import UNREAD, Subject
from surviving import NO_IDENTIFIERS, survives

from compliance.model import Finding

COVERED = {
    "person": ("PERSON",),
    "address": ("STREET_ADDRESS", "ADDRESS"),
    "phone": ("PHONE_NUMBER",),
    "card": ("CREDIT_CARD",),
    "id": ("US_SSN", "US_DRIVER_LICENSE", "IBAN_CODE"),
}
"""The kinds of the coverage goal by the labels of the sets."""
BESIDE = {
    "email": ("EMAIL_ADDRESS",),
    "ip": ("IP_ADDRESS",),
    "zip": ("ZIP_CODE",),
    "town": ("GPE", "LOCATION"),
}
"""The same without a goal."""
OTHER_SETS = {
    "meddocan_train": (
        ("NOMBRE_SUJETO_ASISTENCIA", "NOMBRE_PERSONAL_SANITARIO"), ("CALLE",), ("FECHAS",), ("NUMERO_TELEFONO", "NUMERO_FAX"),
        ("CORREO_ELECTRONICO",), ("ID_SUJETO_ASISTENCIA", "ID_ASEGURAMIENTO", "ID_TITULACION_PERSONAL_SANITARIO", "ID_CONTACTO_ASISTENCIAL"),
        ("TERRITORIO",), ("HOSPITAL", "INSTITUCION"),
    ),
    "wikigold": (("PER",), ("LOC",)),
    "btc_h": (("PER",), ("LOC",)),
    "wnut17_train": (("person",), ("location",)),
}  # fmt: skip
"""Sets that nothing was built for: how general is it?"""
Show = Callable[[str], None]


def over_action(subject: Subject, show: Show) -> Iterator[Line]:
    """Hard negatives and benign corpora on which anything is done."""
    negatives = [row["text"] for row in rows("asq_phi") if not row["spans"]]
    acted = _acted(subject, ((text, "asq negative") for text in negatives), show)
    yield Line(
        "over-action", "ASQ-PHI hard negatives changed", share(sum(acted.values()), len(negatives)), Goal("<=", 1)
    )
    counts = Counter(row["set"] for row in benign())
    acted = _acted(subject, ((row["text"], row["set"]) for row in benign()), show)
    for name in BENIGN:
        goal = None if name == "medquad" else Goal("<=", 0.1)
        yield Line("over-action", f"{name} not allow", share(acted[name], counts[name]), goal)


def _acted(subject: Subject, texts: Iterable[tuple[str, str]], show: Show) -> Counter[str]:
    """By set: texts with an action other than `allow`, so those that redaction would change as well."""
    acted: Counter[str] = Counter()
    for text, name in texts:
        judged = subject.judge(text)
        if judged.action == "allow":
            continue
        acted[name] += 1
        found = [(f.type, text[f.start : f.end], f.confidence) for f in judged.findings]
        show(f"{name}: {found[:6]} in {text[:160]!r}")
    return acted


def prompts(subject: Subject, show: Show) -> Iterator[Line]:
    """The positive prompts of ASQ-PHI by text alone: beside the leak rates, which come from the wire."""
    count: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    positives = [row for row in rows("asq_phi") if row["spans"]]
    for row in positives:
        judged = subject.judge(row["text"])
        if not judged.health:
            lost["no health"] += 1
            show(f"asq no health context: {row['text']!r}")
        if judged.action == "allow":
            lost["allow"] += 1
            show(f"asq allow: {row['text']!r}")
        left = replaced(row["text"], judged.findings)
        survived = 0
        for span in row["spans"]:
            if span["value"] in NO_IDENTIFIERS:
                continue
            count[span["label"]] += 1
            if survives(span["value"], left.encode(), [left]):
                survived = 1
                lost[span["label"]] += 1
                show(f"asq lost: {span['label']} {span['value']!r} in {left!r}")
        lost["any"] += survived
    group = "ASQ-PHI positives, by their text alone"
    yield Line(group, "no health context", share(lost["no health"], len(positives)))
    yield Line(group, "action allow", share(lost["allow"], len(positives)))
    yield Line(group, "a value is left after replacing", share(lost["any"], len(positives)), Goal("<=", 1))
    for label in sorted(count):
        yield Line(group, f"{label.lower()} left after replacing", share(lost[label], count[label]))


def replaced(text: str, findings: Iterable[Finding]) -> str:
    """`text` with a word in the place of everything that was found."""
    found = bytearray(len(text))
    for finding in findings:
        found[finding.start : finding.end] = b"\1" * (finding.end - finding.start)
    left = []
    for index, character in enumerate(text):
        if not found[index]:
            left.append(character)
        elif index == 0 or not found[index - 1]:
            left.append("[NAME_k7f2]")
    return "".join(left)


def coverage(subject: Subject, show: Show) -> Iterator[Line]:
    """Characters of each kind that are covered under health context."""
    for name in ("presidio_synth_v2", "presidio_generated_large"):
        covered, total = _characters(subject, name, {**COVERED, **BESIDE}, show)
        goal = Goal(">=", 95) if name == "presidio_synth_v2" else None
        hits, size = (sum(part[kind] for kind in COVERED) for part in (covered, total))
        yield Line(f"coverage: {name}", "characters of all five kinds", _part(hits, size), goal)
        for kind in (*COVERED, *BESIDE):
            wanted = goal if kind in COVERED else None
            yield Line(f"coverage: {name}", f"characters of {kind}", _part(covered[kind], total[kind]), wanted)
    for name, groups in OTHER_SETS.items():
        kinds = {"/".join(group).lower(): group for group in groups}
        covered, total = _characters(subject, name, kinds, show)
        group = f"coverage: {name}, {'names and places trained on' if name in TRAINED_WHOLE else 'rows not trained on'}"
        for kind in kinds:
            if total[kind]:
                yield Line(group, f"characters of {kind[:40]}", _part(covered[kind], total[kind]))


def _part(hits: int, size: int) -> Figure:
    """Characters of one value are not independent of each other: a share without an interval."""
    return Figure(100 * hits / size, f"{100 * hits / size:.1f} % of {size}") if size else Figure(None, "no rows")


def _characters(
    subject: Subject, name: str, kinds: dict[str, tuple[str, ...]], show: Show
) -> tuple[Counter[str], Counter[str]]:
    kind_of = {label: kind for kind, labels in kinds.items() for label in labels}
    covered: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for row in untrained(name):
        text = row["text"]
        found = subject.covered(text)
        for span in row["spans"]:
            kind = kind_of.get(span["label"])
            if kind is None:
                continue
            start, end = span["start"], span["end"]
            hits = sum(found[start:end])
            covered[kind] += hits
            total[kind] += end - start
            if hits < end - start:
                show(
                    f"{name} {kind} {hits}/{end - start}: {span['value']!r} after {text[max(0, start - 40) : start]!r}"
                )
    return covered, total


def labelled(subject: Subject, show: Show) -> Iterator[Line]:
    """Structured identifiers with a label: plain, in each hiding form, by type; valid or with a failed check."""
    found: Counter[tuple[str, str]] = Counter()
    count: Counter[tuple[str, str]] = Counter()
    for group, by_type, hit, row in _labelled(subject):
        for key in (("form", group), ("type", by_type)):
            count[key] += 1
            found[key] += hit
        if not hit:
            show(f"labelled {group} {by_type}: {row.get('text', row.get('value'))!r}")
    forms = sorted(name for part, name in count if part == "form" and name not in ("plain", "valid", "failed check"))
    plain = [("form", name) for name in ("plain", "valid", "failed check")]
    hidden = [("form", name) for name in forms]
    total = share(sum(found[key] for key in plain), sum(count[key] for key in plain))
    yield Line("labelled", "structured identifiers, plain", total, Goal(">=", 100))
    total = share(sum(found[key] for key in hidden), sum(count[key] for key in hidden))
    yield Line("labelled", "structured identifiers, every hiding form", total, Goal(">=", 99))
    for part, name in [*plain, *hidden]:
        yield Line("labelled: by form", name, share(found[part, name], count[part, name]))
    for part, name in sorted(key for key in count if key[0] == "type"):
        yield Line("labelled: by type, all forms", name.lower(), share(found[part, name], count[part, name]))


def _labelled(subject: Subject) -> Iterator[tuple[str, str, bool, dict[str, Any]]]:
    """(form, type, found, row)."""
    for row in rows("evasion_vectors"):
        if row["entity"] != "NAME":  # structured ones; names are measured above
            hit = _hit(subject, row["text"], row["start"], row["end"])
            yield row["variant"], row["entity"], hit, row
    for row in rows("checksum_vectors"):
        text = f"{row['context']}: {row['value']}"
        hit = _hit(subject, text, len(text) - len(row["value"]), len(text))
        yield "valid" if row["valid"] else "failed check", row["entity"], hit, row


def _hit(subject: Subject, text: str, start: int, end: int) -> bool:
    """Kept at home because of something in the value: a finding within it, or in a decoded form of its field."""
    judged = subject.judge(text)
    if judged.action == "allow":
        return False
    return any(
        f.type not in UNREAD and ((f.start < end and f.end > start) or f.start == f.end == 0) for f in judged.findings
    )
