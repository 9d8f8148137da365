"""`chainforge repro`: DVC decides what has to run, and steps that do not wait for each other run at once."""
