"""How a lesson is given: one file a protocol. `build_protocol` turns a config into one."""

from gepa_atlas.protocols.base import Prepared, TeachingProtocol
from gepa_atlas.protocols.registry import ProtocolConfig, build_protocol

__all__ = ["Prepared", "ProtocolConfig", "TeachingProtocol", "build_protocol"]
