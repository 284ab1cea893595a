"""Agents and models as ATLAS configured them, in today's form. Every function is pure; what cannot be carried over is a ConfigError."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from gepa_atlas.errors import ConfigError

Params = dict[str, Any]
Note = Callable[[str], None]

_TYPES = {"openai_assistant": "openai.assistant", "openai_sdk": "openai.sdk"}
# Params that only ATLAS had, by which an agent of its is known where nothing else in the file tells.
OLD_PARAMS = {
    "http.api": frozenset({"query_template"}),
    "python.callable": frozenset({"module_path"}),
    "cli.command": frozenset({"command"}),
    "openai.assistant": frozenset({"api_key", "max_workers", "output_extraction"}),
    "openai.sdk": frozenset({"api_key", "instructions", "tools"}),
}
_INTEGRATIONS = {"http_api": "http.api", "python_function": "python.callable", "cli_command": "cli.command"}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SHELL = re.compile(r"[|&;<>()$`*?~\n]")
# Vendors that litellm takes in front of a model's name; any other is the owner of a model on a hub.
_VENDORS = frozenset({
    "openai", "azure", "azure_ai", "anthropic", "gemini", "vertex_ai", "bedrock", "xai", "groq", "together_ai", "mistral",
    "cohere", "deepseek", "openrouter", "huggingface", "ollama", "ollama_chat", "fireworks_ai", "replicate", "perplexity",
    "hosted_vllm", "vllm", "nvidia_nim", "databricks", "watsonx", "cerebras", "sambanova", "litellm_proxy", "lm_studio",
    "deepinfra",
})  # fmt: skip


def mapping(value: Any, where: str) -> dict[str, Any]:
    """The mapping that belongs here, or none at all."""
    if value is not None and not isinstance(value, dict):
        raise ConfigError(f"{where}: takes a mapping (got {value!r:.80})")
    return dict(value or {})


def wrapper(block: Any, where: str, note: Note) -> Params:
    """`{type, config}` of the wrapper forms as `{provider, params}`."""
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        raise ConfigError(f"{where}: takes type and config; write agents: {{target: {{provider: ..., params: ...}}}}")
    config = block.get("config") or {}
    extra = block.keys() - {"type", "config"}
    if not isinstance(config, dict) or extra:
        wrong = f"unknown key {sorted(extra)[0]!r}" if extra else "config is not a mapping"
        raise ConfigError(f"{where}: {wrong}; it takes type and config")
    config = dict(config)
    kind: str = block["type"]
    if kind == "custom":
        integration = config.pop("integration_type", "http_api")
        if not isinstance(integration, str) or integration not in _INTEGRATIONS:
            raise ConfigError(f"{where}.config.integration_type: {integration!r} is none of {', '.join(_INTEGRATIONS)}")
        kind = _INTEGRATIONS[integration]
    elif kind not in _TYPES and "." not in kind:
        raise ConfigError(f"{where}.type: {kind!r} is none of {', '.join(_TYPES)}, custom, and no provider with a dot in its name")
    return agent(_TYPES.get(kind, kind), config, f"{where}.config", note)


def agent(provider: str, params: Params, where: str, note: Note) -> Params:
    """`{provider, params}` with the params ATLAS's provider of that name took, or today's, in today's spelling."""
    convert = {
        "http.api": _http,
        "python.callable": _callable,
        "cli.command": _command,
        "openai.assistant": _assistant,
        "openai.sdk": _sdk,
    }.get(provider)
    return convert(dict(params), where, note) if convert else {"provider": provider, "params": dict(params)}


def _http(params: Params, where: str, note: Note) -> Params:
    if "query_template" in params:
        params["query"] = params.pop("query_template")
        note(f"{where}: query_template is called query")
    template, field = params.get("request_template"), str(params.get("prompt_field", "prompt"))
    if isinstance(template, dict) and not _holds(template, "{prompt}") and not _holds(template, "{question}"):
        params.pop("prompt_field", None)
        if template.keys() <= {field}:  # the body is the field alone, which needs no template
            params.pop("request_template")
            params["prompt_field"] = field
        else:
            params["request_template"] = {**template, field: "{prompt}"}
            note(f"{where}: the field {field} of request_template holds {{prompt}}")
    elif isinstance(template, dict) and params.pop("prompt_field", None) is not None:
        note(f"{where}: prompt_field is not used: request_template says where the prompt goes")
    for name, value in mapping(params.get("headers"), f"{where}.headers").items():
        if "YOUR_" in str(value):
            note(f"{where}: the header {name} is the sample's; name a variable instead, ${{MY_AGENT_KEY}}")
    return {"provider": "http.api", "params": params}


def _callable(params: Params, where: str, note: Note) -> Params:
    if "module_path" not in params:
        return {"provider": "python.callable", "params": params}
    path, function, name = params.pop("module_path"), params.pop("function_name", None), params.pop("class_name", None)
    if name is not None:
        target = f"{path}:{name}.{function or 'crew'}"
        if function is None:
            note(f"{where}: ATLAS called kickoff on what {name}().crew() returns; name a function that does, {path}:answer")
    elif function is None:
        raise ConfigError(f"{where}: module_path needs function_name or class_name beside it")
    else:
        target = f"{path}:{function}"
    note(f"{where}: module_path and the name in it are callable: {target}")
    if params.pop("suppress_output", False) or params.pop("capture_output_to_file", None):
        note(f"{where}: what the function prints is neither suppressed nor read; the steps of an agent belong into what it returns")
    if base := params.pop("module_base_path", None):
        note(f"{where}: module_base_path {base!r} is not put on the import path; start gepa-atlas with PYTHONPATH={base}")
    if params.get("process_response") == "json" and "response_field" not in params:
        raise ConfigError(
            f"{where}: process_response: json needs response_field, the dotted path of the answer in what {target} returns: add it"
        )
    return {"provider": "python.callable", "params": {"callable": target, **params}}


def _command(params: Params, where: str, note: Note) -> Params:
    if "command" not in params:
        return {"provider": "cli.command", "params": params}
    written = params.pop("command")
    bare = re.sub(r"[\"']?\{prompt\}[\"']?", "PROMPT", str(written))
    if _SHELL.search(bare):
        raise ConfigError(f"{where}.command: {written!r} needs a shell, and no shell is run here; put it in a script and name that in argv")
    try:
        argv = ["{prompt}" if part == "PROMPT" else part for part in shlex.split(bare)]
    except ValueError as error:
        raise ConfigError(f"{where}.command: {written!r} cannot be split into arguments ({error}); write argv") from None
    if any("PROMPT" in part for part in argv):
        raise ConfigError(f"{where}.command: {{prompt}} must be an argument of its own in {written!r}; write argv")
    note(f"{where}: command is the list argv; no shell reads it")
    return {"provider": "cli.command", "params": {"argv": argv, **params}}


def _assistant(params: Params, where: str, note: Note) -> Params:
    params.pop("name", None)
    _key_by_name(params, where)
    if "max_workers" in params:
        params["max_concurrency"] = params.pop("max_workers")
    if params.pop("response_format", {"type": "text"}) != {"type": "text"}:
        raise ConfigError(f"{where}.response_format: only text is carried over; ask for the format in the instructions and judge it")
    if mapping(params.pop("output_extraction", None), f"{where}.output_extraction").get("type", "direct") != "direct":
        raise ConfigError(f"{where}.output_extraction: only direct is carried over; judges that read JSON: rim: {{judges: [json_schema]}}")
    if "assistant_id" in params and "base_url" in params:
        return {"provider": "openai.assistant", "params": params}
    if "assistant_id" in params:
        raise ConfigError(
            f"{where}.assistant_id: OpenAI shut its Assistants API down on 2026-08-26; write what {params['assistant_id']} was told into "
            "provider: openai.responses, params: {model: ..., system_prompt: ...}; or give the base_url of a server that still has it"
        )
    note(f"{where}: openai.assistant is openai.responses: OpenAI shut its Assistants API down on 2026-08-26")
    if "instructions" in params:
        params["system_prompt"] = params.pop("instructions")
    return {"provider": "openai.responses", "params": {"model": "gpt-4o-mini", **params}}


def _sdk(params: Params, where: str, note: Note) -> Params:
    if "agent" in params:
        return {"provider": "openai.sdk", "params": params}
    _key_by_name(params, where)
    agent: Params = {key: params.pop(key) for key in ("name", "instructions", "model", "handoffs") if key in params}
    tools = []
    given = params.pop("tools", None) or []
    for tool in given if isinstance(given, list) else [given]:
        if not isinstance(tool, dict) or not {"module_path", "function_name"} <= tool.keys():
            raise ConfigError(f"{where}.tools: {tool!r:.80} is no function of a file; write agent: {{tools: [file.py:function]}}")
        tools.append(f"{tool['module_path']}:{tool['function_name']}")
    if tools:
        agent["tools"] = tools
    note(f"{where}: what describes the agent is below agent, and tools are file.py:function")
    return {"provider": "openai.sdk", "params": {"agent": agent, **params}}


def _key_by_name(params: Params, where: str) -> None:
    if "api_key" not in params:
        return
    found = _VARIABLE.fullmatch(str(params.pop("api_key")))
    if not found:
        raise ConfigError(f"{where}.api_key: name the variable that holds it, api_key_env: OPENAI_API_KEY")
    params["api_key_env"] = found[1]


def model(name: Any, where: str, note: Note) -> Any:
    """A model that ATLAS named: `vendor/model` for litellm, a bare name for OpenAI's, `Owner/Model` of a hub."""
    if not isinstance(name, str):
        mapping(name, where)  # {provider, params}, as the registry takes it
        return name
    vendor, slash, _ = name.partition("/")
    if not slash:
        from gepa_atlas.llm.registry import providers

        return name if name in providers() or "${" in name else {"provider": "litellm", "params": {"model": name}}
    if vendor in _VENDORS or "${" in name:
        return name
    note(f"{where}: {name} is loaded by provider huggingface; behind vLLM it is openai.chat with base_url")
    return {"provider": "huggingface", "params": {"model": name}}


def served(name: str, host: Any, port: Any) -> Params:
    """A model behind ATLAS's vLLM client."""
    return {"provider": "openai.chat", "params": {"model": name, "base_url": f"http://{host}:{port}/v1"}}


def _holds(value: Any, text: str) -> bool:
    if isinstance(value, str):
        return text in value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_holds(part, text) for part in inner)
