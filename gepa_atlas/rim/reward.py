"""RIMReward: the reward system on its own, with the call shape of ATLAS's `RIM.reward_adapter`.

    rim = RIMReward(config_path="configs/rim_config.yaml")
    rim.evaluate(prompt="...", response="...").score
    rim(prompts, completions, ground_truths=..., return_info_dict=True)        # batch, concurrent; a TRL reward function

`aevaluate` and `abatch` are the same for callers with an event loop. All judging runs on one private loop in a thread of its own, so
that limits, sharing and caching hold over every way in. A reward that could not be given is None with a reason, never 0.0.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gepa_atlas.budget import Limits
from gepa_atlas.errors import ConfigError, ContractError, Outage
from gepa_atlas.lanes import Retry
from gepa_atlas.loops import LoopThread
from gepa_atlas.ports import Case, ChatModel
from gepa_atlas.rim import meter
from gepa_atlas.rim.breakdown import AtlasJudgeBreakdown, AtlasJudgeSample, AtlasRewardBreakdown, RIMEvaluation
from gepa_atlas.rim.config import RimConfig
from gepa_atlas.rim.judges.base import BASELINE, PLAN, TRACE
from gepa_atlas.rim.keyless import lacking_key
from gepa_atlas.rim.panel import Delta, Panel, build_panel
from gepa_atlas.settings import load
from gepa_atlas.types import Example, Guidance, Reward, canonical, digest

# Keywords that hold one value per completion: ATLAS's five, and what else an example may have.
_PER_ITEM = ("ground_truths", "baseline_solutions", "student_plans", "teacher_traces", "student_traces", "contexts", "specs")
_KNOWN = (*_PER_ITEM, "constitution_principles")


_NO_LIMITS = Limits()


class RIMReward:
    """`student_model`, `teacher_model` and `tokenizer` are ATLAS's first three parameters; giving one is an error.

    model: builds a model from a judge's `model:` entry; by default from the providers that are installed.
    tape: where calls are recorded and looked up, so that an answer is paid once (`calls.Tape`); by default in memory.
    retry: how often and how long a failing endpoint is tried.
    limits: hard limits on dollars, tokens and seconds of the judges; what they refuse is unscored.
    """

    def __init__(
        self,
        student_model: None = None,
        teacher_model: None = None,
        tokenizer: None = None,
        config_path: str | Path = "configs/rim_config.yaml",
        *,
        config: RimConfig | Mapping[str, Any] | None = None,
        model: Callable[[Any], ChatModel] | None = None,
        tape: Any = None,
        limits: Limits = _NO_LIMITS,
        retry: Retry | None = None,
    ) -> None:
        if not (student_model is None and teacher_model is None and tokenizer is None):
            raise ContractError("RIMReward takes no student_model, teacher_model or tokenizer: the judges' models are in its configuration")
        self.__name__ = "RIMReward"  # TRL names a reward function by it
        self.config, base_dir = _read(config, Path(config_path))
        self.last_structured_rewards: list[AtlasRewardBreakdown] = []
        self._loop = LoopThread("rim-reward", "this RIMReward was closed; make a new one")
        self._closer = weakref.finalize(self, self._loop.close)
        try:
            self.calls, self.panel = self._loop.wait(_open(self.config, base_dir, model or default_model, tape, limits, retry))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the private loop. Judging afterwards is an error."""
        self._closer()

    def __enter__(self) -> RIMReward:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- one ---------------------------------------------------------------------------------------------------------------------

    def evaluate(self, prompt: str, response: str, **inputs: Any) -> RIMEvaluation:
        """One interaction. `inputs` are ATLAS's keywords, `contexts` and `specs`, each a value or a list of one."""
        evaluation = self._loop.wait(self._judge(_one(prompt, response, inputs)))
        self.last_structured_rewards = [evaluation.reward]
        return evaluation

    async def aevaluate(self, prompt: str, response: str, **inputs: Any) -> RIMEvaluation:
        evaluation = await self._loop.carry(self._judge(_one(prompt, response, inputs)))
        self.last_structured_rewards = [evaluation.reward]
        return evaluation

    # -- many --------------------------------------------------------------------------------------------------------------------

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        return_info_dict: bool = False,
        return_raw_tensors: bool = False,
        **inputs: Any,
    ) -> Any:
        """Scores in the order of the completions (None where there is none); with `return_info_dict` a list of infos, with
        `return_raw_tensors` a list of empty mappings behind it, as in ATLAS. Other keywords (a trainer hands every column of its
        data over) are not looked at."""
        evaluations = self._loop.wait(self._batch(*_cases(prompts, completions, inputs)))
        return self._shaped(evaluations, return_info_dict, return_raw_tensors)

    async def abatch(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        return_info_dict: bool = False,
        return_raw_tensors: bool = False,
        **inputs: Any,
    ) -> Any:
        evaluations = await self._loop.carry(self._batch(*_cases(prompts, completions, inputs)))
        return self._shaped(evaluations, return_info_dict, return_raw_tensors)

    def delta(self, prompt: str, before: str, after: str, ground_truth: str | None = None, context: str = "") -> Delta:
        """After minus before, judged blind by the same judges with the same fields."""
        example = _example(prompt, (ground_truth,) if ground_truth is not None else (), context)
        return self._loop.wait(self.panel.delta(Case(example, before), Case(example, after)))

    def _shaped(self, evaluations: list[RIMEvaluation], info: bool, raw: bool) -> Any:
        self.last_structured_rewards = [e.reward for e in evaluations]
        scores = [e.score for e in evaluations]
        if not info:
            return scores
        infos = [e.extra["info"] for e in evaluations]
        return (scores, infos, [{} for _ in scores]) if raw else (scores, infos)

    async def _batch(self, count: int, case: Callable[[int], Case]) -> list[RIMEvaluation]:
        """More workers than calls are allowed at once, so that a call that ends finds the next one ready; but a batch of any size
        holds no more than that in the air."""
        results: list[RIMEvaluation | None] = [None] * count
        queue = iter(range(count))

        async def work() -> None:
            for i in queue:
                results[i] = await self._judge(case(i))

        await asyncio.gather(*(work() for _ in range(min(count, 2 * self.config.concurrency))))
        return [r for r in results if r is not None]

    async def _judge(self, case: Case) -> RIMEvaluation:
        with meter.metering() as notes:
            try:
                reward = await self.panel.level(case)
            except Outage as error:
                reward = Reward.none("outage", str(error))
        return _evaluation(reward, notes)


def default_model(spec: Any) -> ChatModel:
    """A judge's `model:` entry, built by the providers that are installed."""
    from gepa_atlas.llm.registry import build_model

    if spec is None:
        raise ConfigError("rim: an llm judge has no model; give the judge a `model` (for example local, or vendor/model for litellm)")
    if (key := lacking_key(spec)) is not None:
        raise ConfigError(
            f"rim: the judges' model {spec} reads its key from {key}, which is not set: export it, put it in .env, or take other judges"
        )
    return build_model(spec, "rim.judges.model")


async def _open(
    config: RimConfig, base_dir: Path, model: Callable[[Any], ChatModel], tape: Any, limits: Limits, retry: Retry | None
) -> tuple[Any, Panel]:
    from gepa_atlas.calls import Calls, MemoryTape

    calls = Calls(tape or MemoryTape(), concurrency=config.concurrency, limits=limits, retry=retry or Retry())
    built: dict[str, ChatModel] = {}

    def door(spec: Any) -> ChatModel:
        key = digest(spec)
        if key not in built:
            built[key] = calls.model(model(spec), "judge")
        return built[key]

    return calls, build_panel(config, model=door, base_dir=base_dir)


def _read(config: RimConfig | Mapping[str, Any] | None, path: Path) -> tuple[RimConfig, Path]:
    if isinstance(config, RimConfig):
        return config, Path.cwd()
    if config is not None:
        return _section(config), Path.cwd()
    return read_rim(path), path.resolve().parent


def _section(data: Mapping[str, Any]) -> RimConfig:
    inner = data.get("rim", data)
    return load(RimConfig, dict(inner) if isinstance(inner, Mapping) else {"judges": inner}, "rim")


def read_rim(path: Path) -> RimConfig:
    """The `rim:` section of a YAML file, or its whole content. Raises ConfigError."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a reward configuration") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())[:200]}); correct it") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds no mapping; write rim: {{judges: [...]}} in it")
    return _section(data)


# -- from ATLAS's arguments to a case, and from a reward to ATLAS's record ------------------------------------------------------


def _one(prompt: str, response: str, inputs: Mapping[str, Any]) -> Case:
    for name in inputs:
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_KNOWN)}"
            raise ContractError(f"evaluate has no keyword {name}; {hint}")
    wrapped = {name: value if name not in _PER_ITEM or isinstance(value, list | tuple) else [value] for name, value in inputs.items()}
    for name in _PER_ITEM:
        if len(wrapped.get(name) or ()) > 1:
            raise ContractError(f"{name} has {len(wrapped[name])} entries for one response; several accepted answers are a list in a list")
    return _case(_text(prompt), _text(response), 0, wrapped)


def _cases(prompts: Sequence[Any], completions: Sequence[Any], inputs: Mapping[str, Any]) -> tuple[int, Callable[[int], Case]]:
    """How many there are, and how each is made: everything is checked now, and made when its turn comes."""
    if isinstance(prompts, str) or isinstance(completions, str):
        raise ContractError("a batch takes a list of prompts and a list of completions; evaluate(prompt, response) judges one")
    prompts, completions = list(prompts), list(completions)
    if len(prompts) != len(completions):
        raise ContractError(f"{len(prompts)} prompts and {len(completions)} completions: there must be as many of each")
    wrapped = dict(inputs)
    for name in _PER_ITEM:
        value = inputs.get(name)
        if value is None or isinstance(value, str | Mapping) or not isinstance(value, Iterable):  # one for all
            wrapped[name] = [value] * len(prompts)
        else:
            wrapped[name] = list(value)  # an array, or the column of a table
        if len(wrapped[name]) != len(prompts):
            raise ContractError(f"{name} has {len(wrapped[name])} entries for {len(prompts)} completions: there must be as many of each")
    texts = [(_text(p), _text(c)) for p, c in zip(prompts, completions, strict=True)]
    return len(texts), lambda i: _case(*texts[i], i, wrapped)


def _text(value: Any) -> str:
    """A text, or the last message of a chat (TRL hands conversational completions as lists of messages)."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and isinstance(value[-1], dict) and isinstance(value[-1].get("content"), str):
        return str(value[-1]["content"])
    raise ContractError(f"a prompt or completion is a text or a list of chat messages, not {type(value).__name__}")


def _case(prompt: str, response: str, index: int, inputs: Mapping[str, Any]) -> Case:
    def at(name: str) -> str:
        values = inputs.get(name) or ()
        return "" if index >= len(values) or _absent(values[index]) else str(values[index])

    principles = inputs.get("constitution_principles") or ""
    gold = inputs["ground_truths"][index] if index < len(inputs.get("ground_truths") or ()) else None
    answers = tuple(map(str, gold)) if isinstance(gold, list | tuple) else (() if _absent(gold) else (str(gold),))
    context = at("contexts")
    if principles:
        context = f"{context}\nPrinciples to judge by: {principles}".strip()
    given = ((PLAN, at("student_plans")), (TRACE, at("student_traces")), (BASELINE, at("baseline_solutions")))
    spec = inputs["specs"][index] if index < len(inputs.get("specs") or ()) else None
    return Case(_example(prompt, answers, context, spec), response, Guidance(at("teacher_traces")), tuple(g for g in given if g[1]))


def _absent(value: Any) -> bool:
    """None, an empty text, or the NaN by which a table says that a cell is empty."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _example(prompt: str, answers: tuple[str, ...], context: str, spec: Any = None) -> Example:
    """`spec` is a mapping or its JSON text: what program judges such as `instructions` and `code` need beside the answer."""
    if _absent(spec):
        return Example(digest([prompt, context, list(answers)], 16), prompt, answers, context)
    try:
        text = canonical(json.loads(spec) if isinstance(spec, str) else spec)
    except (TypeError, ValueError) as error:
        raise ContractError(f"a spec is a mapping or its JSON text ({error}): {str(spec)[:80]!r}") from None
    return Example(digest([prompt, context, list(answers), text], 16), prompt, answers, context, spec=text)


def _evaluation(reward: Reward, notes: Mapping[str, meter.Note]) -> RIMEvaluation:
    judges = []
    for part in reward.parts:
        note = notes.get(part.judge, meter.Note())
        samples = [
            AtlasJudgeSample(s.score, s.rationale, [{"name": p} for p in s.principles], s.uncertainty, s.temperature) for s in note.samples
        ]
        why = part.missing.reason if part.missing else part.rationale
        principles = samples[-1].principles if samples else []
        judges.append(AtlasJudgeBreakdown(part.judge, part.value, why, principles, samples, note.escalated is not None, note.escalated))
    scored = [p for p in reward.parts if not (p.missing and p.missing.kind == "skipped")]
    scores = {p.judge: p.value for p in scored}
    explanations = {p.judge: p.missing.reason if p.missing else p.rationale for p in scored}
    rationale = "\n".join(f"{name}: {text}" for name, text in explanations.items() if text)
    missing = reward.missing.to_json() if reward.missing else None
    breakdown = AtlasRewardBreakdown(reward.value, judges, rationale, {"uncertainty": reward.uncertainty, "missing": missing})
    info = {
        "rewards": scores,
        "explanations": explanations,
        "structured_reward": breakdown.to_dict(),
        "uncertainty": reward.uncertainty,
        "missing": missing,
        "usage": {name: note.usage.to_json() for name, note in notes.items()},
    }
    return RIMEvaluation(reward.value, rationale, scores, explanations, breakdown, {"raw_tensors": None, "info": info})
