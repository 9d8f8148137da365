"""What a step will need, from one small try of it, and whether it is set up right."""
