"""The card of an accepted data set: where it comes from, what was dropped, and what it cost."""
