"""Where a study is kept: Optuna's journal in a folder, or a database that several machines share."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

TRIES, WAIT_S = 5, 1.0  # to open a database whose tables another worker is just making
HEARTBEAT_S, GRACE_S = 30, 120
INSTALL = (
    "optuna is missing, which keeps the trials of a study; pip install 'spikingmoe[study]' (or "
    "pip install optuna submitit)"
)


def require_optuna() -> Any:
    """The module; ValueError that says how to install it."""
    try:
        import optuna
    except ImportError:
        raise ValueError(INSTALL) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_storage(optuna: Any, out: Path, url: str | None) -> Any:
    """The journal of the folder, or the database at `url`.

    Raises:
        ValueError: the database cannot be opened.
    """
    if url is None:
        journal = optuna.storages.journal
        path = out / "journal.log"
        lock = journal.JournalFileOpenLock(str(path))
        return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path), lock))
    import sqlalchemy

    left = TRIES
    while True:
        try:
            return _database(optuna, url)
        except (
            sqlalchemy.exc.SQLAlchemyError,
            optuna.exceptions.OptunaError,
            ImportError,
            OSError,
            ValueError,
            RuntimeError,
        ) as error:
            left -= 1
            busy = isinstance(error, sqlalchemy.exc.IntegrityError) or "already exists" in str(
                error
            )
            if not busy or left == 0:
                raise ValueError(unopened(url, error)) from None
        time.sleep(WAIT_S)


def _database(optuna: Any, url: str) -> Any:
    connect = {"timeout": 60} if url.startswith("sqlite") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"connect_args": connect},
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
        )


def unopened(url: str | None, error: Exception) -> str:
    """What is said of a storage that cannot be opened."""
    reason = " ".join(str(error).split())[:200]
    return f"--storage {hidden(url)}: cannot be opened ({reason}); give a URL such as sqlite:////path/study.db"


def hidden(url: str | None) -> str:
    """A URL without the password in it."""
    import sqlalchemy

    try:
        return sqlalchemy.make_url(url or "").render_as_string(hide_password=True)
    except sqlalchemy.exc.SQLAlchemyError:
        return "URL"
