"""Everything a user can cause, as one small tree of exceptions.

    OasisError              something failed                         exit code 1
    |-- UsageError          the command cannot mean what it says     exit code 2
    |-- MediaError          a file cannot be read or written
    |-- WeightsError        a checkpoint is wrong, damaged or missing
    `-- Interrupted         a signal asked us to stop                exit code 130 or 143

Anything else that reaches the top is a bug and keeps its traceback.
"""


class OasisError(Exception):
    """A sentence saying what is wrong and, when we know it, what to try next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(OasisError):
    """Wrong options or arguments: nothing was started."""

    exit_code = 2


class MediaError(OasisError):
    """A media file cannot be read or written."""


class WeightsError(OasisError):
    """A checkpoint is wrong, damaged or missing."""


class Interrupted(OasisError):
    """A signal asked us to stop; the target is as it was."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted", hint="")
        self.exit_code = 128 + signal_number
