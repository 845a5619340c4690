"""What can answer a prompt, and how to speak to it.

`model` is the vocabulary (requests, events, usage, targets); `base` the protocols that a dialect fulfils;
`openai` and `anthropic` are dialects, each with both directions in one file; `kinds` are engine kinds as
rows of data over a dialect; `catalog` turns a public model name into targets; `transport` is the only
module that opens a socket to an engine.  Nothing here decides anything.
"""
