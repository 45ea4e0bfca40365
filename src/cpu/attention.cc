// SPDX-License-Identifier: Apache-2.0
// Attention of an encoder layer from the products q, k, v to the context, and its gradient, in float32.
#include "attention.h"

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kTileRows = 8, kTileVectors = 3;  // the tile fills the registers
#elif defined(__AVX__)
constexpr int kLanes = 8, kTileRows = 4, kTileVectors = 2;
#else
constexpr int kLanes = 4, kTileRows = 4, kTileVectors = 2;
#endif
constexpr int64_t kUnit = 16;  // rows and columns of matrices are padded to multiples of this

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));

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

// AttentionInputs -> context [T, N * A]: softmax(scale * q k^T + mask) times the dropout mask, times v.
void attention(const Call& call) {
  if (attention_in_bfloat16(call)) return;
  const AttentionInputs inputs(call, kUnit);
  const int64_t length = inputs.length, width = inputs.width, keys = inputs.keys, columns = inputs.columns;
  float* outputs = call.at(9);
#pragma omp parallel
  {
    Scratch scratch(width * keys + keys * columns + 2 * kBlockOfRows * columns + kBlockOfRows * keys);
    float *key = scratch.take(width, keys), *value = scratch.take(keys, columns);
    float *query = scratch.take(kBlockOfRows, columns), *context = scratch.take(kBlockOfRows, columns);
    float* weights = scratch.take(kBlockOfRows, keys);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < inputs.units; ++unit) {
      inputs.copy_transposed(1, unit, key);
      inputs.copy(2, unit, 0, length, value);
      for (int64_t first = 0; first < length; first += kBlockOfRows) {
        const int64_t rows = std::min(kBlockOfRows, length - first);
        inputs.copy(0, unit, first, rows, query);
        multiply(padded(rows, kUnit), width, {query, columns, 1}, key, keys, weights, false);
        for (int64_t row = 0; row < rows; ++row) {
          inputs.weigh(unit, first + row, weights + row * keys);
        }
        multiply(padded(rows, kUnit), length, {weights, keys, 1}, value, columns, context, false);
        float* target = outputs + inputs.offset(unit) + first * inputs.all;
        for (int64_t row = 0; row < rows; ++row) {
          std::memcpy(target + row * inputs.all, context + row * columns, sizeof(float) * width);
        }
      }
    }
  }
}

// Writes a head's gradient [rows, columns] to its place in [T, 3 * N * A], and adds its rows to `sums` [width].
void write_gradient(const AttentionInputs& inputs, const float* gradient, int64_t rows, float* target, float* sums) {
  for (int64_t row = 0; row < rows; ++row, gradient += inputs.columns, target += 3 * inputs.all) {
    for (int64_t i = 0; i < inputs.width; ++i) {
      target[i] = gradient[i];
      sums[i] += gradient[i];
    }
  }
}

// AttentionInputs, dc -> dq, dk, dv side by side [T, 3 * N * A] and the gradients by their biases [N * A].
// With P the softmax, D = P * dropout mask and dD = dc v^T: dv = D^T dc, and by the products q k^T it is
// dS = scale (D dD - P sum(D dD)), the sum over a row; dq = dS k, dk = dS^T q. P is computed a second time.
void attention_gradient(const Call& call) {
  if (attention_gradient_in_bfloat16(call)) return;
  const AttentionInputs inputs(call, kUnit);
  const int64_t length = inputs.length, width = inputs.width, keys = inputs.keys, columns = inputs.columns;
  const int64_t units = inputs.units;
  const float* gradients = call.at(9);
  float* outputs = call.at(10);
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
        multiply(padded(rows, kUnit), width, {query, columns, 1}, key_transposed, keys, weights, false);
        multiply(padded(rows, kUnit), width, {by_context, columns, 1}, value_transposed, keys, by_weights, false);
        for (int64_t row = 0; row < rows; ++row) {
          inputs.weigh(unit, first + row, weights + row * keys, by_weights + row * keys);
        }
        multiply(padded(rows, kUnit), length, {by_weights, keys, 1}, key, columns, by_query, false);
        multiply(keys, rows, {weights, 1, keys}, by_context, columns, by_value, first > 0);
        multiply(keys, rows, {by_weights, 1, keys}, query, columns, by_key, first > 0);
        write_gradient(inputs, by_query, rows, outputs + inputs.offset(0, unit, first), sums.data() + unit * width);
      }
      write_gradient(inputs, by_key, length, outputs + inputs.offset(1, unit, 0), sums.data() + (units + unit) * width);
      write_gradient(inputs, by_value, length, outputs + inputs.offset(2, unit, 0),
                     sums.data() + (2 * units + unit) * width);
    }
  }
  add_up_biases(inputs, sums, call, 11);
}

}  // namespace

EXPORT_KERNEL(Attention, attention)
EXPORT_KERNEL(AttentionGradient, attention_gradient)
