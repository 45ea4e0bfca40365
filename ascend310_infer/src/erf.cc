// SPDX-License-Identifier: Apache-2.0
#include "inc/erf.h"

namespace {

constexpr float kSaturated = 4.0f;  // erf is 1 to float32 from here on

// erf(x) = x P(x^2) / Q(x^2), off by 2.1e-8 at most on [0, kSaturated] before rounding (benchmarks/fit_functions.py).
constexpr float kP[] = {1.12837898e+00f, 1.96248148e-01f, 5.34673729e-02f,
                        4.00361356e-03f, 2.88041235e-04f, 1.97484184e-06f};
constexpr float kQ[] = {1.00000000e+00f, 5.07251552e-01f, 1.16476088e-01f,
                        1.54443540e-02f, 1.21635326e-03f, 3.74809785e-05f};

// Always inlined, so that it is compiled for the processor that each of its callers is for.
[[gnu::always_inline]] inline void Compute(const float* inputs, float* outputs, int count) {
  for (int number = 0; number < count; ++number) {
    const float x = inputs[number];
    const float square = x * x;
    const float p = ((((kP[5] * square + kP[4]) * square + kP[3]) * square + kP[2]) * square + kP[1]) * square + kP[0];
    const float q = ((((kQ[5] * square + kQ[4]) * square + kQ[3]) * square + kQ[2]) * square + kQ[1]) * square + kQ[0];
    const float below = x >= kSaturated ? 1.0f : x * p / q;
    outputs[number] = x <= -kSaturated ? -1.0f : below;
  }
}

#if defined(__x86_64__) && defined(__GNUC__)
[[gnu::target("avx512f")]] void ComputeAvx512(const float* inputs, float* outputs, int count) {
  Compute(inputs, outputs, count);
}

[[gnu::target("avx2,fma")]] void ComputeAvx2(const float* inputs, float* outputs, int count) {
  Compute(inputs, outputs, count);
}
#endif

}  // namespace

int ElementErf(const float* inputs, float* outputs, int count) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx512f")) {
    ComputeAvx512(inputs, outputs, count);
    return 0;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    ComputeAvx2(inputs, outputs, count);
    return 0;
  }
#endif
  Compute(inputs, outputs, count);
  return 0;
}
