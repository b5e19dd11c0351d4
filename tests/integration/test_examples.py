"""The examples on other engines give what ours gives: Ray, FAISS, and PostgreSQL with pgvector."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep.prepare import prepare
from data_prep.settings import Settings
from tests.model_folders import DIMS, FINGERPRINTS, write_toy_model_folder
from voice_biometrics.inference.store import Gallery, Store
from voice_biometrics.inference.voiceprints import template_of_one
from voice_biometrics.scoring.embedding_parts import read_parts

ROOT = Path(__file__).parents[2]
NUM_VOICES = 500

sys.path.insert(0, str(ROOT / "examples"))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Random voices, some of several recordings, so that their vectors differ in length."""
    path, rng = tmp_path_factory.mktemp("store") / "voices.db", np.random.default_rng(0)
    embeddings = rng.standard_normal((NUM_VOICES, DIMS)).astype(np.float32)
    embeddings *= rng.uniform(0.5, 1, (NUM_VOICES, 1)) / np.linalg.norm(embeddings, axis=1, keepdims=True)
    voices = ((f"voice {n}", template_of_one(FINGERPRINTS["fp32"], 5.0, row)) for n, row in enumerate(embeddings))
    Store(path, create=True).add_all(voices)
    return path


@pytest.fixture(scope="module")
def vectors(store) -> tuple[list[str], np.ndarray]:
    """Names and vectors of the voices, as verify.py exports them."""
    pytest.importorskip("pyarrow")
    from index_voices import read_vectors

    path = store.with_name("voices.parquet")
    command = [sys.executable, "verify.py", "export", str(path), "--store", str(store)]
    subprocess.run(command, cwd=ROOT, check=True)
    return read_vectors(path)


def exact(store: Path) -> list[tuple[np.ndarray, list[tuple[str, float]]]]:
    """Ten embeddings, and name and score of the three best voices by our own search."""
    gallery = Gallery(Store(store), FINGERPRINTS["fp32"])
    embeddings = np.random.default_rng(1).standard_normal((10, DIMS)).astype(np.float32)
    return [(row, gallery.best(row, 3)) for row in embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)]


def same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_faiss_identifies_as_our_exact_search(store, vectors):
    pytest.importorskip("faiss", reason="needs faiss-cpu: pip install -r examples/requirements.txt")
    from index_voices import faiss_index

    names, index = vectors[0], faiss_index(vectors[1], "Flat")
    assert len(names) == NUM_VOICES
    for embedding, expected in exact(store):
        scores, rows = index.search(embedding[None], 3)
        same([(names[row], score) for row, score in zip(rows[0], scores[0], strict=True)], expected)


@pytest.mark.slow
def test_postgres_identifies_as_our_exact_search(store, vectors, tmp_path):
    pgserver = pytest.importorskip("pgserver", reason="needs pgserver: pip install -r examples/requirements.txt")
    from index_voices import best_in_postgres, copy_to_postgres

    server = pgserver.get_server(tmp_path / "postgres", cleanup_mode="delete")
    try:
        for lists in (None, 10):  # all lists are probed: exact as well
            copy_to_postgres(server.psql, vectors[1], server.pgdata, lists)
            for embedding, expected in exact(store):
                (found,) = best_in_postgres(server.psql, embedding[None], 3, probes=10)
                same([(vectors[0][row], score) for row, score in found], expected)
    finally:
        server.cleanup()


@pytest.mark.slow
def test_ray_embeds_a_manifest_in_shards(speakers, tmp_path):
    pytest.importorskip("ray", reason="needs ray: pip install -r examples/requirements.txt")
    prepare(Settings("speaker_folders", str(speakers), valid_speakers=0), tmp_path / "manifests")
    model, manifest, output = (
        write_toy_model_folder(tmp_path / "model"),
        tmp_path / "manifests/train.csv",
        tmp_path / "e",
    )
    paths = ["--manifest", str(manifest), "--data_folder", str(speakers), "--output", str(output)]
    command = [sys.executable, "examples/embed_with_ray.py", "2", str(model), *paths]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if "node timed out during startup" in ended.stderr:
        pytest.skip("Ray's own processes did not start within the 15 s that it allows: the machine is too busy")
    assert ended.returncode == 0, ended.stderr
    assert "1 files written, 0 already there" in ended.stdout
    assert read_parts(output)[0]["ID"].tolist() == pd.read_csv(manifest)["ID"].tolist()
