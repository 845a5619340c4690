"""What may leave, what is hidden, what is remembered.

`model` is the vocabulary; `fields` finds every string of a request or answer; `detectors` turn text into
findings; `rules` turn findings into a `Verdict`; `redaction` puts `pseudonyms` in the place of what was found.
`records`, `merkle` and `journal` are the append-only log of one worker slot, and `verify` checks such a log
offline, in one file that can be copied away; `lookup` searches it, and `evidence` packs a part of it for an auditor.
`segments` are its files, of which sealed ones never change and `retention` removes old ones; the `roster` is signed over
all slots' logs together.
Engines are not known here: a boundary is a plain string.
"""
