"""Shapes by family: what they take, and what they leave."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compliance.detectors import shapes_place
from compliance.detectors.patterns import Patterns

PATTERNS = Patterns()


def found(text: str) -> list[tuple[str, str]]:
    return [(span.type, text[span.start : span.end]) for span in PATTERNS.find(text)]


def kinds(text: str) -> set[str]:
    return {kind for kind, _ in found(text)}


# --- health -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label",
    ["MRN: ", "MRN ", "MRN #", "mrn=", "patient_mrn: ", "patientMrn: ", "Medical record number: ", "Med Rec#: ", "patient ID ",
     "Pt ID #", "chart no. ", "NHC: ", "Patienten-Nr. ", "encounter id: ", "record #", "mrn\n", '"mrn": "'],
)  # fmt: skip
@pytest.mark.parametrize("value", ["00482719", "MH-778201", "48271-JS", "482-719-001", "UC7-482719"])
def test_records(label: str, value: str) -> None:
    assert ("mrn", value) in found(f"{label}{value}, seen")


@pytest.mark.parametrize(
    "text",
    ["mRNA-1273 vaccine", "medical records of 2061 patients", "the record 2024 was broken", "MRN is unknown",
     "patient identification is required", "a chart with 12 bars", "record: 5 wins", "the case of 1999"],
)  # fmt: skip
def test_no_records(text: str) -> None:
    assert "mrn" not in kinds(text)


@pytest.mark.parametrize(
    "label",
    ["Insurance ID: ", "insurance policy number ", "Member ID: ", "policy #", "Health Plan: ", "insurance is ", "(Insurance: ",
     "ins policy #", "subscriber no. ", "medicaid id ", "HBN: "],
)  # fmt: skip
def test_plans(label: str) -> None:
    assert ("plan", "AB-482719") in found(f"{label}AB-482719.")


@pytest.mark.parametrize(
    "text", ["insurance is 15000 per year", "plan 2024", "my health plan has 3 tiers", "group_id = 5470"]
)
def test_no_plans(text: str) -> None:
    assert "plan" not in kinds(text)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("mbi", "1EG4-TE5-MK73 on file", "1EG4-TE5-MK73"),
        ("mbi", "MBI 1eg4te5mk73", "1eg4te5mk73"),
        ("npi", "NPI 1234567893", "1234567893"),
        ("npi", "NPI: 1234567890", "1234567890"),
        ("dea", "with AB1234563 on it", "AB1234563"),
        ("dea", "DEA# ab1234567", "ab1234567"),
        ("udi", "(01)00643169007222(17)141231", "00643169007222"),
        ("imei", "IMEI 49-015420-323751-8", "49-015420-323751-8"),
        ("serial", "device serial number: PX-99281-A", "PX-99281-A"),
        ("record_id", "on May 3 (ID: 987654321)", "987654321"),
        ("licence", "driver's license number is D1234567", "D1234567"),
        ("certificate", "certificate no. 12-3456", "12-3456"),
        ("passport", "passport number C01X00T47", "C01X00T47"),
        ("vin", "a car, 1M8GDM9AXKP042788, blue", "1M8GDM9AXKP042788"),
        ("vin", "VIN: 1M8GDM9A1KP042788", "1M8GDM9A1KP042788"),
        ("plate", "license plate: ABC-1234", "ABC-1234"),
        ("account", "Acct#: GRM-998877", "GRM-998877"),
        ("account", "account number 12345678", "12345678"),
        ("routing", "routing number 021000021", "021000021"),
        ("iban", "to DE89 3704 0044 0532 0130 00 please", "DE89 3704 0044 0532 0130 00"),
        ("iban", "IBAN GB00WEST12345698765432", "GB00WEST12345698765432"),
    ],
)
def test_numbers(kind: str, text: str, value: str) -> None:
    assert (kind, value) in found(text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("npi", "created at 1234567893"),
        ("dea", "part AB1234567"),
        ("udi", "20240131120000"),
        ("vin", "1M8GDM9A1KP042788"),
        ("iban", "GB00WEST12345698765432"),
        ("routing", "021000021"),
        ("account", "the account of 2024"),
        ("imei", "490154203237518"),
        ("serial", "a serial killer of 1999"),
        ("record_id", '{"id": 987654321}'),
        ("licence", "Apache License, version 2.0"),
    ],
)
def test_no_numbers(kind: str, text: str) -> None:
    assert kind not in kinds(text)


# --- national -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("uk_nhs", "NHS number 943 476 5919", "943 476 5919"),
        ("uk_nino", "QQ 12 34 56 C no, but AB 12 34 56 C", "AB 12 34 56 C"),
        ("ca_sin", "SIN: 046-454-286", "046-454-286"),
        ("de_tax", "Steuer-ID 86 095 742 719", "86 095 742 719"),
        ("fr_nir", "le 2 55 08 14 168 025 38, merci", "2 55 08 14 168 025 38"),
        ("es_nif", "el 12345678Z", "12345678Z"),
        ("es_nif", "NIE x-1234567-l", "x-1234567-l"),
        ("es_nuss", "NASS: 28 12345678 40", "28 12345678 40"),
        ("it_cf", "RSSMRA85T10A562S", "RSSMRA85T10A562S"),
        ("pl_pesel", "PESEL 44051401359", "44051401359"),
        ("nl_bsn", "BSN: 111222333", "111222333"),
        ("au_medicare", "card 2123 45670 1 there", "2123 45670 1"),
        ("au_tfn", "TFN 123 456 782", "123 456 782"),
        ("in_aadhaar", "it is 2341 2341 2346.", "2341 2341 2346"),
        ("in_aadhaar", "Aadhaar: 234123412347", "234123412347"),
    ],
)
def test_national_numbers(kind: str, text: str, value: str) -> None:
    assert (kind, value) in found(text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("uk_nhs", "943 476 5919"),
        ("uk_nino", "GB123456A"),
        ("ca_sin", "sin(046454286)"),
        ("fr_nir", "2 55 08 14 168 025 39"),
        ("es_nif", "12345678A"),
        ("it_cf", "RSSMRA85T10A562T"),
        ("pl_pesel", "44051401359"),
        ("in_aadhaar", "2341 2341 2347"),
    ],
)
def test_no_national_numbers(kind: str, text: str) -> None:
    assert kind not in kinds(text)


# --- contact ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    ["(212) 555-0147", "212-555-0147", "212.555.0147", "+1 212 555 0147", "1-800-555-0100", "+44 20 7946 0958", "+41 (0)62 585 51 90",
     "555-123-4567", "123-456-7890", "+447700900123", "01.84.17.61.18", "0341 8387176", "212-555-0147 x55"],
)  # fmt: skip
def test_phones_in_the_open(number: str) -> None:
    assert "phone" in kinds(f"write to {number} now")


@pytest.mark.parametrize(
    "text",
    ["Phone: 73 448 266", "call me at 9469 9966", "mobile 606409021", "79720805-Office", "Tel.: 963 862 500",
     "messages: 73 448 266", "messages\n73 448 266", "voiceMessages 73 448 266", "messages\nreach me at 73 448 266",
     "messages\nrole\nuser\ncontent\nmessages at 73 448 266"],
)  # fmt: skip
def test_phones_by_their_label(text: str) -> None:
    assert "phone" in kinds(text)


@pytest.mark.parametrize("number", ["(64) 3591-3246", "+47 73 44 82 66", "(212) 555-0147"])
@pytest.mark.parametrize("label", ["Phone: ", "call me on ", "(phone: "])
def test_a_phone_is_whole(number: str, label: str) -> None:
    """Its bracket and its plus are no part of the gap behind the label."""
    assert ("phone", number) in found(f"{label}{number}, please")


@pytest.mark.parametrize(
    "text", ["Fax: 212-555-0147", "facsimile 933203631", "51-16-34-25-Fax", "patientFax: 2125550147"]
)
def test_faxes(text: str) -> None:
    assert "fax" in kinds(text)


@pytest.mark.parametrize(
    "text",
    ["1700000000", "2024-11-24", "3.14159265358979", "10.15.7", "call 911", "12 34 56", "phone 12 is out", "ISBN 978-3-16-148410-0",
     "123e4567-e89b-12d3-a456-426614174000", "the office has 2 floors"],
)  # fmt: skip
def test_no_phones(text: str) -> None:
    assert "phone" not in kinds(text)


@pytest.mark.parametrize(
    "address",
    [
        "jane [at] example [dot] org",
        "jane(at)example.com",
        "jane at example dot com",
        "jane{at}mail{dot}example{dot}org",
    ],
)
def test_addresses_written_out(address: str) -> None:
    assert ("email", address) in found(f"write to {address}, please")


@pytest.mark.parametrize("text", ["look at the dot", "arrive at noon", "at x dot y"])
def test_no_addresses_written_out(text: str) -> None:
    assert "email" not in kinds(text)


@pytest.mark.parametrize(
    "url", ["https://a.example/p?q=1#f", "http://10.0.0.1:8080/", "www.example.org/x", "ftp://files.example.com/a"]
)
def test_urls(url: str) -> None:
    assert ("url", url) in found(f"see {url} there")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("10.218.6.131", True), ("198.51.100.23", True), ("256.1.1.1", False), ("127.0.0.1", False), ("255.255.255.0", False),
     ("1.2.3.4.5", False), ("2001:db8::8a2e:370:7334", True), ("fe80::1", True), ("::1", False), ("12:34:56", False),
     ("std::vector", False), ("a::b", False), ("d80:e4b5:79da:6cf6:71f3:51f7:9161:c319", True), ("::ffff:192.0.2.1", True)],
)  # fmt: skip
def test_ip_addresses_are_parsed(text: str, wanted: bool) -> None:
    assert (("ip", text) in found(f"from {text} to")) is wanted


def test_mac_addresses() -> None:
    assert ("mac", "00:1A:2b:3C:4d:5E") in found("at 00:1A:2b:3C:4d:5E.")
    assert "mac" not in kinds("12:34:56:78:90")


# --- dates and ages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "date",
    ["03/14/1958", "3/14/58", "14.03.1958", "1958-03-14", "14-Mar-1958", "March 14, 1958", "March 14th, 1958", "Mar 14 1958",
     "14 March 1958", "14th of March", "March 1958", "May 5th", "Jan 3rd '22", "2024-11-24T12:34:56Z", "1979-05-16 11:28:01",
     "14 de abril de 2006", "octubre de 2016", "3. März 2020", "12 janvier 2020", "11/2021", "last July",
     "last Tuesday", "last week", "yesterday", "this past winter"],
)  # fmt: skip
def test_dates(date: str) -> None:
    assert ("date", date) in found(f"was seen there {date}, again")


@pytest.mark.parametrize(
    "text", ["DOB: 19580314", "date of birth 03141958", "born on 1958 03 14", "DOB: 0 3 / 1 4 / 1 9 5 8"]
)
def test_dates_by_their_label(text: str) -> None:
    assert "date" in kinds(text)


@pytest.mark.parametrize(
    "text",
    ["in 1958", "you may 2 times", "99/99/9999", "13/32/2020", "1/2 cup", "120/80", "10.15.7", "gpt-4o-2024-08-06", "march on", "24/7",
     "1.2.3", "section 3.4.2020.1", "the 5 of us", "at long last we met", "last in line", "a lasting year"],
)  # fmt: skip
def test_no_dates(text: str) -> None:
    assert "date" not in kinds(text)


@pytest.mark.parametrize(
    ("date", "faint"),
    [("March 14, 1958", False), ("14 March", False), ("March 1958", True), ("11/2021", True), ("last July", True), ("last week", True)],
)  # fmt: skip
def test_dates_without_a_day_are_unsure(date: str, faint: bool) -> None:
    """They identify only in company."""
    (span,) = PATTERNS.find(f"seen {date}.")
    assert (span.confidence < 0.6) is faint


@pytest.mark.parametrize(
    ("text", "age"), [("a 92-year-old man", "92-year-old"), ("she is 101 years old", "101 years old"), ("aged 95", "95"), ("age: 90", "90"),
                      ("90 años", "90 años"), ("a 93yo woman", "93yo")],
)  # fmt: skip
def test_ages_over_89(text: str, age: str) -> None:
    assert ("age", age) in found(text)


@pytest.mark.parametrize(
    "text", ["an 89-year-old man", "aged 65", "age: 190", "95%", "92 years of experience", "page 95", "stage 91"]
)
def test_no_ages_over_89(text: str) -> None:
    assert "age" not in kinds(text)


# --- places -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["789 Pine Street", "12 Main St, Apt 4", "90 Whitchurch Road", "P.O. Box 101", "PSC 9236, Box 1684\nAPO AP 02137", "Suite 546",
     "Calle del pez, 28", "C/ Recamal, 23", "Hauptstraße 5", "12 rue de la Paix", "Springfield, IL 62704", "Austin, Texas"],
)  # fmt: skip
def test_addresses(address: str) -> None:
    covered = [part for kind, part in found(f"he moved to {address}; then") if kind == "address"]
    assert any(address.startswith(part) or part.startswith(address) for part in covered)


@pytest.mark.parametrize("way", shapes_place.WAYS)
@pytest.mark.parametrize("written", [str.lower, str.capitalize, str.upper])
def test_each_word_for_a_way(way: str, written: Callable[[str], str]) -> None:
    longest = "A" + "b" * 24
    for name in (longest, f"{longest} {longest} Long {longest}", "4th"):
        assert ("address", f"12-14, {name} {written(way)}") in found(f"it is 12-14, {name} {written(way)} there")


@pytest.mark.parametrize("place", ["Bari, BA\nItalia 70121", "Québec, QC Élan 12345", "Łódź,LD  Łódzkie 90001"])
def test_towns_with_a_region(place: str) -> None:
    assert ("address", place) in found(f"born in {place}, and moved")


@pytest.mark.parametrize(
    "address",
    ["41 Linden Meadows", "208 Harrow Crossing", "ul. Lipowa 12", "14 ul. Długa 7", "Kossuth utca 22", "Petőfi u. 9", "Prešernova cesta 4",
     "417 Rosenhof 12 Apt. 31", "the corner of Linden Row and Harrow Street", "the corner of ul. Lipowa 12 and Harrow Bypass",
     "Nordby, KA\n Norway 44120"],
)  # fmt: skip
def test_whole_addresses(address: str) -> None:
    covered = set()
    for span in PATTERNS.find(text := f"send it to {address}, please"):
        covered |= set(range(span.start, span.end)) if span.type == "address" else set()
    start = text.index(address)
    assert set(range(start, start + len(address))) <= covered


@pytest.mark.parametrize(
    "text",
    [
        "the corner of the room and the wall",
        "5 Point Plan",
        "the area of 30 hills",
        "20 Apt. replies",
        "on the way",
        "2 Large Pizzas",
        "Smith, John",
        "3 years in place",
        "Yes, OK?",
        "4 miles of road",
    ],
)
def test_no_addresses(text: str) -> None:
    assert "address" not in kinds(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [("ZIP: 48750", "48750"), ("Boston, MA 02115-1234", "02115-1234"), ("SW1A 1AA", "SW1A 1AA"), ("K1A 0B6", "K1A 0B6"),
     ("postal code 28001", "28001"), ("CP: 28001", "28001"), ("ZIP 036", "036"), ("zip3: 893", "893")],
)  # fmt: skip
def test_postal_codes(text: str, code: str) -> None:
    assert ("zip", code) in found(text)


@pytest.mark.parametrize("text", ["ZIP 941", "zip code: 100", "zip the file 48750x", "12345 items"])
def test_no_postal_codes(text: str) -> None:
    assert "zip" not in kinds(text)
