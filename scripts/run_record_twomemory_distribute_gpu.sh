#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on ReCoRD on several GPUs of each host; the log is train_parallel/train_record.log.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_on_devices record GPU train_parallel/train_record.log -- "$@"
