"""What people read of the logs: one request in words, and reports for those who are asked.

`story` tells one request; `model` is a report as data, `made` makes the five of them from the audit index, and `render`
writes one as text, Markdown or a page that needs nothing else.  A report says what it was made from and what it cannot
say; it proves nothing, an evidence pack does.
"""
