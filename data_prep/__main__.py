"""``python -m data_prep ...`` is ``python prepare.py ...``; ``python -m data_prep shards ...`` packs a corpus."""

import runpy
import sys
from pathlib import Path

from data_prep import shards

if sys.argv[1:2] == ["shards"]:
    shards.main(sys.argv[2:])
else:
    runpy.run_path(str(Path(__file__).parents[1] / "prepare.py"), run_name="__main__")
