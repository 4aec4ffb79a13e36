"""Every error that a user or a client of the service can meet, as one tree.

    MeleeError
    ├── UserError             exit 2   the input was wrong: nothing was done
    │   ├── UsageError                 a flag, path or setting
    │   ├── QueryError                 a filter; knows the position of the word
    │   ├── UnknownNameError           a character, stage, column, view ... with the nearest one
    │   ├── SqlError                   a statement that we do not run, or that DuckDB refuses
    │   ├── NotFoundError              a game, dataset, shard or run that is not there
    │   ├── MissingGamesError          a lock or dataset whose games this store has not
    │   ├── AuthError                  no token, or a wrong one
    │   ├── EmptySelectionError        a query that matches nothing, where something is needed
    │   └── RunMismatchError           a run folder that belongs to another configuration
    └── FailureError          exit 1   the work failed
        ├── StoreError                 a store that is damaged, locked or of another format
        ├── StreamError                shards that could not be read whole
        ├── LimitError                 a query or request that hit its time or memory limit
        ├── BusyError                  a service whose queue is full: worth asking again
        └── TrainingError              a run that cannot go on (NaN, full disk ...)

The command prints `error: MESSAGE (HINT)`, the service sends {"code", "message", "hint"}: both
from `as_dict` and `__str__` here.
"""

import difflib
from collections.abc import Iterable


class MeleeError(Exception):
    """Base of all our errors: one line that says what, which and where, and what would be right."""

    code = "error"
    exit_code = 1
    http_status = 500

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (workers, SQL children); the default would lose the hint.
        return (_rebuild, (type(self), self.__dict__))

    def as_dict(self) -> dict[str, object]:
        """The error as the service sends it."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


def _rebuild(cls: type[MeleeError], state: dict[str, object]) -> MeleeError:
    error = cls.__new__(cls)
    error.__dict__.update(state)
    error.args = (state["message"],)
    return error


class UserError(MeleeError):
    """The input was wrong; nothing was done."""

    code = "bad_request"
    exit_code = 2
    http_status = 400


class UsageError(UserError):
    """A flag, path or setting that cannot be used."""

    code = "usage"


class QueryError(UserError):
    """A filter that cannot be read; `position` is the 0-based index of the offending word."""

    code = "query"

    def __init__(self, message: str, hint: str = "", *, position: int = 0) -> None:
        super().__init__(message, hint)
        self.position = position

    def as_dict(self) -> dict[str, object]:
        """The error as the service sends it, with the place of the word."""
        return {**super().as_dict(), "position": self.position}


class UnknownNameError(QueryError):
    """A name that no table of ours knows."""

    code = "unknown_name"


class SqlError(UserError):
    """A statement that is refused, or that DuckDB cannot run."""

    code = "sql"


class NotFoundError(UserError):
    """A game, dataset, shard or run that is not there."""

    code = "not_found"
    http_status = 404


class MissingGamesError(UserError):
    """A lock or dataset names games that this store has not."""

    code = "missing_games"
    http_status = 410


class AuthError(UserError):
    """The service wants a token that the request does not carry."""

    code = "unauthorized"
    http_status = 401


class EmptySelectionError(UserError):
    """A query matched nothing where at least one game is needed."""

    code = "empty_selection"


class RunMismatchError(UserError):
    """A run folder belongs to another configuration, query, view or seed."""

    code = "run_mismatch"
    http_status = 409


class FailureError(MeleeError):
    """The work failed; the input may have been fine."""

    code = "failure"


class StoreError(FailureError):
    """A store that is damaged, locked or of another format."""

    code = "store"


class StreamError(FailureError):
    """Shards that could not be read whole."""

    code = "stream"


class LimitError(FailureError):
    """A query or request hit its limit of time, memory or size."""

    code = "limit"
    http_status = 413


class BusyError(FailureError):
    """The service has as much to do as it may: ask again later."""

    code = "busy"
    http_status = 503


class TrainingError(FailureError):
    """A training run that cannot go on."""

    code = "training"


def nearest(word: str, known: Iterable[str]) -> str:
    """'nearest: fox' for a misspelt name, '' where nothing is near."""
    matches = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return f"nearest: {matches[0]}" if matches else ""
