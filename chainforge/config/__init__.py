"""params.yaml -> frozen, validated settings: one module per verb, so that a change of one re-runs only its own."""
