"""The two ways in which a run ends without a result. Anything else that is raised is a bug and shows its traceback."""


class BadInput(ValueError):
    """What the user gave cannot be used. The message names what was received and what was expected, in one sentence."""


class RunFailed(RuntimeError):
    """The run cannot go on (a non-finite loss, a full disk). The message says what was kept and what to do next."""
