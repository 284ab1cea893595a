"""From configuration to protocol."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from gepa_atlas.errors import ConfigError
from gepa_atlas.ports import Agent, ChatModel
from gepa_atlas.protocols.base import TeachingProtocol
from gepa_atlas.protocols.lesson import Lesson, LessonOptions
from gepa_atlas.protocols.playbook import Playbook, PlaybookOptions
from gepa_atlas.protocols.probe import Probe, ProbeOptions
from gepa_atlas.settings import Settings, load


class ProtocolConfig(Settings):
    name: Literal["playbook", "lesson", "probe"] = "playbook"
    params: dict[str, Any] = Field(default_factory=dict)


def build_protocol(
    config: ProtocolConfig | str, teacher: ChatModel | None, student: Agent | None = None, where: str = "protocol"
) -> TeachingProtocol:
    """The protocol of a config. `lesson` and `probe` need a teacher, `probe` a student too; ConfigError says so.

    Give both as the ports that `Calls` wraps, so that what they do is limited, recorded and replayed.
    """
    if isinstance(config, str):
        config = load(ProtocolConfig, {"name": config}, where)
    params = f"{where}.params"
    if config.name == "playbook":
        return Playbook(load(PlaybookOptions, config.params, params), student)
    if config.name == "lesson":
        return Lesson(teacher, load(LessonOptions, config.params, params), f"{params}.fixed")
    if student is None:
        raise ConfigError(f"{where}: 'probe' asks the student for its approach first: build it with the student agent")
    return Probe(teacher, student, load(ProbeOptions, config.params, params), f"{params}.fixed")
