"""Exported files: the embeddings of the trained modules, whatever the features, weights, length and company."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from speechbrain.lobes.features import MFCC, Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.nnet.containers import LengthsCapableSequential
from speechbrain.processing.features import InputNormalization

from tests.conftest import make_voice
from voice_biometrics.common.errors import InputError
from voice_biometrics.export.onnx_export import ENGINE_INPUT, ENGINE_OUTPUT, export_onnx
from voice_biometrics.export.quantise import quantise
from voice_biometrics.inference.embedder import INPUT, OUTPUT
from voice_biometrics.models.ecapa_variants import EcapaMeanStdPooling
from voice_biometrics.models.fast_ecapa import FastECAPA
from voice_biometrics.models.features import TorchaudioMFCC
from voice_biometrics.models.kaldi_mfcc import KaldiLogMel, KaldiMFCC
from voice_biometrics.scoring.embeddings import embed

DIMS = 12
FEATURES = {
    "mfcc": lambda: MFCC(n_mfcc=20, n_mels=24, deltas=False, context=False),
    "fbank": lambda: Fbank(n_mels=24, n_fft=512, win_length=20, hop_length=12.5),
    "fbank, odd": lambda: Fbank(n_mels=24, n_fft=401),
    "torchaudio": lambda: TorchaudioMFCC(n_mfcc=20, melkwargs={"n_mels": 24}),
    "kaldi": lambda: KaldiMFCC(n_mfcc=20, n_mels=24, hop_length=20, top_db=80, unused_mels=2),
    "kaldi, 10 ms": lambda: KaldiMFCC(n_mfcc=20, n_mels=24),
    "engines": lambda: KaldiMFCC(n_mfcc=20, hop_length=20, top_db=30, unused_mels=2),
    "engines, 10 ms": lambda: KaldiMFCC(n_mfcc=20),
}
SHAPES = [(1, 8000), (3, 12_345), (2, 40_007)]


def make_modules(features="mfcc", seed=0, network=ECAPA_TDNN, **options):
    """Return modules of toy size whose batch normalisation has seen something, with scales of both signs."""
    torch.manual_seed(seed)
    front = FEATURES[features]()
    width = 24 if "fbank" in features else 20
    options = {
        "channels": [16, 16, 16, 16, 24],
        "attention_channels": 8,
        "res2net_scale": 4,
        "se_channels": 4,
        "lin_neurons": DIMS,
    } | options
    model = network(width, **options)
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)):
        torch.nn.init.normal_(norm.weight, 0.5, 0.5)
        torch.nn.init.normal_(norm.bias)
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.2, 2.0)
    normalise = InputNormalization(norm_type="sentence", std_norm=False)
    return torch.nn.ModuleDict({"compute_features": front, "mean_var_norm": normalise, "embedding_model": model}).eval()


def voices(batch, num_samples):
    return np.stack([make_voice(100 + 40 * i, num_samples / 16000, seed=i)[:num_samples] for i in range(batch)])


def run_onnx(path, waves):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {INPUT: waves})[0]


def assert_same(modules, path, waves):
    expected = embed(modules, torch.from_numpy(waves))
    assert expected.std() > 0.01
    np.testing.assert_allclose(run_onnx(path, waves), expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("features", FEATURES)
def test_any_number_of_utterances_of_any_length_gets_the_embeddings_of_the_modules(features, tmp_path):
    modules = make_modules(features)
    export_onnx(modules, DIMS, tmp_path / "a.onnx")
    for shape in SHAPES:
        assert_same(modules, tmp_path / "a.onnx", voices(*shape))


def test_networks_of_other_shapes(tmp_path):
    for options in (
        {"channels": [24, 16, 16, 16, 32]},  # a block whose width changes has a shortcut
        {"kernel_sizes": [3, 5, 1, 3, 3], "dilations": [2, 1, 1, 4, 2]},
        {"res2net_scale": 2},
        {"channels": [8, 8, 16], "kernel_sizes": [5, 3, 1], "dilations": [1, 2, 1]},
        {"network": FastECAPA},
    ):
        modules = make_modules(**options)
        export_onnx(modules, DIMS, tmp_path / "a.onnx")
        assert_same(modules, tmp_path / "a.onnx", voices(2, 12_345))


def test_attention_of_very_large_logits_neither_overflows_nor_changes(tmp_path):
    modules = make_modules()
    with torch.no_grad():
        modules["embedding_model"].asp.conv.conv.weight.mul_(300)
    export_onnx(modules, DIMS, tmp_path / "a.onnx")
    assert_same(modules, tmp_path / "a.onnx", voices(2, 12_345))


def test_quiet_and_loud_speech_and_silence_within(tmp_path):
    modules = make_modules()
    export_onnx(modules, DIMS, tmp_path / "a.onnx")
    for gain in (1e-4, 30.0):
        waves = gain * voices(2, 16_000)
        waves[0, 5000:9000] = 0
        assert_same(modules, tmp_path / "a.onnx", waves.astype(np.float32))


def test_an_embedding_does_not_depend_on_its_company(tmp_path):
    export_onnx(make_modules(), DIMS, tmp_path / "a.onnx")
    waves = voices(3, 16_000) * np.array([[1.0], [0.01], [30.0]], np.float32)
    together = run_onnx(tmp_path / "a.onnx", waves)
    for row, wave in enumerate(waves):
        np.testing.assert_allclose(run_onnx(tmp_path / "a.onnx", wave[None])[0], together[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", ["mfcc", "fbank"])
def test_features_as_they_are_and_of_unit_deviation(features, tmp_path):
    modules = make_modules(features)
    none = LengthsCapableSequential(input_shape=[None, None, 80])
    for normalisation in (none, InputNormalization(norm_type="sentence")):
        modules["mean_var_norm"] = normalisation
        export_onnx(modules, DIMS, tmp_path / "a.onnx")
        assert_same(modules, tmp_path / "a.onnx", voices(2, 12_345))


def test_another_network_goes_by_pytorch_and_leaves_no_trace_of_this_machine(tmp_path):
    modules = make_modules(
        network=EcapaMeanStdPooling, channels=[8, 8, 16], kernel_sizes=[5, 3, 1], dilations=[1, 2, 1]
    )
    export_onnx(modules, DIMS, tmp_path / "a.onnx")
    for shape in SHAPES:
        assert_same(modules, tmp_path / "a.onnx", voices(*shape))
    assert b".py" not in (tmp_path / "a.onnx").read_bytes()
    quantise(tmp_path / "a.onnx", tmp_path / "a.int8.onnx")
    assert least_cosine(tmp_path, voices(3, 16_000)) > 0.99


def run_engine(path, log_mels):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run([ENGINE_OUTPUT], {ENGINE_INPUT: log_mels.numpy()})[0]


@pytest.mark.parametrize(
    "features, network", [("engines", ECAPA_TDNN), ("engines, 10 ms", ECAPA_TDNN), ("engines", EcapaMeanStdPooling)]
)
def test_an_engine_that_computes_log_mels_every_10_ms_gets_the_embeddings_of_the_modules(features, network, tmp_path):
    modules = make_modules(features, network=network)
    export_onnx(modules, DIMS, tmp_path / "a.onnx", for_engines=True)
    for shape in SHAPES:
        waves = torch.from_numpy(voices(*shape))
        waves[0, 3000:6000] *= 1e-3  # further below the loudest than top_db
        expected = embed(modules, waves)
        found = run_engine(tmp_path / "a.onnx", KaldiLogMel()(waves))
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


def test_an_engine_may_have_subtracted_the_mean(tmp_path):
    export_onnx(make_modules("engines, 10 ms"), DIMS, tmp_path / "a.onnx", for_engines=True)
    log_mels = KaldiLogMel()(torch.from_numpy(voices(2, 12_345)))
    found, expected = (run_engine(tmp_path / "a.onnx", each) for each in (log_mels - log_mels.mean(1, True), log_mels))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


def test_features_that_engines_do_not_compute_are_told(tmp_path):
    for features in ("mfcc", "kaldi"):  # not Kaldi's, not 80 mels
        with pytest.raises(InputError, match="80 mels"):
            export_onnx(make_modules(features), DIMS, tmp_path / "a.onnx", for_engines=True)


UNKNOWN = {
    "compute_features: .*deltas": lambda m: m.update({"compute_features": MFCC(n_mels=24, context=False)}),
    "compute_features: .*Linear": lambda m: m.update({"compute_features": torch.nn.Linear(1, 1)}),
    "mean_var_norm: .*sentence": lambda m: m.update({"mean_var_norm": InputNormalization(std_norm=False)}),
    "mean_var_norm: .*Linear": lambda m: m.update({"mean_var_norm": torch.nn.Linear(1, 1)}),
    "embedding_model: .*groups": lambda m: m.update(make_modules(groups=[1, 2, 1, 1, 1])),
    "embedding_model: .*ReLU": lambda m: m.update(make_modules(activation=torch.nn.Tanh)),
    "embedding_model: .*global_context": lambda m: m.update(make_modules(global_context=False)),
}


def test_what_the_export_does_not_know_is_told(tmp_path):
    for fault, change in UNKNOWN.items():
        modules = make_modules()
        change(modules)
        with pytest.raises(InputError, match=fault):
            export_onnx(modules, DIMS, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def least_cosine(folder, waves):
    """Return the least cosine of int8 embeddings, one by one, to those of fp32."""
    pairs = [(run_onnx(folder / "a.onnx", w[None])[0], run_onnx(folder / "a.int8.onnx", w[None])[0]) for w in waves]
    return min(a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs)


def test_int8_keeps_front_end_narrow_layers_and_the_last_exact_and_quantises_the_others_to_7_bits(tmp_path):
    wide = make_modules(channels=[128, 128, 128, 128, 160], attention_channels=128, lin_neurons=128)
    export_onnx(wide, 128, tmp_path / "a.onnx")
    quantise(tmp_path / "a.onnx", tmp_path / "a.int8.onnx")
    exact, quantised = (onnx.load(tmp_path / name).graph for name in ("a.onnx", "a.int8.onnx"))
    channels = {constant.name: constant.dims for constant in exact.initializer}
    layers = {node.name: min(channels[node.input[1]]) for node in exact.node if node.op_type == "Gemm"}
    integer = [node.name for node in quantised.node if node.op_type == "MatMulInteger"]
    *_, last = layers
    for name, least in layers.items():
        assert any(name in other for other in integer) == (least >= 100 and name != last), name
    assert len(integer) == 10 and not any(name.startswith("front_end/") for name in integer)
    weights = [onnx.numpy_helper.to_array(item) for item in quantised.initializer if item.data_type == 3]
    weights = [weight for weight in weights if weight.ndim == 2]
    assert len(weights) == len(integer) and all(np.abs(weight).max() <= 64 for weight in weights)
    assert least_cosine(tmp_path, voices(4, 24_000)) > 0.99
    assert (tmp_path / "a.int8.onnx").stat().st_size < 0.9 * (tmp_path / "a.onnx").stat().st_size
