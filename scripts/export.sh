#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Export the checkpoints (or model folders) of both data sets to mindir/KTNET_record.mindir and mindir/KTNET_squad.mindir:
#
#   bash scripts/export.sh RECORD_CKPT SQUAD_CKPT [-- FLAGS of export.py]       (- for one that does not exist)
#
# Environment: DEVICE_TARGET [Ascend], GPU or CPU; PYTHON [.venv/bin/python of the repository, else python3]
# Example: DEVICE_TARGET=CPU bash scripts/export.sh - output/finetune_checkpoint/KTNET_squad-3_1000.ckpt
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_arguments "RECORD_CKPT SQUAD_CKPT" "$@"
under_guard "$@"
find_python
declare -A checkpoints=([record]=${POSITIONAL[0]} [squad]=${POSITIONAL[1]})
for task in record squad; do
    [[ ${checkpoints[$task]} == - || -e ${checkpoints[$task]} ]] || die "${checkpoints[$task]}: no such checkpoint file"
done
[[ "${checkpoints[record]}${checkpoints[squad]}" != -- ]] || die "no checkpoint given"
for task in record squad; do
    [[ ${checkpoints[$task]} == - ]] && continue
    "$PYTHON" "$ROOT/export.py" --dataset "$task" --load_checkpoint_path "$(absolute "${checkpoints[$task]}")" \
        --file_path "$ROOT/mindir" --device_target "${DEVICE_TARGET:-Ascend}" "${FLAGS[@]}"
done
