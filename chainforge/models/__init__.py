"""Models: checkpoints, the chat format, batches, log-probabilities, optimizers."""
