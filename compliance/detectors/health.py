"""Does a text speak of care, of what is paid for it, or of claims?

An identifier is protected health information only beside health context (45 CFR 160.103).  One word such as
`hypertension`, a laboratory unit or a billing form is enough; everyday words (doctor, pill, clinic, 500 mg) count only
together.  Codes: ICD-10-CM by its categories, LOINC by its check digit, NDC, HCPCS and CPT by shape and label; no
descriptor of any of them is in here.

One Hyperscan pass over UTF-8 bytes; each signal is reported once, so hostile text costs no more than any other.
"""

from __future__ import annotations

import re
from typing import Any

import hyperscan

from compliance.detectors.compiled import Shelf, database

ENOUGH = 8
"""Points that make health context."""
_STRONG, _MEDIUM, _WEAK = 8, 4, 2
MAX_CODES = 64
"""Codes of one kind whose check is tried in one text."""

_NOT_WORD = r"[^A-Za-z0-9\x80-\xff]"


def _words(*words: str) -> str:
    return rf"(?i){_NOT_WORD}(?:{'|'.join(words)}){_NOT_WORD}"


def _endings(*endings: str) -> str:
    return rf"(?i)(?:{'|'.join(endings)})[^a-z0-9\x80-\xff]"


_THE = "(?:(?:the|my|his|her|their|an?) )?"
_CARE = "(?:mri|ct|pet|x-?ray|scans?|surgery|hospital stay|ambulance|treatment|operation)"


def _parts(*parts: str) -> str:
    """Words of other scripts, or their stems, wherever they stand; a first letter with a capital in both."""
    forms = dict.fromkeys(form for part in parts for form in (part, part[:1].upper() + part[1:]))
    return "|".join("".join(f"\\x{byte:02x}" for byte in form.encode()) for form in forms)


_STRONG_SIGNALS = {
    "disease": (
        _words(
            "hypertensi(?:on|ve)", "hypotension", "(?:pre)?diabet(?:es|ic)", r"(?:ha(?:s|d|ve|ving)|with) (?:[a-z\-]+ )?cancer",
            "(?:breast|lung|colon|prostate|ovarian|skin|pancreatic|cervical|liver|bladder|thyroid|stomach|brain) cancer", "lymphoma",
            "melanoma", "asthma(?:tic)?", "stroke",
            "copd", "hiv", "sepsis", "septic", "migraines?", "epilep(?:sy|tic)", "seizures?", "pneumonia", "influenza", "tuberculosis",
            "depressive", "bipolar disorder", "schizophrenia", "dementia", "alzheimer'?s?", "parkinson'?s", "hodgkin'?s?", "crohn'?s?",
            "heart (?:failure|attack|disease)", "kidney (?:disease|failure|stones?)", "(?:atrial )?fibrillation", "afib", "a-fib", "angina",
            "stemi", "nstemi", "dvt", "ckd", "esrd", "gerd", "adhd", "ptsd", "uti", "t[12]dm", "dm2", "htn", "chf", "bph", "dka", "gout",
            "eczema", "hernia", "ulcers?", "tumou?rs?", "metasta(?:tic|sis|ses)", "carcinomas?", "embolism",
            "an?a?emi[ac]", "infarction", "isch(?:a)?emi[ac]", "syndrome", "hepatitis", "arthritis", "osteoporosis", "cirrhosis",
            "fibrosis",
            "infections?", "inflammat(?:ion|ory)", "fractures?d?", "chronic(?:ally)? (?:pain|cough|illness|condition|disease|fatigue)",
            "multiple sclerosis", "cystic fibrosis", "sickle cell", "miscarr(?:iages?|ied|y|ying)", "chlamydia", "gonorrh?o?ea", "syphilis", "herpes",
            "pregnant", "stillb(?:irth|orn)", "c-section",
            "(?:an|her|the|had|medical|elective) abortions?", "(?:in|to|from|entered|entering|completed|drug|alcohol) rehab",
            r"(?:broke|broken|fractured|shattered|dislocated|sprained|tore|torn) (?:(?:my|his|her|their|your|the|an?|left|right) ){1,2}"
            r"(?:hips?|legs?|arms?|wrists?|ankles?|ribs?|collar ?bone|femur|pelvis|knee|elbow|shoulder|hand|foot|toe|finger|nose|jaw|neck"
            r"|acl|meniscus)",
            "exacerbations?", "prophyla(?:xis|ctic)", "autosomal (?:dominant|recessive)", "hcv", "hbv", "mrsa",
             "autis(?:m|tic)", "overdosed?", "suicid(?:e|al)",
            "malignan(?:t|cy)", "neoplasms?", "lesions?", "thrombus", "clots?", "eclampsia", "pre-?eclampsia", "covid(?:-19)? positive",
        ),
        _endings(
            "itis", "aemia", "[lrtykcsx]emia", "[nk]oses", "[a-z]{2}moses", "ostomy", "ectomy", "otomy", "oscopy", "oplasty", "opathy", "opathic",
            "[^t]algia",
            "plegia",
            "paresis", "sclerosis", "thrombosis", "stenosis", "carcinoma", "sarcoma", "blastoma", "glioma", "myeloma", "adenoma",
            "[ntys]uria", "oliguria", "rrh(?:ea|oea|age)",
            "megaly", "ectasis", "phasia", "thyroidism", "cytosis", "penia", "edema", "lithiasis", "dystrophy",
            "dysplasia", "[aoi]demia", "[pk]n(?:o)?ea", "cardia", "a?rr?h?ythmias?", "poietic", "kinesia", "acidosis",
            "trophic lateral sclerosis",
        ),
    ),
    "drug": (
        _words(
            "metformin", "warfarin", "aspirin", "heparin", "insulin", "digoxin", "furosemide", "gabapentin", "pregabalin", "levothyroxine",
            "prednisone", "hydrochlorothiazide", "hctz", "spironolactone", "lithium carbonate", "morphine", "oxycodone", "hydrocodone",
            "fentanyl",
            "tramadol", "methadone", "buprenorphine", "naloxone", "ibuprofen", "naproxen", "acetaminophen", "tylenol", "paracetamol",
            "clopidogrel", "plavix", "lipitor", "eliquis",
            "xarelto", "coumadin", "paxlovid", "trulicity", "spiriva", "jardiance", "farxiga", "entresto", "keytruda", "opdivo", "enbrel",
            "remicade", "stelara", "dupixent", "advair", "symbicort", "ventolin", "singulair", "crestor", "nexium", "synthroid", "cymbalta",
            "lexapro", "wegovy", "mounjaro", "januvia", "victoza", "lyrica", "neurontin", "lasix", "norvasc", "lovenox", "pradaxa", "brilinta",
            "keppra", "lamictal", "depakote", "seroquel", "risperdal", "zyprexa", "suboxone", "truvada", "biktarvy", "tamiflu", "augmentin",
            "zithromax", "bactrim", "benadryl", "percocet", "vicodin", "oxycontin", "ativan", "klonopin",
            "humira", "ozempic", "lantus", "zoloft", "prozac", "xanax", "adderall", "methotrexate", "tamoxifen", "amiodarone",
            "allopurinol", "colchicine", "levetiracetam", "valpro(?:ate|ic acid)", "lamotrigine", "carbamazepine", "phenytoin", "bupropion",
            "trazodone", "venlafaxine", "duloxetine", "mirtazapine", "haloperidol", "clozapine", "albuterol", "montelukast", "steroids?",
            "corticosteroids?", "nsaids?", "ssris?", "snris?", "antibiotics?", "anti-?coagula(?:nts?|tion)", "opioids?", "statins?",
            "beta[- ]blockers?", "ace[- ]inhibitors?", "chemo(?:therapy)?", "immunotherapy", "radiotherapy", "antidepressants?",
            "anti-?hypertensives?", "diuretics?", "anti-?psychotics?", "anti-?epileptics?", "anti-?virals?", "benzodiazepines?", "tpa",
        ),
        _endings(
            "olol", "(?:la|na|mi|no|to|ze|do|xi)pril", "sartan", "statin", "dipine", "prazole", "floxacin", "mycin", "cillin", "cycline",
            "azepam", "azolam", "oxetine",
            "triptan", "gliptin", "gliflozin", "glutide", "glitazone", "[lmntz]umab", "[tx]imab", "tinib", "parib", "ciclib",
            "(?:clo|na|bu|ta|pi|sa|si|fo|gra|as|mi)vir", "[mtl]asone", "solone", "idone",
            "tidine", "setron", "profen", "coxib", "[dn]afil", "oxaban", "gatran", "fibrate", "thiazide", "semide", "curium", "[a-z]{2}caine",
            "barbital",
            "iptyline", "zosin", "dronate", "[aeo]nazole",
        ),
    ),
    "finding": (
        _words(
            r"\d{1,3}[- ]?(?:y/?o)(?: ?[mf])?", r"\d{1,3} ?(?:m|f) (?:w/|with)", "hx", "h/o", "s/p", "c/o", "w/ hx", "dx", "nkda", "prn",
            "tid", "qid", "qhs",
            "diagnos(?:is|ed|es|ing|tics?|tic)", "prognos(?:is|tic)", "symptom(?:s|atic)?", "contraindicat(?:ed|ions?)", "side[- ]effects?",
            "adverse (?:effects?|events?|reactions?)",
            "drug interactions?", "comorbid(?:ity|ities)?", "biops(?:y|ies)", "ct scans?", "x-?rays? (?:of|show(?:s|ed))", "ecg", "ekg",
            "eeg", "echocardiogram",
            "ultrasound", "colonoscopy", "mammograms?", "h(?:a|b)a?1c", "a1c", "egfr", "creatinine", "h(?:a?e)moglobin", "bilirubin",
            "troponin", "d-dimer", "psa", "ldl", "inr",
            "tsh", "wbc", "esr", "crp", "blood (?:pressure|glucose|sugar|tests?|work|count|culture)", "blood pressures?", "heart rate",
            "vital signs", "vitals",
            "post-?op(?:erative(?:ly)?)?", "pre-?op(?:erative(?:ly)?)?", "intra-?operative(?:ly)?", "peri-?operative",
            "surg(?:ery|ical|eries)", "dialysis",
            "transplant(?:ed|ation)?", "hip replacement", "knee replacement", "bypass (?:surgery|graft(?:ing)?)", "stent(?:ed|ing)?",
            "catheter", "intubat(?:ed|ion)", "icu", "nicu", "e\\.?r\\.? visit", "discharge summary",
            "discharged (?:home|from|on|to)", "progress notes?", "soap note",
            "clinic(?:al)? (?:note|trial|visit|course|presentation|history|findings?)s?", "chief complaint",
            "history of present(?:ing)? illness", "past medical history", "pmh", "hpi", "family history of", "physical exam(?:ination)?",
            "review of systems", "impression:?\\s{0,3}plan",
            "medications?", "dosages?", "dosing", "therap(?:y|ies|eutic)", "treatment (?:plan|options?|of|for|protocol)s?",
            "prescri(?:be|bed|bes|bing) \\w+",
            "psychotherap(?:y|ist)", "radiolog(?:y|ist)", "urolog(?:y|ist)",
            "endocrinolog(?:y|ist)", "nephrolog(?:y|ist)", "gastroenterolog(?:y|ist)", "rheumatolog(?:y|ist)", "h(?:a)?ematolog(?:y|ist)",
            "orthop(?:a)?edics?", "an(?:a)?esthesi(?:a|olog(?:y|ist))", "patholog(?:y|ist|ical)", "physiotherap(?:y|ist)",
            "physical therap(?:y|ist)", "gestation(?:al)?", "trimester", "gravida", "postpartum",
            "outpatients?", "inpatients?", "morbidity",
            "patient (?:is|was|has|presents?|presented|reports?|denies|complains|with|id|name|record|portal)",
            "med(?:ical)? ?rec(?:ord)?s?", "mrn", "ehr", "emr", "hl7", "fhir", "hipaa", "phi", "chart number",
            "immuni[sz]ation", "mental health", "anxiety disorder", "relapse", "remission", "palliative", "hospice",
            "icd-?(?:9|10)(?:-cm)?", "snomed", "loinc", "hcpcs", "cpt codes?",
            "framingham", "apgar", "glasgow coma", "bmi",
        ),
        r"(?i)[^A-Za-z0-9](?:bp|b/p)[: ]{1,2}\d{2,3}/\d{2,3}",
        r"(?i)[^a-z](?:bpm|spo2|temp|pulse|hr|rr)[: ]{1,2}\d{2,3}(?:\.\d)?[%,; ]{1,3}(?:bp|hr|spo2|rr|pulse|temp)[^a-z]",
        r"(?i)\d ?(?:mg/d?l|mmol/l|meq/l|mosm|[gu]/d?l|iu/m?l|(?:n|\xc2\xb5|\xce\xbc)g/m?l|[pn]mol/l|mm ?hg|mcg)",
        r"(?i)\d ?(?:cells/|mg/kg|ml/min|mm/hr|mg/m2|units/kg|x ?10\^?9/l)",

        r"(?i)\d ?(?:mg|g|ml|tabs?|puffs?|units?) (?:po|iv|im|sc|sl|bid|tid|qid|qd|daily|nightly|q\d{1,2}h)[^a-z0-9]",
        r"(?i)\d ?(?:mg|g|ml|tabs?|puffs?|units?) (?:twice daily|once daily|every \d{1,2} hours)[^a-z0-9]",

        r"(?i)[^A-Za-z]stage [0-4iv]{1,3}[abc]? ",
    ),
    "claims": (
        _words(
            "prior auth(?:ori[sz]ation)?s?", "co-?pay(?:ment)?s?", "explanation of benefits", "eob", "medicare", "medicaid",
            "claim (?:number|no|id|form|denied|denial)",
            rf"(?:denied|rejected|refused|declined) {_THE}(?:claims?|coverage|payment) for {_THE}{_CARE}", rf"claims? for {_THE}{_CARE}",
            "cms-?1500", "ub-?04",
            "healthcare provider", "insurer denied", "reimbursement for (?:care|treatment)", "in-network", "out-of-network",
            "beneficiary (?:id|number)", "referring (?:physician|provider)",
            "attending physician", "dos:", "pharmacy benefit", "formulary", "npi", "medical (?:claim|necessity|record|history|condition)s?",
            "health records?",
        ),
    ),
    "acronym": (rf"{_NOT_WORD}(?:AIDS|ALS|CAD|CVA|SOB|BID|ER visit|Rx|RX|Tx|ED visit){_NOT_WORD}",),
    "eponym": (rf"{_NOT_WORD}[A-Z][a-z]{{2,}}(?:'s|-[A-Z][a-z]{{2,}})? (?:disease|disorder|palsy|anomaly|tumou?r|contracture|lymphoma)",
        rf"{_NOT_WORD}[A-Z][a-z]{{2,}}(?:'s|-[A-Z][a-z]{{2,}}(?:'s)?) (?:sign|reflex){_NOT_WORD}",
    ),
    "other_languages": (
        _words(
            "pacientes?", r"diagn(?:o|\xc3\xb3)stic(?:o|a|ado|ada)s?", "diagnosticad[oa]s?", "tratamientos?", "enfermedad(?:es)?",
            r"s(?:i|\xc3\xad)ntomas?", "antecedentes (?:personales|familiares|de)",
            r"exploraci(?:o|\xc3\xb3)n", r"historia cl(?:i|\xc3\xad)nica", r"servicio de (?:urgencias|\w+olog\xc3\xada)", "urgencias",
            "fiebre", r"cirug(?:i|\xc3\xad)a", r"m(?:e|\xc3\xa9)dico:?", r"informe cl(?:i|\xc3\xad)nico",
            "patienten?", "patientin", r"diagnosen?", r"behandlung", "krankenhaus", r"erkrankung(?:en)?", "befund", r"anamnese",
            r"entlassungsbrief", "krankenkasse", r"\xc3\xa4rzt(?:in|lich)?",
            "maladie", r"ant(?:e|\xc3\xa9)c(?:e|\xc3\xa9)dents", r"traitement", r"h(?:o|\xc3\xb4)pital", r"sympt(?:o|\xc3\xb4)mes?",
            "ordonnance", "diagnostic", "paziente", "diagnosi", "terapia", "malattia", "ospedale",
            "paciente", r"doen(?:c|\xc3\xa7)a", "tratamento", "sintomas?",
            r"diab(?:ete|\xc3\xa8te|etico|\xc3\xa9tica|etica)", "zuckerkrank", "pacjent(?:a|ka|ki|em|owi)?", "rozpoznanie", "diagnoza",
            r"cukrzyc(?:a|y|e|\xc4\x99)", "leczenie", "szpital[ua]?", "embarazada", "enceinte", "schwanger", "incinta",
            r"gr\xc3\xa1vida", r"patiente?s? (?:est|a|souffre|pr\xc3\xa9sente)",
        ),
        rf"{_NOT_WORD}(?:{_parts('пациент', 'больного', 'больной', 'диагноз', 'диабет', 'лечени', 'беременн')})",
        _parts("患者", "病人", "诊断", "診断", "診斷", "糖尿病", "怀孕",
               "妊娠", "환자", "진단", "당뇨", "임신", "المريض", "مريض", "تشخيص", "السكري", "मरीज", "रोगी", "निदान", "मधुमेह", "गर्भवती"),
    ),
}  # fmt: skip

_MEDIUM_SIGNALS = {
    "hospital_abroad": (rf"{_NOT_WORD}(?:{_parts('больниц', 'клиник')})", _parts("医院", "病院", "병원", "المستشفى", "مستشفى", "अस्पताल"),),
    "doctor_abroad": (
        _words("arzt", "m\\xc3\\xa9decin", "medico", "lekarz(?:a|owi|em)?"),
        rf"{_NOT_WORD}(?:{_parts('врач')})",
        _parts("医生", "医師", "醫生", "의사", "الطبيب", "طبيب", "डॉक्टर", "चिकित्सक"),
    ),
    "treatment_abroad": (_parts("治疗", "治療", "치료", "علاج", "उपचार", "इलाज", "手术", "手術", "수술"),),
    "specialty": (
        _words("mri", "lupus", "pregnancy", "mortality", "vaccinating", "cancers?", "strokes", "cardiolog(?:y|ist)",
        "oncolog(?:y|ist)", "neurolog(?:y|ist)", "psychiatr(?:y|ist|ic)",
               "dermatolog(?:y|ist)", "gyn(?:a)?ecolog(?:y|ist|ical)", "obstetric(?:s|ian)?", "p(?:a)?ediatric(?:s|ian)?",
               "date of service"),
    ),
    "condition": (
        _words("congenital", "malformations?", "deficiency", "refractory", "rehab(?:ilitation)?",
               "vaccinat(?:ed|ion|ions|ing)", "titrat(?:e|ed|ion|ing)",
               "hereditary", "benign", "abortion", "insemination", "comorbid",
               "f/u", "r/o", "tx (?:of|for)", "rx (?:of|for)", "mgmt (?:of|for|plan)"),
        _endings("[lrdnc]osis"),
    ),
    "management": (
        _words("guidelines? (?:for|on|in|regarding)", "protocols? (?:for|of)", "best practices? (?:for|in)", "manag(?:e|ing|ement)(?: of)?",
               "surveillance", "contraindicat(?:ed|ions?)"),
    ),
    "patient": (_words("patients?", "pts?", r"patients? like"),),
    "treated": (
        _words("treated (?:at|by|with|for)", "admitted (?:to|at|on|with)",
        "seen (?:at|by|in) (?:the )?(?:[a-z]+ ){0,3}(?:clinic|hospital|dr|doctor)", "referred (?:to|by) dr", "followed (?:at|by)",
        "underwent",
               "check-?up", "follow-?up (?:visit|appointment|with|for)", "hospitali[sz]ed", "hospitali[sz]ation"),
    ),
    "aged": (_words(r"\d{1,3}[- ]year[- ]old (?:[a-z\-]+ ){0,2}(?:(?:fe)?male|woman|man|patient|pt)",
    r"\d{1,3}[- ](?:y/?o|yr)[- ]?(?:old)?", r"(?:fe)?male patient", r"\d{1,3}[- ]month[- ]old"),),
}  # fmt: skip

_WEAK_SIGNALS = {
    "course": (_words("appointment", "admission", "admitted", "efficacy", "complications?", "prevention", "depression", "anxiety", "poisoning",
    "evaluated", "onset", "recurrent", "chronic", "acute", "severe", "ef of"),),
    "doctor": (_words("doctors?", "physicians?", "surgeons?", "nurses?", "dentists?", "pharmacists?", "therapists?", "dr"),),
    "hospital": (_words("hospitals?", "clinics?", "medical (?:center|centre)", "infirmary", "emergency room", "wards?", "pharmac(?:y|ies)"),
    ),
    "medicine": (_words("medicines?", "pills?", "tablets?", "capsules?", "doses?", "prescriptions?", "drugs?",
    "vaccin(?:e|es|ed|ated|ation|ations)", "injections?", "shots?"),),
    "amount": (r"(?i)\d ?(?:mg|mcg|iu)[^a-z0-9]",),
    "illness": (_words("sick(?:ness)?", "ill(?:ness)?", "disease", "diseases", "disorders?", "pain(?:ful)?", "headaches?", "fever",
    "cough(?:ing)?", "nausea", "rash", "swollen", "bleeding", "injur(?:y|ed|ies)", "ache", "allerg(?:y|ies|ic)"),),
    "treatment": (_words("treated", "treatments?", "cured?", "heal(?:ed|ing)?", "recover(?:y|ing|ed)", "operations?", "procedures?",
    "screening", "clinical"),),
    "body": (_words("lungs?", "kidneys?", "liver", "cardiac", "renal", "hepatic", "pulmonary", "spinal", "abdominal", "cerebral", "bladder",
    "colon", "prostate", "ovar(?:y|ian)"),),
    "benefits": (_words("deductible", "insured", "insurance", "claims?", "coverage", "premiums?", "provider", "billing"),),
    "medical": (_words("medical(?:ly)?", "healthcare", "health care", "health"),),
}  # fmt: skip

# Codes whose shape alone is not enough: (points, shape, check of what matched).
_ICD = r"[^A-Za-z0-9.\-_/][A-TZ]\d[0-9AB]\.[0-9A-Z]{1,4}[^A-Za-z0-9_]"
_LOINC = r"[^0-9A-Za-z.\-]\d{3,5}-\d[^0-9A-Za-z\-]"
_NDC = r"[^0-9A-Za-z.\-](?:\d{4}-\d{4}-\d{2}|\d{5}-(?:\d{3}-\d{2}|\d{4}-\d{1,2}))[^0-9A-Za-z\-]"
_HCPCS = r"[^0-9A-Za-z.\-_/#][ABCEGHJKLMPQRSTV]\d{4}(?:-[A-Z0-9]{2})?[^0-9A-Za-z\-_/]"
_LABELLED_CODES = (
    r"(?i)[^a-z](?:icd|dx code|diagnosis code)[^\n]{0,24}[a-z]\d[0-9ab]",
    r"(?i)[^a-z](?:cpt|procedure code)[^\n]{0,16}\d{4}[0-9f]",
    r"(?i)[^a-z](?:ndc|loinc)[^\n]{0,16}\d{3,5}-\d",
    r"(?i)[^a-z](?:hcpcs|j-code)[^\n]{0,16}[a-v]\d{4}",
)

# Chapters of ICD-10-CM: the last two-digit category that exists under a letter (CMS, tabular list).
_CHAPTERS = {
    "A": 99, "B": 99, "C": 96, "D": 89, "E": 89, "F": 99, "G": 99, "H": 95, "I": 99, "J": 99, "K": 95, "L": 99, "M": 99,
    "N": 99, "O": 99, "P": 96, "Q": 99, "R": 99, "S": 99, "T": 88, "Z": 99,
}  # fmt: skip
_CODE_ICD = re.compile(r"[A-TZ][0-9][0-9AB]")
_CODE_LOINC = re.compile(r"[0-9]{3,5}-[0-9]")


def icd10_category(code: str) -> bool:
    """Can the first three characters of `code` be a category of ICD-10-CM?"""
    last = _CHAPTERS.get(code[:1])
    if last is None:
        return False
    if not code[2].isdigit():
        return code[:3] in ("C4A", "C7A", "C7B", "D3A", "M1A", "O9A", "Z3A")
    number = int(code[1:3])
    return (
        number <= last
        and not (code[0] == "F" and number == 0)
        and not (code[0] == "S" and number % 10 == 0 and number == 0 and len(code) < 5)
    )


def loinc(code: str) -> bool:
    """LOINC's check digit: Luhn over the digits before the hyphen (LOINC Users' Guide, appendix)."""
    number, _, check = code.partition("-")
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return (10 - total % 10) % 10 == int(check)


class HealthContext:
    """The compiled signals.  Thread-safe: each scan takes its own scratch."""

    def __init__(self, shelf: Shelf | None = None) -> None:
        shapes: list[tuple[str, str, int]] = []
        for points, signals in ((_STRONG, _STRONG_SIGNALS), (_MEDIUM, _MEDIUM_SIGNALS), (_WEAK, _WEAK_SIGNALS)):
            shapes += [(name, shape, points) for name, group in signals.items() for shape in group]
        shapes += [("code", shape, _STRONG) for shape in _LABELLED_CODES]
        shapes += [("ndc", _NDC, _MEDIUM), ("hcpcs", _HCPCS, _WEAK)]
        self._signals = [(name, points) for name, _, points in shapes]
        self._icd = len(shapes)
        once = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_DOTALL
        flags = [once] * len(shapes) + [hyperscan.HS_FLAG_DOTALL] * 2
        expressions = [shape.encode("ascii") for _, shape, _ in shapes] + [_ICD.encode(), _LOINC.encode()]
        self._database = database(expressions, flags, shelf)
        self._scratches: list[Any] = []

    def signals(self, text: str) -> dict[str, int]:
        """Which signals stand in `text`, each with its points.  Raises RuntimeError where the pass failed."""
        return self._signals_in(text.encode("utf-8", "surrogatepass"))

    def _signals_in(self, plain: bytes) -> dict[str, int]:
        data = b"\n%b\n" % plain  # so that every word has two borders
        matches: list[int] = []
        codes: list[tuple[int, int]] = []
        scratch = self._scratches.pop() if self._scratches else hyperscan.Scratch(self._database)
        try:
            self._database.scan(data, match_event_handler=self._matched, context=(matches, codes), scratch=scratch)
        except hyperscan.error:
            raise RuntimeError("health context was not determined") from None
        finally:
            self._scratches.append(scratch)
        seen: dict[str, int] = {}
        for index in matches:
            name, points = self._signals[index]
            seen[name] = max(points, seen.get(name, 0))
        for index, end in codes:
            around = data[max(0, end - 10) : end].decode("ascii", "replace")
            if index == self._icd:
                if any(icd10_category(code) for code in _CODE_ICD.findall(around)):
                    seen["icd10"] = _STRONG
            elif any(loinc(code) for code in _CODE_LOINC.findall(around)):
                seen["loinc"] = _WEAK
        return seen

    def _matched(
        self, index: int, _start: int, end: int, _flags: int, context: tuple[list[int], list[tuple[int, int]]]
    ) -> None:
        if index < self._icd:
            context[0].append(index)
        elif len(context[1]) < MAX_CODES:
            context[1].append((index, end))

    def health_context(self, text: str, data: bytes | None = None) -> bool:
        """Does `text` speak of care, of payment for it, or of claims?  `data`: it in UTF-8, where the caller has it."""
        signals = self._signals_in(text.encode("utf-8", "surrogatepass") if data is None else data)
        return bool(signals) and sum(signals.values()) >= ENOUGH
