"""The text of an answer, changed as it streams: identifiers masked, pseudonyms turned back.  Pure; no clock.

`feed` takes text by lane (one string of the client's answer: a choice's text, a tool call's arguments); `ready` says
how many characters of a lane are decided, and `edited` gives any decided part of it as it is to be sent.  What is not
decided is the longest end that could still become an identifier (`compliance.detectors.openings`) or a pseudonym;
whoever drives this keeps back the events that carry it.

The decisions do not depend on how the text came in pieces: a lane is looked at whenever a word of it has ended, and
every so many characters where there are no words.  A match that touches the held end is not final.  The hold is
bounded: past `MAX_HELD` characters the end counts as an identifier, and is masked up to the end of its word.

In arguments of tools (`json`) the text is JSON: escapes are read, a mask goes into the string that holds the
identifier, and a bare number becomes a string, so what is valid stays valid.
"""

from __future__ import annotations

import json as json_text
import re
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from compliance.detectors.model import Span
from compliance.detectors.openings import word_start
from compliance.lane_text import Edit, Form, mask_of
from compliance.model import Finding
from compliance.pseudonyms import MAX_PSEUDONYM, PSEUDONYM

MAX_HELD = 8192
"""Characters of one lane that are held back at the most, beside those that came last: a private key is that long."""
CONTEXT = 256
"""Characters before the held end that are looked at again: an identifier's label stands there."""
MAX_LANES = 256
LOOK_AHEAD = 64
"""Characters behind a name or place that detectors of people may need to see."""
STRIDE = 64
"""Characters after which a lane without spaces is looked at; with detectors of people, the least between two looks."""
LARGE = 4096
"""Characters that are looked at once, and not word by word, where they come in one piece."""
HELD = "held"
"""The kind of what was masked because it grew past the bound."""

_WORD_END = re.compile(r"\s")
_JSON_END = re.compile(r"[\s\",}\]]")
_TO_WORD_END = re.compile(r"[^\s\"\\]*")
_TO_SCALAR_END = re.compile(r"[^\s\"\\\[\]{},:]*")
_CAPITALS = re.compile(r"(?:[^\W\d_a-z][\w'’.\-]*\s+(?:(?:of|de|von|van|der|la|del)\s+)?){1,8}\Z")
_BEGUN = re.compile(rf"\[(?:[A-Z][A-Za-z0-9_]{{0,{MAX_PSEUDONYM - 2}}})?\Z", re.ASCII)
"""The beginning of a pseudonym."""
Look = Callable[[str], Sequence[Span] | None]
"""Finds identifiers in a text; None: it could not be scanned."""


class Guard(Struct, frozen=True):
    """What is done about identifiers.  `allowed` says of a kind whether it may pass."""

    look: Look
    openings: Callable[[str], int]  # where the end of a text begins that could still become an identifier
    allowed: Callable[[str], bool]
    stops: bool = False  # the answer ends instead
    people: bool = False  # names and places are looked for, which what follows may decide


class _Lane:
    """One string of the answer."""

    __slots__ = ("base", "context", "edits", "inside", "json", "looked", "name", "raw", "swallowing")

    def __init__(self, name: str, json: bool) -> None:
        self.name = name  # as findings name it
        self.json = json
        self.raw = ""  # what is not decided
        self.base = 0  # where it begins, in the whole lane
        self.looked = 0  # characters of `raw` that have been looked at
        self.context = ""  # what was decided last, as it was looked at
        self.inside = False  # JSON: `raw` begins within a string
        self.swallowing = False  # a masked identifier goes on
        self.edits: list[Edit] = []


class Holdback:
    """One answer's lanes.  `guard` None: only pseudonyms are turned back; then `passed` gets what passes, to be counted.

    `stopped` is the kind of the identifier that ended the answer.
    """

    def __init__(
        self,
        guard: Guard | None,
        original: Callable[[str], str | None] | None,
        passed: Callable[[str, str], None] | None = None,
    ) -> None:
        self.stopped = ""
        self.held_most = 0  # characters held in one lane at the most
        self._guard = guard
        self._original = original
        self._passed = passed
        self._lanes: dict[str, _Lane] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def feed(self, lane: str, text: str, *, name: str = "text", json: bool = False, whole: bool = False) -> int:
        """More text of a lane; how many characters the lane has now.  `name` is what findings call it.

        `whole`: nobody waits for its parts, so it is looked at when it is flushed.
        """
        if self.stopped:
            return len(text)
        state = self._lanes.get(lane)
        if state is None:
            if len(self._lanes) >= MAX_LANES:
                return self._refuse(lane)
            state = self._lanes[lane] = _Lane(name, json)
        if whole:
            state.raw += text
            return state.base + len(state.raw)
        if self._guard is None or len(text) > LARGE:
            state.raw += text
            self._decide(state, last=False)
            text = ""
        at = 0
        while at < len(text):
            step = self._step(state, text, at)
            state.raw += text[at:step]
            if step < len(text) or self._due(state):
                state.looked = len(state.raw)
                self._decide(state, last=False)
            at = step
        return state.base + len(state.raw)

    def flush(self, lane: str) -> None:
        """The lane's text is whole: decide the rest."""
        state = self._lanes.get(lane)
        if state is not None and state.raw:
            self._decide(state, last=True)

    def seal(self, lane: str) -> None:
        """Another part of the answer has begun, so this lane will hardly go on: decide what holds no number begun."""
        state = self._lanes.get(lane)
        if state is not None and state.raw and not state.json and not any(c.isdigit() or c in "@[" for c in state.raw):
            self._decide(state, last=True)

    def force(self, lane: str) -> None:
        """Too much waits for this lane: its undecided end is masked."""
        state = self._lanes.get(lane)
        if state is not None and state.raw:
            self._force(state)

    def close(self, lane: str) -> None:
        """A lane that is decided and has been given out: it is forgotten."""
        self._lanes.pop(lane, None)

    def ready(self, lane: str) -> int:
        """How many characters of a lane are decided."""
        state = self._lanes.get(lane)
        return state.base if state is not None else 0

    def edited(self, lane: str, start: int, end: int, text: str) -> str:
        """The decided part of a lane from `start` to `end`, which came as `text`, as it is to be sent.

        Parts are asked for in order: edits that lie before `start` are forgotten.
        """
        state = self._lanes.get(lane)
        if state is None or not state.edits:
            return text
        edits = state.edits
        while edits and edits[0].end <= start:
            del edits[0]
        out: list[str] = []
        at = start
        for edit in edits:
            if edit.start >= end:
                break
            out.append(text[at - start : max(at, edit.start) - start])
            if edit.start >= start:
                out.append(edit.text)
            at = min(edit.end, end)
        if at == start and not out:
            return text
        out.append(text[at - start :])
        return "".join(out)

    def skip(self, name: str) -> None:
        """Something that cannot be read stands in the answer: unless the rules let it pass, the answer ends."""
        self._found("opaque", name)
        if self._guard is not None and not self._guard.allowed("opaque"):
            self.stopped = self.stopped or "opaque"

    def findings(self) -> tuple[Finding, ...]:
        """What was found so far: a finding's path is its lane, its end how many there were."""
        return tuple([Finding(kind, name, 0, count) for (kind, name), count in self._counts.items()])

    # --- one lane ---------------------------------------------------------------------------------------

    def _step(self, state: _Lane, text: str, at: int) -> int:
        """Up to where `text` is taken before the lane is looked at: a word's end, or `STRIDE` characters."""
        least = STRIDE if self._guard is not None and self._guard.people else 0
        waiting = len(state.raw) - state.looked
        end = (_JSON_END if state.json else _WORD_END).search(text, at + max(0, least - waiting - 1))
        stop = end.end() if end is not None else len(text)
        return min(stop, at + max(1, (least or 0) + STRIDE - waiting), len(text))

    def _due(self, state: _Lane) -> bool:
        """Is this one of the places where a lane is looked at?"""
        waiting = len(state.raw) - state.looked
        least = STRIDE if self._guard is not None and self._guard.people else 0
        if waiting >= least + STRIDE:
            return True
        return waiting >= least and (_JSON_END if state.json else _WORD_END).match(state.raw[-1]) is not None

    def _decide(self, state: _Lane, *, last: bool) -> None:
        if self.stopped or (state.swallowing and not self._swallow(state)):
            return
        form = Form(state.raw, state.inside, state.json, last)
        self._turn_back(state, form)
        border = len(state.context)
        spans, held = self._look(state, form, last)
        raw_end = self._settled(state, form, spans, held, last)
        if self._guard is not None:
            decided = border + form.text_offset(raw_end)
            spans = [span for span in spans if border < span[1] <= decided]
            for start, end, kind in spans:
                self._found(kind, state.name)
                if start >= border and any([c.isdigit() for c in form.text[start - border : end - border]]):
                    form.hide(start - border, end - border)  # what is decided is not located again with every word
            masked = [(start, end, kind) for start, end, kind in spans if not self._guard.allowed(kind)]
            if masked and self._guard.stops:
                self.stopped = self.stopped or masked[0][2]
                return
            spans = masked
        self._edit(state, form, _together(spans, border), raw_end)
        self._release(state, form, raw_end)
        if len(state.raw) > MAX_HELD:
            self._force(state)
        self.held_most = max(self.held_most, len(state.raw))

    def _look(self, state: _Lane, form: Form, last: bool) -> tuple[list[tuple[int, int, str]], int]:
        """What stands in the context and the undecided text, and where the end begins that must wait."""
        text = state.context + form.text
        held = len(text) if last else self._held(text)
        if self._guard is None:
            return [], held
        found = self._guard.look(text)
        if found is None:
            return [(len(state.context), len(text), "scan_failed")], len(text)
        spans = sorted([(span.start, span.end, span.type) for span in found])
        if not last:  # what nothing but space follows may go on behind it
            rest = len(text.rstrip())
            held = min([held, *(start for start, end, _ in spans if end >= rest)])
        return spans, held

    def _settled(self, state: _Lane, form: Form, spans: list[tuple[int, int, str]], held: int, last: bool) -> int:
        """The raw place up to which everything is decided: it cuts no identifier, no pseudonym and no bare number."""
        border = len(state.context)
        whole = spans + [(border + start, border + end, "") for start, end in form.hidden]
        raw_end = len(state.raw) + 1
        while True:
            held = _before(held, whole)
            before, raw_end = raw_end, form.raw_offset(max(0, held - border))
            if state.json and self._guard is not None:
                raw_end = form.before_scalar(raw_end, last)
            if raw_end >= before:
                return before
            held = min(held, border + form.text_offset(raw_end))

    def _held(self, text: str) -> int:
        """Where the end of `text` begins that must wait."""
        held = len(text)
        if self._original is not None and (begun := _BEGUN.search(text)) is not None:
            held = begun.start()
        guard = self._guard
        if guard is None:
            return held
        held = min(held, guard.openings(text))
        if guard.people:
            held = min(held, max(0, len(text) - LOOK_AHEAD))
            held = word_start(text[:held])
            if (run := _CAPITALS.search(text, 0, held)) is not None:
                held = run.start()
        return held

    def _turn_back(self, state: _Lane, form: Form) -> None:
        """Pseudonyms of this scope become edits; to the detectors they are words that say nothing."""
        original = self._original
        if original is None or "[" not in form.text:
            return
        for match in PSEUDONYM.finditer(form.text):
            value = original(match.group())
            if value is None:
                continue
            start, end = form.raw_offset(match.start()), form.raw_offset(match.end())
            if state.json:
                if not form.in_string(start):
                    continue
                value = json_text.dumps(value, ensure_ascii=False)[1:-1]
            form.restored.append(Edit(start, end, value))
            form.hide(match.start(), match.end())

    def _edit(self, state: _Lane, form: Form, masked: Iterable[tuple[int, int, str]], raw_end: int) -> None:
        """The edits of what is decided now, in order."""
        border = len(state.context)
        edits = [edit for edit in form.restored if edit.end <= raw_end]
        for start, end, kind in masked:
            first, last = form.raw_offset(max(0, start - border)), form.raw_offset(end - border)
            edits += _without(form.masks(first, last, mask_of(kind), whole=start >= border), form.restored)
        edits.sort(key=lambda edit: edit.start)
        state.edits += [Edit(state.base + e.start, state.base + e.end, e.text) for e in edits]

    def _release(self, state: _Lane, form: Form, raw_end: int) -> None:
        scanned = form.text[: form.text_offset(raw_end)]
        if self._passed is not None and scanned:
            self._passed(state.name, scanned)
        state.context = (state.context + scanned)[-CONTEXT:]
        if state.json:
            state.inside = form.in_string(raw_end)
        state.raw = state.raw[raw_end:]
        state.base += raw_end
        state.looked = len(state.raw)

    def _force(self, state: _Lane) -> None:
        """At the bound: the held end is taken for an identifier, and so is the rest of its word."""
        if self._guard is None:
            self._decide(state, last=True)
            return
        if self._guard.stops:
            self.stopped = self.stopped or HELD
            return
        self._found(HELD, state.name)
        form = Form(state.raw, state.inside, state.json, False)
        whole = form.raw_offset(len(form.text))
        space = len(state.raw) - len(state.raw.lstrip())
        masks = form.masks(min(space, whole), whole, mask_of(HELD), whole=True)
        state.edits += [Edit(state.base + e.start, state.base + e.end, e.text) for e in masks]
        self._release(state, form, whole)
        state.context = ""
        state.swallowing = True

    def _swallow(self, state: _Lane) -> bool:
        """The rest of a word that was masked goes too; is there anything behind it?"""
        rest = (_TO_SCALAR_END if state.json and not state.inside else _TO_WORD_END).match(state.raw)
        size = rest.end() if rest is not None else 0
        if size:
            state.edits.append(Edit(state.base, state.base + size, ""))
            state.raw = state.raw[size:]
            state.base += size
            state.looked = len(state.raw)
        state.swallowing = not state.raw
        return bool(state.raw)

    def _found(self, kind: str, name: str) -> None:
        self._counts[kind, name] = self._counts.get((kind, name), 0) + 1

    def _refuse(self, lane: str) -> int:
        """More lanes than are kept: nothing of them is looked at, so an answer that is guarded ends."""
        self._counts["scan_failed", "*"] = 1
        if self._guard is not None:
            self.stopped = self.stopped or "scan_failed"
        return 0


def _before(held: int, spans: Iterable[tuple[int, int, str]]) -> int:
    """`held`, or the beginning of what was found across it, and across that."""
    for start, end, _ in sorted(spans, reverse=True):
        if start < held < end:
            held = start
    return held


def _together(spans: Iterable[tuple[int, int, str]], least: int) -> list[tuple[int, int, str]]:
    """Spans that overlap as one, which has the kind of the longest."""
    joined: list[tuple[int, int, str, int]] = []
    for start, end, kind in spans:
        if joined and start < joined[-1][1]:
            first, last, before, size = joined[-1]
            longer = end - start > size
            joined[-1] = (first, max(last, end), kind if longer else before, max(size, end - start))
        else:
            joined.append((start, end, kind, end - start))
    return [(start, end, kind) for start, end, kind, _ in joined if end > least]


def _without(edits: Iterable[Edit], restored: Iterable[Edit]) -> list[Edit]:
    """Masks, but for what is turned back within them."""
    kept: list[Edit] = []
    for edit in edits:
        start, text = edit.start, edit.text
        for back in restored:
            if back.start < edit.end and back.end > start:
                if back.start > start:
                    kept.append(Edit(start, back.start, text))
                    text = ""
                start = back.end
        if start < edit.end:
            kept.append(Edit(start, edit.end, text))
    return kept
