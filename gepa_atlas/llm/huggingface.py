"""Provider `huggingface`: a model of the transformers library, loaded into this process at the first call. The only module that imports
transformers and torch for inference.

One answer at a time: for many at once serve the same model (vLLM, say) and use `openai.chat`. A name that is not a directory is fetched
from the Hugging Face hub, unless HF_HUB_OFFLINE is set.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gepa_atlas.endpoints import EndpointLimits
from gepa_atlas.errors import BadRequest, CallError, CallTimeout, ConfigError, MissingExtra, Permanent
from gepa_atlas.ports import ChatRequest, Completion, Endpoint
from gepa_atlas.settings import load
from gepa_atlas.threads import DaemonThreads
from gepa_atlas.types import Usage, digest

_LOADING = threading.Lock()


class HuggingFaceParams(EndpointLimits):
    """`trust_remote_code` runs Python code that comes with the model: only for models whose code you have read."""

    model: str = Field(min_length=1)  # a directory, or a name on the hub
    revision: str | None = None  # of a name on the hub: a branch, a tag or a commit
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"  # the first accelerator, or the processor; or cpu, cuda, cuda:1, mps
    trust_remote_code: bool = False
    timeout: float = Field(300.0, gt=0)
    max_concurrency: Literal[1] = 1


class HuggingFaceModel:
    """A ChatModel in this process. Local, so it costs nothing."""

    def __init__(self, params: HuggingFaceParams) -> None:
        self._params = params
        self._threads = DaemonThreads(1, f"model {params.model}")
        shown = params.answering() | {"files": _files(Path(params.model))}
        self._identity = f"huggingface/{params.model.rstrip('/').rsplit('/', 1)[-1]}#{digest(shown, 16)}"
        self._endpoint = params.endpoint_at(f"huggingface:{params.model}")

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def complete(self, request: ChatRequest) -> Completion:
        if request.json_schema is not None:
            raise BadRequest("transformers does not write by a JSON schema; ask for JSON in words, or serve the model and use openai.chat")
        try:
            made: Completion = await self._threads.run(functools.partial(_complete, self._params, request))
        except CallError:
            raise
        except Exception as error:  # the border to transformers and torch: out of memory, a file that is missing
            raise Permanent(f"{self._params.model}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
        return made

    def preview_chat(self, request: ChatRequest) -> dict[str, Any]:
        return {"model": self._params.model, "dtype": self._params.dtype, "device": self._params.device, **request.to_json()}


def build(params: Mapping[str, Any], where: str) -> HuggingFaceModel:
    if any(importlib.util.find_spec(name) is None for name in ("transformers", "torch")):
        raise MissingExtra("provider 'huggingface'", "huggingface")
    checked = load(HuggingFaceParams, params, where)
    if checked.model.startswith((".", "/", "~")) and not (Path(checked.model).expanduser() / "config.json").is_file():
        raise ConfigError(f"{where}.model: there is no model in {checked.model!r}: its config.json is missing")
    return HuggingFaceModel(checked)


def _files(directory: Path) -> dict[str, str]:
    """What tells one model in a directory from another: its small files by content, its weights by size."""
    if not directory.is_dir():
        return {}
    found = sorted(file for file in directory.iterdir() if file.suffix in (".json", ".jinja", ".safetensors", ".bin"))
    small = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in found if file.stat().st_size < 1_000_000}
    return small | {file.name: f"{file.stat().st_size} bytes" for file in found if file.name not in small}


@functools.lru_cache(maxsize=1)
def _loaded(model: str, revision: str | None, dtype: str, device: str, trust_remote_code: bool) -> tuple[Any, Any]:
    """Model and tokenizer; one at a time in memory."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    common = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model, **common)
    made: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype, **common)
    where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return made.to(where).eval(), tokenizer


def _complete(params: HuggingFaceParams, request: ChatRequest) -> Completion:
    began = time.monotonic()
    with _LOADING:
        model, tokenizer = _loaded(params.model, params.revision, params.dtype, params.device, params.trust_remote_code)
    ids = _encoded(tokenizer, request, params.model).to(model.device)
    size = ids["input_ids"].shape[1]
    room = model.config.get_text_config().max_position_embeddings
    if size + request.max_tokens > room:
        raise BadRequest(f"{params.model}: {size} tokens and {request.max_tokens} to write do not fit its context of {room}")
    left = params.timeout - (time.monotonic() - began)
    made = _generated(model, tokenizer, ids, request, max(0.0, left))
    if time.monotonic() - began >= params.timeout:
        raise CallTimeout(f"{params.model} did not finish answering within {params.timeout:g} seconds (timeout)")
    written = made.sequences[0, size:].tolist()
    text, stopped = _cut(tokenizer.decode(written, skip_special_tokens=True), request.stop)
    ended = stopped or (written and written[-1] in _ends(model))
    usage = Usage(size, len(written), 0.0, time.monotonic() - began, 1)
    return Completion(text, usage, "stop" if ended else "length", _alternatives(tokenizer, made, request.top_logprobs))


def _encoded(tokenizer: Any, request: ChatRequest, name: str) -> Any:
    if request.prompt is not None:
        return tokenizer(request.prompt, return_tensors="pt")
    if tokenizer.chat_template is None:
        raise BadRequest(f"{name} has no chat template: use mode: completion, or a model that was trained to chat")
    turns = [message.to_json() for message in request.messages]
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)


def _generated(model: Any, tokenizer: Any, ids: Any, request: ChatRequest, seconds: float) -> Any:
    torch: Any = importlib.import_module("torch")
    how: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if request.temperature > 0:
        torch.manual_seed(int(digest([request.seed, request.sample], 8), 16))
        how = {"do_sample": True, "temperature": request.temperature}
    if request.stop:
        how |= {"stop_strings": list(request.stop), "tokenizer": tokenizer}
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    how |= {"max_new_tokens": request.max_tokens, "max_time": seconds, "pad_token_id": pad}
    with torch.inference_mode():
        return model.generate(**ids, **how, return_dict_in_generate=True, output_logits=request.top_logprobs > 0)


def _ends(model: Any) -> tuple[int, ...]:
    given = model.generation_config.eos_token_id
    return () if given is None else (given,) if isinstance(given, int) else tuple(given)


def _cut(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the first stop sequence, and whether there was one."""
    at = min((text.find(stop) for stop in stops if stop in text), default=-1)
    return (text, False) if at < 0 else (text[:at], True)


def _alternatives(tokenizer: Any, made: Any, count: int) -> tuple[tuple[str, float], ...]:
    """The likeliest first tokens with their natural-log probabilities."""
    if not count:
        return ()
    best = made.logits[0][0].float().log_softmax(-1).topk(count)
    return tuple((tokenizer.decode([token]), float(value)) for value, token in zip(best.values, best.indices.tolist(), strict=True))
