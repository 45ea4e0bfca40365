# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the scripts share: a clean environment, arguments, checks, and starting under scripts/guard.py.
set -euo pipefail

# Settings of the caller's shell that would change what works here. PYTHONPATH stays where CANN (Ascend) has set it.
unset CDPATH BASH_ENV PYTHONHOME PYTHONSAFEPATH PYTHONOPTIMIZE PYTHONINSPECT PYTHONSTARTUP PYTHONWARNINGS \
    PYTHONPLATLIBDIR PYTHONEXECUTABLE TAR_OPTIONS
[[ -n ${ASCEND_OPP_PATH:-}${ASCEND_HOME_PATH:-}${ASCEND_TOOLKIT_HOME:-} ]] || unset PYTHONPATH

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SELF=$(basename "$0")
OTHER_HOST=no       # whether this is one of several hosts, and not the first
LOCK=()             # options of guard.py: the training's lock

die() {
    printf 'error: %s: %s\n' "$SELF" "$*" >&2
    exit 2
}

absolute() {        # PATH: relative ones are relative to the caller's folder
    if [[ $1 == /* ]]; then printf '%s\n' "$1"; else printf '%s/%s\n' "$PWD" "$1"; fi
}

find_python() {     # sets PYTHON
    if [[ -z ${PYTHON:-} ]]; then
        PYTHON=$ROOT/.venv/bin/python
        [[ -x $PYTHON ]] || PYTHON=python3
    fi
    local found
    found=$(command -v -- "$PYTHON") || die "PYTHON: $PYTHON is not a program; bash scripts/quickstart.sh makes .venv"
    PYTHON=$(absolute "$found")
}

only_one() {        # LOCK PLACE: refuse where this script is at work already; the lock ends with this process
    local number
    mkdir -p -- "$(dirname "$1")"
    exec {number}>"$1"
    flock --nonblock "$number" || die "$2: another $SELF is at work there; wait for it, or stop it"
}

under_guard() {     # ARGUMENTS...: start this script again so that nothing it starts outlives it (see guard.py)
    local candidate
    if [[ ${KTNET_RUN:-} == */"$PPID"-* || ${KTNET_RUN:-} == "$PPID"-* ]]; then         # that is done
        set -m          # or bash would put SIGINT off until the command it waits for has ended, and then go on
        return
    fi
    for candidate in ${PYTHON:+"$PYTHON"} "$ROOT/.venv/bin/python" python3 python python3.11 python3.12; do
        if "$candidate" -I -c 'import fcntl' 2>/dev/null; then
            exec "$candidate" -I "$ROOT/scripts/guard.py" -- bash "$0" "$@"
        fi
    done
}

show_help() {       # the comment at the top of the script
    sed -n '3,/^\([^#]\|$\)/s/^# \{0,1\}//p' "$0"       # line 2 names the licence
}

launcher_help() {   # NAMES...: what all launchers share
    local name
    local -A means=([DATAPATH]="data folder (docs/data.md says what lies in it)"
        [CHECKPOINT_PATH]="KT-NET checkpoint, as training writes below output/finetune_checkpoint"
        [RANK_TABLE_FILE]="JSON by Huawei's hccl_tools.py: which rank runs on which device"
        [DEVICE_NUM]="devices to use on this host")
    printf '\n  bash scripts/%s %s [-- FLAGS]\n\n' "$SELF" "$*"
    for name in "$@"; do printf '  %-18s%s\n' "$name" "${means[$name]}"; done
    cat <<'EOF'
  FLAGS             are passed to the Python script, whose --help lists them

Environment variables, with their defaults in brackets:
  FOREGROUND=1      stay in the foreground and end with the run's exit code [background: prints PID and log]
  DEVICE_TARGET     Ascend, GPU or CPU [the launcher's own]
  PYTHON            interpreter [.venv/bin/python of the repository, else python3]
EOF
    [[ $SELF == *_eval* ]] || cat <<'EOF'
  STAGE             freeze or full: one of the two stages alone [both, in one run]
EOF
    [[ $SELF != *distribute* ]] || cat <<'EOF'
  LAUNCHER          msrun, mpirun or ranktable [ranktable with a rank table on Ascend, else msrun]
  NNODES            hosts of the run [1]; each writes its own log, such as train_squad_node1.log
  NODE_RANK         this host's number, from 0
  MASTER_ADDR       address of the first host; needed for several hosts only
  MASTER_PORT       port of the first host [8118 for several hosts, else a free one]
EOF
    printf '\nExample: FOREGROUND=1 bash scripts/%s' "$SELF"
    for name in "$@"; do
        case $name in
            DATAPATH) printf ' ./data' ;;
            CHECKPOINT_PATH) printf ' output/finetune_checkpoint/KTNET_%s-3_1000.ckpt' "$(cut -d_ -f2 <<<"$SELF")" ;;
            RANK_TABLE_FILE) printf ' hccl_8p.json' ;;
            DEVICE_NUM) printf ' 8' ;;
        esac
    done
    printf ' -- --batch_size 4\n'
}

read_arguments() {  # "NAME NAME [NAME]" ARGUMENTS...: sets POSITIONAL and, from what follows --, FLAGS
    local -a names
    local least argument
    read -ra names <<<"$1"
    least=$((${#names[@]} - $(tr -cd '[' <<<"$1" | wc -c)))
    shift
    POSITIONAL=() FLAGS=()
    while (($#)) && [[ $1 != -- ]]; do
        if [[ $1 == -h || $1 == --help ]]; then
            printf '%s\n' "$(      # at once, for readers that stop early
                show_help
                [[ $SELF != run_*_* || $SELF == run_infer_310.sh ]] || launcher_help "${names[@]}"
            )"
            exit 0
        fi
        POSITIONAL+=("$1")
        shift
    done
    if (($#)); then FLAGS=("${@:2}"); fi
    for argument in "${POSITIONAL[@]}"; do
        [[ $argument != --* ]] || die "$argument: flags of the Python script go after --, as in:" \
            "$SELF${names[*]:+ ${names[*]}} -- $argument ..."
    done
    ((${#POSITIONAL[@]} >= least && ${#POSITIONAL[@]} <= ${#names[@]})) ||
        die "${#POSITIONAL[@]} arguments given; usage: $SELF${names[*]:+ ${names[*]}}" \
            "[-- FLAGS of the Python script]; --help says more"
}

check() {           # SCRIPT FLAGS...: one line and exit code 2 where something is missing
    "$PYTHON" "$ROOT/$1" "${@:2}" --check_only True || exit 2
}

check_training() {  # TASK FLAGS...: lock the checkpoint folder, move what an earlier training has left aside
    local output path folder lock number=''
    local -a lines
    local -A kept=()
    output=$(check "run_KTNET_$1.py" "${@:2}")
    mapfile -t lines <<<"$output"           # the checkpoint folder, then the files in the way
    if [[ -z $output || $OTHER_HOST == yes ]]; then return 0; fi      # the first host's processes alone write
    mkdir -p -- "${lines[0]}"
    lock=${lines[0]}/.training_$1.lock
    exec {number}<>"$lock"
    flock --nonblock "$number" || die "${lines[0]}: another training has just begun there; wait for it, stop it, or" \
        "give another folder with -- --checkpoints FOLDER"
    LOCK=(--lock "$number")
    for path in "${lines[@]:1}"; do
        folder=${path%/*}
        if [[ -z ${kept[$folder]:-} ]]; then
            kept[$folder]=$(free_name "$folder")
            mkdir -- "${kept[$folder]}"
            echo "kept from an earlier run: ${kept[$folder]}"
        fi
        mv -n -- "$path" "${kept[$folder]}/"
    done
}

keep_earlier() {    # PATH: move a file or folder of an earlier run aside, never over another
    local kept
    [[ -e $1 ]] || return 0
    kept=$(free_name "$1")
    mv -n -- "$1" "$kept"
    echo "kept from an earlier run: $kept"
}

free_name() {       # PATH: the same with the first number that is free
    local number=1 stem=$1 ending=
    if [[ $1 == *.log ]]; then stem=${1%.log} ending=.log; fi
    while [[ -e $stem.$number$ending ]]; do number=$((number + 1)); done
    printf '%s\n' "$stem.$number$ending"
}

start() {           # LOG COMMAND...: in the background, or with FOREGROUND=1 in the foreground
    local log=$1
    local -a guard=("$PYTHON" -I "$ROOT/scripts/guard.py" "${LOCK[@]}")
    shift
    keep_earlier "$log"
    mkdir -p "$(dirname "$log")"
    export MS_OM_PATH=${MS_OM_PATH:-$(dirname "$log")}      # where MindSpore puts its debugging files
    if [[ ${FOREGROUND:-0} != 1 ]]; then
        local run=${KTNET_RUN:-}
        local -a leave=(env -u KTNET_RUN)           # the run of this launcher's own guard, which ends with it
        if [[ $run == */* ]]; then leave=(env "KTNET_RUN=${run%/*}"); fi
        nohup "${leave[@]}" "${guard[@]}" --background -- "$@" >"$log" 2>&1 </dev/null &
        while [[ -n $run ]] && grep -qzxF "KTNET_RUN=$run" "/proc/$!/environ" 2>/dev/null; do sleep 0.02; done
        echo "started in the background: PID $!, log $log"
        return 0
    fi
    echo "log $log"
    exec "${guard[@]}" --log "$log" -- "$@" </dev/null
}

newest() {          # FOLDER TASK: its checkpoint with the highest epoch and step, or nothing
    find "$1" -maxdepth 1 -regextype posix-extended -regex ".*/KTNET_$2-[0-9]+_[0-9]+\.(ckpt|safetensors)" \
        2>/dev/null | sort -V | tail -n 1
}

stage_flags() {     # TASK: sets STAGE_FLAGS
    local task=$1 first=$ROOT/output/freeze_checkpoint epochs=1 rate=3e-5 checkpoint
    STAGE_FLAGS=()
    if [[ $task == record ]]; then epochs=10 rate=3e-4; fi
    case ${STAGE:-} in
        "")
            # A file's value gives way to what the user says, be it in a file or by a flag.
            [[ " ${FLAGS[*]} " == *" --freeze"[\ =]* ]] || STAGE_FLAGS=(--config "$ROOT/config/two_stages.yaml")
            ;;
        freeze)
            STAGE_FLAGS=(--freeze True --encoder_dropout True --epoch "$epochs" --learning_rate "$rate"
                --lr_schedule constant --warmup_proportion 0 --use_ema False --save_finetune_checkpoint_path "$first")
            ;;
        full)
            STAGE_FLAGS=(--learning_rate 3e-5)
            [[ " ${FLAGS[*]}" == *" --init_checkpoint"* ]] && return 0
            checkpoint=$(newest "$first" "$task") || checkpoint=""
            [[ -n $checkpoint ]] || die "STAGE=full: no KTNET_$task-*.ckpt in $first; run STAGE=freeze first," \
                "or give its checkpoint with -- --init_checkpoint FILE"
            STAGE_FLAGS+=(--init_checkpoint "$checkpoint")
            ;;
        *) die "STAGE=$STAGE: use freeze or full" ;;
    esac
}

train() {           # TASK TARGET LOG FLAGS_OF_THE_LAUNCHER... -- ARGUMENTS...
    local task=$1 target=${DEVICE_TARGET:-$2} log=$ROOT/$3
    local -a own=()
    shift 3
    while [[ $1 != -- ]]; do own+=("$1") && shift; done
    read_arguments "DATAPATH" "${@:2}"
    under_guard "${@:2}"
    find_python
    stage_flags "$task"
    local -a flags=(--device_target "$target" --data_url "$(absolute "${POSITIONAL[0]}")"
        --checkpoints "$ROOT/output" "${own[@]}" "${STAGE_FLAGS[@]}" "${FLAGS[@]}")
    check_training "$task" "${flags[@]}"
    start "$log" "$PYTHON" "$ROOT/run_KTNET_$task.py" "${flags[@]}"
}

evaluate() {        # TASK TARGET ARGUMENTS...
    local task=$1 target=${DEVICE_TARGET:-$2} results=$ROOT/output/eval_$1
    read_arguments "DATAPATH CHECKPOINT_PATH" "${@:3}"
    under_guard "${@:3}"
    find_python
    local -a flags=(--device_target "$target" --data_url "$(absolute "${POSITIONAL[0]}")"
        --load_checkpoint_path "$(absolute "${POSITIONAL[1]}")" --checkpoints "$results" "${FLAGS[@]}")
    check "run_KTNET_${task}_eval.py" "${flags[@]}"
    [[ " ${FLAGS[*]}" == *" --checkpoints"* ]] || keep_earlier "$results"
    start "$ROOT/eval_$task.log" "$PYTHON" "$ROOT/run_KTNET_${task}_eval.py" "${flags[@]}"
}

train_with_rank_table() {   # TASK TARGET LOG FLAGS_OF_THE_LAUNCHER... -- ARGUMENTS...
    distribute "DATAPATH RANK_TABLE_FILE" "$@"
}

train_on_devices() {        # TASK TARGET LOG FLAGS_OF_THE_LAUNCHER... -- ARGUMENTS...
    distribute "DATAPATH DEVICE_NUM" "$@"
}

distribute() {
    local usage=$1 task=$2 target=${DEVICE_TARGET:-$3} log=$ROOT/$4 own_devices devices
    local -a own=() flags
    shift 4
    while [[ $1 != -- ]]; do own+=("$1") && shift; done
    read_arguments "$usage" "${@:2}"
    under_guard "${@:2}"
    find_python
    check_hosts
    if [[ $usage == *RANK_TABLE_FILE ]]; then
        RANK_TABLE_FILE=$(absolute "${POSITIONAL[1]}")
        KTNET_RANKS=$(cd "$ROOT" && "$PYTHON" -m utils.rank_table "$RANK_TABLE_FILE" --node_rank "${NODE_RANK:-0}" \
            --nodes "${NNODES:-1}") || exit 2
        export RANK_TABLE_FILE KTNET_RANKS                  # lines of rank and device
        own_devices=$(wc -l <<<"$KTNET_RANKS")
        if [[ $target == Ascend ]]; then LAUNCHER=${LAUNCHER:-ranktable}; fi
    else
        own_devices=${POSITIONAL[1]}
        [[ $own_devices =~ ^[1-9][0-9]{0,2}$ ]] || die "DEVICE_NUM: $own_devices is not a number of devices (1 to 999)"
        [[ ${LAUNCHER:-} != ranktable ]] || die "LAUNCHER=ranktable: this launcher takes no rank table; use msrun"
    fi
    devices=$((own_devices * ${NNODES:-1}))
    if ((${NNODES:-1} > 1)); then log=${log%.log}_node$NODE_RANK.log; fi       # hosts may share a disk
    stage_flags "$task"
    flags=(--device_target "$target" --data_url "$(absolute "${POSITIONAL[0]}")" --checkpoints "$ROOT/output"
        --is_distribute True --device_num "$devices" "${own[@]}" "${STAGE_FLAGS[@]}" "${FLAGS[@]}")
    check_training "$task" "${flags[@]}"
    export PYTHON LAUNCHER=${LAUNCHER:-msrun}
    keep_earlier "${log%.log}_workers"
    start "$log" bash "$ROOT/scripts/workers.sh" "$task" "${log%.log}_workers" "$own_devices" "${flags[@]}"
}

check_hosts() {
    case ${LAUNCHER:-msrun} in
        msrun | ranktable) ;;
        mpirun) command -v mpirun >/dev/null || die "LAUNCHER=mpirun: there is no mpirun on PATH; use msrun" ;;
        *) die "LAUNCHER=$LAUNCHER: use msrun, mpirun or ranktable" ;;
    esac
    [[ ${NNODES:-1} =~ ^[1-9][0-9]{0,4}$ ]] || die "NNODES=$NNODES: not a number of hosts"
    if [[ -n ${MASTER_PORT:-} ]]; then check_port; fi
    if ((${NNODES:-1} == 1)); then
        export NODE_RANK=0 MASTER_ADDR=127.0.0.1    # whatever a scheduler has set
        return 0
    fi
    [[ ${LAUNCHER:-msrun} != mpirun ]] || die "LAUNCHER=mpirun: on one host only; use msrun for NNODES=$NNODES"
    [[ -n ${MASTER_ADDR:-} ]] || die "NNODES=$NNODES: MASTER_ADDR must be the address of the first host"
    "$PYTHON" -c 'import socket, sys; socket.getaddrinfo(sys.argv[1], None)' "$MASTER_ADDR" 2>/dev/null ||
        die "MASTER_ADDR=$MASTER_ADDR: no host of that name is known; give the first host's address"
    [[ ${NODE_RANK:-} =~ ^(0|[1-9][0-9]{0,4})$ ]] || die "NNODES=$NNODES: NODE_RANK must be this host's number, from 0"
    if ((NODE_RANK > 0)); then OTHER_HOST=yes; fi
    ((NODE_RANK < NNODES)) || die "NODE_RANK=$NODE_RANK: with NNODES=$NNODES it is at most $((NNODES - 1))"
}

check_port() {      # the first host binds MASTER_PORT
    [[ $MASTER_PORT =~ ^[1-9][0-9]{0,4}$ && $MASTER_PORT -le 65535 ]] ||
        die "MASTER_PORT=$MASTER_PORT: not a port from 1 to 65535"
    ((${NNODES:-1} == 1 || ${NODE_RANK:-0} == 0)) || return 0
    "$PYTHON" -c 'import socket, sys; socket.socket().bind(("", int(sys.argv[1])))' "$MASTER_PORT" 2>/dev/null ||
        die "MASTER_PORT=$MASTER_PORT: the port is in use on this host; give a free one, or unset MASTER_PORT and" \
            "one is chosen$( ((${NNODES:-1} == 1)) || echo " (8118)")"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    show_help
    echo "Not to be run by itself. Example: bash scripts/run_squad_twomemory.sh --help lists arguments and environment."
fi
