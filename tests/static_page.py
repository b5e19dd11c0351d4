"""ONNX Runtime for browsers, and Node, for the tests of the page without a server."""

import shutil
import subprocess

import pytest

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.files import written_whole
from voice_biometrics.serve.static_page import VERSION, runtime_package

OLDEST_NODE = (18, 13)  # has File


def downloaded_runtime(config: pytest.Config) -> str:
    """Return the npm package, downloaded once into pytest's cache; skips the test without a network."""
    path = config.cache.mkdir("onnxruntime-web") / f"{VERSION}.tgz"
    if not path.exists():
        try:
            content = runtime_package(None)
        except InputError as error:
            pytest.skip(str(error))
        with written_whole(path) as temporary:
            temporary.write_bytes(content)
    return str(path)


def node(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run Node; skips the test where it is missing or too old."""
    command = shutil.which("node")
    version = command and subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    if not version or tuple(map(int, version[1:].split(".")[:2])) < OLDEST_NODE:
        pytest.skip(f"needs Node {'.'.join(map(str, OLDEST_NODE))} or later (apt-get install nodejs), found {version}")
    return subprocess.run([command, *arguments], capture_output=True, text=True, **options)
