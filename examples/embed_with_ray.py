"""Embed a manifest on a Ray cluster: ``python examples/embed_with_ray.py NUM_SHARDS MODEL --manifest FILE ...``.

As embed.py, with the work in NUM_SHARDS tasks of one core each. All paths are read by all machines.
"""

import sys
from pathlib import Path

import ray

sys.path.insert(0, str(Path(__file__).parents[1]))
import embed


@ray.remote(num_cpus=1)
def embed_shard(number: int, count: int, arguments: list[str]) -> tuple[int, int]:
    """Embed a share, in a process of the cluster."""
    return embed.embed_shard(embed.parse_options([*arguments, "--shard", f"{number}/{count}"]))


if __name__ == "__main__":
    count, arguments = int(sys.argv[1]), sys.argv[2:]
    ray.init(
        include_dashboard=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}},
    )
    parts = ray.get([embed_shard.remote(number, count, arguments) for number in range(1, count + 1)])
    print(f"{sum(written for written, _ in parts)} files written, {sum(found for _, found in parts)} already there")
