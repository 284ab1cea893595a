"""Patterns with a clock. A careless or hostile one, `(a|aa)+$`, takes time exponential in the text; here it takes a second or two.

Patterns come from configurations and from the schemas of data files. The engine is `regex`, which takes what the standard library's
`re` takes and looks at the clock while it backtracks.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from gepa_atlas.errors import CallTimeout

if TYPE_CHECKING:
    import regex

SECONDS = 1.0  # of processor time for one search


class NotAPattern(ValueError):
    """The text is no regular expression; the message says what is wrong with it."""


@functools.lru_cache(maxsize=512)
def compiled(pattern: str, ignore_case: bool = False, multiline: bool = False, dotall: bool = False) -> regex.Pattern[str]:
    """Raises NotAPattern."""
    import regex

    flags = ((ignore_case, regex.I), (multiline, regex.M), (dotall, regex.S))
    try:
        return regex.compile(pattern, sum(flag for on, flag in flags if on))
    except (regex.error, OverflowError, RecursionError) as error:
        raise NotAPattern(f"not a regular expression: {error}") from None


def find(pattern: regex.Pattern[str], text: str, *, full: bool = False, seconds: float = SECONDS) -> regex.Match[str] | None:
    """The first match, or with `full` the match of the whole text. Raises CallTimeout when there is none in time."""
    try:
        return pattern.fullmatch(text, timeout=seconds) if full else pattern.search(text, timeout=seconds)
    except TimeoutError:
        raise CallTimeout(
            f"the pattern {pattern.pattern[:80]!r} found no end on a text of {len(text)} characters within {seconds:g} s: let its "
            "alternatives exclude each other, or use possessive quantifiers (a++) or atomic groups (?>...)"
        ) from None
