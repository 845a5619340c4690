"""The token counter of a worker: a real process, which begins when it is asked and ends when nobody asks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import psutil
import pytest

from proxy.tokenizing import TokenProcess

pytest.importorskip("tiktoken")
FOX = "The quick brown fox jumps over the lazy dog."  # 10 tokens of o200k_base


@pytest.fixture
async def counter() -> AsyncIterator[TokenProcess]:
    made = TokenProcess(asyncio.get_running_loop(), idle=math.inf)
    yield made
    await made.close()


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "engines.tokens" in " ".join(child.cmdline())]


async def test_counts_several_texts_and_begins_when_it_is_asked(counter: TokenProcess) -> None:
    assert not counter.running
    assert await counter.count("o200k_base", [FOX, "", f"{FOX} {FOX}", "line\nline"]) == [10, 0, 20, 3]
    assert counter.running and len(children()) == 1


async def test_requests_go_before_it(counter: TokenProcess) -> None:
    assert await counter.count("o200k_base", [FOX]) == [10]
    assert children()[0].nice() == 19 > psutil.Process().nice()


async def test_many_ask_and_each_gets_its_own(counter: TokenProcess) -> None:
    counts = await asyncio.gather(*[counter.count("o200k_base", ["fox " * n]) for n in range(1, 20)])
    assert [found[0] for found in counts if found] == [n + 1 for n in range(1, 20)]
    assert len(children()) == 1


async def test_a_process_that_was_killed_is_replaced(counter: TokenProcess) -> None:
    assert await counter.count("o200k_base", [FOX]) == [10]
    children()[0].kill()
    first = await counter.count("o200k_base", [FOX])  # may meet the dead one
    assert first in (None, [10])
    assert await counter.count("o200k_base", [FOX]) == [10]


async def test_who_gives_up_leaves_no_answer_to_the_next(counter: TokenProcess) -> None:
    asking = asyncio.create_task(counter.count("o200k_base", ["a " * 500]))
    while not counter.running:
        await asyncio.sleep(0.001)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert await counter.count("o200k_base", [FOX]) == [10]


async def test_it_ends_when_nobody_asks_and_with_its_worker() -> None:
    counter = TokenProcess(asyncio.get_running_loop(), idle=0.05)
    assert await counter.count("o200k_base", [FOX]) == [10]
    child = children()[0]
    while counter.running:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(child.wait, 30)
    assert await counter.count("o200k_base", [FOX]) == [10]
    await counter.close()
    assert children() == []
    assert await counter.count("o200k_base", [FOX]) is None


async def test_what_cannot_be_loaded_is_said_once(counter: TokenProcess, caplog: pytest.LogCaptureFixture) -> None:
    assert await counter.count("no such encoding", [FOX]) is None
    assert await counter.count("no such encoding", [FOX]) is None
    assert [record.message for record in caplog.records] == [
        "tokens cannot be counted: there is no encoding 'no such encoding'"
    ]
