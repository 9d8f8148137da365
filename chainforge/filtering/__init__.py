"""Tests that a teacher's trace must pass: pure functions on texts, and the counts of what they dropped."""
