"""Operators: each reads a brief and drafts a child. One file each, one line in the registry."""

from gepa_atlas.propose.registry import DEFAULT, NEEDS_MODEL, WITH_MODEL, build_proposers

__all__ = ["DEFAULT", "NEEDS_MODEL", "WITH_MODEL", "build_proposers"]
