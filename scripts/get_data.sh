#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Downloads the official inputs into a data folder, as far as possible, and lists what is already there.
#
#   bash scripts/get_data.sh [--list] DATAPATH [PART ...]
#
#   squad      SQuAD v1.1                                   35 MB
#   record     ReCoRD (from Google Drive)                  240 MB
#   bert       BERT-large cased from HuggingFace           1.3 GB
#   kb         vectors of WordNet's and NELL's concepts     37 MB
#   nell       NELL's beliefs, for retrieve.py             1.3 GB
#   wordnet    WordNet 3.0 (scripts/get_wordnet.sh)         20 MB
# Not fetched by default:
#   authors    what the paper's authors retrieved and tagged; replaces retrieve.py
#   models     the authors' six trained KT-NETs, or one of them: squad_both, squad_wordnet, squad_nell, record_both,
#              record_wordnet, record_nell; into models/NAME, for src/bert_ms_format.py --source
#
# An interrupted download resumes. Existing files are never replaced: a file that is not the official one is named
# and kept. --list downloads nothing. docs/files.md lists every file with its address and MD5.
#
# Environment: CURL [curl]; PYTHON [.venv/bin/python]; MIRROR=URL fetches every file but WordNet's from URL/NAME instead
# of its own address (file:// works)
# Example: bash scripts/get_data.sh ./data squad kb
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DEFAULT_PARTS=(squad record bert kb nell wordnet)
MODELS=(squad_both squad_wordnet squad_nell record_both record_wordnet record_nell)
ALL_PARTS=("${DEFAULT_PARTS[@]}" authors models "${MODELS[@]}")
declare -A MODEL_MD5=([squad_both]=3abdb7be3fc5e3b98633c918acc25af4 [squad_wordnet]=a36fdd6d5c88e3e931bb3b28f9aeb4e2
    [squad_nell]=9232cf27adda9d64265ccb315e1b9c81 [record_both]=4bd6e911cdad39c543ba8922a70580cd
    [record_wordnet]=20aaefead331f64e435a94ac8a7b58aa [record_nell]=43fa464d6aeabe6dc7a15315d4ea8288)
SQUAD_SITE=https://rajpurkar.github.io/SQuAD-explorer/dataset
DRIVE='https://drive.usercontent.google.com/download?export=download&confirm=t&id='
BERT_SITE=https://huggingface.co/google-bert/bert-large-cased/resolve/main
KB_SITE=https://raw.githubusercontent.com/bishanyang/kblstm/master/embeddings
NELL_SITE=http://rtw.ml.cmu.edu/resources/results/08m
AUTHORS_SITE=https://baidu-nlp.bj.bcebos.com
BERT=cased_L-24_H-1024_A-16

list_only=no
by_hand=()                  # what is missing at the end: place, address, reason

md5_of() {                  # FILE
    if command -v md5sum >/dev/null; then md5sum <"$1" | cut -d' ' -f1; else md5 -q "$1"; fi
}

data_set_md5() {            # TASK SPLIT: src/config.py knows it
    (cd "$ROOT" && "$PYTHON" -c 'import sys
from src.config import TASKS
print(TASKS[sys.argv[1]].official_md5[sys.argv[2]])' "$1" "$2")
}

missing() {                 # PLACE URL REASON
    by_hand+=("$1"$'\n'"    from $2"$'\n'"    ($3)")
    echo "  MISSING $1: $3"
}

# Whether $1 is what it should be: MD5 $2, or where none is published (-) at least no error page.
is_right() {
    if [[ $2 != - ]]; then
        [[ $(md5_of "$1") == "$2" ]]
    else
        [[ -s $1 ]] && ! head -c 256 "$1" | tr '[:upper:]' '[:lower:]' | grep -q -e '<!doctype html' -e '<html'
    fi
}

get() {                     # PLACE URL MD5: one file below the data folder
    local place=$1 url=$2 md5=$3 target=$DATA/$1 part=$DATA/$1.part reason code=0
    if [[ -e $target ]]; then
        if [[ $md5 == - ]]; then
            echo "  there   $place (no official MD5 to compare with)"
        elif is_right "$target" "$md5"; then
            echo "  there   $place"
        else
            echo "  there   $place, but it is not the official file (MD5 $(md5_of "$target"), not $md5): left as it is"
        fi
        return
    fi
    if [[ $list_only == yes ]]; then
        missing "$place" "$url" "not fetched yet$([[ ! -e $part ]] || echo "; begun: $(wc -c <"$part") bytes")"
        return
    fi
    if [[ -n ${MIRROR:-} ]]; then url=${MIRROR%/}/${place##*/}; fi
    mkdir -p "${target%/*}"
    echo "  getting $place"
    # A part that is complete already makes curl fail (there is nothing to resume): the check below decides.
    "$CURL" --fail --location --silent --show-error --retry 3 --connect-timeout 30 --continue-at - \
        --output "$part" "$url" || code=$?
    if [[ ! -s $part ]]; then
        rm -f "$part"
        missing "$place" "$url" "curl failed with code $code"
    elif is_right "$part" "$md5" && { ((code == 0)) || [[ $md5 != - ]]; }; then
        mv -n "$part" "$target"
        echo "  got     $place"
    elif ((code)); then
        missing "$place" "$url" "curl failed with code $code; run this again to resume from byte $(wc -c <"$part")"
    else
        reason="what came is not the official file: MD5 $(md5_of "$part")"
        if [[ $md5 == - ]]; then reason="what came is a web page"; fi
        rm -f "$part"
        missing "$place" "$url" "$reason"
    fi
}

# An archive of the authors: unpacked aside, then its entries are moved to their names, so that an interrupted run leaves
# nothing that looks complete.
unpack() {                  # NAME MD5 FOLDER ENTRY...: KTNET_NAME.tar.gz; ENTRY names a file or folder it must bring
    local archive=KTNET_$1.tar.gz md5=$2 folder=$3 entry found scratch
    local -a wanted=()
    shift 3
    for entry in "$@"; do
        if [[ -e $DATA/$folder/$entry ]]; then echo "  there   $folder/$entry"; else wanted+=("$entry"); fi
    done
    ((${#wanted[@]})) || return 0
    get "$folder/$archive" "$AUTHORS_SITE/$archive" "$md5"
    [[ $list_only == no && -f $DATA/$folder/$archive ]] || return 0
    if ! is_right "$DATA/$folder/$archive" "$md5"; then
        missing "$folder/$archive" "$AUTHORS_SITE/$archive" "not the official archive: not unpacked"
        return
    fi
    rm -rf "$DATA/$folder"/.unpack.*                        # of an interrupted run
    scratch=$(mktemp -d "$DATA/$folder/.unpack.XXXXXX")
    if ! tar -xzf "$DATA/$folder/$archive" -C "$scratch" --no-same-owner; then
        missing "$folder" "$AUTHORS_SITE/$archive" "tar could not unpack it (see above)"
        wanted=()
    fi
    for entry in "${wanted[@]}"; do
        found=$(find "$scratch" -name "$entry" -print -quit)
        if [[ -n $found ]]; then
            mv -nT "$found" "$DATA/$folder/$entry"
            echo "  unpacked $folder/$entry"
        else
            missing "$folder/$entry" "$AUTHORS_SITE/$archive" "not in the archive"
        fi
    done
    rm -rf "$scratch"
}

unpack_model() {            # NAME: a trained network, a folder of many files
    local archive=KTNET_fine-tuned-model_$1.tar.gz scratch content
    if [[ -d $DATA/models/$1 ]]; then
        echo "  there   models/$1"
        return
    fi
    get "models/$archive" "$AUTHORS_SITE/$archive" "${MODEL_MD5[$1]}"
    [[ $list_only == no && -f $DATA/models/$archive ]] || return 0
    if ! is_right "$DATA/models/$archive" "${MODEL_MD5[$1]}"; then
        missing "models/$archive" "$AUTHORS_SITE/$archive" "not the official archive: not unpacked"
        return
    fi
    rm -rf "$DATA/models/.unpack".*                         # of an interrupted run
    scratch=$(mktemp -d "$DATA/models/.unpack.XXXXXX")
    if tar -xzf "$DATA/models/$archive" -C "$scratch" --no-same-owner; then
        content=$scratch
        while [[ $(find "$content" -mindepth 1 -maxdepth 1 | wc -l) == 1 && -d $(echo "$content"/*) ]]; do
            content=$(echo "$content"/*)                    # folders that hold nothing but a folder
        done
        chmod 755 "$content"
        mv -nT "$content" "$DATA/models/$1"
        echo "  unpacked models/$1"
    else
        missing "models/$1" "$AUTHORS_SITE/$archive" "tar could not unpack it (see above)"
    fi
    rm -rf "$scratch"
}

fetch_part() {
    case $1 in
        squad)
            get SQuAD/train-v1.1.json "$SQUAD_SITE/train-v1.1.json" "$(data_set_md5 squad train)"
            get SQuAD/dev-v1.1.json "$SQUAD_SITE/dev-v1.1.json" "$(data_set_md5 squad dev)"
            ;;
        record)
            get ReCoRD/train.json "${DRIVE}1PoHmphyH79pETNws8kU2OwuerU7SWLHj" "$(data_set_md5 record train)"
            get ReCoRD/dev.json "${DRIVE}1WNaxBpXEGgPbymTzyN249P4ub-uU5dkO" "$(data_set_md5 record dev)"
            ;;
        bert)
            get "$BERT/config.json" "$BERT_SITE/config.json" -
            get "$BERT/vocab.txt" "$BERT_SITE/vocab.txt" -
            get "$BERT/model.safetensors" "$BERT_SITE/model.safetensors" -
            ;;
        kb)
            get KB_embeddings/wn_concept2vec.txt "$KB_SITE/wn_concept2vec.txt" d9b62183c6367ffac3ee6f864c9425a5
            get KB_embeddings/nell_concept2vec.txt "$KB_SITE/nell_concept2vec.txt" 1f69c3d092089b0a0652616b72d61bd8
            ;;
        nell)
            get NELL.08m.1115.esv.csv.gz "$NELL_SITE/NELL.08m.1115.esv.csv.gz" fb62db2fe82d88480ec853f3c6fa237a
            ;;
        wordnet)
            if [[ $list_only == yes && (-e $DATA/nltk/corpora/wordnet || -e $DATA/nltk/corpora/wordnet.zip) ]]; then
                echo "  there   nltk/corpora/wordnet"
            elif [[ $list_only == yes ]]; then
                missing nltk/corpora/wordnet "scripts/get_wordnet.sh" "not fetched yet"
            elif ! PYTHON=$PYTHON bash "$ROOT/scripts/get_wordnet.sh" "$DATA"; then
                missing nltk/corpora/wordnet "scripts/get_wordnet.sh" "it has said why"
            fi
            ;;
        authors)
            unpack preprocess_tokenize_result_squad e52da2b1d096e889d32df267b82f9c77 tokenization_squad tokens
            unpack preprocess_tokenize_result_record e9352221127b7620427c18e39bfae7fc tokenization_record tokens
            unpack preprocess_wordnet_concepts 89db2f5cfb07f0c44998d7f49098eb90 retrieve_wordnet output_squad output_record
            unpack preprocess_nell_concepts a68e68f9dcf4524b356163369c7f9f50 retrieve_nell output_squad output_record
            unpack preprocess_squad_tagging_output 64010b964ae2ebf00148b3519a4aafc8 raw train-v1.1.tagged.json \
                dev-v1.1.tagged.json
            ;;
        models)
            for name in "${MODELS[@]}"; do unpack_model "$name"; done
            ;;
        *)
            unpack_model "$1"
            ;;
    esac
}

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    show_help
    exit 0
fi
under_guard "$@"
if [[ ${1:-} == --list ]]; then list_only=yes && shift; fi
[[ -n ${1:-} && $1 != -* ]] || die "give the data folder; usage: $SELF [--list] DATAPATH [PART ...] (--help says more)"
DATA=$(absolute "$1")
shift
for part in "$@"; do
    [[ " ${ALL_PARTS[*]} " == *" $part "* ]] || die "$part: no such part; there are ${ALL_PARTS[*]}"
done
if (($# == 0)); then set -- "${DEFAULT_PARTS[@]}"; fi
CURL=${CURL:-curl}
command -v -- "$CURL" >/dev/null || die "CURL: $CURL is not a program; install curl"
find_python
mkdir -p "$DATA"
if [[ $list_only == no ]]; then
    only_one "$DATA/.get_data.lock" "$DATA"
fi
for part in "$@"; do
    echo "$part"
    fetch_part "$part"
done
if ((${#by_hand[@]})); then
    echo
    echo "Missing. Run this again to resume, or download by hand and put into $DATA:"
    printf '  %s\n' "${by_hand[@]}"
    exit 2
fi
echo "All there: ${*}"
