"""Speech to embeddings with ONNX Runtime. Needs no PyTorch."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime  # its telemetry is switched off by voice_biometrics/__init__.py, which is always imported first

from voice_biometrics.common.audio import repeat_to
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.model_folder import ModelFolder

INPUT, OUTPUT = "waveform", "embedding"  # names in the ONNX file


class OnnxEmbedder:
    """A loaded ONNX file from waveform to embedding. It may be called from many threads at once.

    Arguments
    ---------
    content : the file's bytes. place : its name in errors.
    sample_rate : Hz, of the samples that it is given. min_duration_s : shorter speech is repeated up to it.

    Raises
    ------
    InputError : ONNX Runtime cannot load it, or it has other inputs and outputs.
    """

    def __init__(self, content: bytes, place: str, sample_rate: int, min_duration_s: float) -> None:
        self.place, self.sample_rate = place, sample_rate
        self.min_samples = round(min_duration_s * sample_rate)
        self.session = load_session(content, place)
        sides = (self.session.get_inputs(), self.session.get_outputs())
        found = [[(item.name, item.type, len(item.shape)) for item in side] for side in sides]
        if found != [[(INPUT, "tensor(float)", 2)], [(OUTPUT, "tensor(float)", 2)]]:
            raise InputError(f"{place}: expected {INPUT} (batch, samples) -> {OUTPUT} (batch, dims), found {found}")

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the embedding (dims,) float32, not of length 1, of ``samples`` (samples,) float32 at ``sample_rate``.

        Raises InputError when there are no samples, or the embedding is not finite.
        """
        if not samples.size:
            raise InputError(f"{self.place}: no samples to embed; give some speech")
        wave = repeat_to(np.ascontiguousarray(samples, np.float32), self.min_samples)
        embedding = self.session.run([OUTPUT], {INPUT: wave[None]})[0][0]
        if not np.isfinite(embedding).all():
            raise InputError(f"{self.place}: the embedding is not finite; check the audio")
        return embedding

    def embed_many(
        self,
        readers: Sequence[Callable[[], np.ndarray]],
        num_threads: int | None = None,
        on_each: Callable[[], object] = lambda: None,
    ) -> np.ndarray:
        """Return the embeddings (utterances, dims) of many utterances, computed in parallel.

        Arguments
        ---------
        readers : each returns the samples of an utterance, (samples,) at ``sample_rate``; called in a thread.
        num_threads : None for one per processor. on_each : called after each utterance, for a progress bar.
        """
        found = []
        with ThreadPoolExecutor(num_threads or os.cpu_count()) as pool:
            for embedding in pool.map(lambda read: self(read()), readers):
                found.append(embedding)
                on_each()
        return np.stack(found)


class Embedder(OnnxEmbedder):
    """One of the two embedders ("fp32" or "int8") of a model folder.

    Raises InputError as ``OnnxEmbedder``, or when the ONNX file differs from ``calibration.json``.
    """

    def __init__(self, folder: ModelFolder, precision: str = "fp32") -> None:
        self.entry = folder.embedder(precision)
        place, content = str(folder.path / self.entry.file), folder.onnx[self.entry.file]
        super().__init__(content, place, folder.sample_rate, folder.min_duration_s)
        expected = onnx_metadata(folder.name, folder.version, folder.sample_rate, self.entry.fingerprint)
        expected["embedding_dim"] = folder.embedding_dim
        dims = self.session.get_outputs()[0].shape[1]
        found = self.session.get_modelmeta().custom_metadata_map | {"embedding_dim": dims}
        for key, value in expected.items():
            if found.get(key) != value:
                raise InputError(
                    f"{place}: {key}: expected {value!r} as in calibration.json, found {ascii(found.get(key))[:80]}; "
                    "export the model again"
                )


def onnx_metadata(name: str, version: str, sample_rate: int, fingerprint: str) -> dict[str, str]:
    """Return the metadata of an ONNX file."""
    return {"name": name, "version": version, "sample_rate": str(sample_rate), "fingerprint": fingerprint}


def load_session(content: bytes, place: str) -> onnxruntime.InferenceSession:
    """Return a session for checked bytes; InputError, one line, if ONNX Runtime finds a fault in them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one utterance is too small to share: ``embed_many`` embeds several at once
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leaves the processor to others
    options.log_severity_level = 4  # its errors are raised as well; the log would repeat them
    # Weights may be in other files, which no checksum covers: below the path of the ONNX file itself there are none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", place)
    try:
        # Without fallback: there is no other provider, and it would print among the answers.
        return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # ONNX Runtime has an exception for each status code, and no common base class
        first_line = str(error).splitlines()[0][:200]
        raise InputError(f"{place}: could not be loaded: {first_line}; export the model again") from error
