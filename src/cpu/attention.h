// SPDX-License-Identifier: Apache-2.0
// What the attention kernels share: inputs, scratch memory, softmax. They compute one head of one sample (a unit) at a
// time, a block of its queries at a time: the scores of a block fit the cache, and no [B, N, S, S] is ever in memory.
#ifndef SRC_CPU_ATTENTION_H_
#define SRC_CPU_ATTENTION_H_

#include <cstdlib>
#include <memory>

#include "kernels.h"

namespace {

constexpr int64_t kBlockOfRows = 64;  // queries at a time

inline int64_t padded(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

// Scratch memory of a thread, cut into matrices; zeros at first.
class Scratch {
 public:
  explicit Scratch(int64_t floats)
      : memory_(static_cast<float*>(std::aligned_alloc(64, floats * sizeof(float))), std::free), next_(memory_.get()) {
    std::fill(next_, next_ + floats, 0.0f);
  }

  // A matrix; its size in bytes is a multiple of 64.
  template <typename Number = float>
  Number* take(int64_t rows, int64_t columns) {
    float* const taken = next_;
    next_ += rows * columns * sizeof(Number) / sizeof(float);
    return reinterpret_cast<Number*>(taken);
  }

 private:
  std::unique_ptr<float, decltype(&std::free)> memory_;
  float* next_;
};

// What attention and its gradient take first: q, k, v side by side without bias [T, 3 * N * A], their biases [N * A],
// the keys' mask [B, S], scale [N] (the same for all heads), the dropout masks of [B * N * S, S]: pool [P, S], step,
// layer. Rows and columns of matrices are padded to multiples of `padding`.
struct AttentionInputs {
  AttentionInputs(const Call& call, int64_t padding)
      : batch(call.size(4, 0)),
        length(call.size(4, 1)),
        all(call.size(1, 0)),
        products(call.at(0)),
        biases{call.at(1), call.at(2), call.at(3)},
        masks(call.at(4)),
        scale(*call.at(5)),
        masks_of_rows(call, 6),
        heads(call.size(5, 0)),
        width(all / heads),
        units(batch * heads),
        keys(padded(length, padding)),
        columns(padded(width, padding)) {}

  // Where the numbers of a head lie in [T, N * A].
  int64_t offset(int64_t unit) const { return unit / heads * length * all + unit % heads * width; }

  // Where those of its q, k or v lie in [T, 3 * N * A], row `first` on.
  int64_t offset(int which, int64_t unit, int64_t first) const {
    return (unit / heads * length + first) * 3 * all + which * all + unit % heads * width;
  }

  // Copies rows [first, first + rows) of q, k or v of a head, its bias added, to [rows, columns].
  void copy(int which, int64_t unit, int64_t first, int64_t rows, float* target) const {
    const float *x = products + offset(which, unit, first), *bias = biases[which] + unit % heads * width;
    for (int64_t row = 0; row < rows; ++row, x += 3 * all, target += columns) {
      for (int64_t i = 0; i < width; ++i) target[i] = x[i] + bias[i];
    }
  }

  // Copies k or v of a head, its bias added, to [width, keys].
  void copy_transposed(int which, int64_t unit, float* target) const {
    const float *x = products + offset(which, unit, 0), *bias = biases[which] + unit % heads * width;
    for (int64_t row = 0; row < length; ++row, x += 3 * all) {
      for (int64_t i = 0; i < width; ++i) target[i * keys + row] = x[i] + bias[i];
    }
  }

  // Turns the scores of a query into e^(scale * scores + mask - the largest); gives their sum.
  float exponentials(int64_t unit, float* scores) const {
    return powers_of_softmax(scores, masks + unit / heads * length, scale, length);
  }

  const float* dropout(int64_t unit, int64_t row) const { return masks_of_rows.of(unit * length + row); }

  // The masks of the next query lie anywhere in a pool larger than the cache: they are fetched ahead.
  const float* next_dropout(int64_t unit, int64_t row) const { return dropout(unit, row + 1 < length ? row + 1 : row); }

  const float* dropout_and_next(int64_t unit, int64_t row) const {
    const float* next = next_dropout(unit, row);
    for (int64_t i = 0; i < length; i += 16) __builtin_prefetch(next + i);
    return dropout(unit, row);
  }

  // Turns the scores of a query into D, the softmax P times the dropout mask. Not inlined: GCC then uses vectors.
  [[gnu::noinline]] void weigh(int64_t unit, int64_t row, float* scores) const {
    const float* keep = dropout_and_next(unit, row);
    const float factor = 1.0f / exponentials(unit, scores);
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) scores[i] *= factor * keep[i];
  }

  // Turns the scores of a query into D, and the gradient by D into that by the product q k^T.
  [[gnu::noinline]] void weigh(int64_t unit, int64_t row, float* scores, float* gradient) const {
    const float* keep = dropout_and_next(unit, row);
    const float factor = 1.0f / exponentials(unit, scores), by_scores = scale;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < length; ++i) {
      scores[i] *= factor;
      sum += scores[i] * keep[i] * gradient[i];
    }
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      gradient[i] = by_scores * scores[i] * (keep[i] * gradient[i] - sum);
      scores[i] *= keep[i];
    }
  }

  const int64_t batch, length, all;
  const float *const products, *const biases[3], *const masks;
  const float scale;
  const Dropout masks_of_rows;
  const int64_t heads, width, units;
  const int64_t keys, columns;  // padded length and width
};

// Adds the gradients by the biases of q, k and v up over the samples, from sums [3, units, A] to the outputs [N * A] of
// a call from `place` on.
inline void add_up_biases(const AttentionInputs& inputs, const std::vector<float>& sums, const Call& call, int place) {
  for (int which = 0; which < 3; ++which) {
    float* total = call.at(place + which);
    std::fill(total, total + inputs.all, 0.0f);
    const float* part = sums.data() + which * inputs.units * inputs.width;
    for (int64_t sample = 0; sample < inputs.batch; ++sample, part += inputs.all) {
      for (int64_t i = 0; i < inputs.all; ++i) total[i] += part[i];
    }
  }
}

}  // namespace

// Of attention_bfloat16.cc, with products whose inputs are rounded to bfloat16. False: not wanted, or not possible
// here.
bool attention_in_bfloat16(const Call& call);
bool attention_gradient_in_bfloat16(const Call& call);

#endif  // SRC_CPU_ATTENTION_H_
