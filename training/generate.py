"""Training text with labels: templates filled with invented people, and the sets that may be trained on.

A sample is (text, [(start, end, label)], kind).  Labels: NAME, PLACE, FACILITY, ADDRESS, ORG, REGION.  Kind `clean`
means that nothing of it is NAME, PLACE, FACILITY or ADDRESS, whatever else it may be; spans labelled `?` are not
learned from.
"""

from __future__ import annotations

import json
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from people import World
from templates import CHAT, CLEAN, CLINICAL, NOTES, SCHOOL, WORDS

Sample = tuple[str, list[tuple[int, int, str]], str]

_GAP = re.compile(r"(?<=[a-z,.;:]) ")
_SLOT = re.compile(r"\{(\w+)\}")
_LABELS = {
    "NAME": "NAME", "GIVEN": "NAME", "LAST": "NAME", "FACILITY": "FACILITY", "BARE": "FACILITY", "TOWN": "PLACE",
    "ADDRESS": "ADDRESS", "STREETLINE": "ADDRESS", "org": "ORG", "region": "REGION", "facility": "ORG",
}  # fmt: skip
_CODE = [
    "value",
    "index",
    "parse",
    "node",
    "items",
    "result",
    "max_len",
    "get_user",
    "total",
    "data",
    "request",
    "buffer",
    "config",
    "handle",
    "list",
    "path",
    "run",
    "token",
    "count",
    "main",
    "state",
]


class Generator:
    """Fills templates.  Deterministic for one dice."""

    def __init__(self, lists: dict[str, Any], dice: random.Random) -> None:
        self.world = World(lists, dice)
        self._dice = dice
        self._words = {group: words.split("|") for group, words in WORDS.items()}
        split = lambda block: [t.replace("\\n", "\n") for t in block.strip().split("\n")]  # noqa: E731
        self._groups = [
            (split(g), w) for g, w in ((CLINICAL, 0.3), (NOTES, 0.2), (CHAT, 0.22), (SCHOOL, 0.03), (CLEAN, 0.25))
        ]

    def _slot(self, slot: str) -> str:
        d, w = self._dice, self.world
        if slot in self._words:
            return d.choice(self._words[slot])
        if slot == "date":
            return d.choice(
                (
                    f"{d.choice(self._words['month'])} {d.randint(1, 31)}{d.choice(('', '', 'th', 'st'))}, {d.randint(1950, 2026)}",
                    f"{d.randint(1, 12):02}/{d.randint(1, 28):02}/{d.randint(1950, 2026)}",
                    f"{d.randint(1950, 2026)}-{d.randint(1, 12):02}-{d.randint(1, 28):02}",
                    f"{d.randint(1, 28)} {d.choice(self._words['month'])} {d.randint(1990, 2026)}",
                    f"{d.choice(self._words['month'])} {d.randint(1, 28)}",
                )
            )
        if slot == "ref":
            return d.choice(
                (
                    "",
                    "",
                    f" (MRN: {self._slot('id')})",
                    f", MRN {self._slot('id')}",
                    f" (ID: {self._slot('id')})",
                    f", insurance ID {self._slot('id')}",
                    f" (Phone: {self._slot('phone')})",
                    f" MRN: #{self._slot('id')}",
                    f", SSN {d.randint(100, 999)}-{d.randint(10, 99)}-{d.randint(1000, 9999)}",
                )
            )
        if slot == "medword":
            made = d.choice(_STEMS) + d.choice(("", "", d.choice(_STEMS))) + d.choice(_ENDINGS)
            return made.title() if d.random() < 0.6 else made
        if slot == "id":
            return (
                d.choice(("", "", "AB-", "MRN-", "X", "CC-", "pol"))
                + str(d.randint(1000, 10**9))
                + d.choice(("", "", "", "JH", "-KL"))
            )
        if slot == "phone":
            return d.choice(
                (
                    f"({d.randint(200, 999)}) {d.randint(200, 999)}-{d.randint(1000, 9999)}",
                    f"{d.randint(200, 999)}-{d.randint(200, 999)}-{d.randint(1000, 9999)}",
                    f"+{d.randint(1, 99)} {d.randint(10**8, 10**10)}",
                )
            )
        simple = {
            "age": lambda: str(d.randint(1, 99)), "num": lambda: str(d.randint(2, 5000)), "year": lambda: str(d.randint(1960, 2026)),
            "end": lambda: d.choice(("?", "?", ".", "")),
            "email": lambda: f"{w.given().lower()}.{w.last().lower()}@{d.choice(('example.com', 'mail.org', 'hosp.net'))}".replace(" ", ""),
            "dose": lambda: f"{d.choice((5, 10, 20, 50, 100, 500))} mg {d.choice(('daily', 'BID', 'po', 'twice a day', 'qHS'))}",
            "ST": w.state,
            "code": lambda: d.choice(_CODE), "codecap": lambda: d.choice(_CODE).title().replace("_", ""),
            "jlabel": lambda: d.choice(("name", "patient", "patient_name", "fullName", "insured")),
            "NAME": w.name, "GIVEN": w.given, "LAST": w.last, "FACILITY": w.facility,
            "BARE": lambda: w.bare_facility() if d.random() < 0.6 else w.facility(),
            "TOWN": w.town, "ADDRESS": w.address, "STREETLINE": lambda: f"{d.randint(1, 9999)} {w.street()}",
            "acro": lambda: "".join(d.choice("ABCDEFGHIKLMNOPRSTUV") for _ in range(d.randint(2, 5))) + d.choice(("", "", "", "s", "-1",
            "2")), "last": w.last, "region": lambda: d.choice(w.regions), "facility": w.facility, "town": w.town,
        }  # fmt: skip
        return simple[slot]()

    def fill(self, template: str) -> tuple[str, list[tuple[int, int, str]]]:
        out: list[str] = []
        spans: list[tuple[int, int, str]] = []
        at = size = 0
        template = template.replace("{{", "\x01").replace("}}", "\x02")
        for match in _SLOT.finditer(template):
            before = template[at : match.start()]
            value = self._slot(match.group(1))
            if value.startswith(("St.", "VA ")) and before.endswith(" a "):
                value = value.strip()
            out += [before, value]
            size += len(before)
            label = _LABELS.get(match.group(1))
            if label:
                spans.append((size, size + len(value), label))
            size += len(value)
            at = match.end()
        out.append(template[at:])
        return "".join(out).replace("\x01", "{").replace("\x02", "}"), spans

    def sample(self) -> Sample:
        d = self._dice
        templates, _ = d.choices(self._groups, weights=[w for _, w in self._groups])[0]
        clean = templates is self._groups[-1][0]
        text, spans = self.fill(d.choice(templates))
        for _ in range(d.choice((0, 0, 1, 2))):
            more, other = self.fill(d.choice(templates))
            gap = d.choice((" ", "\n", "\n\n", "  "))
            spans += [(s + len(text) + len(gap), e + len(text) + len(gap), x) for s, e, x in other]
            text += gap + more
        if d.random() < 0.3:
            text, spans = self._cropped(text, spans)
        return self.worn((text, spans, "clean" if clean else "filled"))

    def _cropped(self, text: str, spans: list[tuple[int, int, str]]) -> tuple[str, list[tuple[int, int, str]]]:
        """A piece from the middle, so that beginnings of sentences are not leaned on; no span is cut."""
        d = self._dice
        first = d.randrange(len(text) // 2 + 1)
        last = d.randrange((len(text) * 3) // 4, len(text) + 1)
        for start, end, _ in spans:
            first = start if start < first < end else first
            last = end if start < last < end else last
        kept = [(s - first, e - first, x) for s, e, x in spans if s >= first and e <= last]
        return text[first:last], kept

    def renewed(self, sample: Sample) -> Sample:
        """Real text with other names in the places of its own; clean text with some put in anywhere."""
        text, spans, kind = sample
        d, w = self._dice, self.world
        out, at, size, moved = [], 0, 0, []
        if kind == "clean" and d.random() < 0.4:
            gaps = [m.end() for m in _GAP.finditer(text)]
            chosen = sorted(d.sample(gaps, min(len(gaps), d.choice((1, 1, 2, 3)))))
            values = [self._put_in() for _ in chosen]
            swaps = [
                (g, g, before, value, label, " ") for g, (before, value, label) in zip(chosen, values, strict=True)
            ]
            kind = "mixed"
        else:
            swaps = []
            for start, end, label in sorted(spans):
                value = text[start:end]
                if label == "NAME" and d.random() < 0.5:
                    value = w.name() if " " in value else d.choice((w.given(), w.last()))
                elif label == "PLACE" and d.random() < 0.3:
                    value = w.town()
                if start >= (swaps[-1][1] if swaps else 0):
                    swaps.append((start, end, "", value, label, ""))
        for start, end, before, value, label, after in swaps:
            out += [text[at:start], before, value, after]
            size += start - at + len(before)
            moved.append((size, size + len(value), label))
            size += len(value) + len(after)
            at = end
        out.append(text[at:])
        return self.worn(("".join(out), moved, kind))

    def _put_in(self) -> tuple[str, str, str]:
        d, w = self._dice, self.world
        roll = d.random()
        if roll < 0.62:
            return (
                d.choice(("", "", "", "", "by ", "with ", "for ", "and ", "to ", "Mr. ", "Dr. ", "called ", "(")),
                w.name(),
                "NAME",
            )
        if roll < 0.74:
            return d.choice(("", "at ", "seen at ", "treated at ", "from ", "visited ")), w.facility(), "FACILITY"
        if roll < 0.84:
            return d.choice(("in ", "from ", "near ", "lives in ", "")), w.town(), "PLACE"
        if roll < 0.9:
            return d.choice(("at ", "", "to ", "Address: ", "lives at ")), w.address(), "ADDRESS"
        return "", d.choice((self._slot("acro"), self._slot("medword"), self._slot("medword"))), "O"

    def worn(self, sample: Sample) -> Sample:
        """Case lost, letters swapped: as people write.  Lengths stay."""
        text, spans, kind = sample
        d = self._dice
        roll = d.random()
        if roll < 0.09:
            new = text.lower()
        elif roll < 0.14:
            new = text.upper()
        elif roll < 0.19:
            chars = list(text)
            for _ in range(max(1, len(chars) // 60)):
                i = d.randrange(len(chars) - 1) if len(chars) > 2 else 0
                if i and chars[i].isalpha() and chars[i + 1].isalpha():
                    chars[i], chars[i + 1] = chars[i + 1].lower(), chars[i].lower()
            new = "".join(chars)
        else:
            return sample
        return (new, spans, kind) if len(new) == len(text) else sample


_SETS: dict[str, dict[str, str]] = {
    "wnut17_train": {"person": "NAME", "location": "PLACE", "group": "ORG", "corporation": "ORG"},
    "wikigold": {"PER": "NAME", "LOC": "PLACE", "ORG": "ORG", "MISC": "?"},
    "btc_h": {"PER": "NAME", "LOC": "PLACE", "ORG": "ORG"},
    "meddocan_train": {
        "NOMBRE_SUJETO_ASISTENCIA": "NAME", "NOMBRE_PERSONAL_SANITARIO": "NAME", "TERRITORIO": "PLACE", "CALLE": "ADDRESS",
        "HOSPITAL": "FACILITY",
        "INSTITUCION": "FACILITY", "CENTRO_SALUD": "FACILITY", "PAIS": "REGION",
    },
}  # fmt: skip


_STEMS = [
    "angio",
    "cardi",
    "hepat",
    "nephr",
    "neur",
    "osteo",
    "derm",
    "gastr",
    "hem",
    "lip",
    "glyc",
    "thromb",
    "cyt",
    "fibr",
    "scler",
    "carb",
    "pred",
    "lor",
    "met",
    "sim",
    "val",
    "tel",
    "ome",
    "cef",
    "amo",
    "ritu",
    "beva",
    "nal",
    "pro",
    "dex",
    "keto",
    "flu",
    "chlor",
    "sulf",
    "pheno",
    "acet",
    "cyclo",
    "tetra",
    "meg",
    "micr",
    "myel",
    "lymph",
    "encephal",
    "por",
    "ther",
    "ano",
    "bi",
    "ket",
]
_ENDINGS = [
    "emia",
    "osis",
    "itis",
    "oma",
    "uria",
    "olol",
    "pril",
    "sartan",
    "statin",
    "azole",
    "mab",
    "nib",
    "idine",
    "amine",
    "amide",
    "azine",
    "afil",
    "cycline",
    "cillin",
    "mycin",
    "grel",
    "parin",
    "oxin",
    "sone",
    "olone",
    "vir",
    "gliptin",
    "cept",
    "tide",
    "imus",
    "opathy",
    "encephaly",
    "stasis",
    "crit",
    "lysis",
    "plasty",
    "taxia",
    "ectomy",
    "al",
    "ical",
    "graphic",
    "in",
    "ine",
    "ol",
    "ate",
    "ium",
    "ization",
    "genic",
    "oid",
    "ase",
    "ogram",
    "scopy",
    "metry",
]


def held_out(text: str) -> bool:
    """One text in two of each set is never trained on."""
    return crc32(text[:200].encode()) % 2 == 0


def natural(data: Path, regions: set[str]) -> Iterator[Sample]:
    """The sets under CC BY: names and places in tweets, Wikipedia, Spanish cases; requests and health pages without."""
    for name, labels in _SETS.items():
        for line in (data / "phi" / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            text = row["text"]
            if name != "meddocan_train" and held_out(text) and crc32(text.encode()) % 5 == 0:
                continue
            spans = []
            for span in row["spans"]:
                label = labels.get(span["label"])
                before = text[max(0, span["start"] - 2) : span["start"]]
                if label and ("@" in before or text[span["start"]] in "@#"):
                    label = "?"
                if label == "PLACE" and span["value"].lower() in regions:
                    label = "REGION"
                if label:
                    spans.append((span["start"], span["end"], label))
            for piece in range(0, len(text), 1500):
                part = [
                    (max(s - piece, 0), min(e - piece, 1500), x) for s, e, x in spans if s < piece + 1500 and e > piece
                ]
                yield text[piece : piece + 1500], part, "filled"
    for line in (data / "phi" / "negatives.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["set"] in ("medquad", "clinc") and not held_out(row["text"]):
            for piece in range(0, len(row["text"]), 1200):
                yield row["text"][piece : piece + 1200], [], "clean"


def code(limit: int) -> Iterator[Sample]:
    """Python's own library (PSF licence)."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    for path in files[:limit]:
        text = path.read_text("utf-8", "replace")
        for piece in range(2000, min(len(text), 20000), 1200):
            yield text[piece : piece + 1200], [], "clean"
