"""Kaldi's features in PyTorch against kaldi-native-fbank, and what a recording's offset may not change."""

import numpy as np
import pytest
import torch

from voice_biometrics.models.kaldi_mfcc import KaldiLogMel, KaldiMFCC


def speechlike(num_samples: int, seed: int = 0) -> np.ndarray:
    """Return harmonics over noise, float32 (samples,), whose level rises and falls."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(num_samples) / 16000
    voice = sum(np.sin(2 * np.pi * 120 * k * time_s + k) / k for k in range(1, 40))
    envelope = 0.1 * (1.1 + np.sin(2 * np.pi * 3 * time_s))
    return (envelope * voice + 0.002 * rng.standard_normal(num_samples)).astype(np.float32)


def reference(samples: np.ndarray) -> np.ndarray:
    """Return the log-mels (frames, 80) that sherpa-onnx computes."""
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = 16000
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.low_freq = 20
    options.mel_opts.high_freq = 7600
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(16000, (samples * 32768).tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(number) for number in range(fbank.num_frames_ready)])


def test_log_mels_equal_kaldi_native_fbank():
    for num_samples in (400, 7999, 8000, 8079, 8080, 16001):
        samples = speechlike(num_samples)
        expected = reference(samples)
        found = KaldiLogMel()(torch.from_numpy(samples).unsqueeze(0))[0].numpy()
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1e-4, num_samples


def test_a_hop_of_20_ms_keeps_every_second_frame():
    for num_samples in (8000, 8160):
        wavs = torch.from_numpy(speechlike(num_samples)).unsqueeze(0)
        torch.testing.assert_close(KaldiMFCC(hop_length=20)(wavs), KaldiMFCC()(wavs)[:, ::2])


def test_the_cosine_transform_can_be_undone():
    wavs = torch.from_numpy(speechlike(8000)).unsqueeze(0)
    mfcc = KaldiMFCC()
    torch.testing.assert_close(mfcc(wavs) @ mfcc.dct.T, mfcc.log_mel(wavs), atol=1e-3, rtol=0)


def test_an_offset_does_not_matter():
    wavs = torch.from_numpy(speechlike(8000)).unsqueeze(0)
    assert (KaldiLogMel()(wavs + 0.02) - KaldiLogMel()(wavs)).abs().max() < 0.01  # rounding of float32
    assert (KaldiLogMel()(wavs + 0.02) - KaldiLogMel()(wavs)).abs().mean() < 1e-4


def test_rumble_changes_little_where_the_lowest_mels_are_unused():
    times_s, voice = np.arange(8000) / 16000, speechlike(8000)
    rumble = 0.02 * np.sqrt(0.4) * sum(np.sin(2 * np.pi * hz * times_s + hz) for hz in (3, 8, 14, 21, 29))
    wavs = torch.from_numpy(np.stack([voice, voice + rumble]).astype(np.float32))
    change = {}
    for unused in (0, 2):
        features = KaldiLogMel(unused_mels=unused)(wavs)
        torch.testing.assert_close(features[:, :, unused:], KaldiLogMel()(wavs)[:, :, unused:])
        assert (features[:, :, :unused] == features[:, :, unused : unused + 1]).all()
        change[unused] = float((features[1] - features[0]).abs().mean(dim=0).max())
    assert change[2] < change[0] / 3


def test_a_gain_moves_all_log_mels_alike():
    wavs = torch.from_numpy(speechlike(8000)).unsqueeze(0)
    moved = KaldiLogMel()(0.1 * wavs) - KaldiLogMel()(wavs)
    torch.testing.assert_close(moved, torch.full_like(moved, 2 * np.log(0.1)), atol=1e-3, rtol=0)


def test_top_db_bounds_digital_silence_by_utterance():
    loud = torch.from_numpy(speechlike(8000)).unsqueeze(0)
    gated = loud.clone()
    gated[:, :4000] = 0
    features = KaldiLogMel(top_db=80)(torch.cat([gated, 0.01 * loud]))
    ranges = (features.amax(dim=(1, 2)) - features.amin(dim=(1, 2))) * 10 / np.log(10)
    assert ranges[0] == pytest.approx(80, abs=1e-3)
    assert ranges[1] < 80
    torch.testing.assert_close(features[1:], KaldiLogMel()(0.01 * loud))


def test_features_are_differentiable_and_do_not_depend_on_the_batch():
    wavs = torch.from_numpy(np.stack([speechlike(4000, seed) for seed in range(3)])).requires_grad_()
    features = KaldiMFCC(top_db=80)(wavs)
    features.square().mean().backward()
    assert torch.isfinite(wavs.grad).all() and wavs.grad.abs().sum() > 0
    torch.testing.assert_close(KaldiMFCC(top_db=80)(wavs[1:2]), features[1:2], atol=1e-4, rtol=1e-5)


def test_bad_options_and_waveforms_are_named():
    for options in ({"hop_length": 15}, {"sample_rate": 8000}, {"n_mfcc": 81}):
        with pytest.raises(ValueError, match=next(iter(options))):
            KaldiMFCC(**options)
    for shape in ((16000,), (1, 399), (1, 1, 16000)):
        with pytest.raises(ValueError, match="waveforms"):
            KaldiMFCC()(torch.zeros(shape))
