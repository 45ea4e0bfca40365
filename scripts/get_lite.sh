#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Downloads MindSpore Lite 2.0.0 (libraries, headers and the converter) into .lite/mindspore_lite, where
# ascend310_infer/build.sh looks for it: bash scripts/get_lite.sh
#
# It is taken from the wheel for Python 3.7 on x86_64, the only release on package indexes; Python 3.7 itself is not
# needed. For Ascend use the release that matches your CANN instead and set LITE_HOME to its folder. No arguments.
# Environment: PYTHON [.venv/bin/python of the repository, else python3], for its pip
# Example: bash scripts/get_lite.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_arguments "" "$@"
under_guard "$@"
find_python
target=$ROOT/.lite/mindspore_lite
if [[ -f $target/.complete ]]; then
    echo "already there: $target"
    exit 0
fi
[[ $(uname -sm) == "Linux x86_64" ]] ||
    die "$(uname -sm): the wheel is for Linux on x86_64; set LITE_HOME to a MindSpore Lite release for this machine"
mkdir -p "$ROOT/.lite"
scratch=$(mktemp -d "$ROOT/.lite/part.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
"$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --implementation cp \
    --python-version 3.7 --abi cp37m --platform manylinux1_x86_64 --dest "$scratch" mindspore-lite==2.0.0 ||
    die "pip could not download mindspore-lite 2.0.0 (see above); check the network and the package index, then run this again"
"$PYTHON" -m zipfile --extract "$scratch"/mindspore_lite-2.0.0-*.whl "$scratch/wheel"
[[ -f $scratch/wheel/mindspore_lite/include/api/model.h ]] || die "the wheel holds no headers; remove pip's cache"
touch "$scratch/wheel/mindspore_lite/.complete"
rm -rf "$target"            # what is left of a run that was cut short
mv "$scratch/wheel/mindspore_lite" "$target"
echo "$target"
