"""Telephone and fax numbers, addresses of mail, of the web and of machines."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from compliance.detectors.labels import label, labelled, trigger_of
from compliance.detectors.model import Pattern

_APART = r"[ .\-]"
_EXTENSION = r"(?: ?(?:x|ext\.?|extension) ?\d{1,6})?"
_BEFORE = r"(?:^|[^\w.+\-/]|[^\w][.\-/]|[A-Za-z_][:/])"
_END = r"(?:\z|[^\w\-/.]|[\-/.](?:\z|\D)|_|[A-Za-z])"
_DIGITS = r"(\+?\(?\d(?:[ .\-/()]{0,3}\d){5,14}(?: ?(?:x|ext\.?) ?\d{1,6})?)"
_TLDS = r"(?:com|org|net|edu|gov|mil|info|io|co|us|uk|ca|de|fr|es|it|nl|eu|au|in|health|care|clinic|hospital|example)"

_PHONE_WORDS = (
    "phone", "telephone", "telefon", "telefono", r"tel\xc3\xa9fono", r"t\xc3\xa9l\xc3\xa9phone", "tel", "telf", "tlf", "tfno", "tlfno", "mobile",
    "movil", r"m\xc3\xb3vil", "cell", "cellphone", "call", "called", "contact", "desk", "office", "hotline", "whatsapp", "pager", "callback",
    "reach", "answering", "sms", "ph",
)  # fmt: skip
_PHONE = label(*_PHONE_WORDS, "messages")
_PHONE_TRIGGER = (trigger_of(label(*_PHONE_WORDS)), trigger_of(label("messages"), key=True))
_FAX = label("fax", r"facsimile", r"t\xc3\xa9l\xc3\xa9copie")
_TO = (
    r"(?i:[\W_]{0,4}?(?:(?:number|num|no|is|was|at|on|to|me|you|him|her|us|them|y|and|fax|home|work|cell|mobile|office)"
    r"[\W_]{1,4}?){0,4}[\W_]{0,6}?)"
)
_USE = r"(?:fax|facsimile)"
_USES = r"(?:office|mobile|cell|home|work|desk|phone|tel|pager)"


def _phone(text: str) -> bool:
    """Seven to fifteen digits (ITU-T E.164), or six that are set in groups."""
    digits = sum(character.isdigit() for character in text.partition("x")[0])
    return 7 <= digits <= 15 or (digits == 6 and not text.isdecimal())


def _nanp(text: str) -> bool:
    """A number of the North American plan: area and exchange begin with 2 to 9."""
    digits = "".join(character for character in text.partition("x")[0] if character.isdigit())[-10:]
    return digits[0] in "23456789" and digits[3] in "23456789"


def _e164(text: str) -> bool:
    return 8 <= sum(character.isdigit() for character in text.partition("x")[0]) <= 16


def _trunk(text: str) -> bool:
    return 9 <= sum(character.isdigit() for character in text) <= 12


def _ipv4(text: str) -> bool:
    """An address that tells one machine: not a mask, this host or no host."""
    try:
        address = IPv4Address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or text.startswith("255.") or text.endswith(".0.0"))


def _ipv6(text: str) -> bool:
    """An address that is more than a scope operator between two short words of hex letters."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if not isinstance(address, IPv6Address) or address.is_loopback or address.is_unspecified:
        return False
    groups = [group for group in text.split(":") if group]
    return (
        len(groups) >= 4 or "." in text or any(len(group) == 4 and any(c.isdigit() for c in group) for group in groups)
    )


def _url(text: str) -> bool:
    try:
        host = urlsplit(text if "://" in text else "//" + text).hostname or ""
    except ValueError:
        return False
    return "." in host.strip(".") or ":" in host


def _not_an_asset(text: str) -> bool:
    """`icon@2x.png` is a picture for dense screens, not an address."""
    domain = text.rpartition("@")[2]
    return not (domain[:1].isdigit() and domain[1:3] == "x.")


_NANP_TRIGGER = r"\d{3}[.\- )]{1,2}\d{3}[.\- ]\d{4}"
_AT = r"[A-Za-z0-9._%+\-\x80-\xff]@[A-Za-z0-9\x80-\xff]"
_AT_WORD = r" ?[\[({<] ?at ?[\])}>] ?"
_DOT_WORD = r" ?[\[({<] ?dot ?[\])}>] ?"

SHAPES = (
    # The North American plan, in groups; what is set in spaces must have an area and an exchange that exist.
    Pattern(
        "phone",
        rf"{_BEFORE}((?:\+?1[ .\-]?|001-)?(?:\(\d{{3}}\) ?|\d{{3}}-)\d{{3}}[.\-]\d{{4}}{_EXTENSION}){_END}",
        None,
        0.9,
        trigger=_NANP_TRIGGER,
        back=24,
    ),
    Pattern(
        "phone",
        rf"{_BEFORE}((?:\+?1[ .\-]?)?\(?\d{{3}}\)?{_APART}\d{{3}}{_APART}\d{{4}}{_EXTENSION}){_END}",
        _nanp,
        0.8,
        trigger=_NANP_TRIGGER,
        back=24,
    ),
    # International form (ITU-T E.123), and national ones with a trunk prefix.
    Pattern(
        "phone",
        rf"(?:^|[^\w+])(\+\d(?:[ .\-/]?(?:\(0\))?[ .\-]?\(?\d\)?){{7,14}}{_EXTENSION}){_END}",
        _e164,
        0.9,
        trigger=r"\+\d[\d .\-/()]{6}",
        back=12,
    ),
    Pattern(
        "phone",
        rf"{_BEFORE}(\(0\d{{1,4}}\)[ ]?\d{{3,5}}[ \-]?\d{{3,5}}|0\d{{2,4}}[ \-/]\d{{3,4}}[ \-]?\d{{3,5}}|0\d{{4}} \d{{3}} \d{{3}}"
        rf"|0\d(?:[ .\-]\d{{2}}){{4}}|0\d{{3}} \d{{2}} \d{{2}} \d{{2}}|0\d{{1,2}} \d{{4}} \d{{4}}){_END}",
        _trunk,
        0.7,
        trigger=r"(?:^|[^\w.])\(?0\d{1,4}[ .\-/)]{1,2}\d{2}",
        back=12,
    ),
    labelled("phone", _PHONE, _DIGITS + r"(?:\z|\D)", _phone, gap=_TO, digits=6, trigger=_PHONE_TRIGGER),
    # The second of two: `Tel. 212 555 0147 / 0148 555 212`.
    labelled(
        "phone",
        _PHONE,
        _DIGITS + r"(?:\z|\D)",
        _phone,
        gap=_TO + _DIGITS.replace("(", "(?:", 1) + r"(?i:[,;]? ?(?:/|-|,|;|\by|\bor|\band|\be|\bund|\bou) ?)",
        digits=12,
        trigger=_PHONE_TRIGGER,
    ),
    Pattern(
        "phone",
        rf"(?:^|[^\w.\-/]){_DIGITS}(?i:[\W_]{{1,3}}{_USES})\b",
        _phone,
        0.9,
        trigger=rf"\d[\W_]{{1,3}}(?i:{_USES})\b",
    ),
    labelled("fax", _FAX, _DIGITS + r"(?:\z|\D)", _phone, gap=_TO, digits=6),
    Pattern(
        "fax",
        rf"(?:^|[^\w.\-/]){_DIGITS}(?i:[\W_]{{1,3}}{_USE})\b",
        _phone,
        0.9,
        trigger=rf"\d[\W_]{{1,3}}(?i:{_USE})\b",
    ),
    Pattern(
        "email",
        r"([A-Za-z0-9._%+\-]+@[A-Za-z0-9](?:[A-Za-z0-9\-]*\.)+[A-Za-z]{2,24})(?:\z|[^A-Za-z])",
        _not_an_asset,
        trigger=_AT,
        back=256,
        ahead=320,
    ),
    # Internationalised addresses (RFC 6531), with a Latin top-level domain.
    Pattern(
        "email",
        r"([A-Za-z0-9._%+\-\x80-\xff]+@[A-Za-z0-9\-\x80-\xff](?:[A-Za-z0-9\-\x80-\xff]*\.)+[A-Za-z]{2,24})(?:\z|[^A-Za-z])",
        _not_an_asset,
        trigger=_AT,
        back=256,
        ahead=320,
    ),
    # Written out: john [at] example [dot] org.
    Pattern(
        "email",
        rf"((?i:[a-z0-9._%+\-]{{1,64}}(?:{_AT_WORD}| at )[a-z0-9\-]{{1,63}}"
        rf"(?:(?:{_DOT_WORD}| dot )[a-z0-9\-]{{1,63}}){{0,4}}(?:{_DOT_WORD}| dot ){_TLDS}))\b",
        None,
        0.8,
        trigger=rf"(?i:[ \[({{<]dot[ \])}}>] ?{_TLDS})\b",
        back=256,
    ),
    Pattern(
        "email",
        rf"((?i:[a-z0-9._%+\-]{{1,64}}{_AT_WORD}(?:[a-z0-9\-]{{1,63}}\.){{1,4}}{_TLDS}))\b",
        None,
        0.8,
        trigger=r"(?i:[\[({<] ?at ?[\])}>])",
    ),
    Pattern(
        "url",
        r"((?i:https?|ftps?|sftp|wss?|ldaps?|rtsp)://[^\s<>\"'`\\]+)",
        _url,
        trigger=r"[A-Za-z]://[^\s]",
        back=16,
    ),
    Pattern(
        "url",
        r"(?:^|[^\w.@/\-])((?i:www\.)[A-Za-z0-9\-.]+\.[A-Za-z]{2,24}(?:/[^\s<>\"'`\\]*)?)",
        _url,
        trigger=r"(?i:www)\.[A-Za-z0-9]",
        back=16,
    ),
    Pattern(
        "ip",
        r"(?:^|[^\w.\-])(\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})(?:\z|[^\w.\-]|[.\-](?:\z|\D))",
        _ipv4,
        0.9,
        trigger=r"\d\.\d{1,3}\.\d{1,3}\.\d",
        back=16,
        ahead=8,
    ),
    Pattern(
        "ip",
        r"(?:^|[^\w:.])((?i:[0-9a-f]{0,4}:[0-9a-f]{0,4}:(?:[0-9a-f:]{0,30}:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-f:]{0,34})))(?:\z|[^\w:]|:(?:\z|\s))",
        _ipv6,
        0.9,
        trigger=r"[0-9A-Fa-f:]:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]",
        back=32,
        ahead=48,
    ),
    Pattern(
        "mac",
        r"(?:^|[^\w:\-])((?i:[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}))(?:\z|[^\w:\-])",
        None,
        0.9,
        trigger=r"(?:[0-9A-Fa-f]{2}[:\-]){5}|(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]",
        back=20,
        ahead=24,
    ),
)
