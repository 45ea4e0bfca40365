# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Makes the repository's .venv; sourced by quickstart.sh, test.sh and docker/Dockerfile.
# Environment: PYTHON, interpreter to make it with [python3.11, python3.12, python3 on PATH].
# Not to be run by itself. Example: source scripts/environment.sh && make_environment "$PWD" requirements-quickstart.lock

# Sets NEW_PYTHON to an interpreter that MindSpore has wheels for and that can make virtual environments.
find_new_python() {
    local candidate seen='' version
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3 python; do
        # A name on PATH may be a stand-in for a Python that is not there: try it.
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case $version in
            3.11 | 3.12)
                if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                    NEW_PYTHON=$candidate
                    return 0
                fi
                seen+=" $candidate (without the venv module: install python$version-venv)"
                ;;
            *) seen+=" $candidate ($version)" ;;
        esac
    done
    echo "error: this needs Python 3.11 or 3.12 with the venv module; found:${seen:- none}." \
        "Install one, or name it with PYTHON=" >&2
    return 2
}

# make_environment ROOT FILE...: .venv with the requirements of the files; at once when nothing has changed. Two at a
# time take turns.
make_environment() {
    local lock code=0
    exec {lock}>"$1/.venv.lock" || return 2
    flock --nonblock "$lock" || { echo "waiting for another installation into $1/.venv" && flock "$lock"; }
    _make_environment "$@" || code=$?
    exec {lock}>&-
    return "$code"
}

_make_environment() {
    local venv=$1/.venv python=$1/.venv/bin/python wanted file
    local stamp=$venv/.requirements unfinished
    # Settings of pip that would install elsewhere or less.
    local -x PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1
    unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_DRY_RUN PIP_REQUIRE_VIRTUALENV
    shift
    if ! "$python" -c 'import pip' 2>/dev/null; then
        find_new_python || return 2
        echo "making $venv with $("$NEW_PYTHON" --version)"
        "$NEW_PYTHON" -m venv "$venv" || return 2
        "$python" -m pip install --quiet --upgrade pip || echo "pip is kept as it is"
    fi
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || {
        echo "error: $venv: made with $("$python" --version); move it away and run this again" >&2
        return 2
    }
    touch "$stamp"
    for file in "$@"; do
        wanted=$(basename "$file")=$(cksum <"$file")
        if grep -qxF "$wanted" "$stamp"; then continue; fi
        echo "installing $(basename "$file") into $venv (the first time this takes a minute or more)"
        local -a options=(--quiet -r "$file")
        case $file in
            *.lock) options=(--require-hashes "${options[@]}") ;;       # every package, made by uv
            *requirements-encoder.txt) options=(--require-hashes --no-deps "${options[@]}") ;;
        esac
        unfinished=$venv/.unfinished-$(basename "$file")
        # A killed installation leaves packages half there, which pip takes for complete unless told otherwise.
        if [[ -e $unfinished ]]; then options=(--ignore-installed "${options[@]}"); fi
        touch "$unfinished"
        local code=0
        "$python" -m pip install "${options[@]}" || code=$?
        rm -f "$unfinished"
        ((code == 0)) || {
            echo "error: pip could not install $file (see above); check the network and the package index, then run" \
                "this again" >&2
            return 2
        }
        echo "$wanted" >>"$stamp"
    done
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then sed -n '3,/^\([^#]\|$\)/s/^# \{0,1\}//p' "$0"; fi
