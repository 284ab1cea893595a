"""The error tree. Every message names the value, the rule and the next step; nothing a user can cause is a traceback.

AtlasError
├── UserError                 exit code 2: the input is wrong, nothing was lost
│   ├── ConfigError           a key, value, path or variable of the configuration
│   ├── DataError             the examples: missing, empty, duplicated, without the gold a judge needs
│   ├── AgentUnusable         the agent did not answer, or answered nonsense, before anything was spent on a search
│   └── MissingExtra          an optional package is not installed; the message is the command that installs it
├── RunBusy                   exit code 3: another process owns the run directory
├── RunChanged                exit code 2: config, data or judges differ from those the run was started with
├── RunDamaged                exit code 4: run.db fails its checks
├── GateRefused               exit code 3: the gate did not pass what was trained (fail or inconclusive); everything is kept
├── BundleDamaged             exit code 4: a bundle or the registry is not what its checksums say; nothing was changed
├── Unhealthy                 exit code 4: a guard stopped training, and says which
├── SweepFailed               exit code 4: no combination of a sweep could be finished; its cells say why
├── StoreFull                 exit code 74: the disk refused a write; run.db is intact and the run can be resumed
├── Outage                    exit code 75: an endpoint failed too often in a row; the run is saved and can be resumed
├── ContractError             a noun was built wrongly: a defect of ours or of an extension, never of a user
├── BudgetExhausted           a hard limit would have been passed; the call was not made
└── CallError                 one call failed; carries the kind that a Failure shows
    ├── Transient             worth another try: refused connection, 429, 5xx, time-out, garbled reply
    │   ├── RateLimited       429; `retry_after` in seconds when the server named one
    │   ├── CallTimeout       the deadline passed
    │   ├── Unreachable       no connection, DNS, TLS, or it broke half-way
    │   ├── ServerFault       5xx
    │   └── Garbled           an answer that cannot be read: wrong type, half a JSON, missing field, invalid UTF-8
    └── Permanent             the same call would fail again
        ├── AuthRefused       401, 403
        ├── NotFound          404
        ├── BadRequest        other 4xx: context overflow, unknown parameter
        ├── EmptyAnswer       the agent answered nothing (a reasoning model that spent its tokens, say)
        ├── TooLarge          more bytes than `max_bytes`
        └── AgentCrashed      the agent raised, or its process ended with an error
"""

from __future__ import annotations


class AtlasError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 1


class UserError(AtlasError):
    exit_code = 2


class ConfigError(UserError):
    pass


class DataError(UserError):
    pass


class AgentUnusable(UserError):
    pass


class MissingExtra(UserError):
    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra [{extra}]: run `pip install 'gepa-atlas[{extra}]'` and try again")


class RunBusy(AtlasError):
    exit_code = 3


class RunChanged(AtlasError):
    exit_code = 2


class RunDamaged(AtlasError):
    exit_code = 4


class GateRefused(AtlasError):
    exit_code = 3


class BundleDamaged(AtlasError):
    exit_code = 4


class Unhealthy(AtlasError):
    exit_code = 4


class SweepFailed(AtlasError):
    exit_code = 4


class StoreFull(AtlasError):
    exit_code = 74


class Outage(AtlasError):
    exit_code = 75


class ContractError(AtlasError):
    pass


class BudgetExhausted(AtlasError):
    kind = "budget_exhausted"


class CallError(AtlasError):
    """One call failed. `kind` is what a Failure shows: the class name in lower snake case."""

    kind = "call_error"


class Transient(CallError):
    kind = "transient"


class RateLimited(Transient):
    kind = "rate_limited"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CallTimeout(Transient):
    kind = "timeout"


class Unreachable(Transient):
    kind = "unreachable"


class ServerFault(Transient):
    kind = "server_fault"


class Garbled(Transient):
    kind = "garbled"


class Permanent(CallError):
    kind = "permanent"


class AuthRefused(Permanent):
    kind = "auth_refused"


class NotFound(Permanent):
    kind = "not_found"


class BadRequest(Permanent):
    kind = "bad_request"


class EmptyAnswer(Permanent):
    kind = "empty_answer"


class TooLarge(Permanent):
    kind = "too_large"


class AgentCrashed(Permanent):
    kind = "agent_crashed"


def said(error: BaseException) -> str:
    """`Class: message` of what foreign code raised; its own `__str__` may raise as well."""
    try:
        message = str(error)
    except Exception:  # the border to foreign code
        message = "(no message: its __str__ raises)"
    return f"{type(error).__name__}: {message}"
