#!/usr/bin/env bash
# One process of a distributed run: worker.sh SCRIPT FLAGS... (workers.sh has it started). When the script fails, it
# leaves word of it, so that the other processes can be ended and the right log be shown.
set -uo pipefail

if [[ ${MS_ROLE:-} == MS_SCHED ]]; then         # msrun's scheduler only connects the others
    echo $$ >"$KTNET_WORKERS/scheduler.pid"
    exec "$KTNET_PYTHON" "$@"
fi
rank=${OMPI_COMM_WORLD_RANK:-${RANK_ID:-0}}
if [[ $LAUNCHER != msrun ]]; then exec >"$KTNET_WORKERS/worker_$rank.log" 2>&1; fi
echo $$ >"$KTNET_WORKERS/rank_$rank.pid"
code=0
"$KTNET_PYTHON" "$@" || code=$?
if ((code)); then
    (set -o noclobber && echo "$rank $code" >"$KTNET_WORKERS/failed") 2>/dev/null     # the first one counts
fi
exit "$code"
