"""The encoder layer as CPU computes it, with C++ kernels."""
