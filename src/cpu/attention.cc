// SPDX-License-Identifier: Apache-2.0
// Attention of an encoder layer from the products q, k, v to the context, and its gradient. One head of one sample at a
// time, a block of its queries at a time: the scores of a block fit the cache, and no [B, N, S, S] is ever in memory.
#include <cstdlib>
#include <memory>

#include "kernels.h"

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kTileRows = 8, kTileVectors = 3;  // the tile fills the registers
#elif defined(__AVX__)
constexpr int kLanes = 8, kTileRows = 4, kTileVectors = 2;
#else
constexpr int kLanes = 4, kTileRows = 4, kTileVectors = 2;
#endif
constexpr int64_t kUnit = 16;         // rows and columns of matrices are padded to multiples of this
constexpr int64_t kBlockOfRows = 64;  // queries at a time

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));

inline int64_t padded(int64_t size) { return (size + kUnit - 1) / kUnit * kUnit; }

// The left factor of a product: element (row, depth) lies at data[row * row_step + depth * depth_step].
struct Left {
  const float* data;
  int64_t row_step, depth_step;
};

// VECTORS * kLanes columns of left [rows, depth] times right [depth, ..] into out [rows, ..], or added to it.
template <int VECTORS>
void multiply_columns(int64_t rows, int64_t depth, Left left, const float* right, int64_t right_step, float* out,
                      int64_t out_step, bool add) {
  for (int64_t first = 0; first < rows; first += kTileRows) {
    Vector sums[kTileRows][VECTORS];
    for (int row = 0; row < kTileRows; ++row) {
      for (int i = 0; i < VECTORS; ++i) {
        const float* before = out + (first + row) * out_step + i * kLanes;
        sums[row][i] = add ? *reinterpret_cast<const Vector*>(before) : Vector{};
      }
    }
    const float* x = left.data + first * left.row_step;
    for (int64_t at = 0; at < depth; ++at) {
      const Vector* y = reinterpret_cast<const Vector*>(right + at * right_step);
#pragma GCC unroll 8
      for (int row = 0; row < kTileRows; ++row) {
        const float factor = x[row * left.row_step + at * left.depth_step];
#pragma GCC unroll 3
        for (int i = 0; i < VECTORS; ++i) sums[row][i] += factor * y[i];
      }
    }
    for (int row = 0; row < kTileRows; ++row) {
      for (int i = 0; i < VECTORS; ++i) {
        *reinterpret_cast<Vector*>(out + (first + row) * out_step + i * kLanes) = sums[row][i];
      }
    }
  }
}

// left [rows, depth] times right [depth, right_step] into out [rows, right_step], or added to it. Rows and right_step
// are multiples of kUnit.
void multiply(int64_t rows, int64_t depth, Left left, const float* right, int64_t right_step, float* out, bool add) {
  for (int64_t column = 0; column < right_step;) {
    const int64_t vectors = (right_step - column) / kLanes;
    const int64_t taken = vectors >= kTileVectors && vectors != kTileVectors + 1 ? kTileVectors : vectors >= 2 ? 2 : 1;
    if (taken == 1) {
      multiply_columns<1>(rows, depth, left, right + column, right_step, out + column, right_step, add);
    } else if (taken == 2) {
      multiply_columns<2>(rows, depth, left, right + column, right_step, out + column, right_step, add);
    } else {
      multiply_columns<3>(rows, depth, left, right + column, right_step, out + column, right_step, add);
    }
    column += taken * kLanes;
  }
}

// Scratch memory of a thread, cut into matrices; zeros at first.
class Scratch {
 public:
  explicit Scratch(int64_t floats)
      : memory_(static_cast<float*>(std::aligned_alloc(64, floats * sizeof(float))), std::free), next_(memory_.get()) {
    std::fill(next_, next_ + floats, 0.0f);
  }

  float* take(int64_t rows, int64_t columns) {
    float* const taken = next_;
    next_ += rows * columns;
    return taken;
  }

 private:
  std::unique_ptr<float, decltype(&std::free)> memory_;
  float* next_;
};

// What attention and its gradient take first: q, k, v [T, N * A] without bias, their biases [N * A], the keys' mask
// [B, S], scale [N] (the same for all heads), pool [P, S], picked [B * N * S] or [1].
struct AttentionInputs {
  explicit AttentionInputs(const Call& call)
      : batch(call.size(6, 0)),
        length(call.size(6, 1)),
        picks(call.size(9, 0)),
        all(call.size(0, 1)),
        masks(call.at(6)),
        scale(*call.at(7)),
        pool(call.at(8)),
        picked(call.at<int32_t>(9)),
        heads(call.size(7, 0)),
        width(all / heads),
        keys(padded(length)),
        columns(padded(width)) {
    for (int which = 0; which < 3; ++which) {
      products[which] = call.at(which);
      biases[which] = call.at(3 + which);
    }
  }

  // Where the numbers of a head lie in [T, N * A].
  int64_t offset(int64_t unit) const { return unit / heads * length * all + unit % heads * width; }

  // Copies rows [first, first + rows) of q, k or v of a head, its bias added, to [rows, columns].
  void copy(int which, int64_t unit, int64_t first, int64_t rows, float* target) const {
    const float *x = products[which] + offset(unit) + first * all, *bias = biases[which] + unit % heads * width;
    for (int64_t row = 0; row < rows; ++row, x += all, target += columns) {
      for (int64_t i = 0; i < width; ++i) target[i] = x[i] + bias[i];
    }
  }

  // Copies k or v of a head, its bias added, to [width, keys].
  void copy_transposed(int which, int64_t unit, float* target) const {
    const float *x = products[which] + offset(unit), *bias = biases[which] + unit % heads * width;
    for (int64_t row = 0; row < length; ++row, x += all) {
      for (int64_t i = 0; i < width; ++i) target[i * keys + row] = x[i] + bias[i];
    }
  }

  // Turns the scores of a query into e^(scale * scores + mask - the largest); gives their sum.
  float exponentials(int64_t unit, float* scores) const {
    const float* mask = masks + unit / heads * length;
    float largest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < length; ++i) {
      scores[i] = scores[i] * scale + mask[i];
      largest = scores[i] > largest ? scores[i] : largest;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < length; ++i) {
      const float power = scores[i] - largest;
      scores[i] = power < -87.0f ? 0.0f : exponential(power);
      sum += scores[i];
    }
    return sum;
  }

  const float* dropout(int64_t unit, int64_t row) const {
    return mask_of(pool, picked, picks, unit * length + row, length);
  }

  const float *products[3], *biases[3];
  const int64_t batch, length, picks, all;
  const float* const masks;
  const float scale;
  const float* const pool;
  const int32_t* const picked;
  const int64_t heads, width;
  const int64_t keys, columns;  // padded length and width
};

// AttentionInputs -> context [T, N * A]: softmax(scale * q k^T + mask) times the dropout mask, times v.
void attention(const Call& call) {
  const AttentionInputs inputs(call);
  const int64_t length = inputs.length, width = inputs.width, keys = inputs.keys, columns = inputs.columns;
  float* outputs = call.at(10);
#pragma omp parallel
  {
    Scratch scratch(width * keys + keys * columns + 2 * kBlockOfRows * columns + kBlockOfRows * keys);
    float *key = scratch.take(width, keys), *value = scratch.take(keys, columns);
    float *query = scratch.take(kBlockOfRows, columns), *context = scratch.take(kBlockOfRows, columns);
    float* weights = scratch.take(kBlockOfRows, keys);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < inputs.batch * inputs.heads; ++unit) {
      inputs.copy_transposed(1, unit, key);
      inputs.copy(2, unit, 0, length, value);
      for (int64_t first = 0; first < length; first += kBlockOfRows) {
        const int64_t rows = std::min(kBlockOfRows, length - first);
        inputs.copy(0, unit, first, rows, query);
        multiply(padded(rows), width, {query, columns, 1}, key, keys, weights, false);
        for (int64_t row = 0; row < rows; ++row) {
          float* d = weights + row * keys;
          const float* keep = inputs.dropout(unit, first + row);
          const float factor = 1.0f / inputs.exponentials(unit, d);
#pragma omp simd
          for (int64_t i = 0; i < length; ++i) d[i] *= factor * keep[i];
        }
        multiply(padded(rows), length, {weights, keys, 1}, value, columns, context, false);
        float* target = outputs + inputs.offset(unit) + first * inputs.all;
        for (int64_t row = 0; row < rows; ++row) {
          std::memcpy(target + row * inputs.all, context + row * columns, sizeof(float) * width);
        }
      }
    }
  }
}

// Writes a head's gradient [rows, columns] to its place in [T, N * A], and adds its rows to `sums` [width].
void write_gradient(const AttentionInputs& inputs, const float* gradient, int64_t rows, float* target, float* sums) {
  for (int64_t row = 0; row < rows; ++row, gradient += inputs.columns, target += inputs.all) {
    for (int64_t i = 0; i < inputs.width; ++i) {
      target[i] = gradient[i];
      sums[i] += gradient[i];
    }
  }
}

// AttentionInputs, dc -> dq, dk, dv [T, N * A] and the gradients by their biases [N * A].
// With P the softmax, D = P * dropout mask and dD = dc v^T: dv = D^T dc, and by the products q k^T it is
// dS = scale (D dD - P sum(D dD)), the sum over a row; dq = dS k, dk = dS^T q. P is computed a second time.
void attention_gradient(const Call& call) {
  const AttentionInputs inputs(call);
  const int64_t length = inputs.length, width = inputs.width, keys = inputs.keys, columns = inputs.columns;
  const int64_t units = inputs.batch * inputs.heads;
  const float* gradients = call.at(10);
  float* const outputs[3] = {call.at(11), call.at(12), call.at(13)};
  std::vector<float> sums(3 * units * width, 0.0f);  // of q, k and v, of a unit
#pragma omp parallel
  {
    Scratch scratch(2 * width * keys + 3 * keys * columns + 3 * kBlockOfRows * columns + 2 * kBlockOfRows * keys);
    float *key_transposed = scratch.take(width, keys), *value_transposed = scratch.take(width, keys);
    float *key = scratch.take(keys, columns), *by_key = scratch.take(keys, columns);
    float *by_value = scratch.take(keys, columns), *query = scratch.take(kBlockOfRows, columns);
    float *by_query = scratch.take(kBlockOfRows, columns), *by_context = scratch.take(kBlockOfRows, columns);
    float *weights = scratch.take(kBlockOfRows, keys), *by_weights = scratch.take(kBlockOfRows, keys);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < units; ++unit) {
      const int64_t offset = inputs.offset(unit);
      inputs.copy_transposed(1, unit, key_transposed);
      inputs.copy_transposed(2, unit, value_transposed);
      inputs.copy(1, unit, 0, length, key);
      for (int64_t first = 0; first < length; first += kBlockOfRows) {
        const int64_t rows = std::min(kBlockOfRows, length - first);
        inputs.copy(0, unit, first, rows, query);
        for (int64_t row = 0; row < rows; ++row) {
          std::memcpy(by_context + row * columns, gradients + offset + (first + row) * inputs.all,
                      sizeof(float) * width);
        }
        multiply(padded(rows), width, {query, columns, 1}, key_transposed, keys, weights, false);
        multiply(padded(rows), width, {by_context, columns, 1}, value_transposed, keys, by_weights, false);
        for (int64_t row = 0; row < rows; ++row) {
          float *p = weights + row * keys, *ds = by_weights + row * keys;
          const float *keep = inputs.dropout(unit, first + row), scale = inputs.scale;
          const float factor = 1.0f / inputs.exponentials(unit, p);
          float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
          for (int64_t i = 0; i < length; ++i) {
            p[i] *= factor;
            sum += p[i] * keep[i] * ds[i];
          }
#pragma omp simd
          for (int64_t i = 0; i < length; ++i) {
            ds[i] = scale * p[i] * (keep[i] * ds[i] - sum);
            p[i] *= keep[i];
          }
        }
        multiply(padded(rows), length, {by_weights, keys, 1}, key, columns, by_query, false);
        multiply(keys, rows, {weights, 1, keys}, by_context, columns, by_value, first > 0);
        multiply(keys, rows, {by_weights, 1, keys}, query, columns, by_key, first > 0);
        write_gradient(inputs, by_query, rows, outputs[0] + offset + first * inputs.all, sums.data() + unit * width);
      }
      write_gradient(inputs, by_key, length, outputs[1] + offset, sums.data() + (units + unit) * width);
      write_gradient(inputs, by_value, length, outputs[2] + offset, sums.data() + (2 * units + unit) * width);
    }
  }
  for (int which = 0; which < 3; ++which) {
    float* total = call.at(14 + which);
    std::fill(total, total + inputs.all, 0.0f);
    const float* part = sums.data() + which * units * width;
    for (int64_t sample = 0; sample < inputs.batch; ++sample, part += inputs.all) {
      for (int64_t i = 0; i < inputs.all; ++i) total[i] += part[i];
    }
  }
}

}  // namespace

EXPORT_KERNEL(Attention, attention)
EXPORT_KERNEL(AttentionGradient, attention_gradient)
