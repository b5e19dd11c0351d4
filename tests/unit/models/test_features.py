"""Tests of voice_biometrics.models.features."""

import warnings

import pytest
import torch
import torchaudio

from voice_biometrics.models.features import TorchaudioMFCC


@pytest.fixture
def wavs() -> torch.Tensor:
    """Two quiet utterances of one second at 16 kHz: noise that fades by 100 dB, so that clipping at 80 dB bites."""
    noise = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    return 0.03 * noise * torch.logspace(0, -5, 16000)


def plain_mfcc(wavs: torch.Tensor, **options) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mfcc = torchaudio.transforms.MFCC(sample_rate=16000, n_mfcc=80, **options)
    return mfcc(wavs).transpose(1, 2)


def test_frames_are_200_samples_apart_and_the_edges_are_padded():
    for num_samples, num_frames in ((48000, 241), (16000, 81), (16199, 81), (201, 2)):
        assert TorchaudioMFCC()(torch.randn(2, num_samples)).shape == (2, num_frames, 80)


def test_features_of_one_utterance_equal_those_of_torchaudio(wavs):
    for options in ({}, {"melkwargs": {"n_mels": 80, "hop_length": 160}}):
        feats = TorchaudioMFCC(n_mfcc=80, **options)(wavs[:1])
        assert torch.equal(feats, plain_mfcc(wavs[:1], **options)), options
    assert TorchaudioMFCC(n_mfcc=40)(wavs).shape == (2, 81, 40)


def test_features_do_not_depend_on_a_much_louder_neighbour(wavs):
    compute_features = TorchaudioMFCC()
    batch = torch.stack([wavs[0], 30 * wavs[1]])
    alone = compute_features(wavs[:1])
    torch.testing.assert_close(compute_features(batch)[:1], alone, rtol=1e-5, atol=1e-3)
    # The batch is one on which torchaudio itself, fed (batch, samples), does depend on the neighbour.
    assert (plain_mfcc(batch)[:1] - alone).abs().max() > 10


def test_features_keep_full_precision_under_autocast(wavs):
    compute_features = TorchaudioMFCC()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = compute_features(wavs)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, compute_features(wavs))


def test_the_original_mel_settings_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TorchaudioMFCC()


def test_other_mel_settings_with_empty_filters_still_warn():
    with pytest.warns(UserWarning, match="mel filterbank has all zero values"):
        TorchaudioMFCC(melkwargs={"n_mels": 256})


def test_more_coefficients_than_mels_and_waveforms_of_a_wrong_shape_are_errors():
    with pytest.raises(ValueError, match="MFCC"):
        TorchaudioMFCC(n_mfcc=129)
    for shape in ((16000,), (2, 1, 16000), (2, 200)):
        with pytest.raises(ValueError, match=r"expected \(batch, 201 samples or more\), found"):
            TorchaudioMFCC()(torch.zeros(shape))
