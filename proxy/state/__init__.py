"""Stores of money and keys: SQLite here, off the path of every request.

`sqlite` sets slices of budgets aside for workers; `leases` is the thread between a worker and that store;
`keys` holds virtual keys.
"""
