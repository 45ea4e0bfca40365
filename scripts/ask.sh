#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Asks the newest network that scripts/quickstart.sh has trained on SQuAD about a passage of your own.
#
#   bash scripts/ask.sh PASSAGE [QUESTION ...] [FLAGS of predict.py]
#   bash scripts/ask.sh --serve PORT
#
# PASSAGE is the text itself or a text file; without a question there is a prompt. Flags: --html FILE for a page that
# shows the knowledge behind every word, --json for machines, predict.py --help for all. A question that begins with
# two dashes goes by --question=QUESTION.
# Environment: OUTPUT=DIR [quickstart_output] as for quickstart.sh; CHECKPOINT=FILE with DATAPATH=DIR, a network of your
# own and the data folder that it was trained with.
# Example: bash scripts/ask.sh "The tower was built by Ida Roth in 1692." "Who built the tower?"
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

newest_checkpoint() {   # FOLDER: sets CHECKPOINT, the last step of the run that was trained last, and DATAPATH
    local folder latest=''
    for folder in "$1"/*/squad/finetune_checkpoint; do
        if [[ -n $(newest "$folder" squad) && (-z $latest || $folder -nt $latest) ]]; then latest=$folder; fi
    done
    [[ -n $latest ]] || die "no network in $1; run bash scripts/quickstart.sh first, or name one:" \
        "CHECKPOINT=FILE DATAPATH=DIR"
    CHECKPOINT=$(newest "$latest" squad)
    DATAPATH=${latest%/squad/*}/data
    if [[ ! -f ${latest%/*}/finished ]]; then say_unfinished "$1/.quickstart.lock"; fi
}

say_unfinished() {      # LOCK of quickstart.sh: which step of the training answers
    local state="was stopped before its end" epoch step
    if [[ -f $1 ]] && ! flock --shared --nonblock "$1" true; then state="is still running"; fi
    IFS=_ read -r epoch step <<<"$(basename "${CHECKPOINT%.*}" | cut -d- -f2)"
    echo "the training $state: the network of its epoch $epoch, step $step, answers ($CHECKPOINT)" >&2
}

given=()
if (($# == 0)) || [[ $1 == -h || $1 == --help ]]; then
    show_help
    exit $(($# ? 0 : 2))
fi
if [[ $1 != --serve ]]; then given+=("$1") && shift; fi      # a passage may begin with dashes
while (($#)) && [[ $1 != --* ]]; do given+=("$1") && shift; done
if [[ ${1:-} == -- ]]; then shift; fi
if [[ -z ${CHECKPOINT:-} ]]; then
    newest_checkpoint "$(absolute "${OUTPUT:-$ROOT/quickstart_output}")"
else
    [[ -n ${DATAPATH:-} ]] || die "CHECKPOINT=$CHECKPOINT: give its data folder too, with DATAPATH=DIR"
fi
find_python
flags=()
if ((${#given[@]})); then
    if [[ -f ${given[0]} ]]; then flags=(--passage_file="${given[0]}"); else flags=(--passage="${given[0]}"); fi
    for question in "${given[@]:1}"; do flags+=(--question="$question"); done
fi
exec "$PYTHON" "$ROOT/predict.py" --data_url "$DATAPATH" --load_checkpoint_path "$CHECKPOINT" "${flags[@]}" "$@"
