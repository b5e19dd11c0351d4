"""The store of enrolled voices: one SQLite file that only its owner may read, encrypted if a key is given.

Every change is one transaction that is on the disk before it is confirmed. What was forgotten is in none of the store's
files any more. (A flash disk, a copy-on-write file system or a backup keep older versions of any file: there only
encryption helps.)

The SQLite file of the store: how it is made, opened, checked and wiped, and its errors in one line.

Tables: ``store`` (one row: identity, key check, how often something was forgotten that is not wiped yet) and ``voices``
(lookup, name, template: see ``seals``). ``user_version`` is the version of this format.

How the store writes names and templates: as they are, or encrypted with a key that lies in a file elsewhere.

Encrypted: AES-256-GCM with a fresh nonce each time; store, kind and name are bound to what is sealed, so that nothing
can be moved to another name or store unnoticed. Names are found by a keyed digest (HMAC-SHA256). Both keys are derived
from the key file (HKDF-SHA256) and the identity of the store.

Source: NIST SP 800-38D (GCM), RFC 5869 (HKDF), RFC 2104 (HMAC).

Enrolled voices from one store to another, as JSON lines.

The first line is ``{"format": "enrolled voices", "version": 1}``, each further line a voice: ``name``, ``fingerprint``
of its model (64 hex digits), ``num_recordings``, ``speech_s`` (seconds), ``embedding`` (little-endian float32, base64).
Such a file is not encrypted, whatever the store was.
"""

import base64
import binascii
import contextlib
import functools
import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.model_folder import FINGERPRINT, CheckedObject, parse_object
from voice_biometrics.inference.voiceprints import MAX_DIMS, Template, checked_name, unpack

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


KEY_BYTES = 32
NONCE_BYTES = 12


class Seal(Protocol):
    """Turns what the store keeps into what is written, and back."""

    def lookup(self, name: str) -> bytes:
        """Return what the row of ``name`` is found by."""

    def close(self, content: bytes, bound_to: str) -> bytes:
        """Return what is written of ``content``."""

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """Return the content; InputError when it was changed, or was bound to something else."""


class NoSeal:
    """Everything as it is: whoever reads the file reads the names."""

    def lookup(self, name: str) -> bytes:
        """Return the name itself."""
        return name.encode()

    def close(self, content: bytes, bound_to: str) -> bytes:
        """Return the content."""
        return content

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """Return the content."""
        return sealed


class KeySeal:
    """Encrypted with a key. store_id : random, of the store; another store has other keys."""

    def __init__(self, key: bytes, store_id: bytes) -> None:
        # here, since a store without a key need not wait for the package
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        both = HKDF(SHA256(), 2 * KEY_BYTES, salt=store_id, info=b"voice store 1").derive(key)
        self.cipher = AESGCM(both[:KEY_BYTES])
        self.lookup_key = both[KEY_BYTES:]

    def lookup(self, name: str) -> bytes:
        """Return the keyed digest of the name."""
        from hmac import digest

        return digest(self.lookup_key, name.encode(), "sha256")

    def close(self, content: bytes, bound_to: str) -> bytes:
        """Return nonce, encrypted content and tag."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self.cipher.encrypt(nonce, content, bound_to.encode())

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """Return the content; InputError when it was changed, or was bound to something else."""
        from cryptography.exceptions import InvalidTag

        try:
            return self.cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode())
        except (InvalidTag, ValueError) as error:  # ValueError: shorter than a nonce and a tag
            raise InputError("a row of the store was changed by something else; restore a backup") from error


def read_key(path: str | Path) -> bytes:
    """Return the 32 bytes of a key file; InputError when it is missing, no key, or open to others."""
    make = f"make one with: (umask 077; head -c {KEY_BYTES} /dev/urandom > {path})"
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: the key file could not be read ({error.strerror}); {make}") from error
    if not stat.S_ISREG(mode) or len(key) != KEY_BYTES:
        raise InputError(f"{path}: expected a key file of {KEY_BYTES} bytes, found another size; {make}")
    check_private(path, mode)
    return key


def check_private(path: str | Path, mode: int) -> None:
    """Raise InputError when anybody but the owner has a right to the file."""
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise InputError(f"{path}: others have rights to it (mode {stat.S_IMODE(mode):o}); close it: chmod 600 {path}")


KEY_CHECK = "key check"  # what the sealed nothing is bound to that tells the right key
ROWS_AT_ONCE = 10_000


class Store:
    """The enrolled voices in one file. Several processes may use it at once; a thread needs a ``Store`` of its own.

    Arguments
    ---------
    path : the file. key_file : of 32 bytes; needed for a store that was made with it, and only for such.
    create : make the store when there is none.

    Raises
    ------
    InputError : no store and ``create`` False; another file; another version; the wrong key, one too many or too few;
        a file that others may read; damaged, not writable, full or busy. So do all methods.
    """

    def __init__(self, path: str | Path, key_file: str | Path | None = None, create: bool = False) -> None:
        self.path = Path(path)
        self._open(None if key_file is None else read_key(key_file), create)

    @tell_store_errors
    def add(self, name: str, template: Template, join: bool = False) -> Template:
        """Enrol a voice and return its template; with ``join`` the recordings are added to those of ``name``.

        Raises InputError when ``name`` is enrolled already, or with ``join`` is not, or is with another model.
        """
        with self._change():
            return self._add(checked_name(name), template, join)

    @tell_store_errors
    def add_all(self, voices: Iterable[tuple[str, Template]]) -> tuple[int, int]:
        """Enrol voices, all or none; return how many were new, and how many were there already, just the same.

        Raises InputError when a name is enrolled with another template.
        """
        num_new = num_there = 0
        with self._change():
            for name, template in voices:
                enrolled = self._find(checked_name(name))
                if enrolled is not None and enrolled.to_bytes() == template.to_bytes():
                    num_there += 1
                else:
                    self._add(name, template, join=False)
                    num_new += 1
        return num_new, num_there

    @tell_store_errors
    def get(self, name: str) -> Template:
        """Return the template of a voice; InputError when it is not enrolled."""
        found = self._find(checked_name(name))
        if found is None:
            raise InputError(f"{name} is not enrolled; see `list`, or enrol the voice")
        return found

    @tell_store_errors
    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._open_name(name) for (name,) in self.database.execute("SELECT name FROM voices"))

    def items(self) -> Iterator[tuple[str, Template]]:
        """Yield name and template of every voice, in the order of their enrolment."""
        for names, rows in self.blocks():
            yield from zip(names, map(unpack, rows), strict=True)

    def blocks(self) -> Iterator[tuple[list[str], list[bytes]]]:
        """Yield names and packed templates (``templates.unpack_table``) of all voices, many at a time."""
        last_id = 0
        while rows := self._rows_after(last_id):
            last_id = rows[-1][0]
            yield [name for _, name, _ in rows], [template for _, _, template in rows]

    @tell_store_errors
    def forget(self, name: str) -> bool:
        """Forget a voice, and wipe it from the store's files.

        Returns whether it is wiped: False while another process reads the store or the disk is full; whoever opens the
        store next wipes then. Raises InputError when it is not enrolled.
        """
        lookup = self.seal.lookup(checked_name(name))
        with self._change():
            if not self.database.execute("DELETE FROM voices WHERE lookup = ?", (lookup,)).rowcount:
                raise InputError(f"{name} is not enrolled; see `list`")
            self.database.execute("UPDATE store SET to_wipe = to_wipe + 1")
        return wipe(self.database)

    @tell_store_errors
    def count(self) -> int:
        """Return the number of voices."""
        return scalar(self.database, "SELECT COUNT(*) FROM voices")

    @tell_store_errors
    def state(self) -> tuple[int, int]:
        """Return two numbers, one of which differs once this or another process has changed the store."""
        return scalar(self.database, "PRAGMA data_version"), self.database.total_changes

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    @tell_store_errors
    def _open(self, key: bytes | None, create: bool) -> None:
        if create and not self.path.exists():
            store_id = os.urandom(16)
            key_check = None if key is None else KeySeal(key, store_id).close(b"", KEY_CHECK)
            make(self.path, store_id, key_check)
        can_write = check_file(self.path)
        self.database = connect(self.path, can_write)
        check_format(self.database)
        self.seal = self._checked_seal(key)
        if can_write and scalar(self.database, "SELECT to_wipe FROM store"):
            wipe(self.database)

    def _checked_seal(self, key: bytes | None) -> Seal:
        store_id, key_check = self.database.execute("SELECT store_id, key_check FROM store").fetchone()
        if key is None and key_check is None:
            return NoSeal()
        if key is None:
            raise InputError("it is encrypted: give its --key_file")
        if key_check is None:
            raise InputError("it is not encrypted, leave out --key_file; to encrypt it, export it into a new store")
        seal = KeySeal(key, store_id)
        try:
            seal.open(key_check, KEY_CHECK)
        except InputError as error:
            raise InputError("the key is not the one that it was encrypted with; give its --key_file") from error
        return seal

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """One transaction: whole and on the disk when the block ends, or as if it had not begun."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.database.execute("COMMIT")
        except BaseException:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            raise

    def _add(self, name: str, template: Template, join: bool) -> Template:
        enrolled = self._find(name)
        if join and enrolled is None:
            raise InputError(f"{name} is not enrolled, so nothing can be added; enrol the voice without --add")
        if enrolled is not None:
            if not join:
                raise InputError(f"{name} is enrolled already; add recordings with --add, or forget the voice first")
            template = enrolled.joined(template)
        row = self.seal.close(template.to_bytes(), f"template {name}")
        self.database.execute(
            "INSERT INTO voices (lookup, name, template) VALUES (?, ?, ?) "
            "ON CONFLICT (lookup) DO UPDATE SET template = excluded.template",
            (self.seal.lookup(name), self.seal.close(name.encode(), "name"), row),
        )
        return template

    def _find(self, name: str) -> Template | None:
        query = "SELECT template FROM voices WHERE lookup = ?"
        row = self.database.execute(query, (self.seal.lookup(name),)).fetchone()
        return None if row is None else unpack(self.seal.open(row[0], f"template {name}"))

    @tell_store_errors
    def _rows_after(self, voice_id: int) -> list[tuple[int, str, bytes]]:
        query = f"SELECT voice_id, name, template FROM voices WHERE voice_id > ? ORDER BY voice_id LIMIT {ROWS_AT_ONCE}"
        rows = self.database.execute(query, (voice_id,)).fetchall()
        named = [(row, self._open_name(name), template) for row, name, template in rows]
        return [(row, name, self.seal.open(template, f"template {name}")) for row, name, template in named]

    def _open_name(self, sealed: bytes) -> str:
        try:
            return checked_name(self.seal.open(sealed, "name").decode())
        except UnicodeDecodeError as error:
            raise InputError("a name is no text: the store is damaged; restore a backup") from error


EXPORT_FORMAT = {"format": "enrolled voices", "version": 1}
MAX_LINE_BYTES = 2**17  # the largest embedding, in base64, with a name


def export_voices(store: Store, file: BinaryIO) -> int:
    """Write all voices of a store to a file that is open for writing, and return their number."""
    file.write(_line(EXPORT_FORMAT))
    number = 0
    for name, template in store.items():
        number += 1
        embedding = base64.b64encode(template.embedding.tobytes()).decode()
        file.write(_line({"name": name} | vars(template) | {"embedding": embedding}))
    return number


def import_voices(store: Store, file: BinaryIO, name: str) -> tuple[int, int]:
    """Enrol the voices of an exported file, all or none; return how many were new, and how many were there already.

    ``name`` is what errors call the file. Raises InputError when a line is at fault, or a name is enrolled with another
    template.
    """
    return store.add_all(_voices(file, name))


def _line(content: dict) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _voices(file: BinaryIO, name: str) -> Iterator[tuple[str, Template]]:
    head = _parsed(file, f"{name}, line 1")
    if head is None or head.content != EXPORT_FORMAT:
        raise InputError(f"{name}, line 1: expected {json.dumps(EXPORT_FORMAT)}; give a file that `export` wrote")
    number = 2
    while (voice := _parsed(file, f"{name}, line {number}")) is not None:
        yield voice.text("name"), _template(voice)
        voice.close()
        number += 1


def _parsed(file: BinaryIO, place: str) -> CheckedObject | None:
    """Return the next line, None at the end."""
    line = file.readline(MAX_LINE_BYTES)
    if len(line) == MAX_LINE_BYTES:
        raise InputError(f"{place}: longer than {MAX_LINE_BYTES:,} bytes; give a file that `export` wrote")
    return parse_object(line, place) if line else None


def _template(voice: CheckedObject) -> Template:
    fingerprint = voice.text("fingerprint")
    if not FINGERPRINT.fullmatch(fingerprint):
        raise voice.fault("fingerprint", "64 hex digits")
    num_recordings, speech_s = voice.count("num_recordings", 1, 2**32 - 1), voice.number("speech_s", 0.0)
    try:
        embedding = np.frombuffer(base64.b64decode(str(voice.value("embedding")), validate=True), "<f4")
        if not 0 < embedding.size <= MAX_DIMS:
            raise ValueError
        return unpack(Template(fingerprint, num_recordings, speech_s, embedding).to_bytes())
    except (ValueError, binascii.Error) as error:
        raise voice.fault("embedding", "base64 of finite float32 numbers") from error
