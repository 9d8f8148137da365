"""Runs of several seeds side by side: their scores, the effect of a setting over them, and chance alone."""
