"""The project as a whole: its graph, its lock, what its steps read and may write."""
