"""Manifests: what is refused when one is read."""

import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.manifest import read_manifest

HEADER = "ID,duration,wav,start,stop,spk_id\n"


@pytest.mark.parametrize("numbers", ["0,a.wav,0,0", "nan,a.wav,0,9", "inf,a.wav,0,9", "1,a.wav,9,9", "1,a.wav,-1,9"])
def test_an_utterance_without_samples_is_named(tmp_path, numbers):
    (tmp_path / "m.csv").write_text(f"{HEADER}good,1.0,a.wav,0,16000,s\nodd,{numbers},s\n")
    with pytest.raises(InputError, match="m.csv: odd: "):
        read_manifest(tmp_path / "m.csv")
