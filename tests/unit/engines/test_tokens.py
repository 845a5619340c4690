"""Estimates by tiktoken, with the ranks that are shipped: nothing is downloaded."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest

from engines.tokens import ENCODINGS, SAMPLE, Tokens, Unusable, encoding_of

tiktoken = pytest.importorskip("tiktoken")
RANKS = Path(__file__).parents[3] / "engines" / "ranks"


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    made = Tokens()
    for name in ENCODINGS:
        made.count("", name)
    return made


def test_counts_as_published(tokens: Tokens) -> None:
    """OpenAI's cookbook, "How to count tokens with tiktoken": these strings have these many tokens."""
    assert tokens.count("tiktoken is great!", "cl100k_base") == 6
    assert tokens.count("tiktoken is great!", "o200k_base") == 6
    assert tokens.count("antidisestablishmentarianism", "cl100k_base") == 6
    assert tokens.count("2 + 2 = 4", "cl100k_base") == 7
    assert tokens.count("お誕生日おめでとう", "cl100k_base") == 9
    assert tokens.count("お誕生日おめでとう", "o200k_base") == 8
    assert tokens.count("", "o200k_base") == 0


def test_the_patterns_and_hashes_are_tiktokens_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tiktoken would build, had it downloaded the ranks."""
    from tiktoken_ext import openai_public

    asked: dict[str, str] = {}

    def remember(url: str, expected_hash: str) -> dict[bytes, int]:
        asked[url.rpartition("/")[2]] = expected_hash
        return {}

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", remember)
    for name, row in ENCODINGS.items():
        assert getattr(openai_public, name)()["pat_str"] == row.pattern
        assert asked[f"{name}.tiktoken"] == row.sha256


def test_nothing_is_downloaded_or_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("somebody went to the network")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    made = Tokens()
    assert made.count("hello world", "cl100k_base") == 2
    assert list(tmp_path.iterdir()) == []


def test_a_long_text_is_sampled_and_scaled(tokens: Tokens) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 4_000  # 180,000 characters
    whole = len(tiktoken_encoding(tokens, "o200k_base").encode_ordinary(text))
    counted = tokens.count(text, "o200k_base")
    assert counted is not None and abs(counted - whole) < whole * 0.02
    assert tokens.count("a" * (SAMPLE + 1), "o200k_base") is not None


def tiktoken_encoding(tokens: Tokens, name: str) -> Any:
    return tokens._loaded[name]


def test_special_tokens_are_text(tokens: Tokens) -> None:
    """A user's words never become a control token."""
    count = tokens.count("<|endoftext|>", "o200k_base")
    assert count is not None and count > 1


def test_ranks_that_were_changed_are_not_used(tmp_path: Path) -> None:
    import zstandard

    broken = b"aGVsbG8= 0\n"
    tmp_path.joinpath("cl100k_base.tiktoken.zst").write_bytes(zstandard.ZstdCompressor().compress(broken))
    with pytest.raises(Unusable, match="does not hold what it should"):
        Tokens(tmp_path).count("x", "cl100k_base")
    tmp_path.joinpath("o200k_base.tiktoken.zst").write_bytes(b"no zstd")
    with pytest.raises(Unusable, match="cannot be read"):
        Tokens(tmp_path).count("x", "o200k_base")
    with pytest.raises(Unusable, match="cannot be read"):
        Tokens(tmp_path / "nowhere").count("x", "o200k_base")


def test_which_encoding_a_model_has() -> None:
    assert [encoding_of(name) for name in ("gpt-4", "gpt-4-turbo", "gpt-3.5-turbo", "text-embedding-3-small")] == [
        "cl100k_base"
    ] * 4
    assert [encoding_of(name) for name in ("gpt-4o", "gpt-4.1", "o3", "gpt-5", "claude-sonnet-5", "llama")] == [
        "o200k_base"
    ] * 6
    assert tiktoken.encoding_name_for_model("gpt-4") == "cl100k_base"
    for name in ("gpt-4o", "gpt-4.1", "o3", "gpt-5", "gpt-4", "gpt-4-turbo", "gpt-3.5-turbo", "text-embedding-3-small"):
        assert encoding_of(name) == tiktoken.encoding_name_for_model(name)


def test_the_licence_comes_with_the_ranks() -> None:
    notice = RANKS.joinpath("NOTICE").read_text()
    for row in ENCODINGS.values():
        assert row.sha256 in notice
    assert "MIT License" in notice
    assert hashlib.sha256(b"").hexdigest() not in notice
