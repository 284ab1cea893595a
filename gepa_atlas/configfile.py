"""Configuration files as text becomes a tree: safe YAML, `defaults:`, `${ENV}`, `--set a.b=c`. What the keys mean is `config.py`.

Every function raises ConfigError with one line that names the file, the key, the rule and the next step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gepa_atlas import secrets
from gepa_atlas.errors import ConfigError

MAX_ALIASES = 100  # an anchor that is repeated more often is a billion-laughs bomb, not a configuration
MAX_DEPTH = 40
MAX_BYTES = 4_000_000

Tree = dict[str, Any]
At = tuple[str | int, ...]

_INDEX = re.compile(r"[0-9]{1,9}")
_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<has>:(?P<default>[^}]*))?\}|(?P<bad>\$\{)")


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and floods of aliases."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(problem=f"more than {MAX_ALIASES} aliases; write the values out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    problem = f"the key {key_node.value!r} is given twice; keep one"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file; JSON values only, keys are text."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; a configuration is small, put examples in a data file")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; check the path of the configuration") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: this is a directory; give the path of a YAML file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    value = parse_yaml(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: the file holds a {type(value).__name__}; a configuration is a mapping of keys to values")
    return value


def parse_yaml(text: str, where: str) -> Any:
    """One YAML value from text. `where` opens the error line."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = error.problem or error.context or "it cannot be read"
        hint = "; text with braces, such as ${NAME}, needs quotes inside {...}" if "'{'" in problem else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {problem}{hint}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested deeper than {MAX_DEPTH} levels; flatten it") from None
    finally:
        if loader is not None:
            loader.dispose()
    value = _paired(value)
    _check_values(value, where, ())
    return value


def _paired(value: Any, depth: int = 0) -> Any:
    """Two halves of a character, as JSON escapes an emoji, become the character: YAML leaves them apart."""
    if isinstance(value, str):
        return _HALVES.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), value)
    if depth > MAX_DEPTH:
        return value  # _check_values refuses it
    if isinstance(value, dict):
        return {_paired(key, MAX_DEPTH + 1): _paired(inner, depth + 1) for key, inner in value.items()}
    return [_paired(inner, depth + 1) for inner in value] if isinstance(value, list) else value


def _check_values(value: Any, where: str, at: At) -> None:
    if len(at) > MAX_DEPTH:
        raise ConfigError(f"{where}: {dotted(at[:3])}... is nested deeper than {MAX_DEPTH} levels, or contains itself; flatten it")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{where}: the key {key!r} under {dotted(at) or 'the top'} is not text; put it in quotes")
            _check_values(inner, where, (*at, key))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            _check_values(inner, where, (*at, n))
    elif isinstance(value, str) and (wrong := _UNUSABLE.search(value)):
        what = "a NUL character" if wrong[0] == "\0" else "half of a character (a lone surrogate)"
        raise ConfigError(f"{where}: {dotted(at) or 'the value'} holds {what}, which no path or text may; remove it")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {dotted(at) or 'the value'} is {value}; only finite numbers are allowed")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise ConfigError(f"{where}: {dotted(at) or 'the value'} is a {type(value).__name__} to YAML; put it in quotes if it is text")


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, nothing as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, "|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def dump(tree: Tree) -> str:
    """The tree as YAML, in its own order."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def dotted(at: At) -> str:
    return ".".join(str(part) for part in at)


# -- defaults ---------------------------------------------------------------------------------------------------------


def read_with_defaults(path: Path, prepare: Callable[[Tree, Path], Tree]) -> Tree:
    """The file merged over the files in its `defaults:` list (later ones win), each prepared on its own first."""
    return _read(path.resolve(), prepare, ())


def _read(path: Path, prepare: Callable[[Tree, Path], Tree], chain: tuple[Path, ...]) -> Tree:
    if path in chain:
        shown = " -> ".join(p.name for p in (*chain[chain.index(path) :], path))
        raise ConfigError(f"{path}: defaults: go in a circle ({shown}); remove one of them")
    own = read_yaml(path)
    names = own.pop("defaults", None) or []
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list):
        raise ConfigError(f"{path}: defaults: takes a list of file names relative to this file (got {names!r})")
    merged: Tree = {}
    for entry in names:
        name = _file_of(entry, path)
        base = (path.parent / name).resolve()
        if not base.exists():
            raise ConfigError(f"{path}: defaults: names {name!r}, which is not a file beside it ({base})")
        merged = merge(merged, _read(base, prepare, (*chain, path)))
    return merge(merged, prepare(own, path))


def _file_of(entry: Any, path: Path) -> str:
    """One entry of `defaults:`: a file name, or as ATLAS also wrote it without .yaml, or {directory: name}."""
    if isinstance(entry, dict) and len(entry) == 1:
        [(directory, name)] = entry.items()
        entry = f"{directory}/{name}" if isinstance(name, str) else None
    if not isinstance(entry, str) or not entry:
        raise ConfigError(f"{path}: defaults: takes a list of file names relative to this file (got {entry!r})")
    return entry if entry.endswith((".yaml", ".yml")) else entry + ".yaml"


def merge(base: Tree, over: Tree) -> Tree:
    """`over` on top of `base`: mappings merge deeply, everything else replaces.

    A block that changes its `provider` drops the old provider's `params`: they mean nothing to the new one.
    """
    result = dict(base)
    if "provider" in over and "provider" in base and over["provider"] != base["provider"]:
        result.pop("params", None)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


# -- ${ENV} -----------------------------------------------------------------------------------------------------------


@dataclass
class Expanded:
    """A tree with its variables filled in, and the strings (by path) that must be saved as they were written."""

    tree: Tree
    masked: dict[At, str] = field(default_factory=dict)


def expand(tree: Tree, env: Mapping[str, str], where: str) -> Expanded:
    """Replace `${NAME}` and `${NAME:default}` inside every string; `$${` is a literal `${`.

    A string that uses a variable with a secret's name is filled in, remembered by the sanitiser, and saved unexpanded.
    Below a `headers` key a variable is only checked: the connector reads it when it sends the request.
    """
    result = Expanded({})

    def visit(value: Any, at: At) -> Any:
        if isinstance(value, dict):
            return {key: visit(inner, (*at, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [visit(inner, (*at, n)) for n, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        _refuse_literal_secret(value, where, at)
        filled, secret = _expand_text(value, env, where, at)
        if secret:
            result.masked[at] = value
        return filled

    result.tree = visit(tree, ())
    return result


def escape(value: Any, inside_headers: bool = False) -> Any:
    """The inverse of `expand`: a tree that expands to this one. Headers are as they were written."""
    if isinstance(value, dict):
        return {key: escape(inner, inside_headers or key == "headers") for key, inner in value.items()}
    if isinstance(value, list):
        return [escape(inner, inside_headers) for inner in value]
    return value.replace("${", "$${") if isinstance(value, str) and not inside_headers else value


def _expand_text(text: str, env: Mapping[str, str], where: str, at: At) -> tuple[str, bool]:
    secret = False

    def value_of(found: re.Match[str]) -> str:
        nonlocal secret
        name = found["name"]
        if found["bad"]:
            raise ConfigError(f"{where}: {dotted(at)} has a '${{' that opens no variable; write ${{NAME}}, or $${{ for the characters")
        if name is None:
            return "${"
        value = env.get(name)
        if value is None:
            if found["has"] is None:
                raise ConfigError(
                    f"{where}: {dotted(at)} uses the environment variable {name}, which is not set: "
                    f"export it, put it in .env, or write ${{{name}:default}}"
                )
            return found["default"] or ""
        if secrets.is_secret_name(name):
            secrets.remember(value)
            secret = True
        # A connector reads headers itself, at the last moment: what is not in the tree cannot leak from it.
        return found[0] if "headers" in at and found["has"] is None else value

    return _REFERENCE.sub(value_of, text), secret


def _refuse_literal_secret(text: str, where: str, at: At) -> None:
    if secrets.looks_secret(text) or ("headers" in at and secrets.scrub(text) != text):
        raise ConfigError(
            f"{where}: {dotted(at)} holds what looks like a secret; put it in an environment variable and write ${{NAME}} or api_key_env"
        )


# -- --set a.b=c ------------------------------------------------------------------------------------------------------


def assign(tree: Tree, assignment: str, rename: Callable[[At], At]) -> Tree:
    """The tree with `a.b.0.c=VALUE` applied; VALUE is read as YAML. Lists take an index below, or at, their length."""
    dotted_key, equals, text = assignment.partition("=")
    keys = dotted_key.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {assignment!r}: write it as key.below=value")
    value = parse_yaml(text, f"--set {dotted_key.strip()}") if text.strip() else ""
    at = rename(tuple(int(k) if _INDEX.fullmatch(k) else k for k in keys))
    result: Any = put(tree, at, value, f"--set {dotted_key.strip()}")
    assert isinstance(result, dict)
    return result


def put(node: Any, at: At, value: Any, where: str) -> Any:
    """A copy of `node` with `value` at path `at`; mappings are made on the way where there is nothing."""
    if not at:
        return value
    head, rest = at[0], at[1:]
    if isinstance(node, list):
        if not isinstance(head, int) or head > len(node):
            raise ConfigError(f"{where}: {head!r} is not an index of a list of {len(node)}; use 0 to {len(node)}")
        return [*node[:head], put(node[head] if head < len(node) else None, rest, value, where), *node[head + 1 :]]
    if node is not None and not isinstance(node, dict):
        raise ConfigError(f"{where}: there is no key {str(head)!r} below the value {node!r}; set the whole value instead")
    key = str(head)
    return {**(node or {}), key: put((node or {}).get(key), rest, value, where)}
