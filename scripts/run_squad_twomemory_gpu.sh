#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on SQuAD on one GPU; the log is train_squad/train_squad.log.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train squad GPU train_squad/train_squad.log -- "$@"
