"""OpenTelemetry spans: a run, in it its slots, in them their calls. opentelemetry is imported here only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gepa_atlas.errors import MissingExtra
from gepa_atlas.observe.config import OpenTelemetryConfig
from gepa_atlas.observe.facts import CallEnded, Fact, RunBegan, RunEnded, SlotDecided

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider


def spans(config: OpenTelemetryConfig) -> Spans:
    """A sink that exports to the configured collector, or through the provider that the program has set. Raises MissingExtra."""
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MissingExtra("observe.opentelemetry", "observability") from None
    found = trace.get_tracer_provider()
    if config.endpoint is None and isinstance(found, TracerProvider):
        return Spans(found, lambda: None)
    own = TracerProvider(resource=Resource({"service.name": config.service}), shutdown_on_exit=False)
    own.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=config.endpoint, timeout=5)))
    return Spans(own, own.shutdown)


class Spans:
    """`end` is called once everything is told."""

    def __init__(self, provider: TracerProvider, end: Callable[[], None]) -> None:
        self._tracer = provider.get_tracer("gepa_atlas")
        self._end = end
        self._run: Span | None = None
        self._slots: dict[int, Span] = {}
        self._decided = -1  # the last slot that is over

    def take(self, fact: Fact) -> None:
        if isinstance(fact, RunBegan):
            settings = {f"gepa_atlas.{name}": value for name, value in fact.settings.items()}
            named = {"gepa_atlas.run_id": fact.run_id, "gepa_atlas.name": fact.name, "gepa_atlas.resumed": fact.resumed}
            self._run = self._open("gepa_atlas.run", None, fact.at, named | settings)
        elif isinstance(fact, CallEnded):
            self._call(fact)
        elif isinstance(fact, SlotDecided):
            self._slot(fact)
        else:
            self._over(fact)

    def close(self) -> None:
        self._end()

    def _call(self, call: CallEnded) -> None:
        parent = self._run if call.slot is None or call.slot <= self._decided else self._span_of(call.slot, call.slot_began)
        told: dict[str, Any] = {"gepa_atlas.role": call.role, "gepa_atlas.endpoint": call.endpoint, "gepa_atlas.attempts": call.attempts}
        usage = call.usage
        known = {"gen_ai.usage.input_tokens": usage.input_tokens, "gen_ai.usage.output_tokens": usage.output_tokens}
        told |= {name: value for name, value in (known | {"gepa_atlas.dollars": usage.dollars}).items() if value is not None}
        span = self._open(f"gepa_atlas.call {call.role}", parent, call.began, told)
        _fail(span, call.problem)
        span.end(call.ended)

    def _slot(self, slot: SlotDecided) -> None:
        made = slot.decision
        span = self._slots.pop(made.n, None) or self._open("gepa_atlas.slot", self._run, slot.began, {"gepa_atlas.slot": made.n})
        told = {"operator": made.operator, "kind": made.kind.value, "status": made.status.value, "reason": made.reason}
        figures = {f"gepa_atlas.{name}": value for name, value in slot.figures.items()}
        gains = [after - before for before, after in slot.rewards if before is not None and after is not None]
        if gains:
            figures["gepa_atlas.slot_delta"] = sum(gains) / len(gains)
        span.set_attributes({f"gepa_atlas.{name}": value for name, value in told.items()} | figures)
        span.end(slot.at)
        self._decided = max(self._decided, made.n)

    def _over(self, end: RunEnded) -> None:
        for span in self._slots.values():
            span.end(end.at)
        self._slots.clear()
        if self._run is None:
            return
        told: dict[str, Any] = {"gepa_atlas.result": end.result, "gepa_atlas.ruling": end.ruling, "gepa_atlas.stop_reason": end.reason}
        self._run.set_attributes(told | {f"gepa_atlas.{name}": value for name, value in end.figures.items()})
        _fail(self._run, end.reason if end.result == "stopped" else "")
        self._run.end(end.at)

    def _span_of(self, slot: int, began: int) -> Span:
        if slot not in self._slots:
            self._slots[slot] = self._open("gepa_atlas.slot", self._run, began, {"gepa_atlas.slot": slot})
        return self._slots[slot]

    def _open(self, name: str, parent: Span | None, at: int, attributes: Mapping[str, Any]) -> Span:
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        context = Context() if parent is None else set_span_in_context(parent, Context())
        return self._tracer.start_span(name, context, start_time=at, attributes=dict(attributes))


def _fail(span: Span, problem: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    if problem:
        span.set_status(Status(StatusCode.ERROR, problem))
