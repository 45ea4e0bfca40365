#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds out/main, and out/onnx_to_lite where MindSpore Lite has its converter: bash ascend310_infer/build.sh
#
# Environment:
#   LITE_HOME     MindSpore Lite: a release's folder or an unpacked wheel [.lite/mindspore_lite of the repository]
#   BUILD_FOLDER  [ascend310_infer/out]
#   SANITIZE=ON   with address and undefined-behaviour sanitizers
# Example: LITE_HOME=/opt/mindspore-lite bash ascend310_infer/build.sh          (no arguments)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

read_arguments "" "$@"
under_guard "$@"
source_folder=$ROOT/ascend310_infer
LITE_HOME=$(absolute "${LITE_HOME:-$ROOT/.lite/mindspore_lite}")
build=$(absolute "${BUILD_FOLDER:-$source_folder/out}")
[[ -f $LITE_HOME/include/api/model.h || -f $LITE_HOME/runtime/include/api/model.h ]] ||
    die "no MindSpore Lite in $LITE_HOME: set LITE_HOME to a release for your device, or for CPU run" \
        "bash scripts/get_lite.sh"
for tool in cmake make g++; do
    command -v "$tool" >/dev/null || die "$tool is missing: install it (Debian, Ubuntu: apt-get install cmake make g++)"
done
has_header() { g++ -fsyntax-only -x c++ - <<<"#include <$1>" 2>/dev/null; }
for header_package in gflags/gflags.h:libgflags-dev nlohmann/json.hpp:nlohmann-json3-dev; do
    has_header "${header_package%:*}" ||
        die "${header_package%:*} is missing: install it (Debian, Ubuntu: apt-get install ${header_package#*:})"
done

# What an earlier build found in another LITE_HOME is forgotten.
cmake -S "$source_folder" -B "$build" -U 'LITE_*' -DLITE_HOME="$LITE_HOME" -DSANITIZE="${SANITIZE:-OFF}" >/dev/null
cmake --build "$build" --parallel "$(nproc)"
