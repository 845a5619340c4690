"""Credentials in the forms that their issuers publish: private keys, tokens, connection strings.

The forms are those that issuers chose so that scanners can find them (GitHub's secret scanning partners publish
them); a word for `secret` or `password` beside a random-looking value is the last resort.
"""

from __future__ import annotations

import re

from compliance.detectors.model import Pattern

_B = r"(?:^|[^A-Za-z0-9_])"


def _not_words(text: str) -> bool:
    """A token is a long run of its alphabet, or mixes digits and capitals; `sk-learn-...` does neither."""
    if max(map(len, text[3:].replace("_", "-").split("-"))) >= 16:
        return True
    return any(c.isdigit() for c in text) and any(c.isupper() for c in text)


def _random(text: str) -> bool:
    """Letters and digits mixed, and no character too often: no word, no path, no placeholder."""
    letters = sum(c.isalpha() for c in text)
    digits = sum(c.isdigit() for c in text)
    return letters >= 3 and digits >= 3 and len(set(text)) >= min(10, len(text) * 0.5)


def _password(text: str) -> bool:
    """More than a word: digits or signs among letters."""
    kinds = (str.islower, str.isupper, str.isdigit, lambda c: not c.isalnum())
    return sum(any(kind(c) for c in text) for kind in kinds) >= 3


def _url_password(text: str) -> bool:
    """Not a placeholder: `password`, `$PASSWORD`, `{password}`, `***`."""
    return len(text) >= 6 and not text.isalpha() and text[0] not in "$<{%*["


_PREFIXED = (
    r"gh[pousr]_[A-Za-z0-9]{36,}",
    r"github_pat_[A-Za-z0-9_]{22,}",  # GitHub
    r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat|ffct)-[A-Za-z0-9_\-]{20,}",  # GitLab
    r"xox[abeprs]-[A-Za-z0-9\-]{10,}",
    r"xapp-\d-[A-Z0-9]{8,12}-\d{10,14}-[a-f0-9]{60,}",  # Slack
    r"AIza[0-9A-Za-z_\-]{35}",
    r"ya29\.[0-9A-Za-z_\-]{20,}",
    r"GOCSPX-[A-Za-z0-9_\-]{28}",  # Google
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",
    r"whsec_[A-Za-z0-9+/=]{32,}",  # Stripe
    r"SG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{32,}",  # SendGrid
    r"hf_[A-Za-z0-9]{30,}",
    r"api_org_[A-Za-z]{34}",  # Hugging Face
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-AgE[A-Za-z0-9_\-]{50,}",
    r"rubygems_[a-f0-9]{48}",
    r"crates?io[A-Za-z0-9]{32}",
    r"dckr_(?:pat|oat)_[A-Za-z0-9_\-]{27,}",  # Docker
    r"do[opr]_v1_[a-f0-9]{64}",  # DigitalOcean
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # Shopify
    r"sq0[a-z]{3}-[0-9A-Za-z_\-]{22,}",
    r"EAAA[A-Za-z0-9_\-]{56,}",  # Square
    r"dapi[a-f0-9]{32}(?:-\d)?",
    r"hv[sbr]\.[A-Za-z0-9_\-]{24,}",
    r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_\-=]{60,}",  # Databricks, HashiCorp
    r"glsa_[A-Za-z0-9]{32}_[a-fA-F0-9]{8}",
    r"glc_[A-Za-z0-9+/=]{32,}",  # Grafana
    r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}",
    r"NRAK-[A-Z0-9]{27}",
    r"NRJS-[a-f0-9]{19}",  # Postman, New Relic
    r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}",
    r"(?:ntn|secret)_[A-Za-z0-9]{43,}",
    r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_=.\-]{32,}",
    r"sbp_[a-f0-9]{40}",
    r"sb_secret_[A-Za-z0-9_\-]{20,}",
    r"dp\.(?:pt|st|ct|sa)\.[A-Za-z0-9_.\-]{40,}",
    r"sntry[su]_[A-Za-z0-9+/=_\-]{40,}",
    r"gsk_[A-Za-z0-9]{40,}",
    r"xai-[A-Za-z0-9]{60,}",
    r"pplx-[A-Za-z0-9]{40,}",
    r"r8_[A-Za-z0-9]{37}",
    r"fw_[A-Za-z0-9]{22,}",  # model providers
    r"nvapi-[A-Za-z0-9_\-]{60,}",
    r"tgp_v1_[A-Za-z0-9_\-]{40,}",
    r"AQ\.[A-Za-z0-9_\-]{40,}",
    r"csk-[a-z0-9]{40,}",
    r"ATATT3[A-Za-z0-9_\-=]{60,}",
    r"ATCTT3[A-Za-z0-9_\-=]{60,}",  # Atlassian
    r"pat-(?:na|eu)\d-[a-f0-9\-]{36}",
    r"pat[A-Za-z0-9]{14}\.[a-f0-9]{64}",  # HubSpot, Airtable
    r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    r"AKCp[A-Za-z0-9]{60,}",
    r"LTAI[A-Za-z0-9]{12,20}",
    r"pul-[a-f0-9]{40}",
    r"bkua_[a-f0-9]{40}",
    r"CCIPAT_[A-Za-z0-9]{16,30}_[a-f0-9]{40}",
    r"tskey-[a-z]{3,8}-[A-Za-z0-9]{8,24}-[A-Za-z0-9]{16,}",
    r"FlyV1 [A-Za-z0-9+/=_,\-]{60,}",
    r"sk-ant-[A-Za-z0-9_\-]{20,}",
    r"ops_eyJ[A-Za-z0-9+/=_\-]{100,}",
    r"figd_[A-Za-z0-9_\-]{40,}",
    r"EAAG[A-Za-z0-9]{80,}",
    r"spw_[A-Za-z0-9_\-]{43}",  # Spillway's own keys
)

_LINE_END = r"(?:\s|\\[rn]){1,4}"
"""In JSON text, too, whose escapes are still to be read."""
_KEY = r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_KEY_LINES = rf"(?:{_LINE_END}(?:(?:Proc-Type|DEK-Info|Version|Comment|Hash): [^\n\\]{{1,80}}|[A-Za-z0-9+/=]{{16,}}))*"
_KEY_END = rf"(?:(?:{_LINE_END}[A-Za-z0-9+/=]{{1,64}})?{_LINE_END}-----END (?:[A-Z0-9]{{1,12}} ){{0,3}}PRIVATE KEY(?: BLOCK)?-----)"
"""The key itself (RFC 7468, RFC 4880), as far as it goes: its first line alone says what follows."""

_NAMES = (
    r"(?i:api[_\-. ]?key|apikey|secret(?:[_\-. ]?(?:access)?[_\-. ]?key)?|client[_\-. ]?secret|access[_\-. ]?(?:key|token)"
    r"|(?:private|encryption|signing)[_\-. ]?key|(?:auth|bot)?[_\-. ]?token)"
)

_PASS = r"(?i:pass(?:word|wd|phrase|code)|pwd|contrase\xc3\xb1a|passwort|kennwort|mot de passe)"


def _trigger(shape: str) -> str:
    """The shape up to its shortest length: a trigger need not follow a token to its end."""
    return re.sub(r"\{(\d+),\d*\}", r"{\1}", shape)


SHAPES = (
    Pattern("secret", rf"({_KEY}{_KEY_LINES}{_KEY_END}?)", trigger=_KEY, ahead=8192),
    Pattern("secret", r"(PuTTY-User-Key-File-[23])"),
    Pattern("secret", r"\b((?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16})\b"),  # AWS access key ids
    Pattern(
        "secret", r"\b(sk-[A-Za-z0-9_\-]{20,})", _not_words, trigger=r"\bsk-[A-Za-z0-9_\-]{20}"
    ),  # OpenAI, Anthropic and who copies them
    Pattern("secret", rf"{_B}({'|'.join(_PREFIXED)})", trigger=_trigger(rf"{_B}(?:{'|'.join(_PREFIXED)})"), back=128),
    Pattern(
        "secret",
        r"\b(eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*)?)",
        trigger=r"\beyJ[A-Za-z0-9_\-]{8}",
        back=16,
        ahead=1024,
    ),  # JWT (RFC 7519)
    Pattern(
        "secret",
        r"(?:^|[^A-Za-z0-9])((?:SK|AC)[0-9a-f]{32}|key-[0-9a-f]{32}|\d{8,10}:AA[A-Za-z0-9_\-]{33})(?:\z|[^A-Za-z0-9])",
    ),  # Twilio, Mailgun, Telegram
    Pattern(
        "secret",
        r"(?:^|[^A-Za-z0-9])([MNO][A-Za-z0-9]{23,27}\.[A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{27,38})(?:\z|[^A-Za-z0-9_\-])",
        _random,
    ),  # Discord
    Pattern(
        "secret", r"(?:^|[^A-Za-z0-9_~.\-])([A-Za-z0-9_~.\-]{3}\dQ~[A-Za-z0-9_~.\-]{31,34})(?:\z|[^A-Za-z0-9_~.\-])"
    ),  # Entra ID
    Pattern(
        "secret",
        r"(https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9+/]{20,}|https://discord(?:app)?\.com/api/webhooks/\d{15,21}/[A-Za-z0-9_\-]{40,})",
    ),
    Pattern(
        "secret", r"(?i:(?:AccountKey|SharedAccessKey|SharedAccessSignature|sig)=)([A-Za-z0-9+/%]{40,}=?=?)", _random
    ),  # Azure
    Pattern(
        "secret",
        r"(?i:[a-z][a-z0-9+.\-]{1,20}://[^\s:/@]{1,}:)([^\s/@:]{3,})@[A-Za-z0-9\[]",
        _url_password,
        trigger=r"[A-Za-z0-9+.\-]://[^\s:/@]{1,64}:[^\s/@:]{3}",
    ),  # a password in a URL (RFC 3986, 3.2.1)
    Pattern(
        "secret",
        r"(?i:authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:bearer|basic|token)|\bbearer) ([A-Za-z0-9+/=_.~\-]{16,})",
        _random,
        0.9,
    ),
    Pattern(
        "secret",
        rf"{_NAMES}[\"'`]?\s{{0,3}}(?:[:=]|=>|:=|\bis\b)\s{{0,3}}[\"'`]?([A-Za-z0-9+/=_.~\-]{{16,}})(?:\z|[^A-Za-z0-9+/=_.~\-(\[])",
        _random,
        0.8,
    ),
    Pattern(
        "secret",
        r"" + _PASS + r"[\"'`]?\s{0,3}(?:[:=]|\bis\b)\s{0,3}[\"'`]?([^\s\"'`,;(){}\[\]<>]{8,})(?:\z|[\s\"'`,;)}\]])",
        _password,
        0.8,
    ),
)
