"""The `dspy.module` provider: a DSPy program as the agent. The instructions of its predictors are the texts that are evolved.

A run is one call of a copy of the program, in a thread of its own, without DSPy's cache and retries: both are kept in one place here.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from pydantic import Field, JsonValue, model_validator

from gepa_atlas import wire
from gepa_atlas.addresses import host_of
from gepa_atlas.connectors.answers import Clock, FieldPath, OpaqueParams, attempt, deadline, field, plain
from gepa_atlas.connectors.loading import load_made
from gepa_atlas.connectors.placement import no_place_for, with_context
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.connectors.templates import check_reach, filled, strings_in, values_of
from gepa_atlas.errors import (
    AgentCrashed,
    AuthRefused,
    BadRequest,
    CallError,
    CallTimeout,
    ConfigError,
    Garbled,
    MissingExtra,
    RateLimited,
    ServerFault,
    Unreachable,
)
from gepa_atlas.loops import at_loop_end
from gepa_atlas.openai_server import Price
from gepa_atlas.ports import Agent, Endpoint
from gepa_atlas.secrets import reveal
from gepa_atlas.settings import Settings, load
from gepa_atlas.threads import DaemonThreads
from gepa_atlas.types import Attempt, Component, Task, Usage, digest

_VERSION = 1


class LmParams(Settings):
    """The language model of a program, as dspy.LM takes it: `vendor/model`, or `openai/name` with the `api_base` of any server."""

    model: str = Field(min_length=1)
    api_base: str | None = None
    api_key_env: str | None = None
    temperature: float | None = Field(0.0, ge=0)
    max_tokens: int | None = Field(512, ge=1)
    extra: dict[str, JsonValue] = Field(default_factory=dict)  # further arguments of dspy.LM
    price: Price | None = None

    @model_validator(mode="after")
    def _an_address(self) -> Self:
        if self.api_base is not None:
            if urlsplit(self.api_base).scheme not in ("http", "https"):
                raise ValueError("api_base must start with http:// or https://")
            wire.check_address(self.api_base)
        return self


class ModuleParams(OpaqueParams):
    """`program` names a dspy.Module, its class, or a function that makes one; `state` is a file that it saved. `inputs` are its keyword
    arguments, with the placeholders of a request template; the answer is the field `output` of its prediction."""

    program: str
    state: str | None = None
    lm: LmParams | None = None  # without it the program must bring its own
    inputs: dict[str, str] = Field(default_factory=lambda: {"question": "{prompt}"})
    output: FieldPath = "answer"
    adapter: Literal["chat", "json", "own"] = "chat"  # how DSPy puts requests; its chat adapter's silent second call, as JSON, is off
    unparsed: Literal["fail", "answer"] = "fail"  # answer: a text that is not in DSPy's form is the agent's answer as it stands
    max_chars: int = Field(8_000, ge=1)  # the longest instructions a predictor may get

    @model_validator(mode="after")
    def _reaches_the_agent(self) -> Self:
        if self.guidance in ("system", "turns"):
            raise ValueError(
                "guidance: a program has no chat; its predictors' instructions are evolved, and a teacher's text is prefix or suffix"
            )
        check_reach(strings_in(self.inputs), self.guidance, "inputs")
        return self


class ModuleAgent:
    def __init__(self, params: ModuleParams, base_dir: Path, where: str) -> None:
        import dspy

        self._params = params
        self._where = where
        self._program, source = load_made(params.program, dspy.Module, base_dir, f"{where}.program")
        state = _state(self._program, params.state, base_dir, f"{where}.state")
        self._who = f"the program {params.program}"
        self._steps = dict(self._program.named_predictors())
        if not self._steps:
            raise ConfigError(f"{where}.program: {params.program!r} has no predictor, so there is nothing in it to evolve")
        self._threads = DaemonThreads(params.max_concurrency, self._who)
        self._lms: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        if params.lm is not None and params.lm.api_key_env is not None:
            reveal(params.lm.api_key_env, f"{where}.lm.api_key_env")
        lm = params.lm.model_dump(mode="json", exclude={"api_key_env", "price"}) if params.lm else None
        shown = params.answering("lm", "state", "max_chars") | {"lm": lm, "state": state, "texts": self.texts()}
        self._identity = "dspy.module:" + digest({"version": _VERSION, "source": source, "params": shown}, 16)
        base = params.lm.api_base if params.lm else None
        self._endpoint = params.endpoint_at(host_of(base) if base is not None else f"dspy:{params.program}")

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def components(self) -> tuple[Component, ...]:
        return tuple(Component(name, (), self._params.max_chars, _purpose(name, step)) for name, step in self._steps.items())

    def texts(self) -> dict[str, str]:
        return {name: str(step.signature.instructions) for name, step in self._steps.items()}

    def preview(self, task: Task) -> dict[str, Any]:
        lm = self._params.lm.model if self._params.lm else "(the program's own)"
        return {
            "program": self._params.program,
            "lm": lm,
            "inputs": self._inputs(task),
            "instructions": self.texts() | dict(task.guidance.texts),
        }

    async def run(self, task: Task) -> Attempt:
        """Raises CallError. A program whose deadline passed runs on in its thread, and counts as busy, until it returns."""
        p = self._params
        clock = Clock()
        call = partial(self._called, await self._lm(), self._taught(task), self._inputs(task))
        async with deadline(p.timeout, self._who):
            try:
                prediction, counted = await self._threads.run(call)
            except (Exception, SystemExit) as error:  # the border to DSPy and to user code
                raise self._error(error) from error
        seconds = clock.usage(p)
        usage = Usage(counted[0], counted[1], seconds.dollars, seconds.seconds, 1)
        if p.lm is not None and p.lm.price is not None:
            usage = Usage(usage.input_tokens, usage.output_tokens, p.lm.price.of(usage), usage.seconds, 1)
        return attempt(field(plain(prediction), p.output, self._who), usage, self._who, p.max_bytes)

    def _inputs(self, task: Task) -> dict[str, str]:
        p = self._params
        if refused := no_place_for(dict(task.guidance.settings), (), self._who):
            raise refused
        made: dict[str, str] = filled(p.inputs, values_of(task, p, demos_apart=len(self._steps) == 1), {})
        return made

    def _taught(self, task: Task) -> Any:
        """A copy of the program with the candidate's instructions, and its demonstrations where it is clear whose they are."""
        import dspy

        program = self._program.deepcopy()
        steps = dict(program.named_predictors())
        for name, text in task.guidance.texts:
            if name not in steps:
                raise BadRequest(f"{self._who} has no predictor {name!r}; it has {', '.join(steps)}")
            steps[name].signature = steps[name].signature.with_instructions(text)
        if len(steps) == 1 and task.guidance.demos:
            (step,) = steps.values()
            step.demos = [dspy.Example(**self._demo(demo)) for demo in task.guidance.demos]
        return program

    def _demo(self, demo: Any) -> dict[str, str]:
        p = self._params
        prompt = with_context(demo.question, demo.context, p)
        values = {"prompt": prompt, "question": demo.question, "context": demo.context, "guidance": ""}
        shown: dict[str, str] = filled(p.inputs, values, {})
        return shown | {p.output.partition(".")[0]: demo.answer}

    def _called(self, lm: Any, program: Any, inputs: Mapping[str, str]) -> tuple[dict[str, Any], tuple[int | None, int | None]]:
        import dspy

        own = {"lm": lm} if lm is not None else {}
        if self._params.adapter != "own":
            own["adapter"] = dspy.JSONAdapter() if self._params.adapter == "json" else dspy.ChatAdapter(use_json_adapter_fallback=False)
        with dspy.context(track_usage=True, **own):
            try:
                prediction = program(**inputs)
            except dspy.utils.exceptions.AdapterParseError as error:
                if self._params.unparsed == "fail":
                    raise
                return _at(self._params.output, str(error.lm_response)), (None, None)
        if not isinstance(prediction, dspy.Prediction):
            raise TypeError(f"it returned a {type(prediction).__name__}, not a dspy.Prediction")
        spent = list((prediction.get_lm_usage() or {}).values())
        if not spent:
            return prediction.toDict(), (None, None)
        return prediction.toDict(), (sum(u.get("prompt_tokens") or 0 for u in spent), sum(u.get("completion_tokens") or 0 for u in spent))

    async def _lm(self) -> Any:
        """The language model of the running loop, closed with it; None for a program that brings its own."""
        import dspy

        lm, loop = self._params.lm, asyncio.get_running_loop()
        if lm is None or loop in self._lms:
            return self._lms.get(loop)
        key = reveal(lm.api_key_env, f"{self._where}.lm.api_key_env") if lm.api_key_env is not None else "none" if lm.api_base else None
        given = {"api_base": lm.api_base, "api_key": key, "timeout": self._params.timeout, **lm.extra}
        more = {name: value for name, value in given.items() if value is not None}
        made = dspy.LM(lm.model, temperature=lm.temperature, max_tokens=lm.max_tokens, cache=False, num_retries=0, **more)
        self._lms[loop] = made
        await at_loop_end(self, partial(asyncio.to_thread, made.close))
        return made

    def _error(self, error: BaseException) -> CallError:
        from dspy.utils import exceptions as dspys

        said = f"{self._who}: {type(error).__name__}: {wire.line(str(error))}"
        if isinstance(error, CallError):
            return error
        if isinstance(error, dspys.LMProviderError) and error.status is not None and error.status < 300:
            return Garbled(said)
        if isinstance(error, dspys.LMProviderError) and error.status is not None:
            headers = {"retry-after": str(error.retry_after)} if error.retry_after is not None else {}
            return wire.status_error(error.status, headers, str(error).encode(), self._who)
        kinds: dict[type[Exception], type[CallError]] = {
            dspys.LMTimeoutError: CallTimeout,
            dspys.LMRateLimitError: RateLimited,
            dspys.LMAuthError: AuthRefused,
            dspys.LMServerError: ServerFault,
            dspys.LMTransportError: Unreachable,
            dspys.LMInvalidRequestError: BadRequest,
            dspys.LMConfigurationError: BadRequest,
        }
        if isinstance(error, ValueError) and str(error).startswith("No LM is loaded"):
            return BadRequest(f"{self._who} has no language model: configure lm, or give the program one with set_lm")
        return next((made(said) for kind, made in kinds.items() if isinstance(error, kind)), AgentCrashed(said))


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    if importlib.util.find_spec("dspy") is None:
        raise MissingExtra("provider 'dspy.module'", "dspy")
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else DSPy's first call fetches prices over the network
    return ModuleAgent(load(ModuleParams, params, surroundings.where), surroundings.base_dir, surroundings.where)


def _state(program: Any, state: str | None, base_dir: Path, where: str) -> str:
    """Load a saved state into the program; the digest of the file, empty without one."""
    if state is None:
        return ""
    file = (base_dir / state).resolve()
    if file.suffix != ".json" or not file.is_file():
        raise ConfigError(f"{where}: {str(file)!r} must be a .json file that program.save wrote")
    try:
        program.load(str(file))
    except Exception as error:  # of DSPy, for a file of another program
        raise ConfigError(f"{where}: {str(file)!r} does not fit the program: {type(error).__name__}: {wire.line(str(error))}") from error
    return digest(file.read_text("utf-8"), 16)


def _at(path: str, text: str) -> dict[str, Any]:
    """A prediction with this text where the answer is looked for."""
    *outer, last = path.split(".")
    made: dict[str, Any] = {last: text}
    for name in reversed(outer):
        made = {name: made}
    return made


def _purpose(name: str, step: Any) -> str:
    fields = f"{', '.join(step.signature.input_fields)} -> {', '.join(step.signature.output_fields)}"
    return f"instructions of the step {name!r}, which turns {fields}"
