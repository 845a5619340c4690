"""Is one person meant in a text, or are many, as in studies and in pages on diseases?

One Hyperscan pass over UTF-8 bytes.
"""

from __future__ import annotations

import re
from typing import Any

import hyperscan

from compliance.detectors.compiled import Shelf, database

_ONE_PERSON = (
    "year-old", "year old", "yr old", "yr-old", "y/o", "yo", "month-old", "week-old", "pt w/", "patient named",
    "patient like", "the patient is", "the patient has", "the patient,", "patient from", "mrn", "patient:",
    "patient name", "date of birth", "dob", "member id", "insurance id", "a patient who", "infant with", "newborn with", "toddler with",
    "a child with", "a man with", "a woman with", "pt has", "pt with", "paciente:", "patientin", "patient is a", "chart number", "pt was",
    "pt is", "pt seen", "pt from",
)  # fmt: skip
"""As words, and not in the middle of one: not `mrn` in `mRNA`, nor `pt was` in `TPT was`."""
_OURS = r"(?:my|our|this) patient[^a-z]"
_OUR_POPULATION = r"(?:my|our|this) patient[^a-z]{1,4}(?:population|group|cohort|satisfaction|safety|education|records)"
"""The patient at hand, unless many are meant."""
_MANY = (
    "patients were", "patients with", "patients who", "all patients", "participants", "cohort", "retrospective", "prospective", "randomi",
    "p <", "p<", "p =", "p=", "n =", "n=", "95% ci", "confidence interval", "odds ratio", "hazard ratio", "significant",
    "compared with", "compared to", "mean age", "median age", "sample of", "questionnaire", "subjects", "respondents", "we investigated",
    "we analy", "we evaluated", "we compared", "we performed", "we assessed", "we studied", "we measured",
    "were analy", "were included", "were enrolled", "were recruited", "were reviewed", "were randomly", "were treated", "were performed",
    "were measured", "were compared", "was performed", "was measured",
    "this study", "the study", "study was", "our study", "present study", "controls", "control group", "both groups", "two groups",
    "incidence", "prevalence", "are affected", "people with", "people affected", "multivariate", "regression", "outcomes", "aim of", "aimed to",
    "data from", "percentage of", "consecutive", "cross-sectional", "survey", "respectively", "mortality", "toxicity", "to determine",
    "was conducted", "were conducted", "we conducted",
    "data collection", "outcome measure", "baseline", "to investigate", "to assess", "to compare", "to evaluate",
)  # fmt: skip
_PEOPLE = (
    r"(?:patients|subjects|cases|women|men|children|infants|volunteers|adults|participants|persons|individuals|people|students"
    r"|samples|specimens|records)"
)
_TENS = r"(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:-[a-z]{3,5})?|hundred(?: and [a-z\-]{3,12})?"
_DONE = r"[a-z]{3,12}(?:ied|ted|sed|zed|red|ned|led|ded)|obtained|found"
_MANY_SHAPES = (
    rf"[^a-z0-9.,](?:\d{{2,3}}|\d{{1,3}},?\d{{3}}) (?:[a-z\-]{{3,20}} ){{0,3}}{_PEOPLE}[^a-z]",
    rf"[^a-z](?:{_TENS}) (?:[a-z\-]{{3,20}} ){{0,3}}{_PEOPLE}[^a-z]",
    rf"[^a-z](?:we (?:have )?[a-z]{{3,12}}ed|(?:was|were) (?:[a-z]{{3,14}}ly )?(?:{_DONE}))[^a-z]",
    r"\(\d{1,2}(?:\.\d{1,2})?%\)|\+/-|[^a-z](?:mean|median) ",
    r"[^a-z](?:rats|mice|rabbits|dogs|rodents|in vitro|in vivo|volunteers)[^a-z]",
    r"[^a-z](?:studies|hypothes[ei]s|literature|correlated|survival rates?|response rate|statistical(?:ly)?)[^a-z]",
)
"""The same with gaps: twenty people, what was done, shares, laboratory animals, statistics.

What was done, and a share, stand in a note on one patient as well: each kind counts once.
"""
_ENOUGH = 3
"""Different ones that make a text prose about groups."""
_ONCE = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_CASELESS
_EACH = hyperscan.HS_FLAG_CASELESS


def cues(text: str) -> tuple[bool, int]:
    """(is one person meant, how many different cues are there of prose about groups): one pass for both questions."""
    return _crowd().seen(text)


def many_meant(one: bool, many: int) -> bool:
    """Do these cues say that nobody is meant?"""
    return many >= _ENOUGH and not one


def one_person(text: str) -> bool:
    """Does the text speak of one person, and not only of many?"""
    return cues(text)[0]


def about_many(text: str) -> bool:
    """Is it prose about groups, as studies and pages on diseases are, in which nobody is meant?"""
    return many_meant(*cues(text))


class _Crowd:
    """The compiled cues.  Thread-safe: each pass takes its own scratch."""

    def __init__(self, shelf: Shelf | None) -> None:
        shapes = [_worded(cue) for cue in _ONE_PERSON] + [_OURS, _OUR_POPULATION] + [re.escape(cue) for cue in _MANY]
        shapes += list(_MANY_SHAPES)
        self._ours = len(_ONE_PERSON)
        flags = [_ONCE] * len(shapes)
        flags[self._ours : self._ours + 2] = [_EACH, _EACH]
        self._database = database([shape.encode("ascii") for shape in shapes], flags, shelf)
        self._scratches: list[Any] = []

    def seen(self, text: str) -> tuple[bool, int]:
        """(one person is meant, different cues of prose about groups).  RuntimeError where the pass failed."""
        data = b"\n%b\n" % text.encode("utf-8", "surrogatepass")  # so that every word has two borders
        counts = [0] * 4  # one person, ours, of them many, cues of groups
        scratch = self._scratches.pop() if self._scratches else hyperscan.Scratch(self._database)
        try:
            self._database.scan(data, match_event_handler=self._matched, context=counts, scratch=scratch)
        except hyperscan.error:
            raise RuntimeError("who is meant was not determined") from None
        finally:
            self._scratches.append(scratch)
        return counts[0] > 0 or counts[1] > counts[2], counts[3]

    def _matched(self, index: int, _start: int, _end: int, _flags: int, counts: list[int]) -> None:
        counts[0 if index < self._ours else min(index - self._ours + 1, 3)] += 1


_made: list[_Crowd] = []


def prepare(shelf: Shelf | None = None) -> None:
    """Load or compile the cues now: 0.1 s that no request should wait for."""
    _made[:] = [_Crowd(shelf)]


def _crowd() -> _Crowd:
    if not _made:
        prepare()
    return _made[0]


def _worded(cue: str) -> str:
    before = "[^a-z]" if cue[0].isalpha() else ""
    after = "[^a-z]" if cue[-1].isalpha() else ""
    return before + re.escape(cue) + after
