"""Invented people, towns, facilities and addresses for the training text.  Seeded; nothing here is a real record."""

from __future__ import annotations

import random
from typing import Any

ENGLISH = ("en_US", "en_GB", "en_IE", "en_NZ", "en_IN", "en_KE")
SAINTS = [
    "Mary",
    "Anne",
    "Joseph",
    "Luke",
    "John",
    "Vincent",
    "Francis",
    "Elizabeth",
    "Jude",
    "Peter",
    "Paul",
    "Thomas",
    "Clare",
    "Rita",
    "Agnes",
    "Michael",
    "Anthony",
    "Bernard",
    "Raphael",
]
NATURE = [
    "Lakeside",
    "Riverside",
    "Hillcrest",
    "Oakwood",
    "Maplewood",
    "Pinecrest",
    "Cedar Ridge",
    "Green Valley",
    "Sunnyvale",
    "Northside",
    "Southgate",
    "Westview",
    "Eastside",
    "Parkview",
    "Fairview",
    "Meadowbrook",
    "Silver Creek",
    "Harbor",
    "Bayview",
    "Highland",
    "Summit",
    "Evergreen",
    "Willow Creek",
    "Brookdale",
    "Stonebridge",
    "Grandview",
    "Central",
    "Downtown",
    "Good Samaritan",
    "Sacred Heart",
    "Holy Cross",
    "Mercy",
    "Providence",
    "Trinity",
    "Unity",
    "Hope",
    "Beacon",
    "Horizon",
    "Pioneer",
    "Liberty",
    "Heritage",
    "Cornerstone",
    "Crestwood",
    "Lakeview",
    "Ocean View",
    "Mountain View",
    "Prairie",
    "Redwood",
    "Magnolia",
    "Blue Ridge",
    "Desert Springs",
    "Coastal",
    "Metro",
    "County",
    "City",
    "Metropolitan",
    "Capital",
    "Elm Street",
    "Main Street",
    "Oak Street",
    "Mount Carmel",
    "Mount Hermon",
    "Mount Olive",
    "Mount Pleasant",
    "Bethesda",
    "Bethany",
    "Emmanuel",
    "Mount Zion",
    "Saint Croix",
    "North Shore",
    "South Bay",
]
KINDS = [
    "Hospital",
    "Medical Center",
    "Clinic",
    "Health",
    "Health Center",
    "Health System",
    "Healthcare",
    "Memorial Hospital",
    "General Hospital",
    "Regional Medical Center",
    "Community Hospital",
    "University Hospital",
    "Children's Hospital",
    "Cancer Center",
    "Family Practice",
    "Family Medicine",
    "Primary Care",
    "Urgent Care",
    "Surgery Center",
    "Heart Institute",
    "Rehabilitation Center",
    "Nursing Home",
    "Hospice",
    "Dental",
    "Pharmacy",
    "Medical Group",
    "Orthopedics",
    "Cardiology Associates",
    "Oncology",
    "Neurology Center",
    "Women's Health",
    "Pediatrics",
    "Dialysis Center",
    "Behavioral Health",
    "Wellness Center",
    "Infirmary",
    "VA Medical Center",
    "Med Center",
    "Med Ctr",
    "General",
    "Memorial",
    "Eye Institute",
    "Imaging",
    "Diagnostics",
    "Physicians",
    "Medical Associates",
    "Clinic of Neurology",
    "Diabetes Center",
    "Care Home",
    "Surgical Hospital",
    "Psychiatric Hospital",
    "Sports Medicine",
    "Kidney Center",
    "Pain Clinic",
    "Fertility Clinic",
    "Maternity Hospital",
    "Laboratories",
]
FOREIGN = [
    "Hospital {town}",
    "Hospital Universitario de {town}",
    "Hospital General de {town}",
    "Centro de Salud {nature}",
    "Clínica {last}",
    "Klinikum {town}",
    "Universitätsklinikum {town}",
    "Krankenhaus {town}",
    "Praxis Dr. {last}",
    "CHU de {town}",
    "Hôpital {last}",
    "Clinique {last}",
    "Ospedale {last}",
    "Hospital San {given}",
    "Hospital Santa {given}",
    "Ziekenhuis {town}",
    "Szpital {town}",
    "{town} Universitetssjukhus",
]
STREETS = [
    "Street",
    "Avenue",
    "Road",
    "Boulevard",
    "Lane",
    "Drive",
    "Court",
    "Circle",
    "Terrace",
    "Parkway",
    "Way",
    "Place",
    "St",
    "St.",
    "Ave",
    "Ave.",
    "Rd",
    "Rd.",
    "Blvd",
    "Ln",
    "Dr",
    "Ct",
    "Square",
    "Crescent",
    "Close",
    "Hwy",
    "Trail",
    *[
        "Hills",
        "Heights",
        "Gardens",
        "Mews",
        "Walk",
        "Row",
        "Grove",
        "Green",
        "Point",
        "Ridge",
        "Views",
        "Pass",
        "Route",
        "Path",
        "Alley",
        "Plaza",
        "Loop",
        "Station",
        "Isle",
        "Forge",
        "Ford",
    ],
]
TREES = [
    "Oak",
    "Maple",
    "Elm",
    "Pine",
    "Cedar",
    "Main",
    "High",
    "Park",
    "Church",
    "Mill",
    "Lake",
    "Hill",
    "River",
    "Spring",
    "Washington",
    "Lincoln",
    "Station",
    "Victoria",
    "Queen",
    "King",
    "Market",
    "Bridge",
    "Meadow",
    "Sunset",
    "2nd",
    "3rd",
    "5th",
    "42nd",
    "North",
    "South",
    "Chestnut",
    "Walnut",
]
STATES = [
    "AL",
    "AK",
    "AZ",
    "AR",
    "CA",
    "CO",
    "CT",
    "DE",
    "FL",
    "GA",
    "HI",
    "ID",
    "IL",
    "IN",
    "IA",
    "KS",
    "KY",
    "LA",
    "ME",
    "MD",
    "MA",
    "MI",
    "MN",
    "MS",
    "MO",
    "MT",
    "NE",
    "NV",
    "NH",
    "NJ",
    "NM",
    "NY",
    "NC",
    "ND",
    "OH",
    "OK",
    "OR",
    "PA",
    "RI",
    "SC",
    "SD",
    "TN",
    "TX",
    "UT",
    "VT",
    "VA",
    "WA",
    "WV",
    "WI",
    "WY",
    "DC",
]
PARTICLES = ("van", "van der", "de", "de la", "von", "del", "di", "da", "al", "bin", "Mac", "ter", "le", "dos")


class World:
    """Draws from the lists that `training/lexicon.py --lists` wrote."""

    def __init__(self, lists: dict[str, Any], dice: random.Random) -> None:
        self._dice = dice
        self._given: dict[str, list[str]] = {k: v for k, v in lists["given"].items() if len(v) > 30}
        self._last: dict[str, list[str]] = {k: v for k, v in lists["last"].items() if len(v) > 15}
        self._locales = sorted(self._given.keys() & self._last.keys())
        self._census_given, self._census_last = lists["census_given"], lists["census_last"]
        self._towns = [name for name, _, _ in lists["towns"]]
        self._weights = []
        total = 0.0
        for _, country, size in lists["towns"]:
            total += max(size, 1000) ** 0.5 * (3 if country == "US" else 1)
            self._weights.append(total)
        self.regions = [r.title() for r in lists["regions"] if len(r) > 5 and not r.endswith(("day", "ber", "uary"))]

    def _ranked(self, names: list[str]) -> str:
        """Frequent ones more often, rare ones often enough."""
        return names[int(len(names) * self._dice.random() ** 3)]

    def pair(self) -> tuple[str, str]:
        """A given name and a surname that may go together."""
        d = self._dice
        roll = d.random()
        if roll < 0.45:
            given, last = self._ranked(self._census_given), self._ranked(self._census_last)
        else:
            locale = d.choice(self._locales)
            given, last = d.choice(self._given[locale]), d.choice(self._last[locale])
        if roll > 0.88:  # names that stand in no list
            given, last = (
                self._mixed(given, d.choice(self._given[d.choice(self._locales)])),
                self._mixed(last, d.choice(self._census_last)),
            )
        return given, last

    def _mixed(self, one: str, other: str) -> str:
        d = self._dice
        return (one[: d.randint(2, 4)] + other[-d.randint(2, 5) :].lower()).strip(" -'")

    def given(self) -> str:
        return self.pair()[0]

    def last(self) -> str:
        return self.pair()[1]

    def name(self) -> str:
        d = self._dice
        given, last = self.pair()
        middle = d.choice("ABCDEFGHJKLMNPRSTW")
        roll = d.random()
        for share, made in (
            (0.42, f"{given} {last}"), (0.13, f"{given} {last[0]}."), (0.08, f"{given} {middle}. {last}"), (0.05,
            f"{given} {middle} {last}"),
            (0.06, f"{last}, {given}"), (0.03, f"{last}, {given} {middle}."), (0.08, given), (0.03, f"{given[0]}. {last}"),
            (0.03, f"{given} {last}-{self.last()}"), (0.03, f"{given} {d.choice(PARTICLES)} {last}"), (0.02, f"{last.upper()}, {given}"),
            (0.02, f"{given} {self.given()} {last}"), (0.01, f"{given} {last} Jr."), (0.01, f"{given[0]}.{last[0]}."),
        ):  # fmt: skip
            roll -= share
            if roll < 0:
                return made
        return f"{given} {last}"

    def town(self) -> str:
        d = self._dice
        return d.choices(self._towns, cum_weights=self._weights)[0] if d.random() < 0.85 else d.choice(self._towns)

    def state(self) -> str:
        return self._dice.choice(STATES)

    def stem(self) -> str:
        """What a facility is called after."""
        d = self._dice
        roll = d.random()
        if roll < 0.22:
            return f"{d.choice(('St.', 'St', 'Saint', 'Mount', 'Mt.'))} {d.choice(SAINTS)}" + d.choice(
                ("'s", "'s", "", "’s")
            )
        if roll < 0.48:
            return d.choice(NATURE)
        if roll < 0.7:
            return self.town()
        if roll < 0.82:
            return self.last()
        if roll < 0.88:
            return f"{self.last()}-{self.last()}" if d.random() < 0.4 else f"{self.given()} {self.last()}"
        if roll < 0.94:
            return "".join(d.choice("ABCDEHLMNOPSUVW") for _ in range(d.randint(2, 4)))
        return (
            f"{d.choice(('University of', 'East', 'West', 'North', 'South', 'New', 'Greater', 'Upper'))} {self.town()}"
        )

    def facility(self) -> str:
        d = self._dice
        roll = d.random()
        if roll < 0.08:
            return d.choice(FOREIGN).format(
                town=self.town(), last=self.last(), given=self.given(), nature=d.choice(NATURE)
            )
        if roll < 0.7:
            return f"{self.stem()} {d.choice(KINDS)}"
        if roll < 0.76:
            return f"{d.choice(('University Hospital of', 'Hospital of', 'Children’s Hospital of', 'Medical Center of', 'Clinic of'))} {self.town()}"
        if roll < 0.8:
            return f"{self.stem()} {d.choice(KINDS)} {d.choice(('in', 'of', '-', 'at'))} {self.town()}"
        if roll < 0.84:
            return f"Dr. {self.last()}'s {d.choice(('office', 'Office', 'clinic', 'practice', 'Clinic'))}"
        if roll < 0.9:
            return f"{self.stem()} {d.choice(('clinic', 'hospital', 'health', 'health center', 'medical center', 'medical'))}"
        return self.bare_facility()

    def bare_facility(self) -> str:
        """Without a word that says what it is: only what stands around it tells."""
        d = self._dice
        roll = d.random()
        if roll < 0.3:
            return f"{d.choice(('St.', 'Saint', 'Mount', 'Mt.'))} {d.choice(SAINTS)}" + d.choice(("'s", "", "'s", "’s"))
        if roll < 0.5:
            return f"{self.last()}{d.choice((' ', '-', ' & '))}{self.last()}"
        if roll < 0.6:
            return f"{self.given()}s {self.last()}"
        if roll < 0.75:
            return f"{''.join(d.choice('ABCDEHLMNOPSUVWY') for _ in range(d.randint(2, 4)))}" + d.choice(
                ("", f" {self.last()}", f" {self.town()}")
            )
        return d.choice(
            (
                d.choice(NATURE),
                self.last(),
                f"{d.choice(NATURE)} {self.town()}",
                f"{self.town()} {d.choice(('Presbyterian', 'Methodist', 'Baptist', 'Lutheran', 'Adventist', 'Mercy', 'General'))}",
            )
        )

    def street(self) -> str:
        d = self._dice
        stem = d.choice((d.choice(TREES), d.choice(TREES), self.last(), self.town(), self.given()))
        return f"{stem} {d.choice(STREETS)}"

    def _crossing(self) -> str:
        """A street, or a street and its number without a word for it."""
        d = self._dice
        ending = d.choice(("straße", "gasse", "vej", "gata", "katu", "laan", "", ""))
        return d.choice((self.street(), f"{self.last()}{ending} {d.randint(1, 199)}"))

    def _military(self) -> str:
        d = self._dice
        post = f"{d.choice(('APO', 'FPO', 'DPO'))} {d.choice(('AA', 'AE', 'AP'))} {d.randint(9000, 96999):05}"
        unit = d.choice(
            (
                f"PSC {d.randint(1, 9999)}, Box {d.randint(1, 9999)}",
                f"Unit {d.randint(1, 9999)} Box {d.randint(1, 9999)}",
                f"{d.choice(('USS', 'USNS', 'USCGC', 'USNV', 'HMS'))} {self.last()}",
            )
        )
        return f"{unit}{d.choice((chr(10), ', '))}{post}"

    def address(self) -> str:
        d = self._dice
        number = d.choice(
            (
                str(d.randint(1, 99)),
                str(d.randint(100, 9999)),
                str(d.randint(1, 99999)),
                f"{d.randint(1, 200)}{d.choice('ABCab')}",
            )
        )
        town, roll = self.town(), d.random()
        if roll < 0.5:
            unit = d.choice(
                (
                    "",
                    "",
                    "",
                    f" Apt. {d.randint(1, 999)}",
                    f" Suite {d.randint(1, 999)}",
                    f", Apt {d.randint(1, 99)}",
                    f" Unit {d.choice('ABCD')}",
                    f"\nApt. {d.randint(1, 99)}",
                    f" #{d.randint(1, 99)}",
                )
            )
            head = f"{number} {self.street()}{unit}"
        elif roll < 0.7:
            ending = d.choice(
                (
                    "straße",
                    "strasse",
                    "gasse",
                    "weg",
                    "gatan",
                    "vej",
                    "katu",
                    "laan",
                    "straat",
                    "allee",
                    "veien",
                    "tie",
                    "utca",
                    "kuja",
                    "platz",
                )
            )
            head = f"{self.last()}{ending} {number}" if d.random() < 0.7 else f"{number} {self.last()}{ending}"
        elif roll < 0.85:
            kind = d.choice(
                (
                    "Calle",
                    "Rue de",
                    "Rua",
                    "Via",
                    "Avenida",
                    "ul.",
                    "Rue",
                    "Avenue",
                    "Piazza",
                    "Viale",
                    "C/",
                    "Plaza",
                    "Carrer",
                    "Boulevard",
                    "Strada",
                    "Ulica",
                    "Ulitsa",
                    "Jalan",
                    "Piața",
                )
            )
            head = d.choice(
                (
                    f"{kind} {self.last()} {number}",
                    f"{number} {kind} {self.last()}",
                    f"{kind} {self.last()}, {number}",
                    f"{number}, {kind} {self.town()}",
                )
            )
        elif roll < 0.89:
            return self._military()
        elif roll < 0.92:
            return f"{d.choice(('the corner of', 'corner of', 'between'))} {self._crossing()} and {self._crossing()}"
        elif roll < 0.95:
            head = f"{number} {self.last()} {d.randint(1, 99)} Apt. {d.randint(1, 999)}"
        else:
            head = f"{d.choice(('P.O. Box', 'PO Box', 'Unit'))} {d.randint(1, 99999)}"
        zipcode = d.choice(
            (
                f"{d.randint(0, 99999):05}",
                f"{d.randint(1000, 9999)}",
                f"{d.randint(0, 99999):05}-{d.randint(0, 9999):04}",
                f"{d.choice('ABEKLMNST')}{d.randint(1, 20)} {d.randint(1, 9)}{d.choice('ABDEFGH')}{d.choice('ABDEFGH')}",
            )
        )
        country = d.choice(self.regions)
        tail = d.choice(
            (
                "",
                "",
                "",
                f", {town}",
                f", {town}, {self.state()}",
                f", {town}, {self.state()} {zipcode}",
                f"\n{town}, {self.state()} {zipcode}",
                f"\n{town}\n, {self.state()}\n {country} {zipcode}",
                f", {zipcode} {town}",
                f"\n{zipcode} {town}\n{country}",
                f" {town}",
                f" {town} {self.state()} {zipcode}",
                f"\n{town}\n{self.state()} {zipcode}",
                f", {town} {country}",
                f"\n Suite {d.randint(1, 999)}\n {town}\n {country} {zipcode}",
                f", {country}",
                f"\n{town} {zipcode}",
            )
        )
        return head + tail
