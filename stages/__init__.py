"""One thin script per verb: `python -m stages.VERB STEP`. Wiring only; dvc.yaml names the steps."""

import sys

from chainforge.run.ending import watch_ending

if (
    sys.argv[0] == "-m"
):  # as `python -m stages.VERB STEP`: this file is read before all that is slow or can fail
    watch_ending(sys.argv[1] if len(sys.argv) == 2 else "stages")
