"""decision.json: what the gate said, about which files, and a signature that shows a change.

With a key (named by `gate.signing_key_env`) the signature is HMAC-SHA256 and shows who signed; without one it is a plain SHA-256 of the
document, which shows damage and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gepa_atlas.errors import BundleDamaged, ConfigError
from gepa_atlas.secrets import reveal
from gepa_atlas.ship.criteria import Criterion, verdict
from gepa_atlas.ship.sums import DECISION, read_json
from gepa_atlas.types import canonical

SCHEMA = "gepa-atlas.decision/1"
HMAC, PLAIN = "hmac-sha256", "sha256"
MIN_KEY = 16  # characters


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    rule: str
    passed: bool | None
    value: float | None
    low: float | None
    high: float | None
    threshold: float | None
    reason: str


class _File(BaseModel):
    """What those who read a decision rely on; it may hold more."""

    model_config = ConfigDict(strict=True)

    operation: str
    verdict: str
    reasons: list[str]
    warnings: list[str]
    subject: dict[str, str]
    criteria: list[_Row]
    inputs: dict[str, str]
    bundle_sha256s: dict[str, str]


def read(folder: Path) -> dict[str, Any]:
    """The decision in a folder, as it was written. Raises BundleDamaged when it is not one; whether it holds is `wrong`'s to say."""
    path = folder / DECISION
    document = read_json(path)
    try:
        _File.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise BundleDamaged(f"{path}: not a decision of the gate ({place}: {first['msg']}); run the stage `gate` again") from None
    return document


def sign(document: Mapping[str, Any], key_env: str | None) -> dict[str, Any]:
    """The document with its signature. Raises ConfigError when the variable is not set or its key is too short."""
    body = {name: value for name, value in document.items() if name != "signature"}
    if key_env is None:
        note = "integrity only: no signing key was configured"
        return {**body, "signature": {"kind": PLAIN, "value": _digest(body), "note": note}}
    return {**body, "signature": {"kind": HMAC, "key_env": key_env, "value": _mac(body, key_env)}}


def wrong(document: Mapping[str, Any], sums: Mapping[str, str], *, key_env: str | None = None, min_kind: str = PLAIN) -> list[str]:
    """Why a decision does not allow these files to go live; empty when it does.

    `sums` are the bundle's hashes. `key_env` demands a signature with that key; `min_kind` HMAC demands one with any. Raises ConfigError
    when the key of a signed decision is not in the environment.
    """
    found = []
    if document.get("schema") != SCHEMA:
        found.append(f"decision.json has schema {document.get('schema')!r}, not {SCHEMA}")
    found += _signature(document, key_env, min_kind)
    if document.get("verdict") != "pass":
        found.append(f"the gate said {document.get('verdict')!r}: {'; '.join(map(str, document.get('reasons') or ['no reason given']))}")
    elif _recomputed(document) != "pass":
        found.append("its criteria do not add up to a pass")
    covered = document.get("bundle_sha256s")
    if not isinstance(covered, dict) or not covered:
        found.append("it names no file that it is about")
    else:
        found += [f"{name} is not the file that was judged" for name, value in sorted(covered.items()) if sums.get(name) != value]
        shipped = {name for name in sums if name.startswith("adapter/") or name in ("prompt.txt", "demos.json")}
        found += [f"{name} was not judged" for name in sorted(shipped - covered.keys())]
    return found


def _signature(document: Mapping[str, Any], key_env: str | None, min_kind: str) -> list[str]:
    signature = document.get("signature")
    body = {name: value for name, value in document.items() if name != "signature"}
    if not isinstance(signature, dict) or not isinstance(signature.get("value"), str):
        return ["it is not signed"]
    kind, named = signature.get("kind"), signature.get("key_env")
    if kind == PLAIN:
        if not hmac.compare_digest(signature["value"].encode(), _digest(body).encode()):
            return ["it was changed after it was written: its checksum is wrong"]
        if key_env is not None or min_kind == HMAC:
            return ["it is signed without a key, and one is demanded"]
        return []
    if kind != HMAC or not isinstance(named, str):
        return [f"its signature is of an unknown kind {kind!r}"]
    if not hmac.compare_digest(signature["value"].encode(), _mac(body, key_env or named).encode()):
        return ["its signature is not by the key in " + (key_env or named)]
    return []


def _recomputed(document: Mapping[str, Any]) -> str:
    rows = document.get("criteria")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return "inconclusive"
    return verdict([Criterion(str(row.get("name")), "", row.get("passed")) for row in rows])


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def _mac(body: Mapping[str, Any], key_env: str) -> str:
    key = reveal(key_env, "the signature of decision.json")
    if len(key) < MIN_KEY:
        raise ConfigError(f"{key_env}: a signing key has at least {MIN_KEY} characters (this one {len(key)}); use `openssl rand -hex 32`")
    return hmac.new(key.encode(), canonical(body).encode(), hashlib.sha256).hexdigest()
