# SPDX-License-Identifier: Apache-2.0
"""KT-NET on MindSpore: knowledge-enhanced reading comprehension."""
import os

# Read by OpenMP when MindSpore loads it: threads that wait must not take the cores from those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read by MindSpore when it is loaded: no warning that it copies no weights, as src/cpu/kernels.py tells it.
os.environ.setdefault("MS_SUBMODULE_LOG_v", "{ANALYZER:3}")
