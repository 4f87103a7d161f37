"""Everything that has `fit`, and what watches it."""
