"""Checkpoints: whole or not there; a broken one is set aside, a foreign one refused."""

import multiprocessing
import resource
import signal
import time

import pytest
import torch

from voice_biometrics.common.errors import InputError
from voice_biometrics.experiment.checkpoints import WholeCheckpointer


def checkpointer(folder, size: int = 4) -> WholeCheckpointer:
    return WholeCheckpointer(str(folder), {"model": torch.nn.Linear(size, size)})


def weight_of(saved: WholeCheckpointer) -> torch.nn.Parameter:
    return saved.recoverables["model"].weight


def save_with(folder, value: float, **meta) -> WholeCheckpointer:
    saving = checkpointer(folder)
    weight_of(saving).data.fill_(value)
    saving.save_checkpoint(meta=meta)
    return saving


def recovered(folder) -> float:
    loading = checkpointer(folder)
    loading.recover_if_possible()
    return weight_of(loading)[0, 0].item()


def newest(folder):
    return max(folder.glob("CKPT*"))


def test_what_is_saved_is_recovered(tmp_path):
    assert checkpointer(tmp_path).recover_if_possible() is None
    save_with(tmp_path, 1.0)
    save_with(tmp_path, 2.0)
    assert recovered(tmp_path) == 2.0


def test_a_broken_newest_checkpoint_is_set_aside_and_the_one_before_is_taken(tmp_path):
    for damage in ("truncate", "empty", "overwrite", "remove"):
        folder = tmp_path / damage
        save_with(folder, 1.0)
        save_with(folder, 2.0)
        path = newest(folder) / "model.ckpt"
        content = path.read_bytes()
        path.unlink()
        if damage != "remove":
            path.write_bytes({"truncate": content[: len(content) // 2], "empty": b"", "overwrite": b"PK\0"}[damage])
        assert recovered(folder) == 1.0, damage
        assert len(list(folder.glob("broken-*"))) == 1, damage


@pytest.mark.parametrize("content", [b"", b"unixtime: 12", b"a: [", b"\xff\xfe", b"[1, 2]"])
def test_a_checkpoint_with_a_damaged_record_is_set_aside(tmp_path, content):
    save_with(tmp_path, 1.0)
    save_with(tmp_path, 2.0)
    (newest(tmp_path) / "CKPT.yaml").write_bytes(content)
    assert recovered(tmp_path) == 1.0
    assert len(list(tmp_path.glob("broken-CKPT*"))) == 1


def test_the_last_checkpoint_is_the_newest_when_the_clock_was_set_back(tmp_path, monkeypatch):
    save_with(tmp_path, 1.0)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    save_with(tmp_path, 2.0)
    saved = save_with(tmp_path, 3.0)
    assert recovered(tmp_path) == 3.0
    saved.save_and_keep_only()
    assert recovered(tmp_path) == 3.0 and len(saved.list_checkpoints()) == 1


def test_the_hundredth_checkpoint_takes_no_longer_than_the_first(tmp_path, monkeypatch):
    lists = []
    monkeypatch.setattr(
        WholeCheckpointer,
        "list_checkpoints",
        lambda self, own=WholeCheckpointer.list_checkpoints: lists.append(1) or own(self),
    )
    saving = checkpointer(tmp_path)
    counts = []
    for _ in range(3):
        lists.clear()
        saving.save_and_keep_only()
        counts.append(len(lists))
    assert counts[1] == counts[2]


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    save_with(tmp_path, 1.0)
    dying = checkpointer(tmp_path)
    monkeypatch.setattr(
        "speechbrain.utils.checkpoints.torch.save", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        dying.save_checkpoint()
    monkeypatch.undo()
    assert len(list(tmp_path.glob("unfinished-*"))) == 1
    assert recovered(tmp_path) == 1.0
    save_with(tmp_path, 3.0)
    assert not list(tmp_path.glob("unfinished-*")) and recovered(tmp_path) == 3.0


def _save_on_a_full_disk(folder, told):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        checkpointer(folder, size=100).save_checkpoint()
    except InputError as error:
        told.put(str(error))
    else:
        told.put("nothing was said")


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(tmp_path):
    save_with(tmp_path, 1.0)
    told = multiprocessing.get_context("fork").SimpleQueue()
    process = multiprocessing.get_context("fork").Process(target=_save_on_a_full_disk, args=(tmp_path, told))
    process.start()
    process.join()
    assert "could not be written" in told.get()
    assert recovered(tmp_path) == 1.0


def test_a_checkpoint_of_another_size_is_refused_and_kept(tmp_path):
    save_with(tmp_path, 1.0)
    with pytest.raises(InputError, match="does not fit"):
        checkpointer(tmp_path, size=5).recover_if_possible()
    assert recovered(tmp_path) == 1.0


def test_the_best_checkpoint_is_that_of_the_lowest_eer_else_the_newest(tmp_path):
    save_with(tmp_path, 1.0, EER=0.1)
    save_with(tmp_path, 2.0, EER=0.3)
    save_with(tmp_path, 3.0)
    loading = checkpointer(tmp_path)
    loading.load_best()
    assert weight_of(loading)[0, 0] == 1.0
    for path in tmp_path.glob("CKPT*"):
        if "EER" in (path / "CKPT.yaml").read_text():
            path.rename(tmp_path / f"old-{path.name}")
    loading.load_best()
    assert weight_of(loading)[0, 0] == 3.0


def test_no_checkpoint_or_a_damaged_best_one_is_told(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        checkpointer(tmp_path).load_best()
    save_with(tmp_path, 1.0)
    (newest(tmp_path) / "model.ckpt").write_bytes(b"PK")
    with pytest.raises(InputError, match="damaged"):
        checkpointer(tmp_path).load_best()
