# SPDX-License-Identifier: Apache-2.0
"""Rank tables: which process of a distributed run takes which Ascend device.

    python -m utils.rank_table FILE [--node_rank N] [--nodes N]

prints rank and device of every process of one host, for the launchers.
"""
from __future__ import annotations

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parents[1]}/utils/start.py", {"SCRIPT": __file__})

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.args import OneLineParser, non_negative_int, positive_int
from utils.util import InputError, read_json

LARGEST = 1 << 20       # of a rank or device number


def read_rank_table(path: Path, node_rank: int, nodes: int) -> list[tuple[int, int]]:
    """Read which ranks run on which devices of one host.

    Args:
        path: rank table in the JSON of Huawei's HCCL tools.
        node_rank: the host's number in it.
        nodes: hosts that the run has.

    Returns:
        Rank and device of every process of the host.

    Raises:
        InputError: the file is missing, is no rank table, or its ranks are not 0, 1, 2, ...
    """
    table = read_json(path, "RANK_TABLE_FILE is the JSON that Huawei's hccl_tools.py makes")
    try:
        servers = [[(_number(device["rank_id"]), _number(device["device_id"])) for device in server["device"]]
                   for server in table["server_list"]]
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a rank table ({type(error).__name__}: {str(error)[:100]}): "
                         "server_list[].device[] must have rank_id and device_id; make it with hccl_tools.py") from None
    ranks = sorted(rank for server in servers for rank, _ in server)
    if not ranks or ranks != list(range(len(ranks))):
        raise InputError(f"{path}: its ranks are {str(ranks)[:100]}; they must be 0, 1, 2, ... without gaps")
    if len(servers) != nodes or len({len(server) for server in servers}) != 1:
        raise InputError(f"{path}: {len(servers)} hosts with {str([len(server) for server in servers])[:100]} devices; "
                         f"NNODES says {nodes}, and all must have as many devices")
    if node_rank >= nodes:
        raise InputError(f"--node_rank {node_rank}: with {nodes} hosts it is at most {nodes - 1}")
    if len({device for _, device in servers[node_rank]}) != len(servers[node_rank]):
        raise InputError(f"{path}: two ranks of host {node_rank} have the same device_id")
    return sorted(servers[node_rank])


def _number(value: Any) -> int:
    """A rank or device number: digits, quoted or not."""
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) < 8 and int(text) < LARGEST):
        raise ValueError(f"{str(value)[:40]!r} is not a rank or device number")
    return int(text)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one host's ranks and devices."""
    parser = OneLineParser(prog="python -m utils.rank_table", description="Ranks and devices of one host.")
    parser.add_argument("file", type=Path, help="rank table, JSON")
    parser.add_argument("--node_rank", type=non_negative_int, default=0, help="the host's number")
    parser.add_argument("--nodes", type=positive_int, default=1, help="hosts of the run")
    options = parser.parse_args(argv)
    for rank, device in read_rank_table(options.file, options.node_rank, options.nodes):
        print(rank, device)
