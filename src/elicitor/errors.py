"""Errors a user can act on: each says what was got, what is needed, and one fix.

The command line prints these as one line and exits with 2; anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

from typing import Any


class ElicitorError(ValueError):
    """Base of every error elicitor raises on purpose.

    Args:
        problem: What was got and what is needed, in one sentence, naming file, line or column where there is one.
        fix: One thing to do about it, in one sentence.
    """

    def __init__(self, problem: str, *, fix: str = "") -> None:
        super().__init__(f"{problem}; {fix}" if fix else problem)
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as it is: by default the class would be called with the text alone, which says neither fix nor status."""
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[ElicitorError], args: tuple[Any, ...], values: dict[str, Any]) -> ElicitorError:
    error = kind.__new__(kind, *args)
    vars(error).update(values)
    return error


class ConfigError(ElicitorError):
    """A setting, flag or YAML file is wrong."""


class TaskError(ElicitorError):
    """A task is unknown or its declaration contradicts itself."""


class DataError(ElicitorError):
    """The rows of a data file cannot be used as they are."""


class LabelTokenError(ElicitorError):
    """The verbalizers cannot be told apart by this model's tokenizer."""


class ContextOverflowError(ElicitorError):
    """A context does not fit into the model's window and no policy allows a smaller one."""


class DiskError(ElicitorError):
    """A file cannot be written: the disk is full, or the folder is read-only. What was finished before is whole."""


class BackendError(ElicitorError):
    """A model could not be loaded or did not answer.

    Args:
        problem: See `ElicitorError`.
        fix: See `ElicitorError`.
        retryable: Whether the same call may succeed later.
    """

    def __init__(self, problem: str, *, fix: str = "", retryable: bool = False) -> None:
        super().__init__(problem, fix=fix)
        self.retryable = retryable


class ResumeMismatchError(ElicitorError):
    """A run folder was made with other settings, data or model than those given now."""


class RunLockedError(ElicitorError):
    """Another process is writing to the run folder."""


def reason_of(error: BaseException) -> str:
    """What an error of a library says, in one line of at most 300 characters; the name of its type where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__
