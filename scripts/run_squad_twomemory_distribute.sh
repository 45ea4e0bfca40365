#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on SQuAD on the Ascend devices of a rank table; the log is output/train_squad.log.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_with_rank_table squad Ascend output/train_squad.log -- "$@"
