"""The campaign of kills on jobs that do nothing but sleep."""

import random
import time
from pathlib import Path

from benchmarks.kills import Job, torment


def test_all_kills_are_used_up_if_the_job_is_faster_than_when_it_ran_unkilled(tmp_path):
    random.seed(0)

    def work(folder: Path) -> None:
        time.sleep(3 if folder.name == "whole" else 0.05)
        (folder / "done.json").write_text("{}")

    job = Job(work, lambda folder: (folder / "done.json").read_text(), share=1)
    torment("sleep", job, 2, tmp_path)
    assert job.counts == {"kills": 2, "lost": 0, "different": 0, "half files": 0}


def test_losses_differences_and_half_files_are_counted(tmp_path):
    random.seed(0)

    def work(folder: Path) -> None:
        time.sleep(0.1)
        if folder.name != "whole":
            (folder / "half.json").write_text("{")
            time.sleep(0.4)
            (folder / "end.json").write_text("[1]")
            raise SystemExit(1)
        (folder / "end.json").write_text("[0]")
        time.sleep(0.4)

    job = Job(work, lambda folder: (folder / "end.json").read_text(), share=1)
    torment("fails", job, 2, tmp_path)
    assert job.counts["kills"] == 2 and job.counts["lost"] >= 1 and job.counts["half files"] >= 1
