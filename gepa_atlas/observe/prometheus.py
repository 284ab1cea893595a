"""Prometheus metrics in a registry of their own: on a port of 127.0.0.1, in a file, or both. prometheus_client is imported here only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from gepa_atlas.errors import ConfigError, MissingExtra
from gepa_atlas.observe.config import PrometheusConfig
from gepa_atlas.observe.facts import CallEnded, Fact, RunBegan, RunEnded, SlotDecided
from gepa_atlas.store.exports import refused

_EVERY = 5.0  # seconds between two writings of the file
_REWARD = tuple(i / 10 for i in range(11))
_DELTA = tuple(i / 10 for i in range(-10, 11, 2))
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters and histograms are of this process, gauges of the whole run. Raises MissingExtra, and ConfigError for a port in use."""

    def __init__(self, config: PrometheusConfig) -> None:
        try:
            import prometheus_client as client
        except ImportError:
            raise MissingExtra("observe.prometheus", "observability") from None
        self.registry = registry = client.CollectorRegistry()
        make: Any = {"namespace": "gepa_atlas", "registry": registry}
        self._info = client.Info("run", "The run", **make)
        self._reward = client.Histogram("reward", "Rewards", ["side"], buckets=_REWARD, **make)
        self._delta = client.Histogram("delta", "Reward after minus before, by lesson", buckets=_DELTA, **make)
        self._lessons = client.Counter("lessons", "Lessons", ["outcome"], **make)
        self._decisions = client.Counter("decisions", "Decided slots", ["operator", "status"], **make)
        self._calls = client.Counter("calls", "Calls that were answered or failed for good", ["role", "outcome"], **make)
        self._tokens = client.Counter("tokens", "Tokens, where they are known", ["role", "direction"], **make)
        self._dollars = client.Counter("dollars", "Dollars, where the price is known", ["role"], **make)
        self._latency = client.Histogram("call_seconds", "From the first attempt to the answer", ["role"], buckets=_SECONDS, **make)
        self._figure = client.Gauge("figure", "Figures of the run so far, by name", ["name"], **make)
        self._rate = client.Gauge("non_degradation_rate", "Share of scored lessons that the guidance did not make worse", **make)
        self._running = client.Gauge("running", "1 while the run goes on", **make)
        self._client = client
        self._file = None if config.textfile is None else Path(config.textfile)
        self._written = 0.0
        self._server: Any = None
        if self._file is not None:
            self._write()
        if config.port is not None:
            try:
                self._server = client.start_http_server(config.port, "127.0.0.1", registry)
            except OSError as error:
                raise ConfigError(f"observe.prometheus.port {config.port}: {error.strerror or error}; choose another one") from None

    @property
    def port(self) -> int | None:
        """Where the metrics are served."""
        return None if self._server is None else int(self._server[0].server_port)

    def take(self, fact: Fact) -> None:
        if isinstance(fact, RunBegan):
            self._info.info({"run_id": fact.run_id, "name": fact.name})
            self._running.set(1)
        elif isinstance(fact, CallEnded):
            self._call(fact)
        elif isinstance(fact, SlotDecided):
            self._slot(fact)
        else:
            self._running.set(0)
            self._figures(fact)
        if self._file is not None and time.monotonic() - self._written >= _EVERY:
            self._write()

    def close(self) -> None:
        if self._file is not None:
            self._write()
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()

    def _call(self, call: CallEnded) -> None:
        self._calls.labels(call.role, call.problem.partition(":")[0] or "answered").inc()
        self._latency.labels(call.role).observe((call.ended - call.began) / 1e9)
        for direction, tokens in (("in", call.usage.input_tokens), ("out", call.usage.output_tokens)):
            self._tokens.labels(call.role, direction).inc(tokens or 0)
        self._dollars.labels(call.role).inc(call.usage.dollars or 0.0)

    def _slot(self, slot: SlotDecided) -> None:
        self._decisions.labels(slot.decision.operator, slot.decision.status.value).inc()
        for before, after in slot.rewards:
            self._lessons.labels("unscored" if before is None or after is None else "scored").inc()
            if before is not None:
                self._reward.labels("before").observe(before)
            if after is not None:
                self._reward.labels("after").observe(after)
            if before is not None and after is not None:
                self._delta.observe(after - before)
        self._figures(slot)

    def _figures(self, fact: SlotDecided | RunEnded) -> None:
        for name, value in fact.figures.items():
            self._figure.labels(name).set(value)
        if "non_degradation_rate" in fact.figures:
            self._rate.set(fact.figures["non_degradation_rate"])

    def _write(self) -> None:
        assert self._file is not None
        try:
            self._client.write_to_textfile(str(self._file), self.registry)
        except OSError as error:
            raise refused(self._file, error) from None
        self._written = time.monotonic()
