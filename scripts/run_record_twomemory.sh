#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on ReCoRD on one Ascend device; the log is output/train_record.log.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train record Ascend output/train_record.log -- "$@"
