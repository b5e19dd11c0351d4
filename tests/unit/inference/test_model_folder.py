"""The model folder: read when it is what it says, refused by name when anything in it is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.conftest import make_voice
from tests.model_folders import FINGERPRINTS, toy_onnx, write_toy_model_folder
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.embedder import Embedder, onnx_metadata
from voice_biometrics.inference.model_folder import MAX_FILE_BYTES, SUMS_NAME, read_model_folder, write_sums


@pytest.fixture
def folder(tmp_path):
    return write_toy_model_folder(tmp_path / "model")


def change_json(folder, place, value):
    """Set (or, with ``...``, remove) one value of calibration.json, and the checksums with it."""
    content = json.loads((folder / "calibration.json").read_text())
    *way, last = place.split(".")
    parent = content
    for key in way:
        parent = parent[key]
    if value is ...:
        del parent[last]
    else:
        parent[last] = value
    (folder / "calibration.json").write_text(json.dumps(content))
    write_sums(folder)


def change_onnx(folder, model):
    """Write another embedder.onnx, and the checksums with it."""
    (folder / "embedder.onnx").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    write_sums(folder)


def test_a_folder_gives_what_was_written(folder):
    model = read_model_folder(folder)
    assert (model.name, model.version, model.sample_rate, model.embedding_dim) == ("toy", "1.0", 16000, 16)
    assert model.held_out.num_speakers == 25 and model.held_out.duration_s.median == 2.5
    entry = model.embedder("int8")
    assert entry.fingerprint == FINGERPRINTS["int8"]
    assert model.onnx[entry.file] == (folder / "embedder.int8.onnx").read_bytes()
    assert entry.calibration.llrs(np.array([0.8])) == pytest.approx([2.0])
    assert entry.operating_points["door"].threshold == 4.0 and entry.operating_points["door"].frr.lower == 0.15
    with pytest.raises(InputError, match="int4"):
        model.embedder("int4")


def test_the_curve_gives_the_lowest_threshold_that_keeps_to_a_far(folder):
    curve = read_model_folder(folder).embedder("fp32").error_rates
    assert [curve.at_far(far) for far in (0.02, 0.01)] == [(2.0, 0.01, 0.2)] * 2
    assert curve.at_far(0.0) == (5.5, 0.0, 0.9)
    assert [curve.at_llr(llr) for llr in (-50.0, 3.0, 4.0)] == [(1.0, 0.0), (0.01, 0.2), (0.0005, 0.5)]


def test_the_embedder_tells_voices_apart_and_repeats_short_speech(folder):
    embed = Embedder(read_model_folder(folder))
    one, same, other = (embed(make_voice(pitch, 2.0, seed)) for pitch, seed in ((110, 0), (110, 1), (230, 2)))
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)  # noqa: E731
    assert one.shape == (16,) and one.dtype == np.float32
    assert cosine(one, same) > 0.9 > cosine(one, other)
    short = make_voice(110, 0.1, seed=0)
    np.testing.assert_array_equal(embed(short), embed(np.tile(short, 5)))


def test_a_file_that_is_changed_missing_or_not_listed_is_named(folder):
    sums = (folder / SUMS_NAME).read_text()
    for name in ("embedder.onnx", "calibration.json", "MODEL_CARD.md", "speechbrain/hyperparams.yaml"):
        content = (folder / name).read_bytes()
        middle = len(content) // 2
        (folder / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(InputError, match=f"{name}: expected sha256"):
            read_model_folder(folder)
        (folder / name).unlink()
        with pytest.raises(InputError, match=f"{name}: could not be read"):
            read_model_folder(folder)
        (folder / name).write_bytes(content)
        (folder / SUMS_NAME).write_text("".join(line for line in sums.splitlines(keepends=True) if name not in line))
        with pytest.raises(InputError, match=name):
            read_model_folder(folder)
        (folder / SUMS_NAME).write_text(sums)


def test_a_hidden_file_is_no_part_of_the_folder(folder):
    (folder / ".git").mkdir()
    for name in (".DS_Store", ".git/config"):
        (folder / name).write_text("x")
    assert read_model_folder(folder).name == "toy"


def test_sums_with_a_path_that_climbs_out_or_is_listed_twice_or_cut_short_are_refused(folder):
    sums = (folder / SUMS_NAME).read_text()
    (folder.parent / "outside").write_text("x")
    for name in "../outside", "speechbrain/../../outside", "/etc/passwd", "a b", "MODEL_CARD.md", "":
        (folder / SUMS_NAME).write_text(f"{sums}{'0' * 64}  {name}\n")
        with pytest.raises(InputError, match="SHA256SUMS, line 6"):
            read_model_folder(folder)
    (folder / SUMS_NAME).write_text(sums.removesuffix("\n"))
    with pytest.raises(InputError, match="SHA256SUMS.*truncated"):
        read_model_folder(folder)


def test_a_link_that_leads_out_is_refused_and_one_that_stays_inside_is_not(folder):
    inside, outside = folder / "embedder.onnx", folder.parent / "outside.onnx"
    inside.rename(folder / ".other.onnx")
    inside.symlink_to(".other.onnx")
    assert read_model_folder(folder).name == "toy"
    inside.unlink()
    (folder / ".other.onnx").rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(InputError, match="embedder.onnx: a symbolic link points out"):
        read_model_folder(folder)


def test_a_pipe_and_a_file_of_ten_gigabytes_are_refused_at_once(folder):
    with open(folder / "embedder.onnx", "r+b") as file:
        file.truncate(10 * 2**30)  # a sparse file
    with pytest.raises(InputError, match=f"embedder.onnx: expected at most {MAX_FILE_BYTES:,} bytes"):
        read_model_folder(folder)
    (folder / "embedder.onnx").unlink()
    os.mkfifo(folder / "embedder.onnx")
    with pytest.raises(InputError, match="embedder.onnx: expected a regular file"):
        read_model_folder(folder)


def test_something_that_is_no_model_folder_is_told(tmp_path):
    with pytest.raises(InputError, match="expected a model folder"):
        read_model_folder(tmp_path / "none")
    with pytest.raises(InputError, match="SHA256SUMS: could not be read"):
        read_model_folder(tmp_path)


WRONG = [
    ("format", 2),
    ("name", "../x"),
    ("version", ...),
    ("sample_rate", 16000.5),
    ("embedding_dim", -1),
    ("min_duration_s", 10**400),
    ("surplus", 1),
    ("held_out.description", "\x1b[2J"),
    ("embedders.fp32.file", "/etc/passwd"),
    ("embedders.fp32.fingerprint", "AB" * 32),
    ("embedders.fp32.fingerprint", "cd" * 32),  # that of int8
    ("embedders.fp32.calibration.slope", -1.0),
    ("embedders.fp32.calibration.num_target", 10**400),
    ("embedders.fp32.operating_points.door.far.upper", 1.5),
    ("embedders.fp32.operating_points.door.support", "unsupported"),
    ("embedders.fp32.error_rates.far", [1.0, 0.06, 0.01]),
    ("embedders.fp32.error_rates.far", [1.0, 0.06, 0.01, 0.02, 0.0]),
    ("embedders.fp32.error_rates.llr", "many"),
]


def test_a_value_out_of_order_is_named_with_its_place(folder):
    before = (folder / "calibration.json").read_bytes()
    for place, value in WRONG:
        (folder / "calibration.json").write_bytes(before)
        change_json(folder, place, value)
        with pytest.raises(InputError, match=r"calibration\.json: .*" + place.split(".")[-1]) as caught:
            read_model_folder(folder)
        assert str(caught.value).isprintable()


def test_json_that_is_none_is_told_in_a_line(folder):
    for text in ["", "[1]", '{"format": NaN}', "[" * 100_000, '{"a":' * 100_000, "\xff", '{"\x1b\n": 1}']:
        (folder / "calibration.json").write_bytes(text.encode("latin-1"))
        write_sums(folder)
        with pytest.raises(InputError, match="calibration.json: ") as caught:
            read_model_folder(folder)
        assert str(caught.value).isprintable()


def test_an_onnx_file_of_another_model_is_refused(folder):
    for key, value in ("fingerprint", "ef" * 32), ("sample_rate", "8000"), ("name", "other"):
        change_onnx(folder, toy_onnx(onnx_metadata("toy", "1.0", 16000, FINGERPRINTS["fp32"]) | {key: value}))
        with pytest.raises(InputError, match=f"embedder.onnx: {key}: expected"):
            Embedder(read_model_folder(folder))


def test_an_embedder_of_another_size_than_the_folder_says_is_refused(folder):
    change_json(folder, "embedding_dim", 17)
    with pytest.raises(InputError, match="embedding_dim: expected 17.*found 16"):
        Embedder(read_model_folder(folder))


def toy_with_filters():
    model = toy_onnx(onnx_metadata("toy", "1.0", 16000, FINGERPRINTS["fp32"]))
    return model, next(item for item in model.graph.initializer if item.name == "filters")


def oversized():
    model, filters = toy_with_filters()
    filters.dims[0] = 10 * 2**30  # more than the file holds
    return model.SerializeToString()


def test_an_onnx_file_that_cannot_be_loaded_is_told_in_a_line_and_nothing_is_printed(folder, capfd):
    unknown_layer = (folder / "embedder.onnx").read_bytes().replace(b"Unsqueeze", b"\xffnsqueeze")
    for content in (b"no model at all", unknown_layer, oversized()):
        change_onnx(folder, content)
        with pytest.raises(InputError, match=r"embedder\.onnx: could not be loaded") as caught:
            Embedder(read_model_folder(folder))
        assert "\n" not in str(caught.value) and capfd.readouterr() == ("", ""), content[:20]


def test_weights_that_lie_in_another_file_are_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)  # whatever is taken to be the base, the file is there
    for location in ("weights.bin", "../weights.bin", "speechbrain/weights.bin"):
        model, filters = toy_with_filters()
        content = filters.raw_data
        filters.ClearField("raw_data")
        filters.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(len(content)))):
            filters.external_data.add(key=key, value=value)
        (folder / location).write_bytes(content)
        change_onnx(folder, model)
        with pytest.raises(InputError, match=r"embedder\.onnx: could not be loaded"):
            Embedder(read_model_folder(folder))


def test_many_utterances_are_embedded_in_order(folder):
    embed = Embedder(read_model_folder(folder))
    waves = [make_voice(100 + 10 * number, 0.6 + 0.1 * number, seed=number) for number in range(8)]
    done = []
    together = embed.embed_many([lambda wave=wave: wave for wave in waves], 3, lambda: done.append(1))
    np.testing.assert_array_equal(together, np.stack([embed(wave) for wave in waves]))
    assert len(done) == 8


def test_what_cannot_be_embedded_is_told(folder):
    embed = Embedder(read_model_folder(folder))
    for samples, told in ((np.zeros(0, np.float32), "no samples"), (np.full(16000, np.nan, np.float32), "not finite")):
        with pytest.raises(InputError, match=told):
            embed(samples)


def test_the_model_that_comes_with_the_repository_is_in_order():
    model = read_model_folder(Path("pretrained"))
    assert set(model.embedders["fp32"].operating_points) and model.held_out.num_speakers > 1


def test_threads_may_read_a_type_for_the_first_time_at_once():
    code = """
import sys, threading
from dataclasses import make_dataclass
import msgspec
from voice_biometrics.inference.model_folder import parse_json

sys.setswitchinterval(1e-5)
for _ in range(40):
    inner = make_dataclass("Inner", [(f"field{i}", float, 0.0) for i in range(6)])
    outer = msgspec.defstruct("Outer", [("inner", inner)])
    together = threading.Barrier(4)

    def read():
        together.wait()
        parse_json(b'{"inner": {"field1": 2.0}}', outer, "place", "advice")

    threads = [threading.Thread(target=read) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0  # -11 without the lock: a crash of msgspec
