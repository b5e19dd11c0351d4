"""The store of enrolled voices: private, exact, and refusing what it should."""

import os
import secrets
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest

from tests.store_processes import DIMS, MODEL, bytes_of, template
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.store import Store
from voice_biometrics.inference.voiceprints import unpack

OTHER_MODEL = "cd" * 32


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
    assert store.names() == ["Änne O'Neill"] and store.count() == 1
    assert [(name, item.to_bytes()) for name, item in store.items()] == [("Änne O'Neill", found.to_bytes())]


def test_the_files_are_for_the_owner_only(arguments):
    before = os.umask(0)
    try:
        store = Store(**arguments, create=True)
        store.add("anna", template(1))
        files = [path for path in arguments["path"].parent.iterdir() if path.name.startswith("voices.db")]
    finally:
        os.umask(before)
    assert sorted(path.name for path in files) == ["voices.db", "voices.db-shm", "voices.db-wal"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_store_that_others_may_read_is_refused(arguments):
    Store(**arguments, create=True).close()
    arguments["path"].chmod(0o640)
    with pytest.raises(InputError, match=r"others have rights to it \(mode 640\).*chmod 600"):
        Store(**arguments)


def test_enrolling_a_name_twice_is_refused_and_adding_averages_over_all_recordings(arguments):
    store = Store(**arguments, create=True)
    store.add("anna", template(1, num_recordings=3))
    with pytest.raises(InputError, match="anna is enrolled already; add recordings with --add, or forget"):
        store.add("anna", template(2))
    joined = store.add("anna", template(2), join=True)
    assert (joined.num_recordings, joined.speech_s) == (4, 5.0)
    expected = (3 * template(1).embedding + template(2).embedding) / 4
    np.testing.assert_allclose(store.get("anna").embedding, expected, rtol=1e-6)
    with pytest.raises(InputError, match="bert is not enrolled, so nothing can be added"):
        store.add("bert", template(2), join=True)


def test_recordings_of_another_model_are_not_added(arguments):
    store = Store(**arguments, create=True)
    store.add("anna", template(1))
    with pytest.raises(InputError, match="enrolled with the model abababababab, but this one is cdcdcdcdcdcd"):
        store.add("anna", template(2, fingerprint=OTHER_MODEL), join=True)
    assert store.get("anna").num_recordings == 1


def test_many_voices_are_added_all_or_none(arguments):
    store = Store(**arguments, create=True)
    voices = [("anna", template(1)), ("bert", template(2))]
    assert store.add_all(voices) == (2, 0)
    assert store.add_all([*voices, ("carl", template(3))]) == (1, 2)
    with pytest.raises(InputError, match="bert is enrolled already"):
        store.add_all([("dora", template(4)), ("bert", template(5))])
    assert store.names() == ["anna", "bert", "carl"]


@pytest.mark.parametrize("name", ["", " anna", "a\nb", "a\x1b[31m", "x" * 101, "a\u202eb", "\udcff", "a\x00b"])
def test_a_name_that_could_not_be_shown_or_typed_is_refused(tmp_path, name):
    store = Store(tmp_path / "voices.db", create=True)
    for refused in (lambda: store.add(name, template(1)), lambda: store.get(name), lambda: store.forget(name)):
        with pytest.raises(InputError, match="is no name: expected 1 to 100 printable characters"):
            refused()


@pytest.mark.parametrize("ask", [Store.get, Store.forget])
def test_an_unknown_and_a_forgotten_name_are_told(arguments, ask):
    store = Store(**arguments, create=True)
    store.add("anna", template(1))
    store.forget("anna")
    for name in ("anna", "nobody"):
        with pytest.raises(InputError, match=f"voices.db: {name} is not enrolled"):
            ask(store, name)


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
    with pytest.raises(InputError, match="sealed.db: the key is not the one that it was encrypted with"):
        Store(tmp_path / "sealed.db", other)
    with pytest.raises(InputError, match="sealed.db: it is encrypted: give its --key_file"):
        Store(tmp_path / "sealed.db")
    with pytest.raises(InputError, match="plain.db: it is not encrypted, leave out --key_file"):
        Store(tmp_path / "plain.db", key)


def test_a_key_file_is_32_bytes_that_only_its_owner_may_read(tmp_path):
    with pytest.raises(InputError, match="gone.key: the key file could not be read.*make one with"):
        Store(tmp_path / "voices.db", tmp_path / "gone.key", create=True)
    key = make_key(tmp_path)
    key.chmod(0o644)
    with pytest.raises(InputError, match="others have rights to it"):
        Store(tmp_path / "voices.db", key, create=True)
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(InputError, match="expected a key file of 32 bytes"):
        Store(tmp_path / "voices.db", key, create=True)


def test_an_encrypted_template_cannot_be_given_to_another_name(tmp_path):
    store = Store(tmp_path / "voices.db", make_key(tmp_path), create=True)
    store.add("anna", template(1))
    store.add("mallory", template(2))
    (of_mallory,) = store.database.execute("SELECT template FROM voices ORDER BY voice_id DESC").fetchone()
    store.database.execute("UPDATE voices SET template = ?", (of_mallory,))
    assert store.get("mallory").to_bytes() == template(2).to_bytes()
    with pytest.raises(InputError, match="a row of the store was changed by something else"):
        store.get("anna")
    with pytest.raises(InputError, match="a row of the store was changed by something else"):
        list(store.items())


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
    with pytest.raises(InputError, match="expected a store of voices, found a folder"):
        Store(tmp_path, create=True)
    with pytest.raises(InputError, match="gone.db: there is no store of voices"):
        Store(tmp_path / "gone.db")
    with pytest.raises(InputError, match="text.db.voices.db: could not be made"):
        Store(text / "voices.db", create=True)


def test_a_store_of_another_version_or_with_other_tables_is_refused(tmp_path):
    store = Store(tmp_path / "voices.db", create=True)
    store.database.execute("CREATE TRIGGER t AFTER INSERT ON voices BEGIN DELETE FROM voices; END")
    with pytest.raises(InputError, match="its tables are not those of a store of voices"):
        Store(tmp_path / "voices.db")
    store.database.execute("PRAGMA user_version = 2")
    with pytest.raises(InputError, match="it is a store of version 2, this program knows version 1"):
        Store(tmp_path / "voices.db")


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


@pytest.mark.parametrize("damage", ["length", "nan", "zero", "recordings"])
def test_a_row_that_cannot_be_a_template_is_told(damage):
    row = bytearray(template(1).to_bytes())
    match damage:
        case "length":
            del row[-1]
        case "nan":
            row[-4:] = np.float32(np.nan).tobytes()
        case "zero":
            row[40:] = bytes(4 * DIMS)
        case "recordings":
            row[32:36] = bytes(4)
    with pytest.raises(InputError, match="the store is damaged"):
        unpack(bytes(row))


def test_a_change_by_another_opening_is_noticed(tmp_path):
    store, other = (Store(tmp_path / "voices.db", create=True) for _ in range(2))
    states = [store.state()]
    other.add("anna", template(1))
    states.append(store.state())
    store.add("bert", template(2))
    states.append(store.state())
    assert len(set(states)) == 3 and store.state() == states[-1]


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
        with pytest.raises(InputError, match="voices.db: it cannot be written, nothing was changed; check the rights"):
            store.forget("anna")
        monkeypatch.undo()
        Store(tmp_path / "voices.db").close()
        monkeypatch.setattr(os, "access", lambda path, mode: False)
