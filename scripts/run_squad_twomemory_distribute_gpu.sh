#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on SQuAD on several GPUs of each host; the log is train_parallel_squad/train_squad.log.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_on_devices squad GPU train_parallel_squad/train_squad.log -- "$@"
