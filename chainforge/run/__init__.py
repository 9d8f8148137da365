"""What surrounds a loop: seeds, outputs that appear whole, metrics, progress, the record of what ran."""
