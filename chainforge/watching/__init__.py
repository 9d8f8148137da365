"""`chainforge watch`: a run as its files in logs/, plots/ and metrics/ tell it. Nothing here writes there."""
