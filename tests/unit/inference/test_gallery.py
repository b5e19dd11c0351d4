"""All voices at once: the same scores and the same order as one by one."""

import numpy as np
import pytest

from tests.store_processes import DIMS, MODEL, template
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference import store as store_module
from voice_biometrics.inference.gallery import Gallery
from voice_biometrics.inference.store import Store
from voice_biometrics.inference.voiceprints import Template, scaled_for_scoring, unit


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "ROWS_AT_ONCE", 7)
    filled = Store(tmp_path / "voices.db", create=True)
    filled.add_all((f"voice {number}", template(number)) for number in range(20))
    return filled


def test_the_best_voices_come_first_with_the_scores_of_single_comparisons(store):
    probe = unit(template(3).embedding + 0.1 * template(50).embedding)
    best = Gallery(store, MODEL, DIMS).best(probe, 5)
    scores = {name: scaled_for_scoring(item.embedding[None])[0] @ probe for name, item in store.items()}
    expected = sorted(scores, key=scores.get, reverse=True)[:5]
    assert [name for name, _ in best] == expected and expected[0] == "voice 3"
    np.testing.assert_allclose([score for _, score in best], [scores[name] for name in expected], rtol=1e-5)


def test_fewer_voices_than_asked_for_are_all(store):
    assert len(Gallery(store, MODEL, DIMS).best(unit(template(3).embedding), 100)) == 20


def test_voices_enrolled_while_it_is_read_are_in_it_or_make_it_out_of_date(store, monkeypatch):
    monkeypatch.setattr(store, "count", lambda: 5)  # as if 15 came after counting
    gallery = Gallery(store, MODEL, DIMS)
    assert gallery.rows.shape == (20, DIMS) and gallery.state == store.state()
    Store(store.path).add("late", template(99))
    assert gallery.state != store.state()


def test_a_voice_of_another_model_is_refused_by_name_whatever_its_size(store):
    store.add("odd", Template("cd" * 32, 1, 2.5, np.ones(2 * DIMS, np.float32)))
    with pytest.raises(InputError, match="odd was enrolled with the model cdcdcdcdcdcd, but this one is abababababab"):
        Gallery(store, MODEL, DIMS)


def test_the_score_of_one_recording_is_the_cosine_and_a_mean_is_held_down():
    one, other = unit(template(1).embedding), unit(template(2).embedding)
    np.testing.assert_allclose(scaled_for_scoring(one[None])[0], one, rtol=1e-6)
    mean = (one + other) / 2
    cosine = unit(mean) @ one
    assert scaled_for_scoring(mean[None])[0] @ one == pytest.approx(cosine * np.sqrt(np.linalg.norm(mean)), rel=1e-6)
    assert mean @ one < scaled_for_scoring(mean[None])[0] @ one < cosine
