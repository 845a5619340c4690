"""Decisions as pure functions over facts: no clock, no dice, no I/O; those come in with the facts.

`model` is the vocabulary, `filters` say why a candidate cannot serve, `rankers` order the rest, `decide`
joins them into a `Decision` that explains itself; `complexity` chooses between a small and a large model;
`gain` scores how much a strong model would add to a prompt and `doubt` reads a weak model's answer, `learning` makes such
a scorer from labels and `promotion` says whether it may decide, `drift` whether traffic is still what it was made for;
`signals` are what an operator's decisions may ask of a request, `conditions` how they ask, `declared` which of them
matches, and `shadows` which never can; `semantic` tells what a prompt is about;
`budgets` is the arithmetic of leases.
"""
