"""What is wrong with a run, read from the files that it left, and which setting to change. No torch."""
