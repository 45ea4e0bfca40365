#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Inference outside Python, from an exported file to the metric:
#   bash scripts/run_infer_310.sh MINDIR_PATH DATA_FILE_PATH NEED_PREPROCESS DATASET DATA_URL [DEVICE_ID]
#
#   MINDIR_PATH      exported model, or a model folder, which is exported first; an ONNX file is converted for MindSpore
#                    Lite 2.0.0
#   DATA_FILE_PATH   converted dev features, dev.mindrecord or its folder
#   NEED_PREPROCESS  y: write the raw inputs; n: use those in preprocess_result
#   DATASET          squad or record
#   DATA_URL         data folder
#   DEVICE_ID        number of the device [0]
#
# Flags after -- are passed to postprocess.py. Writes infer.log and acc.log, preprocess_result, result_files and time_result in
# the repository, the answers in output/infer_DATASET.
#
# Environment: DEVICE_TARGET [Ascend], GPU or CPU; PYTHON [.venv/bin/python]; LITE_HOME, see ascend310_infer/build.sh
# Example: DEVICE_TARGET=CPU bash scripts/run_infer_310.sh mindir/KTNET_squad.onnx data/SQuAD y squad data
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_arguments "MINDIR_PATH DATA_FILE_PATH NEED_PREPROCESS DATASET DATA_URL [DEVICE_ID]" "$@"
under_guard "$@"
find_python
model=$(absolute "${POSITIONAL[0]}")
features=$(absolute "${POSITIONAL[1]}")
need_preprocess=${POSITIONAL[2]}
dataset=${POSITIONAL[3]}
data_url=$(absolute "${POSITIONAL[4]}")
device_id=${POSITIONAL[5]:-0}

[[ -f $model || -d $model ]] || die "MINDIR_PATH: $model is not a file; scripts/export.sh writes one"
if [[ -d $features ]]; then features=$features/dev.mindrecord; fi
[[ -f $features ]] || die "DATA_FILE_PATH: $features is not a file; data_convert.py writes it"
[[ $need_preprocess == [yn] ]] || die "NEED_PREPROCESS: $need_preprocess is neither y nor n"
[[ $dataset == squad || $dataset == record ]] || die "DATASET: $dataset is neither squad nor record"
[[ -d $data_url ]] || die "DATA_URL: $data_url is not a folder"
[[ $device_id =~ ^[0-9]{1,4}$ ]] || die "DEVICE_ID: $device_id is not a device number"
device=${DEVICE_TARGET:-Ascend}
[[ $device == Ascend || $device == GPU || $device == CPU ]] || die "DEVICE_TARGET=$device: use Ascend, GPU or CPU"

inputs=$ROOT/preprocess_result tools=$ROOT/ascend310_infer/out
common=(--dataset "$dataset" --data_url "$data_url" --predict_mindrecord_file "$features" --preprocess_path "$inputs")

preprocess() { "$PYTHON" "$ROOT/preprocess.py" "${common[@]}" --model_path "$model"; }

build() { bash "$ROOT/ascend310_infer/build.sh"; }

export_folder() {   # to the format that this MindSpore Lite reads
    local format=MINDIR
    if [[ -x $tools/onnx_to_lite ]]; then format=ONNX; fi
    model=$("$PYTHON" "$ROOT/export.py" --dataset "$dataset" --load_checkpoint_path "$model" --file_format "$format" \
        --file_path "$ROOT/mindir" --device_target "$device" | tail -n 1)
}

convert() {
    if [[ ! -x $tools/onnx_to_lite ]]; then
        echo "error: $model: an ONNX file, and this MindSpore Lite has no converter; give a MindIR" >&2
        return 2
    fi
    "$tools/onnx_to_lite" "$model" "${model%.onnx}.lite.mindir" || return
    if [[ -f $model.json ]]; then cp -- "$model.json" "${model%.onnx}.lite.mindir.json"; fi
    model=${model%.onnx}.lite.mindir
}

infer() {
    local number folder
    local -a columns=()
    for number in 0 1 2 3 4 5 6 7 8 9; do
        folder=$inputs/0${number}_data
        if [[ -d $folder ]]; then columns+=("--input${number}_path=$folder"); fi
    done
    "$tools/main" --mindir_path="$model" --device_type="$device" --device_id="$device_id" "${columns[@]}" \
        --result_path="$ROOT/result_files" --time_path="$ROOT/time_result"
}

# Positions of padding have logits as well: they are left out, as evaluation does.
postprocess() {
    "$PYTHON" "$ROOT/postprocess.py" "${common[@]}" --model_path "$model" --result_path "$ROOT/result_files" \
        --ignore_padding True --output_path "$ROOT/output/infer_$dataset" "${FLAGS[@]}"
}

step() {            # LOG FUNCTION: its output goes to the log and, should it fail, the end of that to stderr
    echo "$2 (log $1)"
    if "$2" >>"$1" 2>&1; then return 0; fi
    tail -n 3 "$1" >&2
    die "$2 failed; the complete log is $1"
}

only_one "$ROOT/preprocess_result/.lock" "$ROOT"
infer_log=$ROOT/infer.log acc_log=$ROOT/acc.log
keep_earlier "$infer_log"
keep_earlier "$acc_log"
if [[ $need_preprocess == y ]]; then step "$infer_log" preprocess; fi
step "$infer_log" build
if [[ -d $model ]]; then step "$infer_log" export_folder; fi
if [[ $model == *.onnx ]]; then step "$infer_log" convert; fi
step "$infer_log" infer
step "$acc_log" postprocess
cat "$ROOT/time_result/test_perform_static.txt" "$acc_log"
