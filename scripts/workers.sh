#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Trains in several processes on this host: workers.sh TASK FOLDER PROCESSES FLAGS...
# (started by the *_distribute*.sh launchers under guard.py; common.sh lists the environment variables)
#
# FOLDER gets a log of every process, worker_N.log. What the first one writes is shown here as well. When one fails,
# the end of its log is shown, the exit code is its own, and guard.py ends the others.
# Environment: PYTHON, LAUNCHER, NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, KTNET_RANKS
# Not for use by hand. Example: bash scripts/run_squad_twomemory_distribute_gpu.sh ./data 8
set -euo pipefail

if [[ $# -lt 3 || $1 == -* ]]; then
    sed -n '3,/^\([^#]\|$\)/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    if [[ ${1:-} == -h || ${1:-} == --help ]]; then exit 0; else exit 2; fi
fi
unset CDPATH
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TASK=$1 FOLDER=$2 PROCESSES=$3
shift 3
NODES=${NNODES:-1}
FIRST_RANK=$((${NODE_RANK:-0} * PROCESSES))
TOTAL=$((PROCESSES * NODES))
mkdir -p "$FOLDER"
export KTNET_WORKERS=$FOLDER KTNET_PYTHON=$PYTHON RANK_SIZE=$TOTAL DEVICE_NUM=$TOTAL

free_port() {
    "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

by_msrun() {        # msrun starts every process as "python": let that be worker.sh
    local port=${MASTER_PORT:-}
    if [[ -z $port ]]; then port=8118; ((NODES > 1)) || port=$(free_port); fi
    mkdir -p "$FOLDER/bin"
    printf '#!/usr/bin/env bash\nexec bash %q "$@"\n' "$ROOT/scripts/worker.sh" >"$FOLDER/bin/python"
    chmod +x "$FOLDER/bin/python"
    local -a options=(--worker_num="$TOTAL" --local_worker_num="$PROCESSES" --master_addr="${MASTER_ADDR:-127.0.0.1}"
        --master_port="$port" --log_dir="$FOLDER" --join=True --tail_worker_log="$TOTAL")  # that one does not exist
    if ((NODES > 1)); then options+=(--node_rank="$NODE_RANK"); fi
    PATH="$FOLDER/bin:$PATH" exec "$PYTHON" -m mindspore.parallel.cluster.run "${options[@]}" "$@" \
        >"$FOLDER/msrun.log" 2>&1
}

by_mpirun() {
    local -a options=(-n "$TOTAL")
    if ((EUID == 0)); then options+=(--allow-run-as-root); fi
    exec mpirun "${options[@]}" bash "$ROOT/scripts/worker.sh" "$@" >"$FOLDER/mpirun.log" 2>&1
}

by_ranktable() {    # the model zoo's way on Ascend: one process a device, the rank table connects them
    local rank device
    while read -r rank device; do
        RANK_ID=$rank DEVICE_ID=$device bash "$ROOT/scripts/worker.sh" "$@" </dev/null &
    done <<<"$KTNET_RANKS"
    wait
}

show_end() {        # FILE
    [[ -s $1 ]] || return 0
    echo "--- the end of $1 ---"
    tail -n 30 -- "$1"
}

"$PYTHON" "$ROOT/run_KTNET_$TASK.py" "$@" --convert_only True        # once, not in every process
set -- "$ROOT/run_KTNET_$TASK.py" "$@"
case $LAUNCHER in
    msrun) by_msrun "$@" & ;;
    mpirun) by_mpirun "$@" & ;;
    ranktable) by_ranktable "$@" & ;;
esac
STARTER=$!
# tail reads what the first process writes until this script has ended it
tail -n +1 -F "$FOLDER/worker_$FIRST_RANK.log" 2>/dev/null &
WATCHER=$!

while kill -0 "$STARTER" 2>/dev/null && kill -0 "$WATCHER" 2>/dev/null && [[ ! -e $FOLDER/failed ]]; do sleep 1; done
code=0
if [[ -e $FOLDER/failed ]]; then
    read -r name code <"$FOLDER/failed"
elif kill -0 "$STARTER" 2>/dev/null; then
    echo "error: the process that shows the log was ended"
    exit 1
else
    wait "$STARTER" || code=$?
fi
sleep 1.2           # tail looks once a second where the system does not tell it of changes
kill "$WATCHER" 2>/dev/null || true
wait "$WATCHER" 2>/dev/null || true
if [[ -e $FOLDER/failed ]]; then
    if [[ $name == scheduler ]]; then
        echo "error: msrun's scheduler ended with code $code; all processes were ended"
        show_end "$FOLDER/scheduler.log"
    else
        echo "error: process $name of $TOTAL ended with code $code; all others were ended"
        show_end "$FOLDER/worker_$name.log"
    fi
elif ((code)); then
    echo "error: $LAUNCHER ended with code $code"
    show_end "$FOLDER/$LAUNCHER.log"
    for log in "$FOLDER"/worker_*.log; do show_end "$log"; done
fi
exit "$code"
