#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One process of a distributed run: worker.sh SCRIPT FLAGS... (started by workers.sh). When the script fails, this
# records which process it was, so that the others are ended and the right log is shown.
# Environment, set by workers.sh: KTNET_WORKERS folder of the logs, KTNET_PYTHON interpreter, LAUNCHER
# Not for use by hand. Example: bash scripts/run_squad_twomemory_distribute_gpu.sh ./data 8 starts eight of it.
set -uo pipefail

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '3,/^\([^#]\|$\)/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
fi
if [[ ${MS_ROLE:-} == MS_SCHED ]]; then name=scheduler; else name=${OMPI_COMM_WORLD_RANK:-${RANK_ID:-0}}; fi
if [[ $LAUNCHER != msrun ]]; then exec >"$KTNET_WORKERS/worker_$name.log" 2>&1; fi
code=0
"$KTNET_PYTHON" "$@" || code=$?
if ((code)); then
    (set -o noclobber && echo "$name $code" >"$KTNET_WORKERS/failed") 2>/dev/null     # the first one counts
fi
exit "$code"
