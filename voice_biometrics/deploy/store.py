"""The store of enrolled voices: one SQLite file that only its owner may read, encrypted if a key is given.

Every change is one transaction that is on the disk before it is confirmed. What was forgotten is in none of the store's
files any more. (A flash disk, a copy-on-write file system or a backup keep older versions of any file: there only
encryption helps.)
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from voice_biometrics.deploy import store_file
from voice_biometrics.deploy.seals import KeySeal, NoSeal, Seal, read_key
from voice_biometrics.deploy.store_file import scalar, tell_store_errors
from voice_biometrics.deploy.templates import Template, checked_name, unpack
from voice_biometrics.errors import InputError

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
        return store_file.wipe(self.database)

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
            store_file.make(self.path, store_id, key_check)
        can_write = store_file.check_file(self.path)
        self.database = store_file.connect(self.path, can_write)
        store_file.check_format(self.database)
        self.seal = self._checked_seal(key)
        if can_write and scalar(self.database, "SELECT to_wipe FROM store"):
            store_file.wipe(self.database)

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
