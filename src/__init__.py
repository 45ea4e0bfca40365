# SPDX-License-Identifier: Apache-2.0
"""KT-NET on MindSpore: knowledge-enhanced reading comprehension."""
import os

# Read by OpenMP when MindSpore loads it: threads that wait must not take the cores from those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read by MindSpore when it is loaded: hides its warning about what copy_no_weights of src/cpu/kernels.py sets.
os.environ.setdefault("MS_SUBMODULE_LOG_v", "{ANALYZER:3}")
