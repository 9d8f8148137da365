"""One readable loop per verb."""
