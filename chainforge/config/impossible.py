"""What a validator raises."""


class Impossible(ValueError):
    """A setting, or a combination of them, that cannot work: raised by a validator, with the fix."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix
