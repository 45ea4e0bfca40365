#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Evaluate a checkpoint on ReCoRD on a GPU; the log is eval_record.log.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
evaluate record GPU "$@"
