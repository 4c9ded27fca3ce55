"""Blocks: what one worker takes at a time, a table of some planned sources of one shard.

Apart from ``fused_actor``, which loads torch: the driver of a local run makes blocks and paints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from stylemill.manifest.commit import FLUSH_ROWS

MIN_BLOCKS_PER_WORKER = 4
"""Blocks are made smaller if each worker would get fewer, so that all workers finish at about the same time."""


def make_blocks(missing: Mapping[int, pa.Table], num_workers: int) -> list[pa.Table]:
    """Divide the missing sources of plan shards into blocks of at most ``FLUSH_ROWS`` rows.

    Args:
        missing: plan shard -> its rows of PLAN_SCHEMA that are to be painted.
        num_workers: that share the blocks.

    Returns:
        Tables of PLAN_SCHEMA with a ``shard`` column (int64), which has one value in each.
    """
    num_missing = sum(table.num_rows for table in missing.values())
    rows_per_block = max(1, min(FLUSH_ROWS, -(-num_missing // (MIN_BLOCKS_PER_WORKER * num_workers))))
    return [
        block.append_column("shard", pa.array([shard] * block.num_rows, pa.int64()))
        for shard, table in missing.items()
        for block in (table.slice(start, rows_per_block) for start in range(0, table.num_rows, rows_per_block))
    ]


def shard_of(block: pa.Table) -> int:
    """Return the plan shard of a block, whose ``shard`` column has one value."""
    shard: int = block.column("shard")[0].as_py()
    return shard


def planned_rows(block: pa.Table) -> list[dict[str, Any]]:
    """Return a block's rows of PLAN_SCHEMA."""
    rows: list[dict[str, Any]] = block.drop_columns(["shard"]).to_pylist()
    return rows
