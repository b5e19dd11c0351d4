"""The SQLite file of the store: how it is made, opened, checked and wiped, and its errors in one line.

Tables: ``store`` (one row: identity, key check, how often something was forgotten that is not wiped yet) and ``voices``
(lookup, name, template: see ``seals``). ``user_version`` is the version of this format.
"""

import contextlib
import functools
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

from voice_biometrics.deploy.seals import check_private
from voice_biometrics.errors import InputError

FORMAT = 1
APPLICATION_ID = 0x564F4943  # "VOIC", so that no other program's database is taken for a store
SCHEMA = (
    "CREATE TABLE store (row INTEGER PRIMARY KEY CHECK (row = 1), store_id BLOB, key_check BLOB, to_wipe INTEGER)",
    "CREATE TABLE voices (voice_id INTEGER PRIMARY KEY, lookup BLOB NOT NULL UNIQUE, name BLOB NOT NULL, "
    "template BLOB NOT NULL)",
)
SETTINGS = ("secure_delete = ON", "synchronous = FULL", "temp_store = MEMORY", "trusted_schema = OFF")
WAIT_S = 10.0  # for another process that writes
WHAT_TO_DO = {
    "SQLITE_BUSY": f"another process kept it busy for {WAIT_S:g} s, nothing was changed; try again",
    "SQLITE_FULL": "the disk is full, nothing was changed; make room and try again",
    "SQLITE_READONLY": "it cannot be written, nothing was changed; check the rights of the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened; check the rights of the file and its folder",
    "SQLITE_NOTADB": "expected a store of voices, found another file; give another --store",
    "SQLITE_CORRUPT": "the file is damaged; restore a backup",
    "SQLITE_IOERR": "the disk refused, nothing was changed; check its space and health",
}


def tell_store_errors(method: Callable) -> Callable:
    """Let a method of an object with a ``path`` tell every error in one line that names the store."""

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        except sqlite3.Error as error:
            code = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])  # SQLITE_IOERR_WRITE and the like
            advice = WHAT_TO_DO.get(code, "it cannot be used; restore a backup")
            raise InputError(f"{self.path}: {advice} (SQLite: {error})") from error
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error

    return wrapper


def make(path: Path, store_id: bytes, key_check: bytes | None) -> None:
    """Make an empty store, whole or not at all; when another process is quicker, its store stays."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with contextlib.closing(connect(temporary, can_write=True)) as database:
            for setting in (f"application_id = {APPLICATION_ID}", f"user_version = {FORMAT}", "journal_mode = WAL"):
                database.execute(f"PRAGMA {setting}")
            for table in SCHEMA:
                database.execute(table)
            database.execute("INSERT INTO store VALUES (1, ?, ?, 0)", (store_id, key_check))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    except OSError as error:
        raise InputError(f"could not be made ({error.strerror}); check folder, space and rights") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def connect(path: Path, can_write: bool) -> sqlite3.Connection:
    """Open the file with the settings that keep it whole and private.

    Where nothing can be written SQLite cannot keep the index of its log, so a store without a log is opened as one that
    nobody changes.
    """
    log = path.with_name(f"{path.name}-wal")
    mode = "rw" if can_write else "ro" if log.exists() and log.stat().st_size else "ro&immutable=1"
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    database = sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None)
    for setting in SETTINGS:
        database.execute(f"PRAGMA {setting}")
    return database


def check_file(path: Path) -> bool:
    """Return whether the file can be written; InputError when it is missing, no file, or open to others."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InputError(
            f"there is no store of voices ({error.strerror}); enrol a voice, or give another --store"
        ) from error
    if not stat.S_ISREG(mode):
        raise InputError("expected a store of voices, found a folder or device; give another --store")
    check_private(path, mode)
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def check_format(database: sqlite3.Connection) -> None:
    """Raise InputError when the database is not a store, or one of another version."""
    if scalar(database, "PRAGMA application_id") != APPLICATION_ID:
        raise InputError("expected a store of voices, found another database; give another --store")
    if (version := scalar(database, "PRAGMA user_version")) != FORMAT:
        raise InputError(
            f"it is a store of version {version}, this program knows version {FORMAT}: export it with the program that "
            "made it, and import that into a new store"
        )
    found = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")]
    if found != list(SCHEMA):
        raise InputError("its tables are not those of a store of voices; restore a backup")


def wipe(database: sqlite3.Connection) -> bool:
    """Write the file anew without what was forgotten, and empty the log; False when that has to wait.

    SQLite's secure_delete alone is not enough: rows that it moved between pages leave copies in the pages' free space.
    """
    try:
        forgotten = scalar(database, "SELECT to_wipe FROM store")
        database.execute("VACUUM")
        is_blocked = scalar(database, "PRAGMA wal_checkpoint(TRUNCATE)")
        if not is_blocked:
            database.execute("UPDATE store SET to_wipe = 0 WHERE to_wipe = ?", (forgotten,))
    except sqlite3.OperationalError:
        return False
    return not is_blocked


def scalar(database: sqlite3.Connection, query: str) -> int:
    """Return the one number that a query gives."""
    return database.execute(query).fetchone()[0]
