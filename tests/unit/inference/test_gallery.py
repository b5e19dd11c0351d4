"""All voices at once: the scores and the order of single comparisons, kept up to date without reading all again."""

import numpy as np
import pytest

from tests.store_processes import DIMS, MODEL, template
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference import store as store_module
from voice_biometrics.inference.store import Gallery, Store
from voice_biometrics.inference.voiceprints import scaled_for_scoring, template_of_one, unit


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "ROWS_AT_ONCE", 7)
    filled = Store(tmp_path / "voices.db", create=True)
    filled.add_all((f"voice {number}", template(number)) for number in range(20))
    return filled


def singly(store, probe):
    """The scores of single comparisons, the best first."""
    scores = {name: float(scaled_for_scoring(item.embedding) @ probe) for name, item in store.items()}
    return sorted(scores.items(), key=lambda item: -item[1])


def check(gallery, store, probe):
    expected, best = singly(store, probe), gallery.best(probe, 1000)
    assert [name for name, _ in best] == [name for name, _ in expected] and len(gallery) == len(expected)
    np.testing.assert_allclose([score for _, score in best], [score for _, score in expected], rtol=1e-4, atol=1e-6)


def test_the_best_voices_come_first_with_the_scores_of_single_comparisons(store):
    probe = unit(template(3).embedding + 0.1 * template(50).embedding)
    gallery = Gallery(store, MODEL)
    check(gallery, store, probe)
    assert [name for name, _ in gallery.best(probe, 5)] == [name for name, _ in singly(store, probe)[:5]]
    assert gallery.best(probe, 1)[0][0] == "voice 3"


def test_changes_by_this_and_another_process_are_read_and_nothing_else(store, monkeypatch):
    gallery, other, probe = Gallery(store, MODEL), Store(store.path), unit(template(77).embedding)
    read = []
    rows = Store._rows
    monkeypatch.setattr(Store, "_rows", lambda *args: read.extend(found := rows(*args)) or found)
    gallery.refresh()
    assert read == []
    other.add_all((f"new {number}", template(100 + number)) for number in range(3))
    store.add("voice 5", template(99), join=True)
    other.forget("voice 7")
    gallery.refresh()
    assert [name for _, name, *_ in read] == ["new 0", "new 1", "new 2", "voice 5"]
    monkeypatch.undo()
    check(gallery, store, probe)
    other.forget("new 2")  # the newest, whose number would be given again
    other.compact()
    other.add_all((f"more {number}", template(200 + number)) for number in range(100))
    gallery.refresh()
    check(gallery, store, probe)


def test_a_voice_of_another_model_is_refused_by_name_until_it_is_forgotten(store):
    gallery = Gallery(store, MODEL)
    store.add("odd", template_of_one("cd" * 32, 2.5, np.ones(2 * DIMS, np.float32)))
    for read in (gallery.refresh, gallery.refresh, lambda: Gallery(store, MODEL)):
        with pytest.raises(InputError, match="odd was enrolled with model cdcdcdcdcdcd.*abababababab"):
            read()
    store.forget("odd")
    gallery.refresh()
    assert len(gallery) == 20


def test_the_score_of_one_recording_is_the_cosine_and_a_mean_is_held_down():
    one, other = unit(template(1).embedding), unit(template(2).embedding)
    np.testing.assert_allclose(scaled_for_scoring(one), one, rtol=1e-6)
    mean = (one + other) / 2
    cosine = unit(mean) @ one
    assert scaled_for_scoring(mean) @ one == pytest.approx(cosine * np.sqrt(np.linalg.norm(mean)), rel=1e-6)
    assert mean @ one < scaled_for_scoring(mean) @ one < cosine
