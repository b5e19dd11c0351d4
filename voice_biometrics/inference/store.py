"""The store of enrolled voices: one SQLite file that only its owner may read, encrypted if a key is given.

Tables (``user_version``, the version of this format, is 3; versions 1 and 2 are converted when they are opened):

    store     one row: store_id (random), key_check (None: not encrypted), to_wipe (forgotten voices still in the log)
    voices    voice_id, lookup (2 bytes of a keyed digest of the name; zero: wiped), name, template and marks
              (``voiceprints``)

Every change is one transaction that is on the disk before it is confirmed. SQLite leaves copies of rows that it moves
within the file, even with secure_delete. So rows are never moved: they are appended, and overwritten in place with
zeros when a voice is forgotten or replaced; then the log is emptied. The zeros take up space until ``compact``. (Flash
disks, copy-on-write file systems and backups keep older versions of any file: there only encryption helps.)

Encryption: AES-256-GCM with a fresh nonce each time; kind and name are authenticated with the content, so that nothing
can be moved to another name or store unnoticed. The keys of the cipher and of the digest (HMAC-SHA256) are derived from
key file and store_id (HKDF-SHA256). Source: NIST SP 800-38D (GCM), RFC 5869 (HKDF), RFC 2104 (HMAC).
"""

import contextlib
import functools
import hmac
import os
import sqlite3
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.voiceprints import (
    Template,
    another_model,
    checked_name,
    scaled_for_scoring,
    stored_name,
    unpack,
    unpack_table,
)

FORMAT = 3
APPLICATION_ID = 0x564F4943  # "VOIC", so that another program's database is not taken for a store
SCHEMA = (
    "CREATE TABLE store (row INTEGER PRIMARY KEY CHECK (row = 1), store_id BLOB, key_check BLOB, to_wipe INTEGER)",
    "CREATE TABLE voices (voice_id INTEGER PRIMARY KEY, lookup BLOB NOT NULL, name BLOB NOT NULL, "
    "template BLOB NOT NULL, marks BLOB NOT NULL)",
    "CREATE INDEX lookups ON voices (lookup)",
)
SCHEMA_2 = (SCHEMA[0], SCHEMA[1].replace(", marks BLOB NOT NULL", ""), SCHEMA[2])
SCHEMA_1 = (SCHEMA[0], SCHEMA_2[1].replace("lookup BLOB NOT NULL", "lookup BLOB NOT NULL UNIQUE"))
SCHEMAS = {1: SCHEMA_1, 2: SCHEMA_2, FORMAT: SCHEMA}
WIPED = "X'0000'"  # the lookup of a wiped row
SETTINGS = ("secure_delete = ON", "synchronous = FULL", "temp_store = MEMORY", "trusted_schema = OFF")
WAIT_S = 10.0  # for another process that writes
ROWS_AT_ONCE = 10_000
KEY_BYTES = 32
NONCE_BYTES = 12
KEY_CHECK = "key check"  # authenticated with the empty content that tells the right key from others
ADVICE = {
    "SQLITE_BUSY": f"another process kept it busy for {WAIT_S:g} s, nothing was changed; try again",
    "SQLITE_FULL": "the disk is full, nothing was changed; free some space and try again",
    "SQLITE_READONLY": "it cannot be written, nothing was changed; check the permissions of the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened; check the permissions of the file and its folder",
    "SQLITE_NOTADB": "expected a store of voices, found another file; give another --store",
    "SQLITE_CORRUPT": "the file is damaged; restore a backup",
    "SQLITE_IOERR": "the disk reported an error, nothing was changed; check its space and health",
}


def one_line_errors(method: Callable) -> Callable:
    """Let a method of ``Store`` raise every error as an InputError of one line that names the file."""

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        except sqlite3.Error as error:
            code = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])  # SQLITE_IOERR_WRITE and the like
            advice = ADVICE.get(code, "it cannot be used; restore a backup")
            raise InputError(f"{self.path}: {advice} (SQLite: {error})") from error
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error

    return wrapper


class Seal:
    """Encrypts and decrypts what the store writes; without a key it is written as it is.

    key : 32 bytes or None. store_id : random bytes; another store has other keys.
    """

    def __init__(self, key: bytes | None, store_id: bytes) -> None:
        self.cipher, self.lookup_key = None, store_id
        if key is not None:  # imported here: a store without a key need not wait for it
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF

            both = HKDF(SHA256(), 2 * KEY_BYTES, salt=store_id, info=b"voice store 1").derive(key)
            self.cipher, self.lookup_key = AESGCM(both[:KEY_BYTES]), both[KEY_BYTES:]

    def lookup(self, name: str) -> bytes:
        """Return 2 bytes, not both 0, of the keyed digest of a name: few voices share them, and they reveal little."""
        digest = hmac.digest(self.lookup_key, name.encode(), "sha256")
        return (1 + int.from_bytes(digest, "big") % 0xFFFF).to_bytes(2, "big")

    def close(self, content: bytes, bound_to: str) -> bytes:
        """Return the content, or nonce, encrypted content and tag."""
        if self.cipher is None:
            return content
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self.cipher.encrypt(nonce, content, bound_to.encode())

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """Return the content; InputError if it was changed, or was bound to something else."""
        if self.cipher is None:
            return sealed
        from cryptography.exceptions import InvalidTag

        try:
            return self.cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode())
        except (InvalidTag, ValueError) as error:  # ValueError: shorter than a nonce and a tag
            raise InputError("a row of the store was changed by something else; restore a backup") from error


class Store:
    """The enrolled voices in one file. Several processes may use it at once; each thread needs its own ``Store``.

    Arguments
    ---------
    path : the file. key_file : 32 bytes; required for a store that was made with it, refused for any other.
    create : make the store if there is none.

    Raises
    ------
    InputError : no store and ``create`` False; another file; another version; the wrong key, a missing or an unneeded
        one; a file that others may read; damaged, not writable, full or busy. So do all methods.
    """

    def __init__(self, path: str | Path, key_file: str | Path | None = None, create: bool = False) -> None:
        self.path = Path(path)
        self._open(None if key_file is None else _read_key(key_file), create)

    @one_line_errors
    def add(self, name: str, template: Template, join: bool = False) -> Template:
        """Enrol a voice and return its template; with ``join`` the recordings are added to those of ``name``.

        Raises InputError when ``name`` is already enrolled, or with ``join`` is not, or is with another model.
        """
        with self._change():
            name = checked_name(name)
            return self._add(name, template, self._find(name), join)

    @one_line_errors
    def add_all(self, voices: Iterable[tuple[str, Template]]) -> tuple[int, int]:
        """Enrol voices, all or none; return the numbers of new voices and of those already enrolled and equal.

        Raises InputError when a name is enrolled with another template.
        """
        num_new = num_equal = 0
        with self._change():
            for name, template in voices:
                name = checked_name(name)
                enrolled = self._find(name)
                if enrolled is not None and enrolled[1].to_bytes() == template.to_bytes():
                    num_equal += 1
                else:
                    self._add(name, template, enrolled)
                    num_new += 1
        return num_new, num_equal

    @one_line_errors
    def get(self, name: str) -> Template:
        """Return the template of a voice; InputError when it is not enrolled."""
        return self._found(name)[1]

    def items(self) -> Iterator[tuple[str, Template]]:
        """Yield name and template of every voice, in the order of their enrolment."""
        for rows in self.blocks(with_marks=True):
            yield from ((name, unpack(row, marks)) for _, name, row, marks in rows)

    def blocks(self, after: int = 0, with_marks: bool = False) -> Iterator[list[tuple[int, str, bytes, bytes]]]:
        """Yield rows (voice_id, name, packed template, packed marks or b"") above ``after``, many at a time."""
        while rows := self._rows(after, with_marks):
            yield rows
            after = rows[-1][0]

    @one_line_errors
    def wiped_ids(self) -> list[int]:
        """Return the voice_ids that were wiped since the store was compacted."""
        return self._column("voice_id", f"lookup = {WIPED}")

    @one_line_errors
    def forget(self, name: str) -> bool:
        """Forget a voice: overwrite its row with zeros and empty the log, so that none of the files holds a trace.

        Returns whether the log is empty: False while another process reads the store, or the disk is full; whoever
        opens the store next empties it. Raises InputError when ``name`` is not enrolled.
        """
        with self._change():
            self._wipe(self._found(name)[0])
            self.database.execute("UPDATE store SET to_wipe = to_wipe + 1")
        return self._empty_log()

    @one_line_errors
    def compact(self) -> bool:
        """Write all voices to new pages and shrink the file; returns whether it is done, as ``forget``."""
        self._rebuild()
        try:
            self.database.execute("VACUUM")
        except sqlite3.OperationalError:
            return False
        return self._empty_log()

    @one_line_errors
    def state(self) -> tuple[int, int, int]:
        """Return three numbers, one of which differs once this or another process has changed the store.

        The first differs once it was compacted: until then, no voice_id is used again.
        """
        return *map(self._scalar, ("PRAGMA schema_version", "PRAGMA data_version")), self.database.total_changes

    def is_replaced(self) -> bool:
        """Tell if the path does not lead to the opened file any more: it was deleted, or another one is there."""
        try:
            return not os.path.samestat(os.stat(self.path), self.status)
        except OSError:
            return True

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    @one_line_errors
    def _open(self, key: bytes | None, create: bool) -> None:
        if create and not self.path.exists():
            store_id = os.urandom(16)
            _make(self.path, store_id, None if key is None else Seal(key, store_id).close(b"", KEY_CHECK))
        can_write = _check_file(self.path)
        self.status = os.stat(self.path)
        self.database = _connect(self.path, can_write)
        version = self._checked_version()
        self.seal = self._checked_seal(key)
        if version != FORMAT:
            if not can_write:
                raise InputError(f"it is a store of version {version}: open it where it can be written, to convert it")
            self._rebuild()
        if can_write and self._scalar("SELECT to_wipe FROM store"):
            self._empty_log()

    def _checked_version(self) -> int:
        if self._scalar("PRAGMA application_id") != APPLICATION_ID:
            raise InputError("expected a store of voices, found another database; give another --store")
        if (version := self._scalar("PRAGMA user_version")) not in SCHEMAS:
            raise InputError(
                f"it is a store of version {version}, this program knows versions 1 to {FORMAT}: export it with the "
                "program that made it, and import that into a new store"
            )
        if self._column("sql", "sql IS NOT NULL", "sqlite_schema") != list(SCHEMAS[version]):
            raise InputError("its tables are not those of a store of voices; restore a backup")
        return version

    def _checked_seal(self, key: bytes | None) -> Seal:
        store_id, key_check = self.database.execute("SELECT store_id, key_check FROM store").fetchone()
        if key is None and key_check is not None:
            raise InputError("it is encrypted: give its --key_file")
        if key is not None and key_check is None:
            raise InputError("it is not encrypted, omit --key_file; to encrypt it, export it into a new store")
        seal = Seal(key, store_id)
        try:
            seal.open(key_check, KEY_CHECK)
        except InputError as error:
            raise InputError("this key does not open it; give the --key_file it was encrypted with") from error
        return seal

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """One transaction: complete and on the disk when the block ends, or undone."""
        self.database.execute("BEGIN IMMEDIATE")
        with self.database:
            yield

    def _add(
        self, name: str, template: Template, enrolled: tuple[int, Template] | None, join: bool = False
    ) -> Template:
        if join and enrolled is None:
            raise InputError(f"{name} is not enrolled, so nothing can be added; enrol the voice without --add")
        if enrolled is not None:
            if not join:
                raise InputError(f"{name} is already enrolled; add recordings with --add, or forget the voice first")
            template = enrolled[1].joined(template)
            self._wipe(enrolled[0])
        sealed = self.seal.close(name.encode(), "name"), self.seal.close(template.to_bytes(), f"template {name}")
        marks = self._sealed_marks(name, template.marks.tobytes())
        query = "INSERT INTO voices (lookup, name, template, marks) VALUES (?, ?, ?, ?)"
        self.database.execute(query, (self.seal.lookup(name), *sealed, marks))
        return template

    def _found(self, name: str) -> tuple[int, Template]:
        if (found := self._find(checked_name(name))) is None:
            raise InputError(f"{name} is not enrolled; see `list`")
        return found

    def _find(self, name: str) -> tuple[int, Template] | None:
        """Return voice_id and template of a voice, None if it is not enrolled.

        ``name`` is composed (NFC); in stores of earlier versions it may be decomposed.
        """
        spellings = dict.fromkeys((name, unicodedata.normalize("NFD", name)))
        return next(filter(None, map(self._find_spelled, spellings)), None)

    def _find_spelled(self, name: str) -> tuple[int, Template] | None:
        query = "SELECT voice_id, name, template, marks FROM voices WHERE lookup = ? AND (? OR name = ?)"
        is_encrypted = self.seal.cipher is not None  # else SQLite compares the names
        values = (self.seal.lookup(name), is_encrypted, name.encode())
        for voice_id, sealed, row, marks in self.database.execute(query, values):
            if self._open_name(sealed) == name:
                opened = self.seal.open(row, f"template {name}"), self.seal.open(marks, f"marks {name}")
                return voice_id, unpack(*opened)
        return None

    def _wipe(self, voice_id: int) -> None:
        """Overwrite a row with zeros: values of the same size are written in place."""
        columns = ("lookup", "name", "template", "marks")
        zeros = ", ".join(f"{column} = zeroblob(length({column}))" for column in columns)
        self.database.execute(f"UPDATE voices SET {zeros} WHERE voice_id = ?", (voice_id,))

    def _sealed_marks(self, name: str, marks: bytes) -> bytes:
        return self.seal.close(marks, f"marks {name}")

    def _empty_log(self) -> bool:
        """Write the log's pages to the file and empty it; False when that has to wait."""
        try:
            forgotten = self._scalar("SELECT to_wipe FROM store")
            if is_blocked := self._scalar("PRAGMA wal_checkpoint(TRUNCATE)"):
                return not is_blocked
            self.database.execute("UPDATE store SET to_wipe = 0 WHERE to_wipe = ?", (forgotten,))
        except sqlite3.OperationalError:
            return False
        return True

    def _rebuild(self) -> None:
        """Copy all voices to a new table, also from old versions; SQLite fills the pages of the old one with zeros."""
        self.database.create_function("lookup_of", 1, lambda name: self.seal.lookup(self._open_name(name)))
        self.database.create_function("no_marks", 1, lambda name: self._sealed_marks(self._open_name(name), b""))
        with self._change():
            version = self._checked_version()  # another process may have been faster
            marks = "marks" if version == FORMAT else "no_marks(name)"
            self.database.execute("ALTER TABLE voices RENAME TO old")
            self.database.execute(SCHEMA[1])
            self.database.execute(
                f"INSERT INTO voices SELECT voice_id, lookup_of(name), name, template, {marks} FROM old "
                f"WHERE lookup != {WIPED} ORDER BY voice_id"
            )
            self.database.execute("DROP TABLE old")
            self.database.execute(SCHEMA[2])
            self.database.execute(f"PRAGMA user_version = {FORMAT}")
            self.database.execute("UPDATE store SET to_wipe = to_wipe + 1")

    @one_line_errors
    def _rows(self, after: int, with_marks: bool) -> list[tuple[int, str, bytes, bytes]]:
        rows = self.database.execute(
            f"SELECT voice_id, name, template, marks FROM voices WHERE voice_id > ? AND +lookup != {WIPED} "
            f"ORDER BY voice_id LIMIT {ROWS_AT_ONCE}",
            (after,),
        )
        opened = []
        for voice_id, sealed, row, marks in rows:
            name = self._open_name(sealed)
            marks = self.seal.open(marks, f"marks {name}") if with_marks else b""
            opened.append((voice_id, name, self.seal.open(row, f"template {name}"), marks))
        return opened

    def _open_name(self, sealed: bytes) -> str:
        try:
            return stored_name(self.seal.open(sealed, "name").decode())
        except UnicodeDecodeError as error:
            raise InputError("a name is not text: the store is damaged; restore a backup") from error

    def _scalar(self, query: str) -> int:
        return self.database.execute(query).fetchone()[0]

    def _column(self, column: str, condition: str, table: str = "voices") -> list:
        return [value for (value,) in self.database.execute(f"SELECT {column} FROM {table} WHERE {condition}")]


class Gallery:
    """All voices of a store in memory, 4 bytes x dims each. ``refresh`` reads only what has changed.

    Arguments
    ---------
    store : where they are enrolled. fingerprint : of the embedder, 64 hex digits; voices of another one are refused.

    Attributes
    ----------
    names : of the voices, in rows. ids : (voices,) their voice_ids, rising. gone : rows that were wiped.
    parts : matrices (some voices, dims) float32 of embeddings scaled for scoring, in the order of ``names``.
    """

    def __init__(self, store: Store, fingerprint: str) -> None:
        self.store, self.fingerprint = store, fingerprint
        self.state: tuple = (None,)
        self.refresh()

    def __len__(self) -> int:
        return len(self.names) - len(self.gone)

    def refresh(self) -> None:
        """Read what this or another process has changed; InputError as ``Store``, or for a voice of another model."""
        state = self.store.state()  # first: a change meanwhile is read next time
        if state == self.state:
            return
        if state[0] != self.state[0]:
            self.names, self.ids, self.parts = [], np.empty(0, np.int64), []
        self.gone = np.flatnonzero(np.isin(self.ids, self.store.wiped_ids()))
        for rows in self.store.blocks(after=int(self.ids[-1]) if self.names else 0):
            self._append(rows)
        self.state = state

    def best(self, embedding: np.ndarray, count: int) -> list[tuple[str, float]]:
        """Return name and score of the ``count`` best voices, the best first: ``embedding`` is (dims,), of length 1."""
        scores = np.concatenate([part @ embedding for part in self.parts])  # (voices,)
        scores[self.gone] = -np.inf
        count = min(count, len(self))
        found = np.argpartition(scores, len(scores) - count)[len(scores) - count :]
        return [(self.names[row], float(scores[row])) for row in found[np.argsort(-scores[found], kind="stable")]]

    def _append(self, rows: list[tuple[int, str, bytes, bytes]]) -> None:
        ids, names, templates, _ = zip(*rows, strict=True)
        expected = bytes.fromhex(self.fingerprint)
        for name, row in zip(names, templates, strict=True):
            if row[: len(expected)] != expected:
                raise InputError(f"{name} was {another_model(row[: len(expected)].hex(), self.fingerprint)}")
        self.parts.append(scaled_for_scoring(unpack_table(templates)["embedding"]))
        self.names += names
        self.ids = np.append(self.ids, ids)


def _make(path: Path, store_id: bytes, key_check: bytes | None) -> None:
    """Make an empty store, complete or not at all; if another process is faster, its store stays."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with contextlib.closing(_connect(temporary, can_write=True)) as database:
            for setting in (f"application_id = {APPLICATION_ID}", f"user_version = {FORMAT}", "journal_mode = WAL"):
                database.execute(f"PRAGMA {setting}")
            for statement in SCHEMA:
                database.execute(statement)
            database.execute("INSERT INTO store VALUES (1, ?, ?, 0)", (store_id, key_check))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    except OSError as error:
        raise InputError(f"could not be made ({error.strerror}); check folder, space and permissions") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _connect(path: Path, can_write: bool) -> sqlite3.Connection:
    """Open the file with the settings that keep it consistent and private.

    Where nothing can be written SQLite cannot keep the index of its log, so a store without a log is opened as
    immutable.
    """
    log = path.with_name(f"{path.name}-wal")
    mode = "rw" if can_write else "ro" if log.exists() and log.stat().st_size else "ro&immutable=1"
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    database = sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None)
    for setting in SETTINGS:
        database.execute(f"PRAGMA {setting}")
    return database


def _check_file(path: Path) -> bool:
    """Return whether the file can be written; InputError if it is missing, not a file, or others may read it."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InputError(f"no store of voices ({error.strerror}); enrol a voice, or give another --store") from error
    if not stat.S_ISREG(mode):
        raise InputError("expected a store of voices, found a folder or device; give another --store")
    _check_private(path, mode)
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _read_key(path: str | Path) -> bytes:
    """Return the 32 bytes of a key file; InputError if it is missing, of another size, or others may read it."""
    make = f"make one with: (umask 077; head -c {KEY_BYTES} /dev/urandom > {path})"
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: the key file could not be read ({error.strerror}); {make}") from error
    if not stat.S_ISREG(mode) or len(key) != KEY_BYTES:
        raise InputError(f"{path}: expected a key file of {KEY_BYTES} bytes, found another size; {make}")
    _check_private(path, mode)
    return key


def _check_private(path: str | Path, mode: int) -> None:
    """Raise InputError if anybody but the owner has access to the file."""
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise InputError(f"{path}: others have access to it (mode {stat.S_IMODE(mode):o}); run chmod 600 {path}")
