"""Identify voices with FAISS, or with PostgreSQL and pgvector: ``python examples/index_voices.py VOICES RECORDING``.

    python verify.py export voices.parquet
    python examples/index_voices.py voices.parquet somebody.flac

For stores of millions of voices, where ``verify.py identify``, which compares with all of them, takes too long. Both
engines answer with its scores: the inner product of a voice's vector and an embedding of length 1. Needs
examples/requirements.txt.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))


def read_vectors(path: Path) -> tuple[list[str], np.ndarray]:
    """Return names and vectors, float32 (voices, dims), of an export of verify.py."""
    table = pq.read_table(path)
    vectors = table["vector"].combine_chunks()
    return table["name"].to_pylist(), vectors.flatten().to_numpy().reshape(len(vectors), -1)


def faiss_index(vectors: np.ndarray, factory: str = "IVF1024,SQ8"):
    """Return a FAISS index of ``vectors``; see FAISS's guidelines for the factory text and the number of voices."""
    import faiss

    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return index


def copy_to_postgres(psql, vectors: np.ndarray, folder: Path, lists: int | None = None) -> None:
    """Fill a table ``voices (id, vector)``, and index it with ``lists`` lists (None: no index, exact).

    ``psql`` runs SQL and returns its output, as the server of pgserver does. ``folder`` is read by the server.
    """
    num_voices, dims = vectors.shape
    row = [
        ("fields", ">i2"),
        ("size", ">i4"),
        ("id", ">i8"),
        ("vector_size", ">i4"),
        ("dims", ">i2"),
        ("unused", ">i2"),
    ]
    rows = np.zeros(num_voices, [*row, ("vector", ">f4", dims)])
    rows["fields"], rows["size"], rows["vector_size"], rows["dims"] = 2, 8, 4 + 4 * dims, dims
    rows["id"], rows["vector"] = np.arange(num_voices), vectors
    with open(folder / "voices.bin", "wb") as file:  # PostgreSQL's binary COPY format
        file.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        rows.tofile(file)
        file.write(b"\xff\xff")
    psql("CREATE EXTENSION IF NOT EXISTS vector; DROP TABLE IF EXISTS voices;")
    psql(f"CREATE TABLE voices (id bigint PRIMARY KEY, vector vector({dims}));")
    psql(f"COPY voices FROM '{folder / 'voices.bin'}' (FORMAT binary);")
    if lists:
        psql(
            "SET maintenance_work_mem = '1GB'; SET max_parallel_maintenance_workers = 0; CREATE INDEX ON voices USING "
            f"ivfflat (vector vector_ip_ops) WITH (lists = {lists});"
        )


def best_in_postgres(psql, embeddings: np.ndarray, count: int, probes: int = 16) -> list[list[tuple[int, float]]]:
    """Return row and score of the ``count`` best voices, the best first, of each of ``embeddings`` (queries, dims).

    The embeddings have length 1. ``probes`` : lists of the index that are searched.
    """
    statements = [f"SET ivfflat.probes = {probes};"]
    for number, embedding in enumerate(embeddings):
        distance = f"vector <#> '[{','.join(map(str, embedding.tolist()))}]'"  # minus the inner product
        best = f"SELECT {number}, id, -({distance}) FROM voices ORDER BY {distance} LIMIT {count}"
        statements.append(f"COPY ({best}) TO STDOUT (FORMAT csv);")
    found: list[list[tuple[int, float]]] = [[] for _ in embeddings]
    for line in psql("\n".join(statements)).splitlines():
        if line[:1].isdigit():  # not psql's own words
            number, row, score = line.split(",")
            found[int(number)].append((int(row), float(score)))
    return found


def main(voices: str, recording: str) -> None:
    """Print the three best voices of each engine."""
    import pgserver

    from voice_biometrics.inference.audio_input import read_recording
    from voice_biometrics.inference.embedder import Embedder
    from voice_biometrics.inference.model_folder import read_model_folder

    names, vectors = read_vectors(Path(voices))
    embed = Embedder(read_model_folder(Path(__file__).parents[1] / "pretrained"))
    embedding = embed(read_recording(recording, embed.sample_rate).samples)
    embedding /= np.linalg.norm(embedding)
    factory = "Flat" if len(names) < 100_000 else "IVF1024,SQ8"
    scores, rows = faiss_index(vectors, factory).search(embedding[None], min(3, len(names)))
    print("FAISS     ", ", ".join(f"{names[row]} {score:.3f}" for row, score in zip(rows[0], scores[0], strict=True)))
    server = pgserver.get_server(Path(voices).resolve().with_suffix(".postgres"))
    copy_to_postgres(server.psql, vectors, server.pgdata)
    (best,) = best_in_postgres(server.psql, embedding[None], 3)
    print("PostgreSQL", ", ".join(f"{names[row]} {score:.3f}" for row, score in best))


if __name__ == "__main__":
    main(*sys.argv[1:])
