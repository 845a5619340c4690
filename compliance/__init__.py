"""What may leave, what is hidden, what is remembered.

`model` is the vocabulary; `fields` finds every string of a request or answer; `detectors` turn text into
findings; `rules` turn findings into a `Verdict`.  `records`, `merkle` and `journal` are the append-only log
of one worker slot, and `verify` checks such a log offline, in one file that can be copied away.
Engines are not known here: a boundary is a plain string.
"""
