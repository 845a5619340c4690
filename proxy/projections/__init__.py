"""What is read of the log: projections into SQLite that can be thrown away and rebuilt.

`ledger` holds one line per attempt, for spend, and an index by request id, for `spillway audit show`.
"""
