"""Talk to a teacher's API: ask everything once, keep every answer, never pass the budget."""
