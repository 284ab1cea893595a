"""Python code named by a configuration: found, imported, and identified by the bytes of its source."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gepa_atlas.errors import ConfigError, said


@dataclass(frozen=True, slots=True)
class Loaded:
    call: Callable[..., Any]
    source_digest: str  # hex SHA-256 of the source file; of the name alone where there is no file


def load_callable(reference: str, base_dir: Path, where: str) -> Loaded:
    """`package.module:name` or `path/to/file.py:name`; name may be dotted (`Class.method`). Paths start at `base_dir`.

    A class is made once, without arguments; then its method, or the instance itself, is what is called. Raises ConfigError.
    """
    found, source_digest = load_object(reference, base_dir, where)
    if not callable(found):
        raise ConfigError(f"{where}: {reference!r} is a {type(found).__name__}, which cannot be called")
    return Loaded(found, source_digest)


def load_made(reference: str, kind: type, base_dir: Path, where: str) -> tuple[Any, str]:
    """An object of this kind, as `load_object` finds it or as the function found there makes it without arguments."""
    found, source_digest = load_object(reference, base_dir, where)
    if not isinstance(found, kind) and inspect.isfunction(found):
        try:
            found = found()
        except (Exception, SystemExit) as error:  # user code
            raise ConfigError(f"{where}: {reference}() failed: {said(error)}; it is called without arguments") from error
    if not isinstance(found, kind):
        raise ConfigError(f"{where}: {reference!r} is a {type(found).__name__}; it must be a {kind.__name__}, or a function that makes one")
    return found, source_digest


def load_object(reference: str, base_dir: Path, where: str) -> tuple[Any, str]:
    """What `reference` names, and the digest of its source; classes are made on the way, without arguments. Raises ConfigError."""
    source, colon, name = reference.rpartition(":")
    if not colon or not source or not name:
        raise ConfigError(f"{where}: {reference!r} must read `module:function` or `path/to/file.py:function`")
    module = _from_file(base_dir / source, where) if source.endswith(".py") else _from_import_path(source, base_dir, where)
    found = _resolve(module, name, f"{where}: {source!r}")
    file = module.__file__
    content = Path(file).read_bytes() if file else reference.encode()
    return found, hashlib.sha256(content).hexdigest()


def named(function: Callable[..., Any], role: str) -> str:
    """A reference to a function of the caller's, by which a configuration can name it: the only member of a module of its own.

    The module's name holds the digest of the source where there is one, so a changed function is noticed when a run is resumed.
    """
    if not callable(function):
        raise ConfigError(f"{role}: a {type(function).__name__} cannot be called; give a function, or a mapping as in a configuration")
    target = function if inspect.isroutine(function) else type(function)
    try:
        source = inspect.getsource(target)
    except (OSError, TypeError):  # typed at a prompt, built in, or made by exec
        source = f"{target.__module__}.{target.__qualname__}"
    module = ModuleType(f"gepa_atlas_given_{role}_{hashlib.sha256(source.encode()).hexdigest()[:12]}")
    module.__file__ = None
    setattr(module, role, function)
    sys.modules[module.__name__] = module
    return f"{module.__name__}:{role}"


def _from_file(path: Path, where: str) -> ModuleType:
    """The module of a file under a name of its own, so that it hides no other. Imported once a process."""
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(f"{where}: there is no file {str(path)!r}; paths start at the directory of the configuration")
    name = f"_gepa_atlas_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{where}: {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickling look their own module up
    _see(path.parent)
    if (package := package_of(path)) is not None:
        _see(package.parent)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # user code
        del sys.modules[name]
        raise ConfigError(f"{where}: importing {str(path)!r} failed: {said(error)}") from error
    return module


def package_of(path: Path) -> Path | None:
    """The directory of the outermost package that a Python file is of; None for one that stands alone."""
    found = None
    for directory in path.parents:
        if not (directory / "__init__.py").is_file():
            return found
        found = directory
    return found


@contextmanager
def forgotten() -> Iterator[None]:
    """What the user's code imports inside, from directories that were put on the path inside, is imported anew the next time: a file of the
    same name elsewhere, or a newer one, is not taken for it, and no state of a module outlives the block."""
    before, known = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        places, added = sys.path[:], set(sys.path) - set(before)
        sys.path[:] = before
        for name in sys.modules.keys() - known:
            file = vars(sys.modules[name]).get("__file__")
            homes = [p for p in places if p and str(file).startswith(p.rstrip("/") + "/")]
            if max(homes, key=len, default="") in added and name.split(".")[0] != "gepa_atlas":
                del sys.modules[name]


def _from_import_path(name: str, base_dir: Path, where: str) -> ModuleType:
    _see(base_dir)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # user code
        raise ConfigError(f"{where}: importing {name!r} failed: {said(error)}") from error


def _see(directory: Path) -> None:
    """Neighbours of the user's file can be imported; at the end of the path, where they hide nothing."""
    if str(directory) not in sys.path:
        sys.path.append(str(directory))


def _resolve(module: ModuleType, dotted: str, where: str) -> Any:
    found: Any = module
    for part in dotted.split("."):
        try:
            found = inspect.getattr_static(found, part) if inspect.isclass(found) else getattr(found, part)
        except AttributeError:
            known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise ConfigError(f"{where} has no {dotted!r}; it has: {', '.join(known) or 'no functions'}") from None
        if inspect.isclass(found):
            found = _instance(found, where)
    return found


def _instance(kind: type, where: str) -> Any:
    try:
        return kind()
    except (Exception, SystemExit) as error:  # user code
        raise ConfigError(f"{where}: {kind.__name__}() failed: {said(error)}; it is made without arguments") from error
