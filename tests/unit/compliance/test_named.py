"""Names that their label tells: in small letters and in other scripts."""

from __future__ import annotations

import pytest

from compliance.detectors.names import Names
from compliance.scan import Scanner

NAMES = Names()
SCANNER = Scanner(people=[NAMES])


def found(text: str) -> list[str]:
    return [text[span.start : span.end] for span in NAMES.find(text) if span.type == "name"]


@pytest.mark.parametrize(
    ("text", "name"),
    [("patient: john smith, 45", "john smith"), ("pt name is maria quellima", "maria quellima"), ("patient: smith, john", "smith, john"),
     ("Name: 王小明", "王小明"), ("患者：王小明，男", "王小明"), ("患者王小明，45岁", "王小明"), ("氏名: 田中 太郎", "田中 太郎"), ("환자: 김민수", "김민수"),
     ("이름: 김민수", "김민수"), ("patient name: иван петров", "иван петров"), ("пациент: Иван Петров", "Иван Петров"),
     ("اسم المريض: أحمد علي", "أحمد علي"), ("المريض: محمد حسن", "محمد حسن"), ("नाम: राम कुमार", "राम कुमार"),
     ("PID|1||51703268^^^H||QUELL^ADA||19450312|F", "QUELL^ADA")],
)  # fmt: skip
def test_names(text: str, name: str) -> None:
    assert name in found(text)
    body = {"messages": [{"role": "user", "content": f"{text}. She has diabetes."}]}
    assert "name" in {finding.type for finding in SCANNER.inspect(body).findings}


@pytest.mark.parametrize(
    "text",
    ["patient: may present with pain", "patient: stable and alone", "name: my-service", "patient is doing well", "client: young adults",
     "patient was admitted today", "name: test patient", "患者: 糖尿病", "пациент: жалобы на боль", "filename: john smith", "name: john@quell.example",
     "name:", "患者"],
)  # fmt: skip
def test_no_names(text: str) -> None:
    assert found(text) == []
