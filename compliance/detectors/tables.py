"""Columns of tables: the label stands in the header row, the values in the rows below it, in the same column.

CSV, TSV and Markdown; a single column is a list under its label.  The header is found by the automaton, as a label
with no digit behind it on its line; the rows are then read once, so the work is linear in the text for each header
and headers are as few as `MAX_HEADERS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from compliance.detectors.labels import has_digit, trigger_of
from compliance.detectors.model import Pattern, Span

MAX_HEADERS = 64
"""Columns that are read in one text."""
_MOST = 24
"""Characters of a value, above which it is prose."""
_HEADER = "header "
_WIDEST = 30
"""Characters of a header that is a line of its own."""
_QUOTES = " \t\r\"'`*:"


def header(kind: str, words: str) -> Pattern:
    """Where a column of this kind may be headed.  Its spans are read by `columns` and never reported."""
    shape = rf"({words})[^\n\d]{{0,300}}\n"
    return Pattern(_HEADER + kind, shape, None, 0.9, trigger=trigger_of(words), ahead=384)


def columns(text: str, spans: list[Span], most: int) -> tuple[list[Span], bool]:
    """(`spans` with at most `most` values below each header in its place, whether there were headers)."""
    headers = [span for span in spans if span.type.startswith(_HEADER)]
    if not headers:
        return spans, False
    kept = [span for span in spans if not span.type.startswith(_HEADER)]
    read: dict[tuple[str, int], int] = {}
    for span in headers[:MAX_HEADERS]:
        kind = span.type.removeprefix(_HEADER)
        kept += [
            Span(kind, start, end, span.confidence) for start, end in islice(_values(text, span.end, kind, read), most)
        ]
    return kept, True


def _values(text: str, at: int, kind: str, read: dict[tuple[str, int], int]) -> Iterator[tuple[int, int]]:
    """Where the values stand in the column whose header's label ends at `at`.

    `read`: up to where columns of a kind and place were read, so that no row is read twice as the same.
    """
    start = text.rfind("\n", 0, at) + 1
    stop = text.find("\n", at)
    line = text[start:stop]
    mark = next((mark for mark in "|\t;," if mark in line), "")
    if not mark and len(line.strip(_QUOTES)) > _WIDEST:
        return
    column = text.count(mark, start, at) if mark else 0
    if at <= read.get((kind, column), 0):
        return
    while 0 <= stop < len(text) - 1:
        start, stop = stop + 1, text.find("\n", stop + 1)
        end = stop if stop >= 0 else len(text)
        read[kind, column] = end
        if mark and mark not in text[start:end]:
            return
        cell = _cell(text, start, end, mark, column)
        if cell is None:
            return
        value = text[cell[0] : cell[1]]
        if _fits(value, kind):
            yield cell
        elif not mark:
            return


def _cell(text: str, start: int, end: int, mark: str, column: int) -> tuple[int, int] | None:
    """Where the cell of a row stands, without its quotes and blanks; None where the row is shorter."""
    first = start
    while True:
        last = text.find(mark, first, end) if mark else -1
        if text.startswith('"', first) and mark == "," and (closed := text.find('"', first + 1, end)) >= 0:
            last = text.find(mark, closed, end)  # a comma between quotes parts nothing
        if last < 0:
            last = end
        if column == 0:
            cell = text[first:last]
            left = first + len(cell) - len(cell.lstrip(_QUOTES))
            return left, left + len(cell.strip(_QUOTES))
        if last == end:
            return None
        column -= 1
        first = last + 1


def _fits(value: str, kind: str) -> bool:
    """Nine digits; or a token with at least two and no blank."""
    if not 4 <= len(value) <= _MOST or not value.isascii():
        return False
    if kind == "ssn":
        return sum(map(str.isdigit, value)) == 9 and not any(map(str.isalpha, value))
    return has_digit(value) and value.replace("-", "").replace("/", "").replace(".", "").isalnum()
