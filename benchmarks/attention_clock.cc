// SPDX-License-Identifier: Apache-2.0
// The attention kernel of src/cpu/attention_bfloat16.cc with a clock around its products, for
// benchmarks/attention_clock.py.
#include <omp.h>

#include "attention.h"
#include "tiles.h"

#ifdef HAS_TILES

namespace {

constexpr int kThreads = 1024;  // at most

struct alignas(128) Ticks {
  uint64_t count = 0;
} ticks[kThreads];

// Counts the time of a block. What has begun before it is waited for, and so is what it begins.
class Clock {
 public:
  Clock() : start_(now()) {}
  ~Clock() { ticks[omp_get_thread_num()].count += now() - start_; }

 private:
  static uint64_t now() {
    _mm_lfence();
    return __builtin_ia32_rdtsc();
  }

  const uint64_t start_;
};

struct TimedFactor {
  Matrix x;
  bool left, transposed;

  void copy(Number* out) const {
    const Clock clock;
    Factor{x, left, transposed}.copy(out);
  }
};

template <typename... Arguments>
void timed_multiply(Arguments... arguments) {
  const Clock clock;
  multiply(arguments...);
}

}  // namespace

#define Factor TimedFactor
#define multiply timed_multiply
#include "attention_bfloat16.cc"

// Gives the ticks of products of all threads since the last call, the time in ticks, and the number of threads.
extern "C" void ReadTicks(uint64_t* numbers) {
  numbers[0] = 0;
  for (Ticks& own : ticks) {
    numbers[0] += own.count;
    own.count = 0;
  }
  numbers[1] = __builtin_ia32_rdtsc();
  numbers[2] = omp_get_max_threads();
}

#endif
