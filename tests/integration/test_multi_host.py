"""Two hosts train as one does, also when one of them is lost within an epoch and comes back."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_speakers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def network_namespaces() -> None:
    """Skip where hosts cannot be made from network namespaces."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and iproute2, to make hosts from network namespaces")
    name = f"vbtest{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        pytest.skip("needs network namespaces, which this container does not allow")
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.slow
def test_two_hosts_have_the_losses_of_one_also_when_one_is_lost(network_namespaces, tmp_path):
    corpus = write_speakers(tmp_path / "corpus", 6, 10)
    own = ["tests/hparams/tiny.yaml", "--corpus", "speaker_folders", "--data_folder", str(corpus), "--device", "cpu"]
    command = ["bash", "benchmarks/multi_host.sh", str(tmp_path / "runs"), *own, "--number_of_epochs", "3"]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "second host lost after" in ended.stdout
    assert not [line for line in os.listdir("/run/netns") if line.startswith("vb")]
