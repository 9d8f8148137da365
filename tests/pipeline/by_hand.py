"""Run steps one after the other in one process, which imports torch once: `python by_hand.py STEP ...`.

Each does what `python -m stages.VERB STEP` does, in the current folder.
"""

import sys
from importlib import import_module

sys.path.insert(0, "")  # the code of the current folder, as `python -m` has it

from chainforge.project.graph import step_of

for name in sys.argv[1:]:
    import_module(f"stages.{'lock' if name == 'lock' else step_of(name).verb}").main(name)
