"""params.yaml -> frozen, validated settings: one module per verb, so that an edit re-runs only its own."""
