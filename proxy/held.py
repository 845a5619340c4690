"""An answer that is held back from the client until it is read: a sink that keeps what it gets.

A `HeldSink` stands in the place of the client's own while smaller targets are asked.  It reads what it is given as the
client would, in the client's dialect, and keeps the very bytes; whoever made it decides, when the answer is whole,
whether they go out as they are.  What grows too large, or takes too long, goes out at once, and from then on the sink
only passes on.  Nothing has gone to the client before, so `started` says no (law 6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from engines.base import Dialect
from engines.errors import EngineError
from engines.model import (
    Done,
    Event,
    Failed,
    Finish,
    Opaque,
    Operation,
    RefusalDelta,
    Request,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from engines.sse import Framer
from policies.escalation import Call, Said, Wanted
from policies.signals import last_said
from proxy.exchange import ClientSink

TOO_LARGE, LATE = "too_large", "late"
"""Why an answer was let go unread."""
_LONGEST_PROMPT = 16_384
"""Characters of a prompt that a scorer gets to see."""


class _Token(Struct):
    logprob: float | None = None


class _Logprobs(Struct):
    content: list[_Token] | None = None


class _Choice(Struct):
    index: int = 0
    logprobs: _Logprobs | None = None


class _Tokens(Struct):
    choices: list[_Choice] | None = None


_tokens = msgspec.json.Decoder(_Tokens).decode


class _Saying:
    """One choice, while it comes."""

    __slots__ = ("calls", "finish", "logprobs", "refused", "text", "tokens")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.finish: str | None = None
        self.refused = False
        self.calls: dict[int, tuple[str, list[str]]] = {}
        self.logprobs = 0.0
        self.tokens = 0

    def said(self) -> Said:
        calls = [Call(name, "".join(arguments)) for name, arguments in self.calls.values()]
        mean = self.logprobs / self.tokens if self.tokens else None
        return Said("".join(self.text), self.finish, self.refused, calls, mean)


class Reader:
    """Reads an answer in the client's dialect, as it comes or whole."""

    def __init__(self, client: Dialect, *, logprobs: bool = False) -> None:
        self.done = False
        self.failed = False  # an error stands in it
        self.unread = False  # something in it has no word here: it cannot be judged
        self._client = client
        self._framer = Framer()
        self._decoder = client.decoder()
        self._logprobs = logprobs
        self._choices: dict[int, _Saying] = {}

    def feed(self, data: bytes) -> None:
        try:
            for frame in self._framer.feed(data):
                for event in self._decoder.feed(frame):
                    self._take(event)
                if self._logprobs and frame.data is not None and b'"logprob"' in frame.data:
                    self._weigh(frame.data)
        except EngineError:
            self.unread = True

    def whole(self, body: bytes) -> None:
        try:
            for event in self._client.decode_answer(Operation.CHAT, body):
                self._take(event)
        except EngineError:
            self.unread = True
        if self._logprobs:
            self._weigh(body)
        self.done = True

    def said(self) -> list[Said]:
        return [saying.said() for _, saying in sorted(self._choices.items())]

    def _take(self, event: Event) -> None:
        match event:
            case TextDelta(choice=choice, text=text):
                self._of(choice).text.append(text)
            case Finish(choice=choice, reason=reason):
                self._of(choice).finish = reason
            case ToolCallStart(choice=choice, index=index, name=name):
                self._of(choice).calls[index] = name, []
            case ToolCallDelta(choice=choice, index=index, arguments=arguments):
                self._of(choice).calls.setdefault(index, ("", []))[1].append(arguments)
            case RefusalDelta(choice=choice, text=text):
                self._of(choice).refused = True
            case Opaque(carries_text=True):
                self.unread = True
            case Done():
                self.done = True
            case Failed():
                self.failed = True
            case _:  # the rest says nothing of how good an answer is
                pass

    def _of(self, choice: int) -> _Saying:
        found = self._choices.get(choice)
        if found is None:
            found = self._choices[choice] = _Saying()
        return found

    def _weigh(self, data: bytes) -> None:
        """The tokens' log-probabilities, where the request asked for them."""
        try:
            choices = _tokens(data).choices or ()
        except msgspec.DecodeError:
            return
        for choice in choices:
            if choice.logprobs is not None:
                saying = self._of(choice.index)
                known = [token.logprob for token in choice.logprobs.content or () if token.logprob is not None]
                saying.logprobs += sum(known)
                saying.tokens += len(known)


Judge = Callable[["HeldSink"], bool]
"""Is this answer, which is whole, kept back?  Else it goes out at once."""


class HeldSink:
    """In place of a client's sink; see `proxy.exchange.ClientSink`.

    `lower` says whether the attempt that answers now is one whose answers are held at all.
    """

    __slots__ = (
        "_body", "_client", "_head", "_judge", "_limit", "_logprobs", "_lower", "_parts", "_real", "_size", "_streamed", "bytes_out",
        "deadline", "kept", "let_go", "open", "reader", "started", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        real: ClientSink,
        client: Dialect,
        *,
        limit: int,
        deadline: float,
        lower: Callable[[], bool],
        judge: Judge,
        logprobs: bool = False,
    ) -> None:
        self._real = real
        self._client = client
        self._limit = limit
        self._lower = lower
        self._judge = judge
        self._logprobs = logprobs
        self.deadline = deadline  # on the loop's clock
        self.open = False  # everything passes from now on
        self.let_go = ""  # why, where it was not by judgement
        self.kept = False  # a whole answer waits
        self.waiting: Any = None  # what its attempt waits with, to be settled
        self.started = False  # a byte has gone to the client
        self.bytes_out = real.bytes_out
        self.reader = Reader(client, logprobs=logprobs)
        self._streamed = False
        self._head: tuple[int, bytes] | None = None
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def on_resume(self) -> Callable[[], None] | None:
        return self._real.on_resume

    @on_resume.setter
    def on_resume(self, call: Callable[[], None] | None) -> None:
        self._real.on_resume = call

    @property
    def size(self) -> int:
        """Bytes that are held, or were when they were let go."""
        return self._size

    # --- as the client's sink -----------------------------------------------------------------------------

    def whole(self, status: int, head: bytes, body: bytes) -> None:
        self._streamed = False
        if self._passes():
            self._real.whole(status, head, body)
            self._went()
            return
        self._take(status, head, body)
        if self._size > self._limit:
            self._go(TOO_LARGE)
            return
        self.reader.whole(body)
        self._ended()

    def begin(self, status: int, head: bytes, first: bytes) -> bool:
        self._streamed = True
        if self._passes():
            paused = self._real.begin(status, head, first)
            self._went()
            return paused
        self._take(status, head, b"")
        return self.write(first)

    def write(self, data: bytes) -> bool:
        if self.open:
            paused = self._real.write(data)
            self.bytes_out = self._real.bytes_out
            return paused
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._limit:
            return self._go(TOO_LARGE)
        self.reader.feed(data)
        return False

    def finish(self) -> None:
        if self.open:
            self._real.finish()
            self.bytes_out = self._real.bytes_out
        else:
            self._ended()

    def abort(self) -> None:
        self._real.abort()

    # --- what becomes of it -------------------------------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        """It was held for as long as it may be."""
        self.deadline = math.inf  # it is told once
        if not self.open and not self.kept:
            self._go(LATE)

    def release(self) -> None:
        """The answer that waits goes out as it came."""
        self.kept = False
        self._go("")
        if self._streamed:
            self.finish()

    def drop(self) -> None:
        """What is held will not be wanted any more."""
        self._head = None
        self._parts = []
        self._size = 0

    def _ended(self) -> None:
        """An answer is over.  One that failed is forgotten: the client has seen nothing of it, so another may follow."""
        if self.reader.failed or not (self.reader.done or self.reader.unread):
            self.drop()
            self.reader = Reader(self._client, logprobs=self._logprobs)
        elif self._judge(self):
            self.kept = True
        else:
            self.release()

    def _passes(self) -> bool:
        if not self.open and not self._lower():
            self.open = True
        return self.open

    def _take(self, status: int, head: bytes, body: bytes) -> None:
        self._head = status, head
        self._parts = [body] if body else []
        self._size = len(body)

    def _go(self, why: str) -> bool:
        """What is held goes out, and the rest as it comes.  True: the client is not reading."""
        self.open = True
        self.let_go = why
        head, body, size = self._head, b"".join(self._parts), self._size
        self.drop()
        self._size = size
        if head is None:
            return False  # nothing has come yet: what comes will pass
        paused = False
        if self._streamed:
            paused = self._real.begin(*head, body)
        else:
            self._real.whole(*head, body)
        self._went()
        return paused

    def _went(self) -> None:
        self.started = True
        self.bytes_out = self._real.bytes_out


def wanted_of(request: Request) -> Wanted:
    """What a request asks for, as far as an answer can be held against it."""
    body = request.body
    as_json, schema = _form(body)
    return Wanted(last_said(body)[:_LONGEST_PROMPT], as_json, schema, _tools(body.get("tools")))


def _form(body: Mapping[str, Any]) -> tuple[bool, Any]:
    """(must it be JSON, the schema that it must fit), in OpenAI's words and in Anthropic's."""
    output = body.get("output_config")
    form = body.get("response_format") or (output.get("format") if isinstance(output, dict) else None)
    if not isinstance(form, dict) or form.get("type") not in ("json_object", "json_schema"):
        return False, None
    if form["type"] == "json_object":
        return True, None
    inner = form.get("json_schema")
    found = inner.get("schema") if isinstance(inner, dict) else form.get("schema")
    return True, found if isinstance(found, dict) else True  # which every value fits


def _tools(offered: Any) -> Mapping[str, Any] | None:
    """The schemas of tools by name; None where one of them is of a kind that is not known here."""
    if not isinstance(offered, list):
        return None
    found: dict[str, Any] = {}
    for tool in offered:
        row = tool.get("function", tool) if isinstance(tool, dict) else None
        name = row.get("name") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(name, str):
            return None
        if (
            "input_schema" not in row
            and "parameters" not in row
            and tool.get("type") not in ("function", None, "custom")
        ):
            return None  # a tool that the vendor runs
        found[name] = row.get("parameters", row.get("input_schema"))
    return found
