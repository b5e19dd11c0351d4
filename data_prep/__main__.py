"""``python -m data_prep ...`` is ``python prepare.py ...``."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[1] / "prepare.py"), run_name="__main__")
