"""One thin script per verb: `python -m stages.VERB STEP`. Wiring only; dvc.yaml names the steps."""
