"""The card of a checkpoint: where it comes from, what it can do, how to use it."""
