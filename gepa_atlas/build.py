"""From a configuration to the experiment it describes. Everything is checked here, before anything is spent; no call is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from gepa_atlas.budget import Limits
from gepa_atlas.calls import CallEvent, Calls, MemoryTape
from gepa_atlas.config import AtlasConfig, Loaded, ProviderConfig, manifest
from gepa_atlas.connectors.as_model import AgentAsModel
from gepa_atlas.connectors.registry import AgentSpec, build_agent
from gepa_atlas.connectors.registry import providers as agent_providers
from gepa_atlas.data import Dataset, load_examples
from gepa_atlas.elsewhere import elsewhere
from gepa_atlas.errors import ConfigError
from gepa_atlas.evolve.engine import Plan
from gepa_atlas.evolve.gain import gain
from gepa_atlas.evolve.guard import leak_guard
from gepa_atlas.evolve.portfolio import Operator
from gepa_atlas.lanes import Retry
from gepa_atlas.llm.registry import build_model
from gepa_atlas.llm.registry import providers as model_providers
from gepa_atlas.loop import Experiment
from gepa_atlas.ports import Agent, ChatModel
from gepa_atlas.propose.registry import build_proposers
from gepa_atlas.protocols.base import TeachingProtocol
from gepa_atlas.protocols.registry import ProtocolConfig, build_protocol
from gepa_atlas.rim.config import RimConfig
from gepa_atlas.rim.panel import build_panel
from gepa_atlas.settings import load
from gepa_atlas.texts import broken_contract
from gepa_atlas.types import Candidate, Component, Role, digest

# Train lessons of the parent that an operator reads before it writes. The others look only at texts and train data: free.
_READS = {"reflect": 9, "diagnose": 12, "revise": 6}


def build_experiment(loaded: Loaded, *, on_call: Callable[[CallEvent], None] | None = None) -> Experiment:
    """The experiment of a configuration. Raises ConfigError, DataError or MissingExtra with one line."""
    config = loaded.config
    dataset = load_examples(config.data, loaded.base_dir)
    limits = Limits(config.max_metric_calls, config.budget.tokens, config.budget.dollars, config.budget.seconds)
    retry = load(Retry, config.retry, "retry")
    calls = Calls(MemoryTape(), concurrency=config.concurrency, limits=limits, retry=retry, on_event=on_call)
    models = Models(loaded, calls)
    agent = student_of(loaded, models)
    student = calls.agent(elsewhere(agent, loaded, config.backend) if config.backend else agent)
    teacher = models.maybe(config.agents.teacher, "teacher", "agents.teacher")
    reflection = models.maybe(config.reflection_lm, "reflection", "reflection_lm")
    protocol = protocol_for(config, teacher, student)
    judging = load(RimConfig, config.rim or {"judges": ["exact"]}, "rim")
    if judging.compare is not None:
        raise ConfigError("rim.compare: a search judges attempts one by one; remove it here, it belongs to RIMReward.delta")
    panel = build_panel(judging, model=models.judge, base_dir=loaded.base_dir)
    panel.check(dataset.train + dataset.val + dataset.test)
    components = _with_goals(protocol.components(), config)
    proposers = build_proposers(config.operators, model=reflection, options=config.operator_options, components=components)
    kept = {name for name, target in config.optimization_targets.items() if not target.optimize}
    seed = _seed({name: text for name, text in config.seed_prompts.items() if name not in kept}, protocol)
    identities = {
        "agents.student": student.identity,
        "reflection_lm": reflection.identity if reflection else "",
        "protocol": protocol.identity,
        "rim": panel.identity,
        "data": dataset.fingerprint,
        "seed_prompts": seed.id,
    }
    plan = Plan(
        seed=config.seed,
        width=config.width or width_of(config.max_metric_calls),
        rollouts=config.max_metric_calls,
        operators=tuple(Operator(name, _READS.get(name, 0)) for name in proposers),
        minibatch=config.minibatch,
        retest=config.retest,
        final_share=config.final_share,
        plateau=config.stop.plateau,
        target=config.stop.target,
        student_calls=protocol.student_calls,
    )
    parameters = dict(config.gain)
    guard = leak_guard(dataset.train, dataset.val + dataset.test, (seed,))
    return Experiment(
        name=loaded.path.stem,
        plan=plan,
        seeds=(seed, *_warm_seeds(config, components, guard)),
        components=components,
        dataset=dataset,
        student=student,
        panel=panel,
        protocol=protocol,
        proposers=proposers,
        calls=calls,
        manifest=manifest(loaded, identities),
        config=loaded.resolved,
        gain=gain(str(parameters.pop("name", "delta")), parameters),
        guard=guard,
        limits=limits,
        error_share=config.stop.error_share,
    )


def build_student(loaded: Loaded) -> Agent:
    """The agent alone, as its provider makes it: not behind the door for paid calls."""
    return student_of(loaded, Models(loaded, Calls(MemoryTape())))


def build_reflection(loaded: Loaded, calls: Calls) -> ChatModel | None:
    """The reflection model alone, behind the door."""
    return Models(loaded, calls).maybe(loaded.config.reflection_lm, "reflection", "reflection_lm")


def student_of(loaded: Loaded, models: Models) -> Agent:
    given = loaded.config.agents.student
    return build_agent(
        AgentSpec(provider=given.provider, params=given.params),
        build_model=lambda value: models.raw(value, "agents.student.params.model"),
        base_dir=loaded.base_dir,
        where="agents.student.params",
    )


def width_of(rollouts: int) -> int:
    """Proposals in flight where the configuration names no width: about a sixth of the rollouts may be under way at once, so that slow
    calls hold nobody up and the search still learns. It decides the result, so it follows from the budget and never from `concurrency`."""
    return min(128, max(4, rollouts // 50))


def notes(loaded: Loaded, dataset: Dataset) -> tuple[str, ...]:
    """What a user should know before the run: what came from the environment, what cannot be claimed with this data."""
    judged = () if loaded.config.rim else ("no rim is configured: answers are judged by exact match with the gold answer",)
    return (*loaded.notes, *dataset.notes, *judged, *_warm_notes(loaded.config))


def _warm_notes(config: AtlasConfig) -> tuple[str, ...]:
    """Where a warm start comes from, and whether its held-out test is still one."""
    start = config.warm_start
    if start is None:
        return ()
    names = ", ".join(start.operations)
    if not names:
        return ("a warm start: nothing in the memory is like this task, so the run starts cold",)
    own = f"that this run found its gain alone: it starts from what {names} learned (similarity {start.similarity:.2f})"
    fresh = (
        f"a fresh test of what was recalled: those runs have asked {start.asked} of the held-out examples, {start.searched} in their search"
    )
    return (own, fresh) if start.asked else (own,)


def _warm_seeds(config: AtlasConfig, components: tuple[Component, ...], guard: Callable[[Candidate], str | None]) -> tuple[Candidate, ...]:
    """Winners of earlier runs that fit this one: the same texts, no leak of what is held out here."""
    recalled = [Candidate.from_json(row) for row in config.warm_start.seeds] if config.warm_start else []
    return tuple(seed for seed in recalled if broken_contract(seed, components) is None and guard(seed) is None)


def protocol_for(config: AtlasConfig, teacher: ChatModel | None, student: Agent) -> TeachingProtocol:
    """The protocol, with the texts that are not to be evolved fixed in it."""

    def built(params: dict[str, Any]) -> TeachingProtocol:
        given = load(ProtocolConfig, {**config.protocol, "name": config.protocol_name, "params": params}, "protocol")
        return build_protocol(given, teacher, student)

    params = dict(config.protocol.get("params", {}))
    free = built(params)
    seeds = {**free.seed_texts(), **config.seed_prompts}
    for name, target in config.optimization_targets.items():
        if name not in seeds and name not in config.fixed_prompts:
            raise ConfigError(f"optimization_targets.{name}: protocol {free.name!r} has no such text; it has {', '.join(seeds)}")
        if name in config.fixed_prompts and target.optimize:
            raise ConfigError(f"optimization_targets.{name}: fixed_prompts says that it stays as it is; keep one of the two")
    kept = {name: seeds[name] for name, target in config.optimization_targets.items() if not target.optimize and name in seeds}
    for name in config.fixed_prompts:
        if name in config.seed_prompts:
            raise ConfigError(f"fixed_prompts.{name}: seed_prompts has it too; keep it in one of the two")
    fixed = kept | config.fixed_prompts
    if not fixed:
        return free
    if free.name == "playbook":
        raise ConfigError(
            f"protocol 'playbook' has one text, and evolves it; remove {', '.join(fixed)} from fixed_prompts and optimization_targets, "
            "or choose protocol probe or lesson, which need agents.teacher"
        )
    return built({**params, "fixed": {**params.get("fixed", {}), **fixed}})


def _with_goals(components: tuple[Component, ...], config: AtlasConfig) -> tuple[Component, ...]:
    """The contracts of the evolved texts, with the purposes that the configuration gives them: operators read those."""
    targets = {name: target.reflection_goal for name, target in config.optimization_targets.items()}
    given = {**config.reflection_instructions, **{name: goal for name, goal in targets.items() if goal is not None}}
    known = [c.name for c in components]
    for name in given:
        if name not in known:
            raise ConfigError(f"reflection_instructions: {name!r} is not a text that is evolved here ({', '.join(known)}); remove its goal")
    return tuple(replace(c, purpose=given.get(c.name, c.purpose)) for c in components)


def _seed(given: dict[str, str], protocol: TeachingProtocol) -> Candidate:
    """The seed candidate: the user's texts where there are some, the protocol's own elsewhere."""
    known = [c.name for c in protocol.components()]
    for name in given:
        if name not in known:
            raise ConfigError(f"seed_prompts.{name}: protocol {protocol.name!r} has no such component; it has {', '.join(known)}")
    candidate = Candidate.of({**protocol.seed_texts(), **given})
    broken = broken_contract(candidate, protocol.components())
    if broken:
        longer = " or raise max_chars in protocol.params" if "; the limit is" in broken else ""
        raise ConfigError(f"seed_prompts: {broken}; correct the text in the configuration{longer}")
    return candidate


class Models:
    """Models of a run: one object for one spec, however often it is named, and each role's behind the door for paid calls."""

    def __init__(self, loaded: Loaded, calls: Calls) -> None:
        self._config, self._base_dir, self._calls = loaded.config, loaded.base_dir, calls
        self._built: dict[str, ChatModel] = {}

    def raw(self, value: Any, where: str) -> ChatModel:
        """From a name or {provider, params}; `where` is the key that holds it."""
        if not isinstance(value, str | dict):
            raise ConfigError(f"{where}: a model is a name or a mapping of provider and params (got {value!r})")
        key = digest(value)
        if key not in self._built:
            self._built[key] = build_model(value, where)
        return self._built[key]

    def maybe(self, given: ProviderConfig | None, role: Role, where: str) -> ChatModel | None:
        """A model, or an agent that is asked like one: ATLAS's teachers were agents too."""
        if given is None:
            return None
        if given.provider in model_providers() or given.provider not in agent_providers():
            return self._calls.model(self.raw(given.spec, where), role)
        spec = AgentSpec(provider=given.provider, params=given.params)
        build = partial(build_agent, base_dir=self._base_dir, where=f"{where}.params")
        agent = build(spec, build_model=lambda value: self.raw(value, f"{where}.params.model"))
        return self._calls.model(AgentAsModel(agent), role)

    def judge(self, value: Any) -> ChatModel:
        """A judge's own model; without one, the reflection model or else the teacher sits in judgement."""
        default = self._config.reflection_lm or self._config.agents.teacher
        if value is None and default is None:
            raise ConfigError("rim: an llm judge has no model; give the judge a `model`, or configure reflection_lm")
        return self._calls.model(self.raw(default.spec if value is None and default else value, "rim.judges.model"), "judge")
