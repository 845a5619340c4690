"""Words around names and places: titles, labels, what makes a name an eponym, what says that one person is meant."""

from __future__ import annotations

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


TITLES = _set(
    "mr mrs ms miss mx dr drs prof professor doctor nurse sir madam dame rev father sister officer sgt capt captain judge justice "
    "senator pt herr frau señor señora sr sra monsieur madame mme mlle dott dottoressa signor signora don doña uncle aunt"
)
"""Before a name, with or without a point."""

LABELS = (
    "patient:", "patient name:", "pt:", "pt name:", "name:", "full name:", "first name:", "last name:", "surname:", "named", "name is",
    "called", "patient", "patient,",
    "pt", "client:", "insured:", "subscriber:", "member:", "policyholder:", "signed:", "signed by", "attending:", "physician:", "provider:",
    "surgeon:", "contact:",
    "next of kin:", "nombre:", "apellidos:", "paciente:", "médico:", "nom:", "prénom:", "nachname:", "vorname:", "nome:", "sincerely,",
    "regards,", "dear", "i'm", "i am",
    "seen by", "treated by", "referred by", "dictated by", "reviewed by", "pcp:", "guarantor:", "employee:", "beneficiary:", "user:",
    '"name": "', '"patient": "', '"patient_name": "', '"family": "', '"given": ["', "patients like", "patient like", "similar to",
    "regarding", "considering",
)  # fmt: skip
"""What stands right before a name, in small letters."""

_THINGS_TOO = ("called", "named", "name is")
_PERSONS = ("patient called", "patient named", "pt named", "man named", "woman named", "child named", "boy named", "girl named", "male named",
            "female named")  # fmt: skip


def labels_a_name(context: str, listed: bool) -> bool:
    """Does a label of names stand right before it?  Proteins and drugs are called something, too."""
    if not ends_with(context, LABELS):
        return False
    return listed or not context.endswith(_THINGS_TOO) or context.endswith(_PERSONS)


EPONYM_NOUNS = _set(
    "disease syndrome sign signs reflex test tests score scores scale criteria criterion index lymphoma palsy classification phenomenon "
    "anomaly tumor tumour sarcoma thyroiditis esophagus maneuver manoeuvre method technique procedure operation equation formula law rule "
    "theorem regression model models inventory questionnaire triad tetralogy fracture contracture virus bacillus cell cells body bodies "
    "stain correction coefficient correlation rank plot plots curve curves estimator distribution process chain chains transform hypothesis "
    "stage staging grade grading catheter tube forceps position node nodes duct gland canal ligament trial study heart study's risk point "
    "deficiency ataxia chorea dementia nephropathy myopathy dystrophy neuropathy encephalitis arteritis anemia anaemia purpura effect paradox "
    "hernia ulcer line lines sinus reaction assay ratio prize award act street avenue university college school foundation institute "
    "inequality conjecture lemma algorithm series number numbers constant unit units estimate estimates analysis "
    "membrane membranes type types variant variants equations formulas rats rat mice mouse rabbits dogs strain blue"
)
"""After a surname: it names a thing.  `Addison's disease`, `Framingham score`, `Cox regression`."""

FACILITY_WORDS = _set(
    "hospital hospitals clinic clinics clinical medical health healthcare infirmary hospice pharmacy sanatorium center centre presbyterian "
    "methodist klinikum krankenhaus clínica clinique hôpital ospedale urgent rehabilitation rehab dialysis oncology pediatrics cardiology "
    "neurology orthopedics dental physicians memorial general practice surgery institute med"
)
QUALIFIERS = _set(
    "presbyterian methodist general memorial medical health urgent university regional community clinical mental"
)
FACILITY_SURE = _set(
    "hospital clinic infirmary hospice klinikum krankenhaus clínica clinique hôpital ospedale universitätsklinikum "
    "healthcare sanatorium"
)
CARE = (
    "seen at", "seen @", "admitted to", "treated at", "evaluated at", "followed at", "presented at", "presented to", "presenting to",
    "operated at", "operated on at", "referred from", "referred to",
    "transferred to", "transferred from", "hospitalized at", "hospitalised at", "visited", "discharged from", "consulted at",
    "diagnosed at", "surgery at", "care at", "treatment at", "discussed at",
    "monitored at", "patient at", "visit at", "visit to", "inpatient at", "appointment at", "seen in", "seen at the", "admitted to the",
    "treated at the", "visited the", "currently at",
)  # fmt: skip
"""Right before a facility, in small letters."""

AT = (" at", " @", "at the", " at our", ", under")
IN = (" in", " near", ", ", " at")
"""The same where a person is named in the text."""

LIVES = (
    "lives in", "living in", "resides in", "residing in", "resident of", "based in", "born in", "from", "moved to", "hometown:", "city:",
    "works in", "clinic in", "hospital in", "office in",
    "traveling from", "seen in", "localidad:", "ciudad:", "wohnhaft in", "home in", "place of birth:", "treated in", "admitted in",
    "visited in",
)  # fmt: skip
"""Right before a town, in small letters."""


def before(text: str, start: int) -> str:
    """What stands right before `start`, in small letters, without spaces at its end."""
    return text[max(0, start - 28) : start].lower().rstrip(" \t\n*_(")


_ENDS: dict[tuple[str, ...], frozenset[str]] = {
    cues: frozenset(cue[-2:] for cue in cues) for cues in (LABELS, CARE, AT, IN, LIVES)
}


def ends_with(context: str, cues: tuple[str, ...]) -> bool:
    """`context.endswith(cues)`, which is slow for many, only where the last two characters fit."""
    return context[-2:] in _ENDS[cues] and context.endswith(cues)


_NEXT_WORD = re.compile(r"[ -]+\(?([^\s.,;:?!()]+)")
"""On the same line and in the same sentence: the field that follows may be called `model`."""


def names_a_thing(text: str, end: int) -> bool:
    """Is the next word one that makes what ends at `end` an eponym?"""
    rest = text[end : end + 40]
    for possessive in ("'s", "’s", "'", "’"):
        if rest.startswith(possessive):
            rest = rest[len(possessive) :].replace("\n", " ", 1)
            break
    word = _NEXT_WORD.match(rest)
    return word is not None and word[1].lower() in EPONYM_NOUNS
