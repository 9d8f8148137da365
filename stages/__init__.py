"""One thin script per verb: `python -m stages.VERB STEP`. Wiring only; dvc.yaml names the steps."""

import gc
import sys

from chainforge.run.ending import watch_ending

if sys.argv[0] == "-m":  # this file is read first, before all that is slow or can fail
    gc.disable()  # until the step runs: of what it imports nothing can be freed, and to look takes a second
    watch_ending(sys.argv[1] if len(sys.argv) == 2 else "stages")
