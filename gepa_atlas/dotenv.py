"""`.env` files: read before the configuration, overriding nothing that is set."""

from __future__ import annotations

import os
from pathlib import Path

from gepa_atlas.errors import ConfigError


def load_env_files(config: Path) -> list[Path]:
    """Load `.env` of the current directory, then the nearest one at or above the configuration; the first to name a variable wins.

    Values are taken as written: no `$` expansion, so a key may contain any character.
    """
    found = [Path(".env").absolute()]
    above = config.absolute().parent
    found += [d / ".env" for d in (above, *above.parents)]
    present = [p for p in found if p.is_file()]
    chosen = list(dict.fromkeys([p for p in present if p == found[0]] + [p for p in present if p != found[0]][:1]))
    for path in chosen:
        for name, value in _values(path).items():
            if value is not None:
                try:
                    os.environ.setdefault(name, value)
                except (OSError, ValueError) as error:
                    raise ConfigError(f"{path}: the variable {name!r} cannot be set ({error}); correct its line") from None
    return chosen


def _values(path: Path) -> dict[str, str | None]:
    from dotenv.parser import parse_stream

    found: dict[str, str | None] = {}
    try:
        with path.open(encoding="utf-8-sig") as file:
            for binding in parse_stream(file):
                if binding.error:
                    raise ConfigError(
                        f"{path}:{binding.original.line}: not a NAME=value line; correct it, or start it with # to leave it out"
                    )
                if binding.key is not None:
                    found[binding.key] = binding.value
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a .env file ({error}); write NAME=value lines in UTF-8") from None
    return found
