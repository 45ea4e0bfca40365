"""Export a KT-NET checkpoint as MindIR, ONNX or AIR."""
from __future__ import annotations

from collections.abc import Sequence

from utils.args import export_parser
from utils.device import set_up_device
from utils.util import run_main, set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, export, print the file's path."""
    args = export_parser().parse_args(argv)
    args.file_name = args.file_name or f"KTNET_{args.dataset}"
    set_up_logging()
    from src.export.export import export_checkpoint  # imports MindSpore: not for --help and wrong flags

    set_up_device(args)
    print(export_checkpoint(args))


if __name__ == "__main__":
    run_main(main)
