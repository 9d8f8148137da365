"""One call of a teacher's API: what it says, what it costs, which keys it needs."""
