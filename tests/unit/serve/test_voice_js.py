"""The page's logic, tested by Node's own runner in voice.test.mjs."""

import shutil
import subprocess
from pathlib import Path

import pytest


def test_the_logic_of_the_page_passes_its_tests_in_node():
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None:
        pytest.skip("needs Node: apt-get install nodejs")
    tests = Path(__file__).with_name("voice.test.mjs")
    done = subprocess.run([node, "--test", str(tests)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "# fail 0" in done.stdout and "# pass 0" not in done.stdout
