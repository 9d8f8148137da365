"""All completions that a run has left, in one schema: rows.py reads them, the rest shows or exports them."""
