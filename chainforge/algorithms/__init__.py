"""Pure functions on tensors and numbers. `selection`, `statistics` and `schedule` do without torch."""
