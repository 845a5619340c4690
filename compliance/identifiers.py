"""The kinds of identifiers that detectors find: their names in rules and records, and when they keep text local.

One table for rules, the checks of a configuration, and its documentation.  The kinds are those of the Safe Harbor
method (45 CFR 164.514(b)(2)), payment and national identifiers, and credentials.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Family = Literal["always", "context"]
"""`always`: stays local whatever surrounds it.  `context`: identifies a person under health context or in a tagged
tenant; without that it is what every other prompt has."""


class Identifier(Struct, frozen=True):
    """One kind of identifier."""

    name: str
    family: Family
    description: str


IDENTIFIERS = (
    # Government numbers.
    Identifier("ssn", "always", "US social security number, whole, masked or its last four digits with a label"),
    Identifier("itin", "always", "US individual taxpayer identification number"),
    Identifier("passport", "always", "passport number, by label"),
    Identifier("licence", "always", "driver's or professional licence number, by label"),
    Identifier("certificate", "always", "certificate number, by label"),
    Identifier("vin", "always", "vehicle identification number (ISO 3779)"),
    Identifier("plate", "always", "vehicle registration plate, by label"),
    Identifier("uk_nhs", "always", "UK NHS number"),
    Identifier("uk_nino", "always", "UK national insurance number"),
    Identifier("ca_sin", "always", "Canadian social insurance number"),
    Identifier("de_tax", "always", "German tax identification number"),
    Identifier("fr_nir", "always", "French social security number (NIR)"),
    Identifier("es_nif", "always", "Spanish NIF, DNI or NIE"),
    Identifier("es_nuss", "always", "Spanish social security number"),
    Identifier("it_cf", "always", "Italian codice fiscale"),
    Identifier("pl_pesel", "always", "Polish PESEL"),
    Identifier("nl_bsn", "always", "Dutch BSN"),
    Identifier("au_medicare", "always", "Australian Medicare number"),
    Identifier("au_tfn", "always", "Australian tax file number"),
    Identifier("in_aadhaar", "always", "Indian Aadhaar number"),
    # Numbers of care and of its payers.
    Identifier("mrn", "always", "medical record, chart, patient or encounter number, by label"),
    Identifier("plan", "always", "health plan, policy, member or beneficiary number, by label"),
    Identifier("mbi", "always", "US Medicare beneficiary identifier"),
    Identifier("npi", "always", "US national provider identifier, by label"),
    Identifier("dea", "always", "US DEA registration number"),
    Identifier("udi", "always", "device identifier (GTIN-14), by label or application identifier (01)"),
    Identifier("imei", "always", "IMEI of a mobile device"),
    Identifier("serial", "always", "serial number of a device, by label"),
    # Money.
    Identifier("card", "always", "payment card number"),
    Identifier("iban", "always", "IBAN"),
    Identifier("routing", "always", "US bank routing number (ABA), by label"),
    Identifier("account", "always", "account number, by label"),
    # Credentials.
    Identifier("secret", "always", "private key, token, API key or password in a known form"),
    # Who and where, without a number that was issued.
    Identifier("name", "context", "name of a person"),
    Identifier("phone", "context", "telephone number"),
    Identifier("fax", "context", "fax number, by label"),
    Identifier("email", "context", "email address"),
    Identifier("url", "context", "web address"),
    Identifier("ip", "context", "IP address, version 4 or 6"),
    Identifier("mac", "context", "hardware address of a network device"),
    Identifier("address", "context", "street address, post box, or city with its state"),
    Identifier("zip", "context", "postal code; three digits of a ZIP only where few people live there"),
    Identifier("place", "context", "facility or smaller place, by its words"),
    Identifier("date", "context", "date, but for a year alone"),
    Identifier("age", "context", "age over 89"),
    Identifier("record_id", "context", "number that is called an ID and nothing more"),
)
"""Every kind, in the order of documentation."""

FAMILY: dict[str, Family] = {kind.name: kind.family for kind in IDENTIFIERS}
"""The family of a kind; kinds of the operator's own are not in it: they are `always`."""

NAMES = tuple(kind.name for kind in IDENTIFIERS)
