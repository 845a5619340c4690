"""Text -> spans: patterns, checked by checksums, labels and context."""
