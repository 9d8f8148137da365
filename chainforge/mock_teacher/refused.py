"""A request that gets no answer."""


class Refused(Exception):
    """Raised where a request is turned away: an HTTP status, and what the provider says about it."""

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s
