"""GRPO: the loop is train.py; the rest are its parts."""
