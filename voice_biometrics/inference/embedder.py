"""Speech to embeddings by ONNX Runtime: needs no PyTorch."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime

from voice_biometrics.common.audio import repeat_to
from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.model_folder import ModelFolder

INPUT, OUTPUT = "waveform", "embedding"  # names in the ONNX file


class OnnxEmbedder:
    """An ONNX file from waveform to embedding, loaded. It may be called from many threads at once.

    Arguments
    ---------
    content : the file's bytes. place : what to call it in errors.
    sample_rate : Hz, of the samples that it is given.
    min_duration_s : shorter speech is repeated up to it.
    num_threads : threads for one call. A single utterance is too small to be shared by several: many utterances are
        computed faster side by side, see ``embed_many``.

    Raises
    ------
    InputError : ONNX Runtime cannot load it, or it has other inputs and outputs.
    """

    def __init__(
        self, content: bytes, place: str, sample_rate: int, min_duration_s: float, num_threads: int = 1
    ) -> None:
        self.place, self.sample_rate = place, sample_rate
        self.min_samples = round(min_duration_s * sample_rate)
        self.session = _load(content, place, num_threads)
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
            raise InputError(f"{self.place}: the embedding is not finite; look at the audio")
        return embedding

    def embed_many(
        self,
        readers: Sequence[Callable[[], np.ndarray]],
        num_threads: int | None = None,
        on_each: Callable[[], object] = lambda: None,
    ) -> np.ndarray:
        """Return the embeddings (utterances, dims) of what ``readers`` return, computed side by side.

        Arguments
        ---------
        readers : each returns the samples of an utterance, (samples,) at ``sample_rate``; called in a thread.
        num_threads : None for one a processor.
        on_each : called after each utterance, for a progress bar.
        """
        found = []
        with ThreadPoolExecutor(num_threads or os.cpu_count()) as pool:
            for embedding in pool.map(lambda read: self(read()), readers):
                found.append(embedding)
                on_each()
        return np.stack(found)


class Embedder(OnnxEmbedder):
    """One of the two embedders of a model folder.

    Arguments
    ---------
    folder : a checked model folder. precision : "fp32" or "int8". num_threads : as ``OnnxEmbedder``.

    Raises
    ------
    InputError : as ``OnnxEmbedder``, or the ONNX file is not what ``calibration.json`` says.
    """

    def __init__(self, folder: ModelFolder, precision: str = "fp32", num_threads: int = 1) -> None:
        self.entry = folder.embedder(precision)
        place = str(folder.path / self.entry.file)
        super().__init__(self.entry.onnx, place, folder.sample_rate, folder.min_duration_s, num_threads)
        expected = onnx_metadata(folder.name, folder.version, folder.sample_rate, self.entry.fingerprint)
        found = self.session.get_modelmeta().custom_metadata_map
        for key, value in expected.items():
            if found.get(key) != value:
                raise InputError(
                    f"{place}: {key}: expected {value!r} as calibration.json says, found "
                    f"{ascii(found.get(key))[:80]}; export the model again"
                )
        dims = self.session.get_outputs()[0].shape[1]
        if dims != folder.embedding_dim:
            raise InputError(f"{place}: embedding_dim: expected {folder.embedding_dim}, found {ascii(dims)}")


def onnx_metadata(name: str, version: str, sample_rate: int, fingerprint: str) -> dict[str, str]:
    """Return what the metadata of an ONNX file says of itself."""
    return {"name": name, "version": version, "sample_rate": str(sample_rate), "fingerprint": fingerprint}


def _load(content: bytes, place: str, num_threads: int) -> onnxruntime.InferenceSession:
    """Make a session of checked bytes; whatever ONNX Runtime finds wrong with them is told in a line."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others may want the processor
    options.log_severity_level = 4  # its errors are raised as well; the log would only repeat them
    # Weights may be said to lie in other files, which no checksum covers: below the ONNX file itself there can be none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", place)
    try:
        # Without fallback: there is nothing to fall back to, and it would print among the answers.
        return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # ONNX Runtime has a class for each of its status codes, and none above them
        first_line = str(error).splitlines()[0][:200]
        raise InputError(f"{place}: could not be loaded: {first_line}; export the model again") from error
