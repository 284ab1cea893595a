"""Provider `local`: SmolLM2-135M-Instruct in this process, through llama.cpp. No key, no network, lazily started, shared.

`python -m gepa_atlas.llm.local` serves the same model to other processes over loopback and prints the base URL.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib.metadata
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gepa_atlas.errors import BadRequest, CallTimeout, Garbled
from gepa_atlas.llm.llamacpp import Job, Pool, Tokenize, cores, weights
from gepa_atlas.llm.slots import Prompt
from gepa_atlas.ports import ChatRequest, Completion, Endpoint
from gepa_atlas.settings import Settings, load
from gepa_atlas.types import Message, Usage, digest

IM_START, IM_END = 1, 2  # <|im_start|> and <|im_end|> of SmolLM2's vocabulary
_DEFAULT_SYSTEM = Message("system", "You are a helpful AI assistant named SmolLM, trained by Hugging Face")  # the model's template
_FAST_WORKERS = 8


class LocalParams(Settings):
    """`reproducible`: an answer is a function of the request alone, to the last bit, whatever was asked before or at once."""

    reproducible: bool = True
    context: int = Field(default=2048, ge=256, le=8192)  # tokens of prompt and answer
    prefixes: int = Field(default=4, ge=1, le=32)  # prompt prefixes each server keeps computed
    servers: int | None = Field(default=None, ge=1, le=64)  # reproducible mode; None is one a core, 4 at most. Never changes an answer
    threads: int | None = Field(default=None, ge=1, le=256)  # of the one server of fast mode; None is one a core
    timeout: float = Field(default=120.0, gt=0)  # seconds


class LocalModel:
    """A ChatModel. Cheap to make: equal parameters share the servers of the process."""

    def __init__(self, params: LocalParams | None = None) -> None:
        self._params = params = params or LocalParams()
        self._gguf = weights()
        mode = "reproducible" if params.reproducible else "fast"
        version = importlib.metadata.version("xllamacpp")
        self._identity = f"local/{self._gguf.stem}/xllamacpp-{version}/{mode}/context-{params.context}"
        # Many more calls than servers, so that a free server can choose one whose prefix it holds.
        self._endpoint = Endpoint("local", 8 * _workers(params) if params.reproducible else _workers(params), params.timeout)

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def complete(self, request: ChatRequest) -> Completion:
        """Raises BadRequest for a prompt longer than the context, CallTimeout. Cancelling it stops the generation."""
        began = time.monotonic()
        job = Job(functools.partial(_tokens, request), _body(request), _affinity(request))
        _pool(self._params).submit(job)
        try:
            async with asyncio.timeout(self._params.timeout):
                prompt, answer = await asyncio.wrap_future(job.future)
        except TimeoutError:
            job.abort()
            raise CallTimeout(f"the embedded model did not finish answering within {self._params.timeout:g} seconds") from None
        except asyncio.CancelledError:
            job.abort()
            raise
        return _completion(prompt, answer, time.monotonic() - began)


def build(params: Mapping[str, Any], where: str) -> LocalModel:
    return LocalModel(load(LocalParams, params, where))


# -- one pool of servers for equal parameters -------------------------------------------------------------------------

_pools: dict[LocalParams, Pool] = {}
_pools_guard = threading.Lock()


def _pool(params: LocalParams) -> Pool:
    key = params.model_copy(update={"timeout": 1.0})
    with _pools_guard:
        if key not in _pools:
            if not _pools:
                atexit.register(stop)
            _pools[key] = _open_pool(weights(), params)
        return _pools[key]


def _open_pool(gguf: Path, params: LocalParams) -> Pool:
    return Pool(
        gguf,
        reproducible=params.reproducible,
        context=params.context,
        slots=params.prefixes if params.reproducible else _FAST_WORKERS,
        workers=_workers(params),
        threads=1 if params.reproducible else params.threads or cores(),
    )


def _workers(params: LocalParams) -> int:
    return (params.servers or min(cores(), 4)) if params.reproducible else _FAST_WORKERS


def stop() -> None:
    """Stop every server of this process; the next call starts them again."""
    with _pools_guard:
        pools = list(_pools.values())
        _pools.clear()
    atexit.unregister(stop)
    for pool in pools:
        pool.close()


# -- requests and answers ---------------------------------------------------------------------------------------------


def _affinity(request: ChatRequest) -> str:
    if request.prompt is not None:
        return digest(request.prompt[: _head(request.prompt)], 16)
    return digest([m.to_json() for m in request.messages[:-1]], 16)


def _tokens(request: ChatRequest, tokenize: Tokenize) -> Prompt:
    try:
        "".join([request.prompt or "", *(m.content for m in request.messages)]).encode()
    except UnicodeEncodeError:
        raise BadRequest("the prompt contains a lone surrogate, which is no text: clean the question or the demonstrations") from None
    return _chat(request.messages, tokenize) if request.prompt is None else _text(request.prompt, tokenize)


def _chat(messages: Sequence[Message], tokenize: Tokenize) -> Prompt:
    """ChatML, as the model's own template writes it. The prefix ends behind the header of the last turn."""
    if not messages:
        raise BadRequest("a chat request needs at least one message")
    turns = list(messages) if messages[0].role == "system" else [_DEFAULT_SYSTEM, *messages]
    line = [token for token, _ in tokenize("\n")]
    ids: list[int] = []
    split = 0
    for turn in turns:
        # The line break is tokenised with the text behind it: a text that begins with one makes another token of the two.
        split = len(ids) + 2
        ids += [IM_START, *(token for token, _ in tokenize(f"{turn.role}\n{turn.content}")), IM_END, *line]
    if ids[split : split + 1] == line:
        split += 1
    ids += [IM_START, *(token for token, _ in tokenize("assistant\n"))]
    return Prompt(tuple(ids), split)


def _text(text: str, tokenize: Tokenize) -> Prompt:
    """A plain prompt. The prefix ends with the last blank line, else with the last line break: few-shot texts share that."""
    if not text:
        raise BadRequest("a completion request needs a prompt that is not empty")
    rows = tokenize(text)
    head = len(text[: _head(text)].encode())
    split = size = 0
    for n, (_, piece) in enumerate(rows):
        if size >= head:
            break
        size += len(piece)
        split = n + 1
    return Prompt(tuple(token for token, _ in rows), min(split, len(rows) - 1) if head else 0)


def _head(text: str) -> int:
    """Characters of the part of a few-shot text that its neighbours share."""
    body = text.rstrip()
    blank = body.rfind("\n\n")
    return blank + 2 if blank >= 0 else body.rfind("\n") + 1


def _body(request: ChatRequest) -> dict[str, Any]:
    body: dict[str, Any] = {
        "n_predict": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed % 2**32,
        "stop": list(request.stop),
        # llama.cpp's defaults, written down so that a new release does not change answers.
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "repeat_penalty": 1.0,
    }
    if request.top_logprobs:
        body["n_probs"] = request.top_logprobs
    if request.json_schema is not None:
        body["json_schema"] = json.loads(request.json_schema)
    return body


def _completion(prompt: Prompt, answer: dict[str, Any], seconds: float) -> Completion:
    try:
        usage = Usage(len(prompt.tokens), answer["tokens_predicted"], 0.0, seconds, 1)
        first = answer["completion_probabilities"][0]["top_logprobs"] if answer.get("completion_probabilities") else []
        pairs = tuple((str(row["token"]), float(row["logprob"])) for row in first)
        return Completion(answer["content"], usage, "length" if answer["stop_type"] == "limit" else "stop", pairs)
    except (KeyError, IndexError, TypeError) as error:
        raise Garbled(f"the embedded model's server sent an answer without {error}") from None


def main(arguments: Sequence[str] | None = None) -> Literal[0]:
    """Serve the embedded model until interrupted. Prints the base URL, and nothing else, when it is ready."""
    import argparse

    from gepa_atlas.llm.serve import serving

    parser = argparse.ArgumentParser(prog="python -m gepa_atlas.llm.local", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--fast", action="store_true", help="batch calls together: answers may flip now and then")
    chosen = parser.parse_args(arguments)
    with serving(LocalModel(LocalParams(reproducible=not chosen.fast)), port=chosen.port) as base_url:
        print(base_url, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
