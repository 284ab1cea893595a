"""Configurations of ATLAS, in today's form. `modernise` moves what has a place here, says what has none, and refuses with the reason what
would change a run in silence. It runs on the merged files, before variables are filled in; a configuration without keys of ATLAS passes
through unchanged, but for agents whose params are ATLAS's.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from gepa_atlas import legacy_agents as agents
from gepa_atlas.configfile import At, Tree, dotted, put
from gepa_atlas.errors import ConfigError

TEACHER, DIAGNOSTIC, TAUGHT = "teacher_adaptive_template", "student_diagnostic_template", "student_with_teaching_template"
KEYS = frozenset({
    "teacher_model", "student_model", "use_vllm_client", "vllm_host", "vllm_port", "compatibility_mode", "gepa_config",
    "generation_config", "max_litellm_workers", "data_source", "max_examples", "evaluation", "wandb", "capture_traces",
    "teacher_wrapper", "student_wrapper", "agent_type", "agent_config", "user_agent",
})  # fmt: skip
PLANNER = "student beside target"  # where a second agent waits for the verdict of `modernise`
_UNUSED = {
    "compatibility_mode": "every agent is wrapped",
    "evaluation": "ATLAS kept it and never read it; judges are named in rim",
    "wandb": "ATLAS never read it; the run directory holds every figure",
    "capture_traces": "ATLAS never read it; every lesson is in traces.jsonl",
}
_GEPA_UNUSED = {
    "display_progress_bar": "progress is shown in a terminal; --quiet hides it",
    "skip_perfect_score": "operators read failures, and say so when there are none",
    "track_best_outputs": "every output is in traces.jsonl",
    "raise_on_exception": "a failure is an unscored lesson with its reason",
    "module_selector": "operators choose the texts they edit",
}
_GEPA_MOVED: dict[str, At] = {
    "reflection_minibatch_size": ("minibatch",), "seed": ("seed",), "run_dir": ("run_dir",), "max_metric_calls": ("max_metric_calls",),
}  # fmt: skip
_GEPA_ONE_VALUE: dict[str, tuple[Any, str]] = {
    "candidate_selection_strategy": ("pareto", "parents come from the posterior over the per-example front, and there is no other rule"),
    "perfect_score": (1.0, "the best reward is 1"),
    "cache_evaluation": (True, "no lesson is bought twice"),
    "use_wandb": (False, "the run directory holds every figure; remove use_wandb"),
    "use_mlflow": (False, "the run directory holds every figure; remove use_mlflow"),
}
_GEPA_REFUSED = {
    "reflection_prompt_template": "write reflection_instructions, a goal for each text",
    "max_merge_invocations": "effort goes to operators by what they earn; leave merge out of operators to do without it",
    "frontier_type": "the front is per example",
    "batch_sampler": "examples are drawn by their address in the run",
    "val_evaluation_policy": "candidates are measured as far as it pays",
    "acceptance_criterion": "acceptance follows the posterior",
    "stop_callbacks": "write stop: {plateau: ..., target: ...} or budget",
    "adapter": "agents are configured under agents",
    "logger": "the command prints; a program that calls the library logs itself",
    "reflection_lm": "write reflection_lm at the top",
}
_GENERATION = ("max_tokens", "temperature", "diagnostic_max_tokens", "timeout", "request_timeout", "reasoning_effort",
               "reflection_max_tokens", "max_litellm_workers")  # fmt: skip


def modernise(tree: Tree, where: str, *, override: bool = False) -> tuple[Tree, list[str]]:
    """The tree without keys of ATLAS, and a line for each thing that changed. `override`: what is moved replaces what is there."""
    old = bool(KEYS & tree.keys())
    if not old and isinstance(tree.get("agents"), dict) and PLANNER in tree["agents"]:
        raise ConfigError(f"{where}: agents.student and agents.target are two names for the same agent; keep one")
    move = _Move(dict(tree), where, override)
    try:
        if not old:
            move.spelling(old_only=True)
            return move.tree, move.changes
        move.agents()
    except ConfigError as error:  # an agent's own words do not name the file
        raise ConfigError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    move.prompts()
    move.generation()
    move.search()
    move.data()
    for key, why in _UNUSED.items():
        if move.take(key) is not None:
            move.note(f"{key} is not used: {why}")
    return move.tree, move.changes


class _Move:
    """A tree on its way; every method takes some keys of ATLAS out and puts what they say where it belongs."""

    def __init__(self, tree: Tree, where: str, override: bool) -> None:
        self.tree, self.where, self.override = tree, where, override
        self.changes: list[str] = []

    def note(self, line: str) -> None:
        self.changes.append(line)

    def refuse(self, line: str) -> ConfigError:
        return ConfigError(f"{self.where}: {line}")

    def take(self, key: str) -> Any:
        return self.tree.pop(key, None)

    def block(self, key: str) -> dict[str, Any]:
        return agents.mapping(self.take(key), f"{self.where}: {key}")

    def at(self, *at: str) -> Any:
        here: Any = self.tree
        for part in at:
            here = here.get(part) if isinstance(here, dict) else None
        return here

    def put(self, at: At, value: Any, old: str) -> None:
        if self.at(*map(str, at)) is not None and not self.override:
            raise self.refuse(f"{old} and {dotted(at)} say the same; keep {dotted(at)}")
        self.tree = put(self.tree, at, value, self.where)
        self.note(f"{old} -> {dotted(at)}")

    # -- who answers ---------------------------------------------------------------------------------------------------

    def agents(self) -> None:
        if self.at("agents", PLANNER) is not None:
            self.tree["agents"] = {name: block for name, block in self.tree["agents"].items() if name != PLANNER}
            self.note("agents.student is not used: the wrapped agent itself is the student, and states its own approach")
        self._wrappers()
        self.spelling()
        self._models()

    def spelling(self, *, old_only: bool = False) -> None:
        """Params of agents in today's spelling; `old_only`: of those that have some of ATLAS's."""
        for role in ("student", "teacher"):
            block = self.at("agents", role)
            if isinstance(block, dict) and isinstance(block.get("provider"), str) and isinstance(block.get("params", {}), dict):
                provider, params = block["provider"], block.get("params", {})
                if old_only and not agents.OLD_PARAMS.get(provider, frozenset()) & params.keys():
                    continue
                new = agents.agent(provider, params, f"agents.{role}", self.note)
                self.tree = put(self.tree, ("agents", role), {**block, **new}, self.where)

    def _wrappers(self) -> None:
        kind = self.take("agent_type")
        if kind is not None:
            self.tree.setdefault("user_agent", {"type": kind, "config": self.take("agent_config") or {}})
        elif self.take("agent_config") is not None:
            raise self.refuse("agent_config is given without agent_type; write agents: {target: {provider: ..., params: ...}}")
        for key, role in (("user_agent", "student"), ("student_wrapper", "student"), ("teacher_wrapper", "teacher")):
            block = self.take(key)
            if block is not None and role == "student" and self.at("agents", "student") is not None and not self.override:
                self.note(f"{key} is not used: the wrapped agent itself is the student, and states its own approach")
            elif block is not None:
                self.put(("agents", role), agents.wrapper(block, key, self.note), key)

    def _models(self) -> None:
        host, port = self.take("vllm_host") or "localhost", self.take("vllm_port") or 8765
        by_server = bool(self.take("use_vllm_client"))
        teacher, student = self.take("teacher_model"), self.take("student_model")
        if teacher is not None and self.at("agents", "teacher") is not None and not self.override:
            self.note("teacher_model is not used: agents.teacher is configured")
        elif teacher is not None:
            spec = agents.served(teacher, host, port) if by_server else agents.model(teacher, "teacher_model", self.note)
            self.put(("agents", "teacher"), spec, "teacher_model")
        if student is not None and self.at("agents", "student") is not None and not self.override:
            self.note("student_model is not used: the wrapped agent itself is the student, and states its own approach")
        elif student is not None:
            spec = agents.model(student, "student_model", self.note)
            self.put(("agents", "student"), {"provider": "chat", "params": {"model": spec, "max_tokens": 2048}}, "student_model")
        reflection = self.at("reflection_lm")
        if isinstance(reflection, str):
            self.tree["reflection_lm"] = agents.model(reflection, "reflection_lm", self.note)
        elif reflection is None and teacher is not None:
            self.tree["reflection_lm"] = self.at("agents", "teacher")
            self.note("reflection_lm is the teacher, as in ATLAS")

    # -- texts ---------------------------------------------------------------------------------------------------------

    def prompts(self) -> None:
        """ATLAS filled templates with str.format: doubled braces were braces. Which texts there are decides the protocol."""
        for key in ("seed_prompts", "fixed_prompts"):
            texts = self.at(key)
            if isinstance(texts, dict):
                self.tree[key] = {name: self._template(key, name, text) for name, text in texts.items()}
        seeds, fixed = self.at("seed_prompts") or {}, self.at("fixed_prompts") or {}
        texts = {**seeds, **fixed} if isinstance(seeds, dict) and isinstance(fixed, dict) else {}
        if not {TEACHER, DIAGNOSTIC, TAUGHT} & texts.keys() or self.at("protocol") is not None:
            return
        teaching = str(texts.get(TEACHER, ""))
        if "{approach}" in teaching or (DIAGNOSTIC in texts and "{attempt}" not in teaching):
            self.tree["protocol"] = {"name": "probe"}
        else:
            self.tree["protocol"] = {"name": "lesson", "params": {"student_template": TAUGHT in seeds}}
            self._without_probe(seeds, fixed)
        self.note(f"protocol is {self.tree['protocol']['name']}, by the templates that are given")

    def _template(self, key: str, name: str, text: Any) -> Any:
        if not isinstance(text, str):
            return text
        new = text.replace("{{", "{").replace("}}", "}") if re.search(r"\{\{|\}\}", text) else text
        if new != text:
            self.note(f"{key}.{name}: doubled braces are single ones")
        if "{baseline_response}" in new:
            new = new.replace("{baseline_response}", "{attempt}")
            self.note(f"{key}.{name}: {{baseline_response}} is called {{attempt}}")
        if "{available_tools}" in new:
            raise self.refuse(
                f"{key}.{name}: nothing fills {{available_tools}}: no agent says which tools it has; write them into the text"
            )
        return new

    def _without_probe(self, seeds: dict[str, Any], fixed: dict[str, Any]) -> None:
        """A lesson whose teacher reads the first attempt has no probe, and its student template shows that attempt."""
        for texts in (seeds, fixed):
            if texts.pop(DIAGNOSTIC, None) is not None:
                self.note(f"{DIAGNOSTIC} is not used: the teacher's template reads {{attempt}}, so no approach is asked for")
            if "{approach}" in str(texts.get(TAUGHT, "")):
                texts[TAUGHT] = texts[TAUGHT].replace("{approach}", "{attempt}")
                self.note(f"{TAUGHT}: {{approach}} is {{attempt}}, the first answer")
        for key in ("optimization_targets", "reflection_instructions"):
            block = self.at(key)
            if isinstance(block, dict) and DIAGNOSTIC in block:
                self.tree[key] = {name: value for name, value in block.items() if name != DIAGNOSTIC}

    # -- how it is generated -------------------------------------------------------------------------------------------

    def generation(self) -> None:
        given = self.block("generation_config")
        workers = self.take("max_litellm_workers")
        self._known(given, _GENERATION, "generation_config")
        for key in ("timeout", "request_timeout"):
            if key in given and (isinstance(given[key], bool) or not isinstance(given[key], int | float)):
                raise self.refuse(f"generation_config.{key} takes seconds (got {given[key]!r:.80})")
        workers = given.pop("max_litellm_workers", None) if workers is None else workers
        if workers is not None:
            self.put(("concurrency",), workers, "max_litellm_workers")
        timeout = max((given[key] for key in ("timeout", "request_timeout") if key in given), default=None)
        teaches = self.at("agents", "teacher") is not None
        for key in ("max_tokens", "temperature"):
            if key in given and teaches:
                self.put(("protocol", "params", key), given[key], f"generation_config.{key}")
        probes = self.at("protocol", "name") == "probe"
        if "diagnostic_max_tokens" in given:
            if probes:
                self.put(
                    ("protocol", "params", "max_approach_tokens"), given["diagnostic_max_tokens"], "generation_config.diagnostic_max_tokens"
                )
            else:
                self.note("generation_config.diagnostic_max_tokens is not used: no approach is asked for")
        if self.at("agents", "student", "provider") == "chat":
            for key in ("max_tokens", "temperature"):
                if key in given:
                    self.tree = put(self.tree, ("agents", "student", "params", key), given[key], self.where)
        if "reflection_max_tokens" in given and self.at("reflection_lm") is not None:
            for name in ("reflect", "diagnose"):
                self.put(
                    ("operator_options", name, "max_tokens"), given["reflection_max_tokens"], "generation_config.reflection_max_tokens"
                )
        for at in (("agents", "teacher"), ("reflection_lm",), ("agents", "student", "params", "model")):
            self._model_params(at, timeout, given.get("reasoning_effort"))

    def _model_params(self, at: tuple[str, ...], timeout: Any, effort: Any) -> None:
        """Time-out and effort of a model; a bare name gets params for them."""
        spec = self.at(*at)
        if not isinstance(spec, str | dict) or (timeout is None and effort is None):
            return
        if isinstance(spec, str):
            spec = {"provider": "litellm", "params": {"model": spec}} if "/" in spec else {"provider": spec}
        provider, params = spec.get("provider"), agents.mapping(spec.get("params"), f"{self.where}: {dotted(at)}.params")
        if timeout is not None and provider in ("litellm", "openai.chat"):
            params.setdefault("timeout", timeout)
        if effort is not None and provider in ("litellm", "openai.chat"):
            field = "extra" if provider == "litellm" else "extra_body"
            params[field] = {"reasoning_effort": effort, **agents.mapping(params.get(field), f"{self.where}: {dotted(at)}.params.{field}")}
        self.tree = put(self.tree, at, {**spec, "params": params} if params else spec, self.where)

    # -- how it is searched --------------------------------------------------------------------------------------------

    def search(self) -> None:
        given = self.block("gepa_config")
        known = (*_GEPA_UNUSED, *_GEPA_MOVED, *_GEPA_ONE_VALUE, *_GEPA_REFUSED, "use_merge")
        self._known(given, known, "gepa_config")
        for key, value in given.items():
            old = f"gepa_config.{key}"
            if key in _GEPA_REFUSED:
                raise self.refuse(f"{old} is not carried over: {_GEPA_REFUSED[key]}")
            if key in _GEPA_MOVED:
                self.put(_GEPA_MOVED[key], value, old)
            elif key == "use_merge":
                if value is False and self.at("operators") is None:
                    from gepa_atlas.propose.registry import DEFAULT, WITH_MODEL

                    portfolio = WITH_MODEL if self.at("reflection_lm") is not None else DEFAULT
                    self.put(("operators",), [name for name in portfolio if name != "merge"], old)
            elif key in _GEPA_ONE_VALUE:
                only, why = _GEPA_ONE_VALUE[key]
                if value != only:
                    raise self.refuse(f"{old}: {value!r} is not carried over: {why}")
                self.note(f"{old} is not used: {why}")
            else:
                self.note(f"{old} is not used: {_GEPA_UNUSED[key]}")

    # -- what is asked -------------------------------------------------------------------------------------------------

    def data(self) -> None:
        source, limit = self.block("data_source"), self.take("max_examples")
        data = self.at("data") or {}
        if not isinstance(data, dict):
            return
        data = dict(data)
        data.pop("source", None)
        if source:
            for key in ("trainset", "valset"):
                if self.take(key) is not None:
                    self.note(f"{key} is not used: data_source is where the examples come from, as in ATLAS")
            data |= self._source(source, data, limit)
        if limit is not None:
            data["max_examples"] = limit
            self.note("max_examples -> data.max_examples; ATLAS selected on the examples it learnt from, here they are split")
        if data:
            self.tree["data"] = data

    def _source(self, source: dict[str, Any], data: dict[str, Any], limit: Any) -> dict[str, Any]:
        kind = str(source.pop("type", "file"))
        known = {
            "file": ("path", "columns"), "http_api": ("url", "timeout", "transform"), "prometheus_alerts": ("url", "timeout"),
            "itbench_scenarios": ("scenarios_dir",), "custom_function": ("module", "function", "config"),
        }  # fmt: skip
        if kind not in known:
            raise self.refuse(f"data_source.type: {kind!r} is none of {', '.join(known)}")
        self._known(source, known[kind], "data_source")
        self.note(f"data_source of type {kind} -> data")
        if kind != "file" and data.pop("columns", None):
            self.note("data.columns is not used: ATLAS read it for files only")
        if kind == "file":
            return source
        if kind == "http_api":
            return self._http_source(source)
        if kind == "prometheus_alerts":
            return {"prometheus": source}
        if kind == "itbench_scenarios":
            return {"itbench": source}
        if source.pop("config", None):
            self.note("data_source.config is not used: ATLAS never read it; give the function its arguments in data.params")
        if not {"module", "function"} <= source.keys():
            raise self.refuse("data_source of type custom_function takes module (a .py file) and function")
        return {"function": f"{source['module']}:{source['function']}", "args": [5 if limit is None else limit]}

    def _http_source(self, source: dict[str, Any]) -> dict[str, Any]:
        transform = agents.mapping(source.pop("transform", None), f"{self.where}: data_source.transform")
        if "script" in transform:
            raise self.refuse(
                "data_source.transform.script is refused: it ran whatever Python the configuration held, on data from the network; "
                "use items_path and field names, or data: {function: my_data.py:load}"
            )
        self._known(transform, ("items_path", "question_field", "answer_field"), "data_source.transform")
        if "items_path" in transform:
            source["items_path"] = transform["items_path"]
        fields = {name: transform.get(f"{name}_field") for name in ("question", "answer")}
        columns = {name: value for name, value in fields.items() if value}
        return {"http": source} | ({"columns": columns} if columns else {})

    def _known(self, given: dict[str, Any], known: tuple[str, ...], where: str) -> None:
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"ATLAS had {', '.join(known)}"
                raise self.refuse(f"{where}.{key}: unknown key; {hint}")
