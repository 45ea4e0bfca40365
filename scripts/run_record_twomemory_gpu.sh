#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on ReCoRD on one GPU; the log is train/train_record.log.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train record GPU train/train_record.log -- "$@"
