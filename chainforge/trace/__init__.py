"""One problem's way through a run, from the files that it has left: gather.py finds it, text.py prints it."""
