"""Atomic writes: complete or not at all."""

import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import write_json, written_whole


def test_a_write_that_fails_leaves_the_former_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("former")
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".csv" and path.read_text() == "former"
        raise RuntimeError
    assert path.read_text() == "former" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(InputError, match="results/a.json"):
        write_json({}, tmp_path / "results" / "a.json")
