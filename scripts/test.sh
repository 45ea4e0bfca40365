#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All checks and tests: bash scripts/test.sh [ARGUMENTS of pytest]
#
# Makes .venv and installs what is needed first (3 GB, minutes); then ruff, mypy, shellcheck, clang-format and pytest.
# Environment: PYTHON, interpreter to make .venv with; KTNET_DATA, a data folder for the tests that want real data
# Example: bash scripts/test.sh -m "not slow"
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    show_help
    exit 0
fi
under_guard "$@"
cd "$ROOT"
make_environment "$ROOT" requirements-quickstart.lock requirements-test.lock requirements-torch.txt \
    requirements-encoder.txt
PATH=$ROOT/.venv/bin:$PATH

infer_tools() {     # what the inference harness is built from
    bash scripts/get_lite.sh || return
    if ! printf '#include <%s>\n' gflags/gflags.h nlohmann/json.hpp | g++ -fsyntax-only -x c++ - 2>/dev/null &&
        ((EUID == 0)); then
        { apt-get update -qq && apt-get install -y -qq libgflags-dev nlohmann-json3-dev; } >/dev/null
    fi
}
infer_tools || echo "WARNING: the inference harness cannot be built here: its tests are SKIPPED" >&2

failed=()
run() {             # NAME COMMAND...: continue after a failure, so that one run shows them all
    echo "== $1"
    "${@:2}" || failed+=("$1")
}

run ruff ruff check .
run mypy mypy
run shellcheck shellcheck scripts/*.sh ascend310_infer/*.sh .ci/run
mapfile -t sources < <(find ascend310_infer src '(' -name '*.h' -o -name '*.cc' ')' | sort)
if ((${#sources[@]})); then run clang-format clang-format --dry-run -Werror "${sources[@]}"; fi
run pytest python -m pytest -q -n 2 --dist loadfile "$@"

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
