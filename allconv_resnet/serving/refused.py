"""The error with which a request is answered."""


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: Integer, HTTP status.
        reason: String, one sentence that says what was expected and what was received.
        headers: Dictionary of further headers of the answer, or None.
    """

    def __init__(self, status, reason, headers=None):
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers
