"""The trials of a study in Optuna's storage: queue, claim, take up again, finish.

A trial is one run (a point with a seed), or, in a pareto study, one point with all seeds. Who works
on a trial holds its lock (`benchmarks.locks`), so a running trial whose lock is free has lost its
worker: whoever takes the lock goes on with it. Workers on machines with another --out do not see
each other's locks; there the heartbeat of Optuna's database storage tells who is gone.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.locks import claim
from benchmarks.study.database import HEARTBEAT_S, open_storage, require_optuna, unopened
from benchmarks.study.points import Point, is_allowed, mixtures_first, point_from
from benchmarks.study.record import StudyRecord, record_from
from benchmarks.study.run import run_name
from benchmarks.study.settings import StudySettings

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STUDY = "energy_accuracy"


@dataclass(frozen=True)
class Claimed:
    """A trial that this process works on.

    Attributes:
        seeds: of its runs.
        again: whether another worker had begun it.
    """

    number: int
    point: Point
    seeds: tuple[int, ...]
    again: bool


class Trials:
    """The study's trials.

    Args:
        url: of a database; None keeps a journal in the folder.

    Raises:
        ValueError: optuna is missing, or the storage cannot be opened.
    """

    def __init__(self, settings: StudySettings, out: Path, url: str | None) -> None:
        self.optuna = require_optuna()
        self.settings, self.out, self.url = settings, out, url
        self.storage = open_storage(self.optuna, out, url)
        self.place = f"{socket.gethostname()}:{out.resolve()}"  # whose locks this process sees
        try:
            self.study: optuna.Study = self.optuna.create_study(
                study_name=STUDY,
                storage=self.storage,
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
            self._agree()
        except self.optuna.exceptions.OptunaError as error:
            raise ValueError(unopened(url, error)) from None

    def _agree(self) -> None:
        """The storage holds this study and no other, however many folders share it."""
        own = self.settings.as_dict()
        there = self.study.user_attrs.get("settings")
        if there is None:
            self.study.set_user_attr("settings", own)
        elif there != own:
            names = [name for name in own if there.get(name) != own[name]]
            raise ValueError(
                f"the storage holds a study with other settings ({', '.join(names)}); give the same, or "
                f"another --storage"
            )

    def queue(self) -> None:
        """Queue every run that the study knows beforehand, once."""
        points = mixtures_first(self.settings.points())
        with claim(self.out, "queue", wait=True):
            there = {_key(trial) for trial in self.study.get_trials(deepcopy=False)}
            for seed in self.settings.seeds:
                for point in points:
                    if run_name(point, seed) not in there:
                        self.study.add_trial(self._waiting(point, seed))
            self._drop_doubles()

    def _drop_doubles(self) -> None:
        """End what two machines have queued at the same moment; the first of each stays."""
        first: dict[str, int] = {}
        state = self.optuna.trial.TrialState
        for trial in self.study.get_trials(deepcopy=False):
            key = _key(trial)
            if key is None or trial.state is state.FAIL:
                continue
            if first.setdefault(key, trial.number) != trial.number and trial.state is state.WAITING:
                self.storage.set_trial_state_values(trial._trial_id, state.FAIL)

    def _waiting(self, point: Point, seed: int) -> FrozenTrial:
        params = point.as_dict() | {"seed": seed}
        choices = {name: (value,) for name, value in params.items()}
        every = [
            p.as_dict() | {"seed": s} for p in self.settings.points() for s in self.settings.seeds
        ]
        for name in choices:
            choices[name] = tuple(dict.fromkeys(one[name] for one in every))
        categorical = self.optuna.distributions.CategoricalDistribution
        return self.optuna.trial.create_trial(
            state=self.optuna.trial.TrialState.WAITING,
            params=params,
            distributions={name: categorical(found) for name, found in choices.items()},
            user_attrs={"key": run_name(point, seed)},
        )

    @contextmanager
    def next(self) -> Iterator[Claimed | None]:
        """The next trial that nobody works on, held until the block ends; None if there is none."""
        with ExitStack() as held:
            yield self._next(held)

    def _next(self, held: ExitStack) -> Claimed | None:
        self._fail_stale()
        states = self.optuna.trial.TrialState
        trials = self.study.get_trials(deepcopy=False, states=(states.RUNNING, states.WAITING))
        for trial in sorted(trials, key=lambda t: (t.state == states.WAITING, t.number)):
            lock = ExitStack()
            if lock.enter_context(claim(self.out, _key(trial) or f"trial-{trial.number}")):
                claimed = self._take(trial.number)
                if claimed is not None:
                    held.push(lock.pop_all().__exit__)
                    held.enter_context(self._beating(trial.number))
                    return claimed
            lock.close()
        return self._ask(held) if self.settings.kind == "pareto" else None

    def _take(self, number: int) -> Claimed | None:
        """A trial whose lock is held, if it is still to be done and no machine elsewhere has it."""
        states = self.optuna.trial.TrialState
        trial = self.study.get_trials(deepcopy=False)[number]
        again = trial.state == states.RUNNING
        if trial.state.is_finished():
            return None
        if again and self.url and trial.user_attrs.get("place") != self.place:
            return None  # alive, as long as its heart beats
        identity = self._identity(number)
        if not again and not self.storage.set_trial_state_values(identity, states.RUNNING):
            return None  # a worker elsewhere was quicker
        if self.url:
            self.storage.record_heartbeat(identity)
        self.storage.set_trial_user_attr(identity, "place", self.place)
        values = dict(trial.params)
        seed = values.pop("seed", None)
        seeds = self.settings.seeds if seed is None else (int(seed),)
        return Claimed(number, point_from(values), seeds, again)

    def _ask(self, held: ExitStack) -> Claimed | None:
        """A new trial of a pareto study; None when there are as many as were wished."""
        states = self.optuna.trial.TrialState
        categorical = self.optuna.distributions.CategoricalDistribution
        space = {n: categorical(found) for n, found in self.settings.axes.product().items()}
        space["model"] = categorical(("moe",))
        with claim(self.out, "queue", wait=True):
            for _ in range(10 * self.settings.trials):
                trials = self.study.get_trials(deepcopy=False)
                begun = [t for t in trials if t.state not in (states.FAIL, states.PRUNED)]
                if len(begun) >= self.settings.trials:
                    return None
                self.study.sampler = self.optuna.samplers.TPESampler(
                    seed=self.settings.seeds[0] + len(trials)
                )
                trial = self.study.ask(fixed_distributions=space)
                point = point_from(trial.params)
                if is_allowed(point, self.settings.base):
                    held.enter_context(claim(self.out, f"trial-{trial.number}", wait=True))
                    trial.set_user_attr("place", self.place)
                    held.enter_context(self._beating(trial.number))
                    return Claimed(trial.number, point, self.settings.seeds, False)
                self.study.tell(trial, state=states.PRUNED)
        return None

    def finish(self, claimed: Claimed, records: list[StudyRecord]) -> None:
        """Keep the records with the trial and end it: complete, or failed if a training failed."""
        identity = self._identity(claimed.number)
        values = objectives(records, self.settings)
        try:
            self.storage.set_trial_user_attr(identity, "records", [r.as_dict() for r in records])
            if values is None:
                self.study.tell(claimed.number, state=self.optuna.trial.TrialState.FAIL)
            else:
                self.study.tell(claimed.number, list(values))
        except (self.optuna.exceptions.UpdateFinishedTrialError, ValueError):
            # Stopped for so long that it was taken for dead: it is queued anew, and its record is there.
            return

    def give_up(self, claimed: Claimed, reason: str) -> None:
        """End a trial that broke off by a mistake."""
        self.storage.set_trial_user_attr(self._identity(claimed.number), "mistake", reason)
        self.study.tell(claimed.number, state=self.optuna.trial.TrialState.FAIL)

    def records(self) -> list[StudyRecord]:
        """Of all ended trials, whichever machine they ran on; each run once."""
        found: dict[str, StudyRecord] = {}
        for trial in self.study.get_trials(deepcopy=False):
            for values in trial.user_attrs.get("records", []):
                record = record_from(values)
                found[run_name(record.point, record.seed)] = record
        return list(found.values())

    def progress(self) -> tuple[int, int]:
        """(ended trials, all trials that the study will have)."""
        states = self.optuna.trial.TrialState
        trials = [t for t in self.study.get_trials(deepcopy=False) if t.state != states.PRUNED]
        done = sum(t.state.is_finished() for t in trials)
        return done, max(len(trials), self.settings.trials)

    def mistakes(self) -> list[str]:
        """One line for each trial that broke off by a mistake."""
        return [
            f"trial {t.number} ({_key(t) or t.params}): {t.user_attrs['mistake']}"
            for t in self.study.get_trials(deepcopy=False)
            if "mistake" in t.user_attrs
        ]

    def _identity(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(STUDY)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def _fail_stale(self) -> None:
        """Queue anew what workers elsewhere left when they died (databases alone)."""
        if self.url:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
                self.optuna.storages.fail_stale_trials(self.study)

    @contextmanager
    def _beating(self, number: int) -> Iterator[None]:
        """Tell the database from time to time that the trial's worker lives."""
        if not self.url:
            yield
            return
        over, identity = threading.Event(), self._identity(number)

        def beat() -> None:
            while True:
                self.storage.record_heartbeat(identity)
                if over.wait(HEARTBEAT_S):
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def objectives(records: list[StudyRecord], settings: StudySettings) -> tuple[float, float] | None:
    """(mean validation accuracy, mean energy in picojoules under the first table), at the precision
    of the picture; None if a training failed. What has no price has infinite energy.
    """
    from benchmarks.study.rows import main_measured

    if any(record.failure for record in records):
        return None
    found = [main_measured(record, settings) for record in records]
    table, n = settings.costs[0], len(found)
    energy = [one.energy_pj[table][0] if table in one.energy_pj else float("inf") for one in found]
    return sum(one.validation for one in found) / n, sum(energy) / n


def _key(trial: FrozenTrial) -> str | None:
    return trial.user_attrs.get("key")
