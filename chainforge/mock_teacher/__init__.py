"""A teacher behind an API that runs here: solves ChainForge's own problems, and fails on command."""
