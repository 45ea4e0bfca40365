#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on SQuAD with WordNet's memory alone, on one Ascend device; the log is output/train_squad_wordnet.log.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train squad Ascend output/train_squad_wordnet.log --use_nell False -- "$@"
