"""The contract of every role, as laws that `chainforge plugins check` and the pytest fixtures share."""
