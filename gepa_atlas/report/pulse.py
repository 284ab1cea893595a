"""The pulse of a run: what is in flight, what was spent by whom, how fast answers come, what went wrong. Told by call events."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from gepa_atlas.calls import CallEvent
from gepa_atlas.lanes import Traffic
from gepa_atlas.types import Role, Usage

WINDOW = 60.0  # seconds that a rate is taken over
_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.-=+*#@"


class Pulse:
    """`spent` is what earlier processes of the run have spent; `clock` is in seconds."""

    def __init__(self, spent: Mapping[Role, Usage] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.spent: dict[Role, Usage] = dict(spent or {})
        self.trouble: Counter[str] = Counter()
        self.last_reason = ""
        self._open: dict[str, tuple[Role, int]] = {}  # key of a call -> who asks, number of its slot's event
        self._answered: deque[tuple[float, Role]] = deque()
        self._clock = clock

    def take(self, event: CallEvent) -> None:
        if event.what == "started":
            self._open[event.key] = event.role, event.slot
        elif event.what in ("settled", "failed", "dropped"):
            self._open.pop(event.key, None)
        if event.what in ("settled", "failed"):
            self.spent[event.role] = self.spent.get(event.role, Usage()) + event.usage
            self._answered.append((self._clock(), event.role))
        if event.what in ("retried", "failed", "dropped"):
            self.trouble[event.what] += 1
            self.last_reason = event.reason

    @property
    def by_role(self) -> Counter[Role]:
        """Calls in flight."""
        return Counter(role for role, _ in self._open.values())

    @property
    def slots(self) -> list[int]:
        """Slots of the search that wait for a call."""
        return sorted({slot // 2 for _, slot in self._open.values() if slot >= 0})

    def per_minute(self) -> Counter[Role]:
        """Answers in the last minute, by role."""
        since = self._clock() - WINDOW
        while self._answered and self._answered[0][0] < since:
            self._answered.popleft()
        return Counter(role for _, role in self._answered)

    def traffic_text(self) -> str:
        """`student 12 in flight, 60 a minute; judge 3 in flight, 20 a minute`."""
        flying, rates = self.by_role, self.per_minute()
        said = [f"{role} {flying[role]} in flight, {rates[role]} a minute" for role in sorted(flying.keys() | rates.keys())]
        return "; ".join(said) or "no call in flight"

    def spend_text(self) -> str:
        """`student 60 calls 1,234 tokens $0.0123; judge 12 calls`: what is unknown is called so, what costs nothing is left out."""
        return "; ".join(f"{role} {_brief(usage)}" for role, usage in sorted(self.spent.items())) or "nothing yet"


def limits_text(limits: Mapping[str, float], spent: Mapping[Role, Usage], seconds: float) -> str:
    """How much of each limit is used: `tokens 1,200 of 50,000; dollars .02 of 1; 12 of 600 s`."""
    total = sum(spent.values(), Usage())
    used = {
        "tokens": "unknown" if total.tokens is None else f"{total.tokens:,}",
        "dollars": "unknown" if total.dollars is None else f"{total.dollars:.4f}",
        "seconds": f"{seconds:.0f}",
    }
    return "; ".join(f"{name} {used[name]} of {limit:,g}" for name, limit in limits.items())


def endpoints_text(endpoints: Sequence[Traffic]) -> str:
    """Endpoints whose limit is below what they were configured for, and those that are given up."""
    said = [f"{e.endpoint} is down" for e in endpoints if e.down]
    return "; ".join(
        said + [f"{e.endpoint} slowed to {e.limit} of {e.ceiling} at once" for e in endpoints if not e.down and e.limit < e.ceiling]
    )


def sparkline(values: Sequence[float], width: int = 40, *, plain: bool = False) -> str:
    """The last value of each of `width` equal parts as a bar, from the lowest of all (or 0) to the highest. `plain` is ASCII."""
    bars = _PLAIN_BARS if plain else _BARS
    if not values:
        return ""
    count = min(width, len(values))
    shown = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    low, high = min(0.0, *values), max(values)
    span = high - low
    return "".join(bars[round((v - low) / span * (len(bars) - 1))] if span > 0 else bars[0] for v in shown)


def _brief(usage: Usage) -> str:
    tokens = " unknown tokens" if usage.tokens is None else f" {usage.tokens:,} tokens" if usage.tokens else ""
    dollars = " unknown price" if usage.dollars is None else f" ${usage.dollars:.4f}" if usage.dollars else ""
    return f"{usage.calls} calls{tokens}{dollars}"
