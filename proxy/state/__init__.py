"""Stores of money, keys and pseudonyms: SQLite here, off the path of every request.

`sqlite` sets slices of budgets aside for workers; `leases` is the thread between a worker and that store;
`keys` holds virtual keys; `pseudonyms` the encrypted maps of what was redacted.
"""
