#!/usr/bin/env bash
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
#   authors    what the paper's authors retrieved, instead of retrieve.py; not fetched by default
#
# An interrupted download resumes. Existing files are never replaced: a file that is not the official one
# is named and kept. --list fetches nothing. Environment: CURL [curl], PYTHON, MIRROR=URL fetches every file
# but WordNet's from URL/NAME instead of its own address (file:// works).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DEFAULT_PARTS=(squad record bert kb nell wordnet)
SQUAD_SITE=https://rajpurkar.github.io/SQuAD-explorer/dataset
DRIVE='https://drive.usercontent.google.com/download?export=download&confirm=t&id='
BERT_SITE=https://huggingface.co/google-bert/bert-large-cased/resolve/main
KB_SITE=https://raw.githubusercontent.com/bishanyang/kblstm/master/embeddings
NELL_SITE=http://rtw.ml.cmu.edu/resources/results/08m
AUTHORS_SITE=https://baidu-nlp.bj.bcebos.com
BERT=cased_L-24_H-1024_A-16

list_only=no
by_hand=()                  # what is missing at the end: place, address, reason

usage() { sed -n '2,16s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

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
    # curl fails if a part is already complete (nothing to resume): the check below decides.
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

unpack() {                  # NAME MD5 FOLDER MARK: an archive of the authors; MARK is a folder that it brings
    local archive=KTNET_preprocess_$1.tar.gz
    if [[ -e $DATA/$3/$4 ]]; then
        echo "  there   $3/$4"
        return
    fi
    get "$3/$archive" "$AUTHORS_SITE/$archive" "$2"
    [[ $list_only == no && -f $DATA/$3/$archive ]] || return 0
    if ! is_right "$DATA/$3/$archive" "$2"; then
        missing "$3/$archive" "$AUTHORS_SITE/$archive" "not the official archive: not unpacked"
    elif tar -xzf "$DATA/$3/$archive" -C "$DATA/$3" --no-same-owner && [[ -e $DATA/$3/$4 ]]; then
        echo "  unpacked $3/$4"
    else
        missing "$3/$4" "$AUTHORS_SITE/$archive" "not in the archive"
    fi
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
            if [[ -e $DATA/nltk/corpora/wordnet || -e $DATA/nltk/corpora/wordnet.zip ]]; then
                echo "  there   nltk/corpora/wordnet"
            elif [[ $list_only == yes ]]; then
                missing nltk/corpora/wordnet "scripts/get_wordnet.sh" "not fetched yet"
            elif ! PYTHON=$PYTHON bash "$ROOT/scripts/get_wordnet.sh" "$DATA"; then
                missing nltk/corpora/wordnet "scripts/get_wordnet.sh" "it has said why"
            fi
            ;;
        authors)
            unpack tokenize_result_squad e52da2b1d096e889d32df267b82f9c77 tokenization_squad tokens
            unpack tokenize_result_record e9352221127b7620427c18e39bfae7fc tokenization_record tokens
            unpack wordnet_concepts 89db2f5cfb07f0c44998d7f49098eb90 retrieve_wordnet output_squad
            unpack nell_concepts a68e68f9dcf4524b356163369c7f9f50 retrieve_nell output_squad
            ;;
    esac
}

if [[ ${1:-} == --list ]]; then list_only=yes && shift; fi
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    usage
    exit 0
fi
[[ -n ${1:-} && $1 != -* ]] || { usage >&2; exit 2; }
DATA=$(absolute "$1")
shift
for part in "$@"; do
    [[ " ${DEFAULT_PARTS[*]} authors " == *" $part "* ]] ||
        die "$part: no such part; there are ${DEFAULT_PARTS[*]} authors"
done
if (($# == 0)); then set -- "${DEFAULT_PARTS[@]}"; fi
CURL=${CURL:-curl}
command -v -- "$CURL" >/dev/null || die "CURL: $CURL is no program; install curl"
find_python
mkdir -p "$DATA"
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
