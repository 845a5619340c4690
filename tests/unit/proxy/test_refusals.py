"""Refusals: what a client is told fits the status that it gets."""

import pytest

from engines import anthropic, openai
from proxy.errors import CODES, Refusal


@pytest.mark.parametrize(
    ("status", "word"), [(400, b"invalid_request_error"), (403, b"permission_error"), (503, b"overloaded_error")]
)
def test_what_is_for_good_is_not_called_overloaded(status: int, word: bytes) -> None:
    info = Refusal("no_eligible_target", "Nobody can take it.", status=status).info()
    assert word in anthropic.DIALECT.error_body(info)


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_refusal_has_a_form_in_both_dialects(code: str) -> None:
    info = Refusal(code, "No.").info()
    assert info.status == CODES[code].status
    for dialect in (openai.DIALECT, anthropic.DIALECT):
        assert b"No." in dialect.error_body(info)
