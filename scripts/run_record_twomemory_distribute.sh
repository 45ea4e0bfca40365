#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on ReCoRD on the Ascend devices of a rank table; the log is output/train_record.log.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_with_rank_table record Ascend output/train_record.log --learning_rate 7e-5 -- "$@"
