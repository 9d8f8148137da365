"""Two runs side by side: what was set differently, and what that did on the same held-out problems."""
