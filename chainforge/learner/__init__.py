"""Forward, backward and optimizer step over any number of sequences."""
