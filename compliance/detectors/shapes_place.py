"""Street addresses, post boxes, cities with their state, postal codes."""

from __future__ import annotations

from compliance.detectors.labels import label, labelled
from compliance.detectors.model import Pattern

_ABBREVIATIONS = "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]|A[AEP]"
_STATES = (
    "Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|Indiana|Iowa|Kansas|"
    "Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|Nebraska|Nevada|New Hampshire|"
    "New Jersey|New Mexico|New York|North Carolina|North Dakota|Ohio|Oklahoma|Oregon|Pennsylvania|Rhode Island|South Carolina|"
    "South Dakota|Tennessee|Texas|Utah|Vermont|Virginia|Washington|West Virginia|Wisconsin|Wyoming|Puerto Rico"
)
_CITY = r"[A-Z][A-Za-z.'\-]{1,24}(?: [A-Z][A-Za-z.'\-]{1,24}){0,2}"
WAYS = """
    street avenue ave road boulevard blvd lane drive court circle terrace parkway pkwy highway hwy square crescent
    close grove turnpike alley mews promenade esplanade trail plaza way place st rd ln dr ct cir ter sq pl trl
    """.split()  # noqa: SIM905  a list of words reads best as words
_WAY = rf"(?i:{'|'.join(WAYS)})"
_RARER = (
    r"(?:Bend|Bluffs?|Bridge|Brook|Bypass|Canyon|Causeway|Cliffs?|Common|Corners?|Coves?|Creek|Crossing|Dale|Estates?|Expressway|Falls|Ferry|"
    r"Fields?|Flats?|Fords?|Forest|Forge|Forks?|Freeway|Gardens?|Gateway|Glens?|Greens?|Harbors?|Haven|Heights|Hills?|Hollow|Inlet|"
    r"Islands?|Isle|Junctions?|Knolls?|Landing|Lock|Lodge|Loop|Manors?|Meadows?|Mills?|Motorway|Mount|Mountain|Orchard|Overpass|Parks?|"
    r"Pass|Passage|Path|Pike|Pines?|Plains?|Points?|Port|Ports|Prairie|Ranch|Rapids?|Ridges?|Route|Row|Run|Shoals?|Shores?|Springs?|Spurs?|Station|"
    r"Streams?|Summit|Trace|Track|Tunnel|Underpass|Unions?|Valleys?|Via|Viaduct|Views?|Villages?|Ville|Vista|Walks?|Wells?)"
)
"""The postal service's other words for ways (USPS Publication 28, appendix C1), as they are written in addresses."""
_NAMED = r"(?:[A-Z0-9][A-Za-z0-9.'\-\x80-\xff]{0,24} ){1,4}"
_UNIT = r"(?:,?[ \n]{1,2}(?i:apt|apartment|suite|ste|unit|floor|fl|room|rm|\#)\.? ?\#?[A-Za-z0-9\-]{1,6})?"
_TAIL = rf"(?:,?\s{{1,2}}{_CITY},? (?:{_STATES}|{_ABBREVIATIONS})\b(?:,? \d{{5}}(?:-\d{{4}})?)?)?"
_CAPITAL = r"[A-Z\x80-\xff][A-Za-z.'\-\x80-\xff]{1,24}"
_SLAVIC = r"(?:ul\.|ulica|ulice|al\.|aleja|os\.|pl\.|plac|n\xc3\xa1m\.|n\xc3\xa1m\xc4\x9bst\xc3\xad|trg|cesta|bulevar|strada|str\.|bd\.)"
"""Before the name of a way, in small letters: Polish, Czech, Slovene, Serbian, Romanian."""
_AFTER = (
    r"(?:\xc3\xbat|utca|u\.|t\xc3\xa9r|k\xc3\xb6r\xc3\xbat|ulica|ulice|cesta|trg|n\xc3\xa1m\xc4\x9bst\xc3\xad|tie|tee|v\xc3\xa4g|vei|caddesi"
    r"|sokak)"
)
"""After it: Hungarian, Slovene, Czech, Finnish, Estonian, Swedish, Norwegian, Turkish."""
_ENDINGS = (
    r"stra\xc3\x9fe|strasse|straat|stra\xc3\x9fen|gasse|allee|ufer|damm|laan|plein|gracht|singel|gade|vej|"
    r"gatan|gata|v\xc3\xa4gen|veien|vegen|gaten|katu|stra\xc3\x9f\.|str\.|weg|platz"
)
_SUFFIXED = rf"[A-Z\x80-\xff][A-Za-z\x80-\xff\-]{{2,30}}(?:{_ENDINGS})"
_ROMANCE = (
    r"(?:(?i:calle|avenida|avda|paseo|carrer|r\xc3\xbaa|glorieta|carretera|traves\xc3\xada|rue|chemin|"
    r"all\xc3\xa9e|viale|piazza|travessa)\.?|Via|Plaza|Pza\.?|Ronda|Camino|Largo|Corso|Quai|Impasse|Rua|Boulevard|Ctra\.?|C/\.?|Av\.|Avda\.|Pl\.)"
)
RESTRICTED = frozenset(
    "036 059 063 102 202 203 204 205 369 556 692 753 772 790 821 823 830 831 878 879 884 890 893".split()  # noqa: SIM905
)
"""Three digits of a ZIP under which 20,000 people or fewer live: the union over the censuses since 2000."""


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _not_a_length(text: str) -> bool:
    words = text.lower().split()
    return "of" not in words and not words[1].startswith(("mile", "kilomet", "met"))


def _named(text: str) -> bool:
    """Two ways with names: a capital after `corner of`."""
    return any(map(str.isupper, text[10:]))


def _code(text: str) -> bool:
    """A postal code by label: three digits of a ZIP only where they are restricted."""
    if len(text) == 3 and text.isdecimal():
        return text in RESTRICTED
    return _has_digit(text)


_ROUTE = r"(?:street|avenue|road|boulevard|blvd|lane|crescent|parkway)"
_WORDS = "HI|OK"
"""Abbreviations that are words in capitals, too: a capital word before them is no proof."""
_CLEAR = _ABBREVIATIONS.replace("HI|", "").replace("O[HKR]", "O[HR]")

SHAPES = (
    Pattern(
        "address",
        rf"(?:^|[^\w.,$\-/])(\d{{1,6}}[A-Za-z]?(?:-\d{{1,5}})?,? {_NAMED}{_WAY}\b\.?(?: [NSEW]{{1,2}}\b)?{_UNIT}{_TAIL})",
        # One for each word, and each of bounded length: Hyperscan looks for the word, and only then before it.
        trigger=tuple([rf"\d[A-Za-z]?,? (?:[A-Z0-9][^\s]{{0,24}} ){{1,4}}(?i:{way})\b" for way in WAYS]),
        back=128,
    ),
    Pattern(
        "address",
        rf"(?:^|[^\w.,$])(\d{{1,6}} (?i:[a-z'\-]{{2,24}} (?:[a-z'\-]{{2,24}} )?{_ROUTE})\b{_UNIT}{_TAIL})",
        _not_a_length,
        0.7,
        trigger=rf"\d (?i:[a-z'\-]+ (?:[a-z'\-]+ )?{_ROUTE})\b",
        back=80,
    ),
    Pattern(
        "address",
        rf"(?:^|[^\w.,$\-/])(\d{{2,6}} {_NAMED}{_RARER}\b{_UNIT}{_TAIL})",
        None,
        0.7,
        trigger=rf"\d{{2}} (?:[A-Z0-9][^\s]* ){{1,3}}{_RARER}\b",
        back=96,
    ),
    Pattern(
        "address",
        rf"(?:^|[^\w])((?:\d{{1,6}} )?{_SLAVIC} (?:{_CAPITAL} ){{1,4}}\d{{1,4}}[A-Za-z]?)\b",
        None,
        0.8,
        trigger=rf"(?:^|[^\w]){_SLAVIC} [A-Z\x80-\xff]",
        back=24,
        digits=1,
    ),
    Pattern(
        "address",
        rf"(?:^|[^\w])((?:\d{{1,6}} )?(?:{_CAPITAL} ){{1,3}}{_AFTER} \d{{1,4}}[A-Za-z]?)\b",
        None,
        0.8,
        trigger=rf"[a-z\x80-\xff.] {_AFTER} \d",
        back=96,
        ahead=8,
    ),
    # A number, a way's name, the house, and a flat in it.
    Pattern(
        "address",
        r"(?:^|[^\w.,$\-/])(\d{1,6} (?:[A-Za-z\x80-\xff][\w.'\-\x80-\xff]{0,24} ){1,4}\d{1,4}[A-Za-z]?\.?,?\s{1,2}"
        r"(?i:apt|suite|ste|apartment)\.? \#?\d{1,5})\b",
        None,
        0.8,
        trigger=r"(?i:apt|suite|ste|apartment)\.? \#?\d",
        back=112,
        ahead=16,
    ),
    Pattern(
        "address",
        rf"(?:^|[^\w])((?i:the )?(?i:corner of) (?:[\w.'\-\x80-\xff]{{1,24}} ){{1,5}}(?:and|&) (?:(?:{_SLAVIC}|\d{{1,4}}) )?"
        rf"[\w.'\-\x80-\xff]{{1,24}}(?: (?:[A-Z\x80-\xff][\w.'\-\x80-\xff]{{1,24}}|\d{{1,4}})){{0,3}})",
        _named,
        0.9,
        trigger=r"(?i:corner of )",
        back=24,
    ),
    # A town, its region, its country and its postal code, over lines or in one.
    Pattern(
        "address",
        rf"(?:^|[^\w])({_CAPITAL}(?: {_CAPITAL}){{0,3}}\s{{0,2}},\s{{0,2}}[A-Z]{{2}}\s{{1,3}}{_CAPITAL}(?: {_CAPITAL}){{0,2}} \d{{4,6}})\b",
        None,
        0.7,
        trigger=r"[A-Z]{2}\s{1,3}[A-Z\x80-\xff]",  # with the comma before it, each pass takes longer
        back=112,
        ahead=64,
        digits=4,
    ),
    Pattern(
        "address",
        rf"(?:^|[^\w])({_SUFFIXED},? ?\d{{1,5}} ?[A-Za-z]?\b)",
        None,
        0.8,
        trigger=rf"(?:{_ENDINGS}),? ?\d",
        back=48,
        ahead=16,
    ),
    Pattern(
        "address",
        rf"(?:^|[^\w])({_ROMANCE} (?:[\w'\-\x80-\xff/]{{1,24}} ){{0,5}}[\w'\-\x80-\xff]{{1,24}},? (?:n\.?\W{{0,3}} ?)?(?:\d{{1,5}}|s/n)\b)",
        None,
        0.8,
        trigger=rf"(?:^|[^\w]){_ROMANCE} ",
        back=24,
        digits=1,
    ),
    Pattern(
        "address",
        rf"(?:^|[^\w])((?:{_CAPITAL} (?:de |del |la |las |los |el )?){{0,5}}{_CAPITAL},? s/n)\b",
        None,
        0.8,
        trigger=r"[a-z\x80-\xff],? s/n\b",
        back=112,
    ),
    Pattern(
        "address",
        r"(?:^|[^\w.,$])(\d{1,5}(?: bis| ter)?,? (?:rue|avenue|boulevard|place|chemin|all\xc3\xa9e|impasse|quai|cours) "
        r"(?:[\w'\-\x80-\xff]{1,24} ){0,4}[A-Z\x80-\xff][\w'\-\x80-\xff]{1,24})",
        None,
        0.8,
        trigger=r"\d(?: bis| ter)?,? (?:rue|avenue|boulevard|place|chemin|all\xc3\xa9e|impasse|quai|cours) ",
        back=32,
    ),
    Pattern(
        "address",
        r"(?:^|[^\w])((?i:p\. ?o\. ?box|po box|post ?box|postfach|postbus|apartado(?: de correos)?|casella postale)[ :#]{1,3}\d{1,6})",
        trigger=r"(?i:p\. ?o\. ?box|po box|post ?box|postfach|postbus|apartado|casella postale)",
        digits=1,
    ),
    Pattern(
        "address",
        r"(?:^|[^\w])((?:PSC \d{1,4}|Unit \d{4,5}),? Box \d{1,5}(?:[,\s]{1,3}[ADF]PO,? A[AEP](?: \d{5})?)?)",
        trigger=r"\d,? Box \d",
        back=24,
        ahead=40,
    ),
    Pattern(
        "address",
        r"(?:^|[^\w])((?i:apt|suite|ste|apartment)\.? \#?\d{1,5}[A-Za-z]?)\b",
        None,
        0.8,
        trigger=r"(?i:apt|suite|ste|apartment)\.? \#?\d",
        back=24,
        ahead=16,
    ),
    labelled(
        "address",
        label(
            r"(?:home |street |mailing |billing |postal |residential )?address",
            r"domicilio",
            r"direcci\xc3\xb3n",
            r"adresse",
            r"anschrift",
            r"indirizzo",
        ),
        r"([A-Za-z0-9\x80-\xff][^\n;?!|\"]{6,90})",
        _has_digit,
        gap=r"(?i:[ \t]{1,3}(?:is|was)[ \t:]{1,3}|[ \t]{0,2}[:=\n][\s\"'(]{0,8})",
        confidence=0.7,
        digits=1,
    ),
    Pattern(
        "address",
        r"(?i:\b(?:liv(?:es?|ing)|resid(?:es?|ing)) at )([A-Za-z0-9\x80-\xff][^\n;?!|\"]{6,90})",
        _has_digit,
        0.7,
        trigger=r"(?i:liv(?:es?|ing)|resid(?:es?|ing)) at ",
        back=24,
        digits=1,
    ),
    Pattern(
        "address",
        rf"(?:^|[^\w])({_CITY}, (?:(?:{_CLEAR}|{_STATES})(?:,? \d{{5}}(?:-\d{{4}})?)?|(?:{_WORDS}),? \d{{5}}(?:-\d{{4}})?))(?:\z|[^\w\-])",
        None,
        0.8,
        trigger=rf", (?:[A-Z]{{2}}|{_STATES})\b",
        back=112,
        ahead=16,
    ),
    Pattern(
        "zip",
        rf"\b(?:{_ABBREVIATIONS}|{_STATES}),? (\d{{5}}(?:-\d{{4}})?)(?:\z|[^\w\-])",
        trigger=r"[A-Za-z],? \d{5}",
        back=40,
        ahead=8,
    ),
    Pattern("zip", r"(?:^|[^\w.\-])(\d{5}-\d{4})(?:\z|[^\w\-])", None, 0.6, trigger=r"\d{5}-\d{4}", back=16, ahead=8),
    Pattern(
        "zip",
        r"(?:^|[^\w])([A-Z]{1,2}\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{2})(?:\z|\W)",
        None,
        0.8,
        trigger=r"\d[A-Z]? \d[A-Z]{2}",
        back=16,
        ahead=8,
    ),
    Pattern(
        "zip",
        r"(?:^|[^\w])([ABCEGHJ-NPRSTVXY]\d[ABCEGHJ-NPRSTV-Z] \d[ABCEGHJ-NPRSTV-Z]\d)(?:\z|\W)",
        None,
        0.8,
        trigger=r"[A-Z]\d[A-Z] \d[A-Z]\d",
        back=16,
        ahead=8,
    ),
    labelled(
        "zip",
        label(
            r"zip ?3?(?: ?code)?",
            r"zip_?code",
            r"post(?:al)? ?code",
            r"postcode",
            r"postal_code",
            "plz",
            r"c\.?p\.?",
            r"c\xc3\xb3digo postal",
            r"code postal",
            r"postleitzahl",
        ),
        r"(\d{3,5}(?:[\- ]\d{2,4})?|[A-Za-z]{1,2}[\- ]?\d[A-Za-z\d]{0,4}(?: \d[A-Za-z\d]{1,2})?)(?:\z|[^\w\-])",
        _code,
        gap=r"(?i:[\W_]{0,3}(?:is|was|of|number)?[\W_]{1,4})",
    ),
)
