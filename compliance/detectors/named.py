"""Names by their label alone: in small letters where the lists have them, and in scripts that know no capitals.

`patient: john smith`, `pt name is ...`, and labels and names in Chinese, Japanese, Korean, Cyrillic, Arabic and
Devanagari.  One pass of an expression over the labels; linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from compliance.detectors.lexicon import COMMON, FREQUENT, GIVEN, REGION, SURNAME, WORD
from compliance.detectors.model import Span

CONFIDENCE = 0.96
_NAME = (
    "name", "nombre", "nom", "nome", "nazwisko", "imię", "имя", "фамилия", "фио", "姓名", "名字", "氏名", "名前", "이름", "성명", "성함",
    "الاسم", "اسم", "اسم المريض", "नाम",
)  # fmt: skip
_PATIENT = (
    "patient", "patientin", "pt", "client", "insured", "subscriber", "member", "caller", "paciente", "paziente", "pacjent", "pacjentka",
    "пациент", "пациентка", "больной", "больная", "患者", "病人", "환자", "المريض", "المريضة", "مريض", "मरीज", "रोगी",
)  # fmt: skip
_LABELS = _NAME + _PATIENT
_MARKS = re.compile("[：は是叫为]")
_ASCII_MARKS = (":", "=", " is ", " was ")
_AROUND = " \t\"'*"
_LONGEST_LABEL = 24
_BLANK = _AROUND + "\n\u3000"

_LATIN = re.compile(r"[a-z\u00df-\u017f'’\-]{2,24}(?:[ ,]{1,2}[a-z\u00df-\u017f'’\-]{2,24}){0,3}(?![\w@/]|\.\w)")
_LETTER = (
    "\u0370-\u058f\u05d0-\u05ea\u0620-\u0652\u0671-\u06d3\u0900-\u0963\u0980-\u0dff\u0e01-\u0e4e\u3041-\u30ff"
    "\u3400-\u9fff\uac00-\ud7a3"
)
_OTHER = re.compile(rf"[{_LETTER}·\-]{{2,24}}(?:[ \u3000][{_LETTER}·\-]{{1,24}}){{0,3}}(?![{_LETTER}\w])")
_HAN_FAMILY = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江"
    "尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤張劉陳楊黃趙吳孫馬羅鄭謝許韓馮鄧蕭葉蘇盧鍾陸"
)
"""The hundred commonest Chinese family names (Ministry of Public Security, 2020), also in traditional characters."""
_HAN = re.compile(
    rf"(?:患者|病人|病患|姓名)[ :：是为叫]{{0,3}}([{_HAN_FAMILY}][\u4e00-\u9fff]{{1,2}})(?![\u4e00-\u9fff])"
)
_SHORT = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")
_SEGMENT = re.compile(r"PID(?:\|[^|\r\n]*){4}\|([^\W\d_][^|\d\r\n~]{0,40}\^[^|\d\r\n~]{1,40})")
"""The name in the patient's segment of an HL7 version 2 message (PID-5)."""


def named(text: str, flags: Callable[[str], int]) -> Iterator[Span]:
    """Spans of type `name`.  `flags`: what the lexicon says of a word in small letters."""
    for mark, behind in _marks(text):
        label = _label(text, mark)
        if label:
            at = behind
            while at < len(text) and at - behind < 4 and text[at] in _BLANK:
                at += 1
            end = _latin(text, at, label in _NAME, flags) or _other(text, at, label in _NAME, flags)
            if end:
                yield Span("name", at, end, CONFIDENCE)
    if "PID|" in text:
        for match in _SEGMENT.finditer(text):
            yield Span("name", *match.span(1), CONFIDENCE)
    if not text.isascii():
        for match in _HAN.finditer(text):
            yield Span("name", *match.span(1), CONFIDENCE)


def _marks(text: str) -> Iterator[tuple[int, int]]:
    """Where what parts a label from its name begins and ends."""
    for mark in _ASCII_MARKS:
        at = text.find(mark)
        while at >= 0:
            yield at, at + len(mark)
            at = text.find(mark, at + 1)
    if not text.isascii():
        for match in _MARKS.finditer(text):
            yield match.span()


def _label(text: str, end: int) -> str:
    """The label that ends at `end`, or nothing."""
    context = text[max(0, end - _LONGEST_LABEL) : end].rstrip(_AROUND).lower()
    if not context.endswith(_LABELS):
        return ""
    label = next(label for label in _LABELS if context.endswith(label))
    before = context[-len(label) - 1 : -len(label)]
    return "" if label.isascii() and before.isalpha() else label


def by_label(text: str, span: Span) -> bool:
    """Was this name told by its label?"""
    if span.confidence < CONFIDENCE:
        return False
    context = text[max(0, span.start - _LONGEST_LABEL) : span.start].rstrip(_BLANK)
    if context.endswith((" is", " was")):
        return bool(_label(context, context.rindex(" ")))
    return bool(_label(context, len(context)) or _label(context, len(context) - 1))


def _latin(text: str, at: int, name: bool, flags: Callable[[str], int]) -> int:
    """The end of a name in small Latin letters that begins at `at`; 0 where none does."""
    match = _LATIN.match(text, at)
    if match is None:
        return 0
    words = [(flags(word[0]), at + word.end()) for word in re.finditer(r"[^ ,]+", match[0])]
    first = words[0][0]
    if len(words) == 1:
        sure = name and first & GIVEN and first & FREQUENT and not first & (COMMON | WORD)
        return words[0][1] if sure else 0
    second = words[1][0]
    listed = (first & GIVEN and (second & SURNAME or not second)) or (first & SURNAME and second & GIVEN)
    common = [word & COMMON and not word & FREQUENT for word in (first, second)]
    if not listed or any(common) or (first & COMMON and second & COMMON) or first & REGION:
        return 0
    last = 1
    while last + 1 < len(words) and not words[last + 1][0] & (COMMON | WORD):
        last += 1
    return words[last][1]


def _other(text: str, at: int, name: bool, flags: Callable[[str], int]) -> int:
    """The same for a script without capitals, or for Cyrillic and Greek."""
    match = _OTHER.match(text, at)
    if match is None:
        return 0
    value = match[0]
    words = value.split()
    if _SHORT.match(value):
        fits = len(value) <= 12 if name else value[0] in _HAN_FAMILY and len(value) <= 4
    elif name:
        fits = True
    elif value.upper() != value.lower():  # with capitals: of the lists, or written as a name
        fits = 1 < len(words) < 4 and (
            all(word[:1].isupper() for word in words) or any(flags(word.lower()) & (GIVEN | SURNAME) for word in words)
        )
    else:
        fits = len(words) <= 3 and (match.end() == len(text) or text[match.end()] in ",.;\n،।")
    return match.end() if fits else 0
