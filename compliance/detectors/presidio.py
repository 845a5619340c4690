"""Microsoft Presidio as a detector: an AnalyzerEngine of `presidio-analyzer`, its entities under our names.

It is slow beside the detectors here (57 ms per KB with its patterns alone, measured on a dense line), and is asked only
where names and places are looked for: see `compliance.scan.Scanner`.  What it needs besides the package is a
spaCy model for names; without one only its patterns work, which is a plug-in of its own name.

Source of the entities: Presidio's documentation, "PII entities supported by Presidio".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from compliance.detectors.model import Span

LEAST_SCORE = 0.4
"""That of a telephone number.  Below it Presidio's shapes, without context, match nearly any number."""
MODELS = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_trf")
"""spaCy models, the first that is installed is taken."""

ENTITIES: Mapping[str, str | None] = {
    "PERSON": "name", "EMAIL_ADDRESS": "email", "EMAIL": "email", "PHONE_NUMBER": "phone",
    "ID": "record_id", "LOCATION": "place", "GPE": "place", "ADDRESS": "address",
    "DATE_TIME": "date", "AGE": "age", "URL": "url", "IP_ADDRESS": "ip", "MAC_ADDRESS": "mac", "CREDIT_CARD": "card", "IBAN_CODE": "iban",
    "CRYPTO": "account", "US_BANK_NUMBER": "account", "US_SSN": "ssn", "US_ITIN": "itin", "US_PASSPORT": "passport",
    "US_DRIVER_LICENSE": "licence", "MEDICAL_LICENSE": "dea", "US_NPI": "npi", "US_MBI": "mbi", "UK_NHS": "uk_nhs",
    "UK_NINO": "uk_nino", "UK_PASSPORT": "passport", "UK_VEHICLE_REGISTRATION": "plate", "ES_NIF": "es_nif", "ES_NIE": "es_nif",
    "IT_FISCAL_CODE": "it_cf", "IT_DRIVER_LICENSE": "licence", "IT_PASSPORT": "passport", "PL_PESEL": "pl_pesel", "AU_TFN": "au_tfn",
    "AU_MEDICARE": "au_medicare", "IN_AADHAAR": "in_aadhaar", "IN_PASSPORT": "passport", "IN_VEHICLE_REGISTRATION": "plate",
    "DE_TAX_ID": "de_tax", "CA_SIN": "ca_sin",
    # Nobody is identified by these: groups, firms, their numbers, numbers of machines.
    "UUID": None,     "NRP": None, "ORGANIZATION": None, "ORG": None, "IT_VAT_CODE": None, "AU_ABN": None, "AU_ACN": None, "IN_GSTIN": None,
}  # fmt: skip
"""Presidio's entities and our kinds; None: not taken.  What stands in neither is `UNKNOWN`."""
UNKNOWN = "certificate"
"""For entities of recognizers that somebody added, and other countries' numbers: it stays local whatever surrounds it."""

_A_DAY = re.compile(
    r"[0-9]{1,4}[-/. ]+[0-9]{1,2}(?:[-/. ]+[0-9]{1,4})?|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? ?[0-9]"
    r"|[0-9](?:st|nd|rd|th)?(?: of)? (?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
)
_OLD = re.compile(r"(?<![0-9])(?:9[0-9]|1[0-2][0-9])(?![0-9])")
_REFINED: Mapping[str, Callable[[str], object]] = {"date": _A_DAY.search, "age": _OLD.search}
"""Presidio calls `today`, `two weeks` and `1997` dates, and any age an age."""


class NotInstalled(ImportError):
    """The package or a model is missing; the message says what to install."""


class Analyzer(Protocol):
    """What is used of `presidio_analyzer.AnalyzerEngine`."""

    def analyze(self, text: str, language: str) -> list[Any]:
        """Results with `entity_type`, `start`, `end` (code points) and `score`."""
        ...


class Presidio:
    """Thread-safe as far as its engine is: AnalyzerEngine keeps nothing of a call."""

    def __init__(self, analyzer: Analyzer, *, language: str = "en") -> None:
        self._analyzer = analyzer
        self._language = language

    def find(self, text: str) -> list[Span]:
        """Spans in code points, in order."""
        spans = []
        for result in self._analyzer.analyze(text=text, language=self._language):
            kind = ENTITIES.get(result.entity_type, UNKNOWN)
            if kind is None or result.score < LEAST_SCORE or result.start >= result.end:
                continue
            refined = _REFINED.get(kind)
            if refined is None or refined(text[result.start : result.end]):
                spans.append(Span(kind, result.start, result.end, float(min(result.score, 1.0))))
        return sorted(spans, key=lambda span: (span.start, span.end))


def missing_package() -> str:
    """What to install for the patterns; "" where nothing is missing."""
    return "" if find_spec("presidio_analyzer") is not None else "is not installed: pip install 'spillway[presidio]'"


def missing() -> str:
    """What to install for names as well; "" where nothing is missing."""
    if missing_package() or _model() is not None:
        return missing_package()
    return f"has no spaCy model for names: python -m spacy download {MODELS[0]}; presidio-patterns does without"


def _model() -> str | None:
    return next((name for name in MODELS if find_spec(name) is not None), None)


def with_model() -> Presidio:
    """With the first spaCy model that is installed.  Raises `NotInstalled`; nothing is ever downloaded."""
    if missing():
        raise NotInstalled(f"presidio {missing()}")
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    part = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": _model()}]}
    return _with(NlpEngineProvider(nlp_configuration=part).create_engine())


def patterns_only() -> Presidio:
    """Its pattern recognizers alone, over words that nothing was learned about.  Raises `NotInstalled`."""
    if missing_package():
        raise NotInstalled(f"presidio {missing_package()}")
    import spacy
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    engine = SpacyNlpEngine()
    engine.nlp = {"en": spacy.blank("en")}  # what `load` would have put there, from a model that it would download
    return _with(engine)


def _with(engine: Any) -> Presidio:
    import tldextract
    from presidio_analyzer import AnalyzerEngine

    # Presidio asks it about every address that it finds, and at the first it would fetch a list of suffixes from the
    # network: the list that it brings along must do.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    return Presidio(AnalyzerEngine(nlp_engine=engine))
