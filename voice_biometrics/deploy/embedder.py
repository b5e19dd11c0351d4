"""Speech to embeddings by ONNX Runtime: needs no PyTorch."""

import numpy as np
import onnxruntime

from voice_biometrics.audio import repeat_to
from voice_biometrics.deploy.model_folder import EmbedderEntry, ModelFolder
from voice_biometrics.errors import InputError

INPUT, OUTPUT = "waveform", "embedding"  # names in the ONNX file


class Embedder:
    """One of the two embedders of a model folder, loaded.

    Arguments
    ---------
    folder : a checked model folder.
    precision : "fp32" or "int8".
    num_threads : threads for one call. A single utterance is too small to be shared: several utterances are computed
        faster side by side, an ``Embedder`` may be called from many threads at once.

    Raises
    ------
    InputError : the ONNX file cannot be loaded, or is not what ``calibration.json`` says.
    """

    def __init__(self, folder: ModelFolder, precision: str = "fp32", num_threads: int = 1) -> None:
        self.entry = folder.embedder(precision)
        self.place = folder.path / self.entry.file
        self.sample_rate = folder.sample_rate
        self.min_samples = round(folder.min_duration_s * folder.sample_rate)
        self.dim = folder.embedding_dim
        self.session = _load(self.entry, str(self.place), num_threads)
        self._check(folder)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the embedding (dims,) float32, not of length 1, of ``samples`` (samples,) float32 at ``sample_rate``.

        Raises InputError when there are no samples, or the embedding is not finite.
        """
        wave = repeat_to(np.ascontiguousarray(samples, np.float32), self.min_samples)
        return self.embed_batch(wave[None])[0]

    def embed_batch(self, waves: np.ndarray) -> np.ndarray:
        """Return the embeddings (utterances, dims) of ``waves`` (utterances, samples), all of the same length."""
        embeddings = self.session.run([OUTPUT], {INPUT: waves})[0]
        if embeddings.shape != (len(waves), self.dim) or not np.isfinite(embeddings).all():
            raise InputError(f"{self.place}: the embedding is not {self.dim} finite numbers; look at the audio")
        return embeddings

    def _check(self, folder: ModelFolder) -> None:
        """Raise InputError when the ONNX file's metadata or axes are not those of the folder."""
        expected = onnx_metadata(folder.name, folder.version, folder.sample_rate, self.entry.fingerprint)
        found = self.session.get_modelmeta().custom_metadata_map
        for key, value in expected.items():
            if found.get(key) != value:
                raise InputError(
                    f"{self.place}: {key}: expected {value!r} as calibration.json says, found "
                    f"{ascii(found.get(key))[:80]}; export the model again"
                )
        axes = [[(item.name, item.type, len(item.shape)) for item in side] for side in _sides(self.session)]
        if axes != [[(INPUT, "tensor(float)", 2)], [(OUTPUT, "tensor(float)", 2)]]:
            raise InputError(f"{self.place}: expected {INPUT} (batch, samples) -> {OUTPUT} (batch, dims), found {axes}")


def onnx_metadata(name: str, version: str, sample_rate: int, fingerprint: str) -> dict[str, str]:
    """Return what the metadata of an ONNX file says of itself."""
    return {"name": name, "version": version, "sample_rate": str(sample_rate), "fingerprint": fingerprint}


def _load(entry: EmbedderEntry, place: str, num_threads: int) -> onnxruntime.InferenceSession:
    """Make a session from the checked bytes; whatever ONNX Runtime finds wrong with them is told in a line."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors are raised as well; the log would only repeat them
    try:
        return onnxruntime.InferenceSession(entry.onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class for each of its status codes, and none above them
        first_line = str(error).splitlines()[0][:200]
        raise InputError(f"{place}: could not be loaded: {first_line}; export the model again") from error


def _sides(session: onnxruntime.InferenceSession) -> tuple[list, list]:
    return session.get_inputs(), session.get_outputs()
