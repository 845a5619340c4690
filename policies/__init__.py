"""Decisions as pure functions over facts: no clock, no dice, no I/O; those come in with the facts.

`model` is the vocabulary, `filters` say why a candidate cannot serve, `rankers` order the rest, `decide`
joins them into a `Decision` that explains itself; `complexity` chooses between a small and a large model;
`budgets` is the arithmetic of leases.
"""
