"""Server-sent events, read as they come: the lines of the WHATWG standard, no more. `httpx_sse` reads lines of a response of its
own; here the bytes have already passed the door that caps and times them."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from gepa_atlas.errors import Garbled


class EventStream:
    """`feed` takes bytes and calls `on_event(name, data)` for each whole event; it says True once `on_event` has said True."""

    def __init__(self, on_event: Callable[[str, str], bool], who: str) -> None:
        self._on_event = on_event
        self._who = who
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._rest = ""
        self._name = ""
        self._data: list[str] = []
        self.over = False

    def feed(self, part: bytes) -> bool:
        """Raises Garbled for bytes that are not UTF-8, and whatever `on_event` raises."""
        try:
            text = self._rest + self._decoder.decode(part)
        except UnicodeDecodeError:
            raise Garbled(f"{self._who} sent bytes that are not UTF-8") from None
        held = text.endswith("\r")  # perhaps half of a line end
        lines = (text[:-1] if held else text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._rest = lines.pop() + ("\r" if held else "")
        for line in lines:
            if not self.over:
                self._line(line)
        return self.over

    @property
    def broken(self) -> bool:
        """Whether what was fed so far ends inside an event, which only the blank line after it makes whole."""
        return bool(self._rest.strip() or self._data or self._decoder.getstate()[0])

    def _line(self, line: str) -> None:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                self._name = value
            elif name == "data":
                self._data.append(value)
            return
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        if data:
            self.over = self._on_event(name, "\n".join(data))
