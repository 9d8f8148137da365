"""Broken on purpose: a script that ends the process, as `sys.exit` at the end of a file does."""

import sys

sys.exit("usage: exits.py FILE")
