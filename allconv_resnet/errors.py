"""The two ways in which a run ends without a result. Anything else that is raised is a bug and shows its traceback."""


class BadInput(ValueError):
    """The user's input cannot be used. The message says in one sentence what was expected and what was received."""


class RunFailed(RuntimeError):
    """The run cannot continue (a non-finite loss, a full disk). The message says what was kept and what to do next."""
