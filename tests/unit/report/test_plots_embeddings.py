"""The map of utterances: places are the first principal components, and speakers can be told apart."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from tests.picture_checks import assert_whole_png, legend_texts
from voice_biometrics.common.errors import InputError
from voice_biometrics.report.plots import embedding_map_figure, plot_embedding_map


def voices(num_speakers, per_speaker=6, dims=16, spread=0.1):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(num_speakers, dims))
    embeddings = np.repeat(centres, per_speaker, axis=0)
    embeddings = embeddings + spread * rng.normal(size=embeddings.shape)
    return embeddings, np.repeat([f"id{number:05d}" for number in range(num_speakers)], per_speaker)


def clouds(figure):
    """Return the looks (colour, marker) of each coloured speaker."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() != "."]
    return [(line.get_color(), line.get_marker()) for line in lines]


def test_it_is_written_whole(tmp_path):
    plot_embedding_map(*voices(25), tmp_path / "map.png")
    assert_whole_png(tmp_path / "map.png")


def test_places_and_shares_are_those_of_an_independent_pca_of_the_directions():
    embeddings, speakers = voices(3)
    axes = embedding_map_figure(embeddings * np.linspace(1, 9, len(embeddings))[:, None], speakers).axes[0]
    reference = PCA(2).fit(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
    expected = reference.transform(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
    drawn = np.concatenate([line.get_xydata() for line in axes.lines if line.get_marker() != "."])
    assert np.abs(drawn) == pytest.approx(np.abs(expected), abs=1e-9)
    shares = [f"{100 * share:.0f} % of the variance" for share in reference.explained_variance_ratio_]
    assert shares[0] in axes.get_xlabel() and shares[1] in axes.get_ylabel()


@pytest.mark.parametrize("num_speakers", [1, 25, 50])
def test_up_to_50_speakers_each_have_a_look_a_number_and_a_line_in_the_legend(num_speakers):
    figure = embedding_map_figure(*voices(num_speakers))
    assert len(set(clouds(figure))) == num_speakers
    assert [text.get_text() for text in figure.axes[0].texts] == [str(n + 1) for n in range(num_speakers)]
    assert legend_texts(figure) == [f"{n + 1}: id{n:05d}" for n in range(num_speakers)]


@pytest.mark.parametrize("num_speakers", [25, 50])
def test_numbers_can_be_read_where_clouds_fill_the_map(num_speakers):
    figure = embedding_map_figure(*voices(num_speakers, dims=192))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent().padded(-2) for text in figure.axes[0].texts]
    overlaps = [a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[number + 1 :]]
    assert sum(overlaps) == 0


def test_more_speakers_are_grey_and_the_named_ones_are_not():
    embeddings, speakers = voices(60)
    figure = embedding_map_figure(embeddings, speakers)
    assert clouds(figure) == [] and legend_texts(figure) == ["60 speakers"] and not figure.axes[0].texts
    figure = embedding_map_figure(embeddings, speakers, ["id00007", "id00003"])
    assert legend_texts(figure) == ["1: id00007", "2: id00003", "58 other speakers"]
    grey = next(line for line in figure.axes[0].lines if line.get_marker() == ".")
    assert len(grey.get_xdata()) == 58 * 6 and len(clouds(figure)) == 2


def test_numbers_of_clouds_that_lie_together_are_moved_apart():
    embeddings, speakers = voices(2)
    speakers = np.append(speakers[:6], np.repeat(["a", "b", "c"], 2))
    embeddings[6:] = embeddings[6]
    figure = embedding_map_figure(embeddings, speakers)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    overlaps = [a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[number + 1 :]]
    assert len(overlaps) == 6 and not any(overlaps)


@pytest.mark.parametrize(
    "embeddings, speakers, named, told",
    [
        (np.ones((1, 4)), ["a"], None, "2 or more utterances"),
        (np.ones((3, 4)), ["a", "b"], None, "one speaker per utterance"),
        (np.array([[1.0, 2.0], [0.0, 0.0]]), ["a", "b"], None, "utterance 1"),
        (np.array([[np.nan, 2.0], [0.0, 1.0]]), ["a", "b"], None, "utterance 0"),
        (np.eye(2), ["a", "b"], ["c"], "'c'"),
    ],
)
def test_bad_input_is_told(embeddings, speakers, named, told):
    with pytest.raises(InputError, match=told):
        embedding_map_figure(embeddings, np.array(speakers), named)


def test_utterances_that_are_all_alike_are_drawn():
    axes = embedding_map_figure(np.ones((4, 3)), np.array(["a", "a", "b", "b"])).axes[0]
    assert np.isfinite(axes.lines[-1].get_xydata()).all() and "0 % of the variance" in axes.get_xlabel()
