"""The house rules that a machine can check: imports point down, heavy libraries are guests, secrets and paths stay out."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gepa_atlas"

# Level by the first part of a module's name below gepa_atlas (shared design, section 4). Imports point to a lower level only.
LEVELS = {
    "types": 0, "errors": 0, "budget": 0, "ports": 0, "texts": 0, "pieces": 0, "secrets": 0, "settings": 0, "threads": 0, "plugins": 0,
    "answers": 0, "tags": 0, "configfile": 0,
    "evolve": 1,
    "calls": 2, "lanes": 2, "roles": 2,
    "tape": 2, "wire": 2, "data": 2, "datafile": 2, "datasource": 2, "llm": 2, "connectors": 2, "rim": 2, "propose": 2, "store": 2,
    "classroom": 3, "protocols": 3, "loop": 3, "experiment": 3,
    "endpoints": 0, "loops": 0, "openai_server": 2, "addresses": 2,
    "report": 4, "handoff": 4, "ship": 4, "gate": 4, "memory": 4, "ui": 4, "observe": 4,
    "bridges": 5,
    "train": 6,  # it builds the student and the judges of an optimization run from that run's configuration
    "check": 6, "config": 6, "legacy": 6, "legacy_agents": 6, "dotenv": 6, "build": 6, "cli": 6, "testing": 6,
    "sweep": 6, "cluster": 6, "parcels": 6, "elsewhere": 6,
    "api": 6, "compat": 6, "dspy": 6, "start": 6, "": 6,
}  # fmt: skip

# A module that stands above the part it lies in.
RAISED = {"rim.reward": 3}  # the panel with models and calls of its own, for use without a run

# Below the top, parts of one level know each other only where this says so.
NEIGHBOURS = {
    ("calls", "lanes"), ("calls", "tape"), ("calls", "roles"), ("roles", "lanes"),
    ("store", "tape"), ("store", "calls"), ("data", "datafile"), ("data", "datasource"),
    ("datasource", "datafile"), ("datasource", "wire"),
    ("llm", "wire"), ("connectors", "wire"),
    ("openai_server", "wire"), ("llm", "openai_server"), ("connectors", "openai_server"), ("connectors", "addresses"),
    ("connectors", "llm"),  # an agent that is a model of a provider: the keys of both
    ("classroom", "protocols"), ("loop", "classroom"), ("loop", "experiment"), ("experiment", "protocols"),
    ("handoff", "memory"),  # the review states of lessons
    ("ui", "report"),  # the look, and slots as the ledger tells them
    ("ship", "handoff"),  # what a stage is: handoff.workspace
}  # fmt: skip
NAMED_FRIENDS = {
    ("connectors.toyworld", "testing"),  # the provider of that name; imported when it is asked for
}

# A heavy library and the one part that may import it, inside a function.
GUESTS = {
    "litellm": {"llm"}, "openai": {"llm", "connectors"}, "dspy": {"bridges", "propose", "connectors"}, "optuna": {"propose", "sweep"},
    "joblib": {"sweep", "cluster", "connectors"}, "torch": {"train", "llm"}, "trl": {"train"}, "peft": {"train"}, "accelerate": {"train"},
    "vllm": {"train"},
    "transformers": {"train", "llm"}, "pyarrow": {"handoff", "memory"},
    "sqlalchemy": {"memory", "sweep"}, "ray": {"cluster"}, "distributed": {"cluster"}, "scipy": {"sweep"},
    "alembic": {"memory"}, "psycopg": {"memory"},
    "xllamacpp": {"llm"}, "jsonschema": {"rim", "llm", "propose"}, "httpx": {"llm", "connectors", "wire", "addresses", "testing"},
    "starlette": {"testing", "llm", "ui"}, "uvicorn": {"testing", "llm", "ui"}, "dotenv": {"dotenv"}, "rich": {"cli", "report"},
    "jsonpath": {"connectors", "data"}, "agents": {"connectors"}, "httpx2": {"connectors"}, "langgraph": {"connectors"},
    "langchain_core": {"connectors"}, "mcp": {"connectors"}, "mcp_types": {"connectors"}, "datasets": {"datasource"},
    "gepa": {"bridges"}, "regex": {"rim"}, "tenacity": {"calls", "lanes"}, "typer": {"cli"},
    "yaml": {"configfile", "rim", "datasource", "report"}, "jinja2": {"report", "sweep"}, "markupsafe": {"report"},
    "opentelemetry": {"observe"}, "prometheus_client": {"observe"}, "mlflow": {"observe"}, "wandb": {"observe"}, "trackio": {"observe"},
    "plotly": set(),  # read as a file, never imported
}  # fmt: skip
LIGHT = {"typer", "yaml", "rich"}  # may be imported at the top of their module
# Modules that subclass or consist of a guest's classes, so that they import it at the top; they are imported on first use only.
SUBCLASSES = {
    "train.trainer",
    "bridges.dspy_adapter",
    "bridges.dspy_agent",
    "bridges.dspy_operators",
    "bridges.dspy_optimizer",
    "memory.engine",
    "memory.query",
    "memory.review",
    "memory.schema",
    "memory.skills",
    "memory.store",
    "memory.warm",
    "memory.migrations.env",
    "memory.migrations.versions.m0001_traces",
    "memory.migrations.versions.m0002_skills",
    "memory.migrations.versions.m0003_pages",
}


class Import:
    def __init__(self, file: Path, line: int, target: str, top: bool) -> None:
        self.module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__").removesuffix("__init__")
        self.place = f"{file.relative_to(ROOT)}:{line}"
        self.target = target
        self.top = top

    @property
    def part(self) -> str:
        return self.module.partition(".")[0]


def imports() -> Iterator[Import]:
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
        checking = {
            id(n)
            for i in ast.walk(tree)
            if isinstance(i, ast.If) and ast.unparse(i.test) == "TYPE_CHECKING"
            for b in i.body
            for n in ast.walk(b)
        }
        for node in ast.walk(tree):
            top = id(node) not in inside and id(node) not in checking
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield Import(file, node.lineno, name.name, top)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}:{node.lineno}: write imports in full"
                if node.module == "gepa_atlas":
                    for name in node.names:
                        yield Import(file, node.lineno, f"gepa_atlas.{name.name}", top)
                else:
                    yield Import(file, node.lineno, node.module or "", top)


def level(module: str) -> int:
    return RAISED.get(module, LEVELS[module.partition(".")[0]])


def test_every_part_has_a_level() -> None:
    parts = {p.stem if p.is_file() else p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert parts - {"__init__"} <= LEVELS.keys(), "give the new part a level in this file"


def test_imports_point_down() -> None:
    upward = []
    for found in imports():
        head, _, rest = found.target.partition(".")
        if head != "gepa_atlas" or rest == "__version__":
            continue
        target = rest.partition(".")[0]
        if (target == found.part and level(rest) <= level(found.module)) or (found.module, target) in NAMED_FRIENDS:
            continue
        below, here = level(rest), level(found.module)
        if below > here or (0 < below == here < 6 and (found.part, target) not in NEIGHBOURS):
            upward.append(f"{found.place}: {found.module or 'gepa_atlas'} (level {here}) imports {found.target} (level {below})")
    assert not upward, "\n".join(upward)


def test_heavy_libraries_are_guests() -> None:
    wrong = []
    for found in imports():
        head = found.target.partition(".")[0]
        if head in GUESTS:
            if found.part not in GUESTS[head]:
                wrong.append(f"{found.place}: {head} is for {', '.join(sorted(GUESTS[head]))} only")
            elif found.top and head not in LIGHT and found.module not in SUBCLASSES:
                wrong.append(f"{found.place}: import {head} inside the function that uses it")
    assert not wrong, "\n".join(wrong)


def test_the_pure_core_is_pure() -> None:
    allowed = {
        "numpy",
        "gepa_atlas",
        "__future__",
        "collections",
        "dataclasses",
        "difflib",
        "enum",
        "functools",
        "hashlib",
        "itertools",
        "math",
        "re",
        "typing",
    }
    wrong = [f"{i.place}: {i.target}" for i in imports() if i.part == "evolve" and i.target.partition(".")[0] not in allowed]
    assert not wrong, "\n".join(wrong)


def loaded_by(*arguments: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running `arguments`."""
    code = "import json, sys\n" + arguments[0] + "\nprint('\\n' + json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = {
    "jsonpath",
    "litellm",
    "torch",
    "dspy",
    "optuna",
    "joblib",
    "openai",
    "xllamacpp",
    "jsonschema",
    "httpx",
    "rich",
    "transformers",
    "sqlalchemy",
    "jinja2",
}


@pytest.mark.parametrize(
    ("what", "code", "none_of"),
    [
        ("import gepa_atlas", "import gepa_atlas", HEAVY | {"numpy", "pydantic", "yaml", "typer"}),
        ("import gepa_atlas.dspy", "import gepa_atlas.dspy", HEAVY | {"numpy", "pydantic", "gepa"}),
        ("import gepa_atlas.compat.gepa", "from gepa_atlas.compat import gepa", HEAVY | {"gepa"}),
        ("gepa-atlas --help", "from gepa_atlas.cli import run\nrun(['--help'])", HEAVY | {"numpy", "yaml"}),
        ("the public names", "from gepa_atlas import AtlasConfig, Lesson, load_config", HEAVY | {"numpy", "typer"}),
    ],
)
def test_what_a_first_import_loads(what: str, code: str, none_of: set[str]) -> None:
    assert not loaded_by(code) & none_of, what


def test_every_public_name_is_there() -> None:
    import gepa_atlas

    assert all(vars(gepa_atlas).get(name) or gepa_atlas.__getattr__(name) for name in gepa_atlas.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'optimise'"):
        gepa_atlas.__getattr__("optimise")


def test_the_version_is_one() -> None:
    import tomllib

    import gepa_atlas

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == gepa_atlas.__version__


def test_no_exec_no_shell_no_pickle_no_str_format() -> None:
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                shell = any(k.arg == "shell" for k in node.keywords)
                text_format = isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "format_map")
                if name in ("eval", "exec", "os.system", "os.popen") or shell or text_format or name.startswith("pickle."):
                    wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not wrong, "\n".join(wrong)
