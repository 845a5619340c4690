"""Which language a text is in, by its script and its commonest words; None where that does not tell.

A guess for routing, made in some ten microseconds: short texts and code often give none, and a wrong answer is worse.
"""

from __future__ import annotations

import re
from functools import cache

ENOUGH = 300
"""Characters in which common words are counted."""
LEAST = 2
"""Common words of a language from which it is believed; the next best must have fewer by a third."""

_COMMON = {
    "en": "the of and to in is that it for was with as are this have from what how you your can not which please my i be",
    "de": "der die das und ist nicht ein eine einen zu den mit von auf für sich auch wie ich bitte wird sind dem was mir im",
    "fr": "le la les des et est une un du que qui dans pour pas sur avec ce au plus je vous comment quel quelle sont mon il",
    "es": "el la los las de y es una un que en por para con no del se al como mi cuál qué está son lo más su puedo",
    "it": "il lo la gli di che è un una per non con del della sono come mi le si anche questo dei nel quale cosa ho i",
    "pt": "o os de e é um uma que em para com não do da dos das por como se mais meu minha está são no na você qual eu",
    "nl": "de het een en van is dat niet op te in voor met zijn aan ik er hoe wat maar om ook mijn kan je naar welke",
    "pl": "i w nie na się jest z do to że jak o od po czy dla co za mój moja są przez które jaki proszę tak oraz",
    "sv": "och att det är en ett som på för av med inte den till jag om har de hur vad kan min från vilken du",
    "da": "og at det er en et som på for af med ikke den til jeg om har de hvordan hvad kan min fra hvilken du",
    "tr": "ve bir bu için ile de da ne mi nasıl olarak çok gibi daha var değil ben benim olan kadar lütfen nedir",
    "ru": "и в не на что как мне с по это я для мой моя у меня вы за от или если какой какая можно пожалуйста есть",
    "uk": "і в не на що як мені з по це я для мій моя у мене ви за від або якщо який яка можна будь ласка є та до",
    "bg": "и в не на какво как ми с по това аз за моя моята да се си от или ако кой коя може моля е са съм ли",
    "cs": "a je to se na v že s z do jak ne pro co o za jsem jsou který která můj prosím nebo ale jaký by si",
}
KNOWN = (*_COMMON, "el", "ar", "fa", "he", "hi", "th", "zh", "ja", "ko")
_LANGUAGES: dict[str, tuple[str, ...]] = {}
for _name, _words in _COMMON.items():
    for _word in _words.split():
        _LANGUAGES[_word] = (*_LANGUAGES.get(_word, ()), _name)
_WORD = re.compile(r"[^\W\d_]+")
_SCRIPTS = (
    ("ja", "[\u3040-\u30ff]"),
    ("ko", "[\u1100-\u11ff\uac00-\ud7af]"),
    ("zh", "[\u4e00-\u9fff]"),
    ("uk", "[іїєґІЇЄҐ]"),
    ("ru", "[ыэёЫЭЁ]"),
    ("el", "[\u0370-\u03ff]"),
    ("fa", "[پچژگ]"),
    ("ar", "[\u0600-\u06ff]"),
    ("he", "[\u0590-\u05ff]"),
    ("hi", "[\u0900-\u097f]"),
    ("th", "[\u0e00-\u0e7f]"),
)  # what is written with another script's letters, too, comes before it
_LATIN = "[A-Za-z\u00c0-\u024f]"
_OTHER = "[\u0370-\uffef]"


@cache
def _searches() -> tuple[re.Pattern[str], re.Pattern[str], tuple[tuple[str, re.Pattern[str]], ...]]:
    """(other scripts, Latin, each script), compiled when a text is first asked about: 8 ms, where most never are."""
    return re.compile(_OTHER), re.compile(_LATIN), tuple((name, re.compile(script)) for name, script in _SCRIPTS)


def language(text: str) -> str | None:
    """ISO 639-1 of the language of a text, of those in `KNOWN`; None: it cannot be told."""
    if not text.isascii():
        other, latin, scripts = _searches()
        others = len(other.findall(text))
        if others > 1 and others * 2 >= len(latin.findall(text)):  # a word in Chinese says more than one in Latin
            by_script = next((name for name, script in scripts if script.search(text)), None)
            if by_script is not None:
                return by_script  # else by words: Cyrillic without the letters of one language alone
    counts: dict[str, int] = {}
    known = _LANGUAGES.get
    for names in map(known, _WORD.findall(text[:ENOUGH].lower())):
        if names is not None:
            for name in names:
                counts[name] = counts.get(name, 0) + 1
    if not counts:
        return None
    best, *rest = sorted(counts.items(), key=lambda item: -item[1])
    if best[1] < LEAST or (rest and rest[0][1] * 3 > best[1] * 2):
        return None
    return best[0]
