"""The record of a sweep is an optuna study: a journal in the sweep's folder, or a database by URL. A trial is one combination of settings.

Nothing else is kept: the rows of its cells are attributes of a trial, so whoever opens the storage, from another process or another
machine, sees what is done and what is not. A trial belongs to the process that asked for it, which holds a lock for life; when that
process is dead, another one of the same machine takes the trial over, with the cells it has. The trials of a machine that is gone are
taken over when the user says so.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gepa_atlas.errors import ConfigError, Outage
from gepa_atlas.sweep.cell import Row
from gepa_atlas.sweep.config import OBJECTIVES, Sweep, Value
from gepa_atlas.sweep.sampling import distribution, known_from_the_start, nearest, sampler, suggest
from gepa_atlas.sweep.storage import JOURNAL, claims, storage
from gepa_atlas.sweep.surrogate import Seen, choose, named

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_CELL, _OWNER, _MANIFEST, _PLANNED, _PRUNED, _AGAIN, _WANTED = "cell:", "owner", "manifest", "planned", "pruned", "again", "wanted"
_SIGNING_SECONDS = 60.0


@contextmanager
def opened(sweep: Sweep, folder: Path) -> Iterator[Study]:
    """The study of this sweep, made if there is none. Raises ConfigError where the storage cannot be used or holds another sweep; Outage
    where it fails meanwhile, or another process was told to take over."""
    from optuna.exceptions import UpdateFinishedTrialError

    try:
        with storage(sweep.config.storage, folder) as kept:
            yield _study(sweep, kept)
    except UpdateFinishedTrialError:
        raise Outage(
            "a trial of this process was ended by another one with --take-over, which is for machines that are gone; the same command with "
            "--resume goes on with the rest"
        ) from None


def _study(sweep: Sweep, kept: BaseStorage) -> Study:
    import optuna
    from optuna.study import StudyDirection

    better = (StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE)
    directions = [better[OBJECTIVES[name]] for name in sweep.config.objectives]
    about: Any = {"study_name": sweep.name, "directions": directions, "sampler": optuna.samplers.RandomSampler(0)}
    study = optuna.create_study(storage=kept, load_if_exists=True, **about)
    if _MANIFEST not in study.user_attrs:  # new, or whoever began it was ended here, or is no further
        study.set_user_attr("objectives", sweep.config.objectives)
        study.set_user_attr(_MANIFEST, sweep.manifest())
    _same_sweep(sweep, study)
    _plan(sweep, study)
    return study


def _same_sweep(sweep: Sweep, study: Study) -> None:
    before, now = study.user_attrs[_MANIFEST], sweep.manifest()
    changed = [part for part in sorted(before) if before[part] != now.get(part)] + [part for part in now if part not in before]
    if changed:
        raise ConfigError(
            f"{changed[0]} is not what this sweep was begun with; put it back, or start another with --out DIR"
            + (f" and another name ({sweep.name!r} is taken in that storage)" if sweep.config.storage else "")
        )


def _plan(sweep: Sweep, study: Study) -> None:
    """What is known from the start waits in the storage, once: every combination of a matrix, the startup trials of a TPE search.

    Two processes that begin together may both put one there; the later is dropped when it is asked for.
    """
    if study.user_attrs.get(_PLANNED):
        return
    # Not enqueue_trial's skip_if_exists: it goes through all trials each time, and takes 1.0 and 1.000001 for one.
    there = {named(_params(t)) for t in study.get_trials(deepcopy=False)}
    for params in known_from_the_start(sweep):
        if named(params) not in there:
            there.add(named(params))
            study.enqueue_trial(params)
    study.set_user_attr(_PLANNED, True)


class Ledger:
    """What this process does with a study: asks for trials, notes cells, tells. Use as a context manager."""

    def __init__(self, sweep: Sweep, study: Study, folder: Path, *, take_over: bool = False) -> None:
        self._sweep, self._study, self._folder, self._take_over = sweep, study, folder, take_over
        self._distributions = {s.name: distribution(sweep, s) for s in sweep.space}
        self._claims = claims(sweep.config.storage, folder)
        self._mine: set[int] = set()

    def __enter__(self) -> Ledger:
        name = f"owner-{uuid.uuid4().hex}.lock"
        self._file = (self._folder / name).open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.register_at_fork(after_in_child=self._file.close)  # a worker must not keep the lock when its parent is killed
        self._me = json.dumps([socket.gethostname(), str(self._folder.absolute()), name])
        return self

    def __exit__(self, *about: Any) -> None:
        (self._folder / json.loads(self._me)[2]).unlink(missing_ok=True)
        self._file.close()

    def batch(self, size: int) -> list[Trial]:
        """Up to `size` trials to work on: those of the dead first, then new ones. Empty when the sweep needs no more."""
        from optuna.trial import TrialState

        found: list[Trial] = []
        with _claiming(self._claims):
            for frozen in self._orphans()[:size]:
                found.append(self._own(_live(self._study, frozen)))
            each, trials = len(self._sweep.instances), current(self._study.get_trials(deepcopy=False))
            run = sum(each if t.state == TrialState.RUNNING else len(cells_of(t.user_attrs)) for t in trials)  # those of others too
            for _ in range(min(size - len(found), self._sweep.affordable(run))):
                trial = self._ask_chosen() if self._sweep.config.search.method == "gp" else self._ask()
                if trial is None:
                    break
                found.append(trial)
        for trial in found:
            self._mine.add(trial.number)
            for setting in self._sweep.space:  # of a trial whose process died while it was asking
                suggest(trial, setting.name, self._distributions[setting.name])
        return found

    def retry_failed(self) -> None:
        """Put every trial with failed cells back into the queue. What it has of other cells is kept."""
        from optuna.trial import TrialState

        with _claiming(self._claims):
            for trial in current(self._study.get_trials(deepcopy=False)):
                if trial.state == TrialState.FAIL and any(row["error"] for row in cells_of(trial.user_attrs).values()):
                    same = {key: value for key, value in trial.user_attrs.items() if key == _WANTED}
                    self._study.enqueue_trial(trial.params, user_attrs={_AGAIN: origin(trial), **same})

    def _own(self, trial: Trial) -> Trial:
        trial.set_user_attr(_OWNER, self._me)
        return trial

    def _ask(self) -> Trial | None:
        """The next combination that was not tried, or None."""
        from optuna.trial import TrialState

        matrix = self._sweep.config.search.method == "matrix"
        while True:
            trials = self._study.get_trials(deepcopy=False)
            begun = [t for t in trials if t.state != TrialState.WAITING]
            tried = {named(t.params) for t in begun}
            again = any(t.state == TrialState.WAITING and _AGAIN in t.user_attrs for t in trials)
            if (len(begun) == len(trials)) if matrix else (len(tried) >= self._sweep.planned() and not again):
                return None
            self._study.sampler = sampler(self._sweep, len(begun))
            trial = self._own(self._study.ask(self._distributions))
            if named(trial.params) not in tried or _AGAIN in trial.user_attrs:
                return trial
            self._study.tell(trial, state=TrialState.FAIL)
            if not matrix and (near := nearest(self._sweep, trial, tried)) is not None:
                self._study.enqueue_trial(near)

    def _ask_chosen(self) -> Trial | None:
        """The combination that promises most, with the cells of it to run next; or None. What it has from earlier trials it keeps."""
        from optuna.trial import TrialState

        while True:
            trials = self._study.get_trials(deepcopy=False)
            if all(t.state != TrialState.WAITING for t in trials):
                chosen = choose(self._sweep, _seen(trials, self._sweep.config.objectives[0]), len(trials))
                if chosen is None:
                    return None
                before = next((origin(t) for t in trials if named(_params(t)) == named(chosen[0])), None)
                again = {} if before is None else {_AGAIN: before}
                self._study.enqueue_trial(chosen[0], user_attrs={_WANTED: chosen[1], **again})
            self._study.sampler = sampler(self._sweep, len(trials))
            trial = self._own(self._study.ask(self._distributions))
            if _WANTED in trial.user_attrs and self._stands(trial):
                return trial
            self._study.tell(trial, state=TrialState.FAIL)

    def _stands(self, trial: Trial) -> bool:
        """Whether no earlier trial is at work on the same combination, or takes the last cells: another machine may have chosen too."""
        *earlier, own = self._study.get_trials(deepcopy=False)[: trial.number + 1]
        if any(not t.state.is_finished() and named(_params(t)) == named(own.params) for t in earlier):
            return False
        run, most = _seen([*earlier, own], self._sweep.config.objectives[0]), self._sweep.config.search.cells
        return most is None or sum(len(one.begun) for one in run.values()) <= most

    def _orphans(self) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [t for t in running if t.number not in self._mine and self._dead(t)]

    def _dead(self, trial: FrozenTrial) -> bool:
        """Whether a trial's owner is gone."""
        if _OWNER not in trial.user_attrs:  # asked for, and not yet signed
            begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            return self._sweep.config.storage is None or time.time() - begun > _SIGNING_SECONDS
        host, folder, name = json.loads(trial.user_attrs[_OWNER])
        if host != socket.gethostname():
            return self._take_over
        try:
            with Path(folder, name).open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        return True

    def cells(self, trial: Trial) -> dict[str, Row]:
        """The rows that a trial has, by the key of the cell: its own, and those of an earlier trial with the same settings."""
        earlier = [t for t in self._study.get_trials(deepcopy=False) if t.number != trial.number and named(t.params) == named(trial.params)]
        found = {key: row for t in earlier for key, row in cells_of(t.user_attrs).items() if not row["error"]}
        own = cells_of(trial.user_attrs)
        for key in found.keys() - own.keys():
            self.note(trial, key, found[key])
        return found | own

    def steps(self, trial: Trial) -> set[int]:
        """What the trial has reported to the pruner."""
        return set(self._study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def note(self, trial: Trial, key: str, row: Row) -> None:
        trial.set_user_attr(_CELL + key, row)

    def tell(self, trial: Trial, values: list[float] | None, *, partly: bool = False) -> None:
        """Values: finished, or run in part with the mean so far, which is what the sampler learns from it. None: failed. What another
        process took over and finished stays as it is."""
        from optuna.trial import TrialState

        if partly:
            trial.set_user_attr(_PRUNED, True)
        state = TrialState.COMPLETE if values is not None else TrialState.FAIL
        self._study.tell(trial, values, state=state, skip_if_finished=True)
        self._mine.discard(trial.number)


def wanted(trial: Trial) -> list[str] | None:
    """The cells that the trial was asked for; None: all."""
    found: list[str] | None = trial.user_attrs.get(_WANTED)
    return found


def _seen(trials: Iterable[FrozenTrial], objective: str) -> dict[str, Seen]:
    """What the study has of each combination, over all trials of it."""
    found: dict[str, Seen] = {}
    for trial in trials:
        if _WANTED not in trial.user_attrs:
            continue
        one = found.setdefault(named(_params(trial)), Seen())
        if not trial.state.is_finished():
            one.under_way |= set(trial.user_attrs[_WANTED])
        for key, row in cells_of(trial.user_attrs).items():
            if row["error"]:
                one.failed.add(key)
            else:
                one.figures[key] = row[objective]
                one.failed.discard(key)
    return found


def _params(trial: FrozenTrial) -> dict[str, Value]:
    """Its settings, also while it waits."""
    found: dict[str, Value] = trial.system_attrs.get("fixed_params", trial.params)
    return found


def state_of(trial: FrozenTrial) -> str:
    """waiting, running, complete, pruned or failed."""
    states = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "complete", "FAIL": "failed"}
    return "pruned" if trial.user_attrs.get(_PRUNED) and trial.state.name == "COMPLETE" else states[trial.state.name]


def origin(trial: FrozenTrial) -> int:
    """The number of the trial that this one repeats; its own, where it repeats none."""
    number: int = trial.user_attrs.get(_AGAIN, trial.number)
    return number


def current(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Trials in the order they were first asked for; of one that was run again, the last run. One that met an earlier combination by chance
    was dropped at once, and is left out."""
    found: dict[int, FrozenTrial] = {}
    for trial in trials:
        if trial.state.name != "FAIL" or cells_of(trial.user_attrs):
            found[origin(trial)] = trial
    return list(found.values())


def cells_of(attributes: Mapping[str, Any]) -> dict[str, Row]:
    return {key.removeprefix(_CELL): row for key, row in attributes.items() if key.startswith(_CELL)}


def begun(folder: Path) -> tuple[str, str | None]:
    """Name and storage of the sweep that the folder holds. Raises ConfigError where there is none."""
    try:
        about = json.loads((folder / "sweep.json").read_text("utf-8"))
        return about["name"], about["storage"]
    except (OSError, ValueError, LookupError, TypeError):
        raise ConfigError(
            f"{folder}: holds no sweep (there is no sweep.json that can be read); give the folder that `gepa-atlas sweep` wrote"
        ) from None


@contextmanager
def reading(folder: Path) -> Iterator[Study]:
    """The study of a folder, for looking only. Raises ConfigError where there is none."""
    import optuna

    name, url = begun(folder)
    if url is None and not (folder / JOURNAL).exists():
        raise ConfigError(f"{folder}: its {JOURNAL} is gone, which held what the sweep found; run it again with --out DIR")
    with storage(url, folder) as kept:
        try:
            study = optuna.load_study(storage=kept, study_name=name)
        except KeyError:
            raise ConfigError(f"{folder}: its storage knows no sweep {name!r}; was it removed there? Run it again with --out DIR") from None
        yield study


def _live(study: Study, frozen: FrozenTrial) -> Trial:
    """A running trial of a dead process, as one of ours."""
    from optuna import Trial

    return Trial(study, frozen._trial_id)


@contextmanager
def _claiming(lock: Path) -> Iterator[None]:
    """One process at a time chooses trials."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
