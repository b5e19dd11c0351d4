"""The store of enrolled voices: private, exact, and refusing what it should."""

import base64
import io
import json
import os
import secrets
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest

from tests.store_processes import DIMS, MODEL, bytes_of, template
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.store import Seal, Store
from voice_biometrics.inference.voiceprints import read_voices, unpack, write_voices

OTHER_MODEL = "cd" * 32
STORE_TABLE = (
    "CREATE TABLE store (row INTEGER PRIMARY KEY CHECK (row = 1), store_id BLOB, key_check BLOB, to_wipe INTEGER)"
)
TABLES = {
    1: (
        STORE_TABLE,
        "CREATE TABLE voices (voice_id INTEGER PRIMARY KEY, lookup BLOB NOT NULL UNIQUE, name BLOB NOT NULL, "
        "template BLOB NOT NULL)",
    ),
    2: (
        STORE_TABLE,
        "CREATE TABLE voices (voice_id INTEGER PRIMARY KEY, lookup BLOB NOT NULL, name BLOB NOT NULL, "
        "template BLOB NOT NULL)",
        "CREATE INDEX lookups ON voices (lookup)",
    ),
}


@pytest.fixture(params=["plain", "encrypted"])
def arguments(request, tmp_path):
    """Path and key of a store, for both kinds."""
    return {"path": tmp_path / "voices.db", "key_file": None if request.param == "plain" else make_key(tmp_path)}


def make_key(folder: Path, name: str = "voices.key") -> Path:
    path = folder / name
    path.write_bytes(secrets.token_bytes(32))
    path.chmod(0o600)
    return path


def test_a_voice_comes_back_as_it_was_enrolled_in_another_opening(arguments):
    Store(**arguments, create=True).add("Änne O'Neill", template(1, num_recordings=3))
    store = Store(**arguments)
    found = store.get("Änne O'Neill")
    assert (found.fingerprint, found.num_recordings, found.speech_s) == (MODEL, 3, 2.5)
    np.testing.assert_array_equal(found.embedding, template(1).embedding)
    assert [(name, item.to_bytes()) for name, item in store.items()] == [("Änne O'Neill", found.to_bytes())]


def test_the_files_are_for_the_owner_only_and_others_are_refused(arguments):
    before = os.umask(0)
    try:
        store = Store(**arguments, create=True)
        store.add("anna", template(1))
        files = [path for path in arguments["path"].parent.iterdir() if path.name.startswith("voices.db")]
    finally:
        os.umask(before)
    assert sorted(path.name for path in files) == ["voices.db", "voices.db-shm", "voices.db-wal"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    arguments["path"].chmod(0o640)
    with pytest.raises(InputError, match=r"voices.db.*640.*chmod 600"):
        Store(**arguments)


def test_a_voice_is_enrolled_once_averaged_when_added_to_and_never_mixed_with_another_model(arguments):
    store = Store(**arguments, create=True)
    store.add("anna", template(1, num_recordings=3))
    with pytest.raises(InputError, match="anna is already enrolled.*--add"):
        store.add("anna", template(2))
    joined = store.add("anna", template(2), join=True)
    assert (joined.num_recordings, joined.speech_s) == (4, 5.0)
    expected = (3 * template(1).embedding + template(2).embedding) / 4
    np.testing.assert_allclose(store.get("anna").embedding, expected, rtol=1e-6)
    with pytest.raises(InputError, match="bert is not enrolled"):
        store.add("bert", template(2), join=True)
    with pytest.raises(InputError, match="abababababab.*cdcdcdcdcdcd"):
        store.add("anna", template(2, fingerprint=OTHER_MODEL), join=True)
    assert store.get("anna").num_recordings == 4 and len(dict(store.items())) == 1


def test_many_voices_are_added_all_or_none(arguments):
    store = Store(**arguments, create=True)
    voices = [("anna", template(1)), ("bert", template(2))]
    assert store.add_all(voices) == (2, 0)
    assert store.add_all([*voices, ("carl", template(3))]) == (1, 2)
    with pytest.raises(InputError, match="bert is already enrolled"):
        store.add_all([("dora", template(4)), ("bert", template(5))])
    assert list(dict(store.items())) == ["anna", "bert", "carl"]


def test_names_that_share_their_lookup_are_told_apart(arguments, monkeypatch):
    monkeypatch.setattr(Seal, "lookup", lambda *_: b"\0\1")
    store = Store(**arguments, create=True)
    for seed, name in enumerate(("anna", "bert", "carl")):
        store.add(name, template(seed))
    store.forget("anna")
    assert store.get("bert").to_bytes() == template(1).to_bytes() and list(dict(store.items())) == ["bert", "carl"]


def test_a_name_that_could_not_be_shown_or_typed_is_refused(tmp_path):
    store = Store(tmp_path / "voices.db", create=True)
    for name in ("", " anna", "a\nb", "a\x1b[31m", "x" * 101, "a\u202eb", "\udcff", "a\x00b"):
        for refuse, *others in ((store.add, template(1)), (store.get,), (store.forget,)):
            with pytest.raises(InputError, match="invalid name.*printable"):
                refuse(name, *others)


def test_an_unknown_and_a_forgotten_name_are_told(arguments):
    store = Store(**arguments, create=True)
    store.add("anna", template(1))
    store.forget("anna")
    for name in ("anna", "nobody"):
        for ask in (store.get, store.forget):
            with pytest.raises(InputError, match=f"voices.db: {name} is not enrolled"):
                ask(name)
    store.add("anna", template(2))
    assert store.get("anna").to_bytes() == template(2).to_bytes()


def test_an_encrypted_store_shows_neither_names_nor_embeddings(tmp_path):
    store = Store(tmp_path / "voices.db", make_key(tmp_path), create=True)
    store.add("secret name", template(1))
    content = bytes_of(tmp_path / "voices.db")
    assert len(content) > 4096
    for secret in (b"secret", template(1).embedding.tobytes()[:8], bytes.fromhex(MODEL)[:8]):
        assert secret not in content


def test_the_wrong_key_no_key_and_a_key_too_many_are_told(tmp_path):
    key, other = make_key(tmp_path), make_key(tmp_path, "other.key")
    Store(tmp_path / "sealed.db", key, create=True).close()
    Store(tmp_path / "plain.db", create=True).close()
    for name, given, told in (
        ("sealed", other, "key"),
        ("sealed", None, "is encrypted"),
        ("plain", key, "not encrypted"),
    ):
        with pytest.raises(InputError, match=f"{name}.db: .*{told}.*--key_file"):
            Store(tmp_path / f"{name}.db", given)


def test_a_key_file_is_32_bytes_that_only_its_owner_may_read(tmp_path):
    gone, key, short = tmp_path / "gone.key", make_key(tmp_path), make_key(tmp_path, "short.key")
    key.chmod(0o644)
    short.write_bytes(b"short")
    for path, told in ((gone, "could not be read.*make one with"), (key, "644"), (short, "32 bytes")):
        with pytest.raises(InputError, match=f"{path.name}.*{told}"):
            Store(tmp_path / "voices.db", path, create=True)


def test_an_encrypted_template_cannot_be_given_to_another_name(tmp_path):
    store = Store(tmp_path / "voices.db", make_key(tmp_path), create=True)
    store.add("anna", template(1))
    store.add("mallory", template(2))
    (of_mallory,) = store.database.execute("SELECT template FROM voices ORDER BY voice_id DESC").fetchone()
    store.database.execute("UPDATE voices SET template = ?", (of_mallory,))
    assert store.get("mallory").to_bytes() == template(2).to_bytes()
    for read in (lambda: store.get("anna"), lambda: list(store.items())):
        with pytest.raises(InputError, match="changed by something else"):
            read()


def test_what_is_no_store_is_told_and_left_as_it_was(tmp_path):
    text, other, empty = tmp_path / "text.db", tmp_path / "other.db", tmp_path / "empty.db"
    text.write_text("no database " * 100)
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    empty.touch()
    for path, expected in ((text, "another file"), (other, "another database"), (empty, "another database")):
        path.chmod(0o600)
        before = path.read_bytes()
        with pytest.raises(InputError, match=f"{path.name}: expected a store of voices, found {expected}"):
            Store(path, create=True)
        assert path.read_bytes() == before and not list(tmp_path.glob("*-wal"))
    with pytest.raises(InputError, match="found a folder"):
        Store(tmp_path, create=True)
    with pytest.raises(InputError, match="gone.db: no store of voices"):
        Store(tmp_path / "gone.db")
    with pytest.raises(InputError, match="text.db.voices.db: could not be made"):
        Store(text / "voices.db", create=True)


def test_a_store_of_another_version_or_with_other_tables_is_refused(tmp_path):
    store = Store(tmp_path / "voices.db", create=True)
    store.database.execute("CREATE TRIGGER t AFTER INSERT ON voices BEGIN DELETE FROM voices; END")
    with pytest.raises(InputError, match="its tables"):
        Store(tmp_path / "voices.db")
    store.database.execute("PRAGMA user_version = 4")
    with pytest.raises(InputError, match="version 4.*export"):
        Store(tmp_path / "voices.db")


def write_old_version(version, path, key_file):
    """Write the store that earlier versions wrote; in the first the name, or its whole digest, is a unique column."""
    store_id = bytes(range(16))
    seal = Seal(None if key_file is None else key_file.read_bytes(), store_id)
    database = sqlite3.connect(path, isolation_level=None)
    path.chmod(0o600)
    for setting in ("application_id = 0x564F4943", f"user_version = {version}", "journal_mode = WAL"):
        database.execute(f"PRAGMA {setting}")
    for table in TABLES[version]:
        database.execute(table)
    key_check = None if key_file is None else seal.close(b"", "key check")
    database.execute("INSERT INTO store VALUES (1, ?, ?, 0)", (store_id, key_check))
    for number in range(50):
        name = f"voice {number}"
        lookup = name.encode() if key_file is None else secrets.token_bytes(32)
        lookup = lookup if version == 1 else seal.lookup(name)
        sealed = seal.close(name.encode(), "name"), seal.close(template(number).to_bytes(), f"template {name}")
        database.execute("INSERT INTO voices (lookup, name, template) VALUES (?, ?, ?)", (lookup, *sealed))
    database.execute("DELETE FROM voices WHERE voice_id = 5")
    database.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_an_earlier_version_is_converted_where_it_can_be_written(arguments, monkeypatch, version):
    write_old_version(version, **arguments)
    with monkeypatch.context() as patch, pytest.raises(InputError, match=f"version {version}.*can be written"):
        patch.setattr(os, "access", lambda path, mode: False)
        Store(**arguments)
    for _ in range(2):
        store = Store(**arguments)
        expected = {f"voice {number}": template(number).to_bytes() for number in range(50) if number != 4}
        assert {name: voice.to_bytes() for name, voice in store.items()} == expected
        assert store.get("voice 7").to_bytes() == template(7).to_bytes()
        assert store.get("voice 7").holds(template(7).embedding)
        assert store.database.execute("PRAGMA user_version").fetchone() == (3,)
    assert store.forget("voice 9") and b"voice 9" not in bytes_of(arguments["path"])
    assert template(9).embedding.tobytes() not in bytes_of(arguments["path"])


def test_marks_of_recordings_are_joined_exported_and_wiped_with_the_voice(arguments):
    store = Store(**arguments, create=True)
    store.add("anna", template(1))
    for seed in (2, 3):
        store.add("anna", template(seed), join=True)
    (_, voice), *_ = store.items()
    assert [voice.holds(template(seed).embedding) for seed in (1, 2, 3, 4)] == [True, True, True, False]
    exported = io.BytesIO()
    write_voices(store.items(), exported)
    ((_, imported),) = read_voices(io.BytesIO(exported.getvalue()), "export")
    np.testing.assert_array_equal(imported.marks, voice.marks)
    assert store.forget("anna")
    for seed in (1, 2, 3):
        assert template(seed).marks.tobytes() not in bytes_of(arguments["path"])


def test_an_export_of_version_1_is_read():
    fields = {"name": "anna", "fingerprint": MODEL, "num_recordings": 1, "speech_s": 2.5}
    fields["embedding"] = base64.b64encode(template(1).embedding.tobytes()).decode()
    lines = [json.dumps(line) for line in ({"format": "enrolled voices", "version": 1}, fields)]
    ((_, voice),) = read_voices(io.BytesIO("\n".join(lines).encode()), "export")
    assert voice.to_bytes() == template(1).to_bytes() and voice.holds(template(1).embedding)


def test_a_damaged_store_is_told(tmp_path):
    path = tmp_path / "voices.db"
    store = Store(path, create=True)
    store.add_all((f"voice {number}", template(number)) for number in range(100))
    store.close()
    content = bytearray(path.read_bytes())
    content[8192:] = bytes(len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(InputError, match="voices.db: the file is damaged; restore a backup"):
        list(Store(path).items())


def test_a_row_that_cannot_be_a_template_is_told():
    row = template(1).to_bytes()
    too_short, not_finite = row[:-1], row[:-4] + np.float32(np.nan).tobytes()
    all_zero, no_recordings = row[:40] + bytes(4 * DIMS), row[:32] + bytes(4) + row[36:]
    for damaged in (too_short, not_finite, all_zero, no_recordings):
        with pytest.raises(InputError, match="the store is damaged"):
            unpack(damaged, b"")
    with pytest.raises(InputError, match="marks.*the store is damaged"):
        unpack(row, bytes(31))


def test_a_store_that_is_kept_busy_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("voice_biometrics.inference.store.WAIT_S", 0.05)
    store, other = (Store(tmp_path / "voices.db", create=True) for _ in range(2))
    with other._change(), pytest.raises(InputError, match="voices.db: another process kept it busy"):
        store.add("anna", template(1))
    store.add("anna", template(1))


def test_a_store_where_nothing_can_be_written_is_read(tmp_path, monkeypatch):
    Store(tmp_path / "voices.db", create=True).add("anna", template(1, num_recordings=3))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for _ in range(2):  # with and without the log that the first opening leaves
        store = Store(tmp_path / "voices.db")
        assert store.get("anna").num_recordings == 3
        with pytest.raises(InputError, match="voices.db: it cannot be written, nothing was changed"):
            store.forget("anna")
        monkeypatch.undo()
        Store(tmp_path / "voices.db").close()
        monkeypatch.setattr(os, "access", lambda path, mode: False)
