"""What serves each operation: immutable bundles, and a pointer for each operation that is replaced in one step.

    bundles/<id>/             a bundle, read-only
    channels/<operation>.json {current, previous, canary, history}: the pointer; null is the base, with no prompt and no adapter of ours
    test_reads.json           how many different evaluations have read a test set
    .lock                     flock of whoever changes something; readers need none

A change is one rename, made after everything it points to is on the disk: whoever is killed, at any instruction, leaves the old pointer
or the new one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gepa_atlas.errors import BundleDamaged, ConfigError, GateRefused, RunBusy
from gepa_atlas.ship import decision, sums
from gepa_atlas.ship.adapter import card, serve_line
from gepa_atlas.store.exports import write_json

SCHEMA = "gepa-atlas.channel/1"
OPERATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WAIT_S = 30.0  # for the lock
MANY_READS = 3  # evaluations of one test set beyond which a pass may be luck


@dataclass(frozen=True)
class Channel:
    """The pointer of one operation. `canary` is {bundle, percent, mode: canary | shadow}, for a router to read."""

    operation: str
    current: str | None = None
    previous: str | None = None
    canary: Mapping[str, Any] | None = None
    history: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "operation": self.operation,
            "current": self.current,
            "previous": self.previous,
            "canary": dict(self.canary) if self.canary else None,
            "history": [dict(entry) for entry in self.history],
        }

    def moved(self, entry: Mapping[str, Any], **fields: Any) -> Channel:
        """The channel after one more event."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        values = {"current": self.current, "previous": self.previous, "canary": self.canary} | fields
        return Channel(self.operation, history=(*self.history, {"at": now, **entry}), **values)


class Registry:
    """One registry directory. Reading makes nothing; the first change makes the directories. ConfigError where it is a file."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise ConfigError(f"registry {root}: this is a file; give the directory of the registry, or a new name")
        self.root = root

    # -- reading ----------------------------------------------------------------------------------------------------

    def operations(self) -> list[str]:
        folder = self.root / "channels"
        return sorted(f.stem for f in folder.glob("*.json") if OPERATION.fullmatch(f.stem)) if folder.is_dir() else []

    def bundles(self) -> list[str]:
        folder = self.root / "bundles"
        return sorted(f.name for f in folder.iterdir() if sums.ID.fullmatch(f.name)) if folder.is_dir() else []

    def channel(self, operation: str) -> Channel:
        """The pointer; one that points to the base where nothing was promoted. Raises ConfigError, BundleDamaged."""
        if not OPERATION.fullmatch(operation):
            raise ConfigError(f"operation {operation!r}: use up to 64 letters, digits and . _ -, beginning with a letter or digit")
        path = self.root / "channels" / f"{operation}.json"
        if not path.exists():
            return Channel(operation)
        found = sums.read_json(path)
        canary, history = found.get("canary"), found.get("history")
        ids = (found.get("current"), found.get("previous"), canary.get("bundle") if isinstance(canary, dict) else canary)
        whole = found.get("schema") == SCHEMA and found.get("operation") == operation
        if (
            not (whole and isinstance(history, list) and all(isinstance(entry, dict) for entry in history))
            or not all(i is None or (isinstance(i, str) and sums.ID.fullmatch(i)) for i in ids)
            or (isinstance(canary, dict) and (ids[2] is None or not isinstance(canary.get("percent"), int | float)))
        ):
            raise BundleDamaged(f"{path}: not a channel of {operation}; restore it from a copy")
        return Channel(operation, ids[0], ids[1], canary, tuple(history))

    def folder(self, bundle: str) -> Path:
        """Where a bundle lies. Raises BundleDamaged when it is gone."""
        path = self.root / "bundles" / bundle
        if not (path / sums.SUMS).is_file():
            raise BundleDamaged(f"{path}: the bundle is not there; restore it from a copy, or roll back")
        return path

    def find(self, name: str) -> Path:
        """A bundle by its path, the path of a training run, its id, or at least 6 characters of the id. Raises ConfigError."""
        path = Path(name)
        for place in (path, path / "bundle"):
            if (place / sums.SUMS).is_file():
                return place
        found = [bundle for bundle in self.bundles() if bundle.startswith(name)] if len(name) >= 6 else []
        if len(found) == 1:
            return self.root / "bundles" / found[0]
        what = f"{len(found)} bundles begin so" if found else "no folder with a SHA256SUMS, and no bundle of the registry"
        raise ConfigError(f"bundle {name!r}: {what}; name a folder or an id of `gepa-atlas registry list --registry {self.root}`")

    def resolve(self, operation: str) -> dict[str, Any]:
        """What serves now: bundle or base, with the paths a router needs and the canary beside it."""
        channel = self.channel(operation)
        canary = channel.canary
        return {
            "operation": operation,
            "serves": "base" if channel.current is None else "bundle",
            **self._served(operation, channel.current),
            "canary": None if canary is None else {**canary, **self._served(f"{operation}-canary", str(canary["bundle"]))},
        }

    def _served(self, operation: str, bundle: str | None) -> dict[str, Any]:
        if bundle is None:
            return {"bundle": None, "path": None, "prompt": None, "adapter": None, "serve": None}
        path = self.folder(bundle).resolve()
        adapter = path / "adapter"
        line = serve_line(operation, adapter, str(card(adapter).get("base", "BASE"))) if adapter.is_dir() else None
        return {
            "bundle": bundle,
            "path": str(path),
            "prompt": str(path / "prompt.txt"),
            "adapter": str(adapter) if adapter.is_dir() else None,
            "serve": line,
        }

    def problems(self) -> list[str]:
        """Everything in the registry that is not what its checksums say, and every pointer to a bundle that is not there."""
        found = []
        for bundle in self.bundles():
            path = self.root / "bundles" / bundle
            try:
                sums.verify(path)
            except BundleDamaged as error:
                found.append(str(error))
                continue
            if sums.bundle_id(path) != bundle:
                found.append(f"{path}: its files make bundle {sums.bundle_id(path)}; somebody rewrote SHA256SUMS too")
        for operation in self.operations():
            try:
                channel = self.channel(operation)
                for pointed in (channel.current, channel.previous, (channel.canary or {}).get("bundle")):
                    if pointed is not None:
                        self.folder(str(pointed))
            except BundleDamaged as error:
                found.append(str(error))
        return found

    # -- changing ---------------------------------------------------------------------------------------------------

    def promote(
        self,
        source: Path,
        *,
        reason: str | None = None,
        canary: float | None = None,
        mode: Literal["canary", "shadow"] = "canary",
        key_env: str | None = None,
    ) -> Channel:
        """Let a bundle serve its operation, or (with `canary`, a percentage) a share of it beside what serves now.

        Raises GateRefused unless its decision passed and is about exactly these files; `reason` overrides that and is recorded. Damage
        (BundleDamaged) is never overridden.
        """
        hashes = sums.verify(source)
        bundle = sums.bundle_id(source)
        document = decision.read(source)
        operation = str(document["operation"])

        def refusals(channel: Channel) -> list[str]:
            found = decision.wrong(document, hashes, key_env=key_env, min_kind=_weakest(channel))
            if found and reason is None:
                more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
                raise GateRefused(
                    f"{operation}: not promoted, {channel.current or 'the base'} stays: {found[0]}{more}; "
                    "collect more evidence, or override with --force --reason TEXT"
                )
            return found

        refusals(self.channel(operation))  # before anything is made; again below, where nobody else changes the pointer
        with self.changing():
            channel = self.channel(operation)
            refused = refusals(channel)
            self._take_in(source, bundle)
            entry: dict[str, Any] = {"action": "promote", "bundle": bundle, "from": channel.current}
            entry |= {"forced": {"reason": reason, "refused": refused}} if refused else {"signed": document["signature"]["kind"]}
            if canary is not None:
                new = channel.moved(
                    {**entry, "action": mode, "percent": canary}, canary={"bundle": bundle, "percent": canary, "mode": mode}
                )
            elif channel.current == bundle and channel.canary is None:
                return channel
            else:
                previous = channel.previous if channel.current == bundle else channel.current
                new = channel.moved(entry, current=bundle, previous=previous, canary=None)
            self._write(new)
            return new

    def rollback(self, operation: str, *, to: str | None = None, reason: str = "") -> Channel:
        """Back to what served before: a canary is withdrawn; else current and previous change places; else (`to`) to any bundle or base.

        Needs nothing but the registry. Raises ConfigError when there is nothing to go back to, BundleDamaged when the target is.
        """
        self._target(self.channel(operation), to)  # refused before anything is made
        with self.changing():
            channel = self.channel(operation)
            entry: dict[str, Any] = {"action": "rollback", "from": channel.current, "reason": reason}
            if to is None and channel.canary is not None:
                new = channel.moved({**entry, "bundle": channel.current, "withdrawn": channel.canary["bundle"]}, canary=None)
            else:
                target = self._target(channel, to)
                if target is not None:
                    sums.verify(self.folder(target))
                new = channel.moved({**entry, "bundle": target}, current=target, previous=channel.current, canary=None)
            self._write(new)
            return new

    def _target(self, channel: Channel, to: str | None) -> str | None:
        if to is None:
            if channel.current is None and channel.previous is None and channel.canary is None:
                raise ConfigError(f"{channel.operation}: nothing was ever promoted for it, so there is nothing to roll back")
            return channel.previous
        if to == "base":
            return None
        served = {str(e["bundle"]) for e in channel.history if e.get("bundle") and e.get("action") != "shadow"}
        found = sorted(bundle for bundle in served if len(to) >= 6 and bundle.startswith(to))
        if len(found) != 1:
            raise ConfigError(
                f"--to {to!r}: {channel.operation} was served by {', '.join(sorted(served)) or 'the base only'}; name one, or base"
            )
        return found[0]

    def record_read(self, operation: str, test_set: str, evaluation: str) -> int:
        """Count an evaluation (by hash) of a test set; the same one counts once. Returns how many there were."""
        with self.changing():
            path = self.root / "test_reads.json"
            found = sums.read_json(path) if path.exists() else {}
            sets = found.get(operation, {})
            reads = sets.get(test_set, []) if isinstance(sets, dict) else None
            if not isinstance(reads, list):
                raise BundleDamaged(f"{path}: not a count of test reads; restore it from a copy")
            if evaluation not in reads:
                reads = [*reads, evaluation]
                write_json(path, found | {operation: {**sets, test_set: reads}})
            return len(reads)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """The registry's lock. Raises RunBusy when another holds it for WAIT_S seconds."""
        for folder in ("bundles", "channels"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait_for(handle)
            for left in (self.root / "channels").glob(".*.tmp"):  # of a process that was killed; the lock is ours
                left.unlink()
            yield
        finally:
            os.close(handle)

    def _wait_for(self, handle: int) -> None:
        end = time.monotonic() + WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise RunBusy(f"{self.root}: another process has been changing the registry for {WAIT_S:g} s; try again") from None
                time.sleep(0.02)

    def _take_in(self, source: Path, bundle: str) -> None:
        """The bundle in bundles/<id>, whole and unchanged, before anything points to it."""
        for left in (self.root / "bundles").glob(".incoming-*"):  # as above
            shutil.rmtree(left, ignore_errors=True)
        target = self.root / "bundles" / bundle
        if not target.exists():
            sums.copy_bundle(source, target)
        sums.verify(target)
        if sums.bundle_id(target) != bundle:
            raise BundleDamaged(f"{source}: it changed while it was copied; promote it again")

    def _write(self, channel: Channel) -> None:
        write_json(self.root / "channels" / f"{channel.operation}.json", channel.to_json())


def _weakest(channel: Channel) -> str:
    """The weakest signature that is taken: once a bundle signed with a key was promoted, those without one are refused."""
    return decision.HMAC if any(entry.get("signed") == decision.HMAC for entry in channel.history) else decision.PLAIN
