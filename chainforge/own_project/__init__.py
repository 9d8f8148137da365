"""A project of one's own: what `chainforge init` writes, and how `chainforge upgrade` changes it later."""
