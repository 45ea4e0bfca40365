// SPDX-License-Identifier: Apache-2.0
// Attention of an encoder layer as in attention.cc, with products whose inputs are rounded to bfloat16, by the matrix
// unit of the processor (tiles.h); sums and the softmax are in float32.
#include "attention.h"
#include "tiles.h"

#ifdef HAS_TILES

namespace {

void attend(const Call& call) {
  const AttentionInputs inputs(call, kUnit);
  const int64_t length = inputs.length, width = inputs.width, keys = inputs.keys, columns = inputs.columns;
  const int64_t along_width = columns / kUnit, along_keys = keys / kUnit;  // tiles
  float* outputs = call.at(8);
#pragma omp parallel
  {
    const Tiles tiles_are_set_up;
    Scratch scratch(2 * keys * columns + 5 * kBlockOfRows * columns / 2 + 3 * kBlockOfRows * keys / 2);
    float *whole = scratch.take(keys, columns), *block = scratch.take(kBlockOfRows, columns);
    float *context = scratch.take(kBlockOfRows, columns), *weights = scratch.take(kBlockOfRows, keys);
    Number *key = scratch.take<Number>(keys, columns), *value = scratch.take<Number>(keys, columns);
    Number *query = scratch.take<Number>(kBlockOfRows, columns), *d = scratch.take<Number>(kBlockOfRows, keys);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < inputs.units; ++unit) {
      const Matrix whole_head{whole, length, width, columns};
      inputs.copy(1, unit, 0, length, whole);
      Factor{whole_head, false, true}.copy(key);
      inputs.copy(2, unit, 0, length, whole);
      Factor{whole_head, false, false}.copy(value);
      for (int64_t first = 0; first < length; first += kBlockOfRows) {
        const int64_t rows = std::min(kBlockOfRows, length - first), all_rows = padded(rows, kUnit);
        inputs.copy(0, unit, first, rows, block);
        Factor{{block, rows, width, columns}, true, false}.copy(query);
        multiply(query, all_rows, key, keys, along_width, weights, keys, false);
        for (int64_t row = 0; row < rows; ++row) inputs.weigh(unit, first + row, weights + row * keys);
        Factor{{weights, rows, length, keys}, true, false}.copy(d);
        multiply(d, all_rows, value, columns, along_keys, context, columns, false);
        float* target = outputs + inputs.offset(unit) + first * inputs.all;
        for (int64_t row = 0; row < rows; ++row) {
          std::memcpy(target + row * inputs.all, context + row * columns, sizeof(float) * width);
        }
      }
    }
  }
}

// Writes a head's gradient to its place in [T, 3 * N * A], and adds its rows to `sums` [A]. The gradient's element
// (row, i) lies at [row * row_step + i * step].
void write_gradient(const AttentionInputs& inputs, const float* gradient, int64_t row_step, int64_t step, int64_t rows,
                    float* target, float* sums) {
  for (int64_t row = 0; row < rows; ++row, target += 3 * inputs.all) {
    for (int64_t i = 0; i < inputs.width; ++i) {
      target[i] = gradient[row * row_step + i * step];
      sums[i] += target[i];
    }
  }
}

// As attention_gradient of attention.cc; dv and dk are computed transposed, dv^T = dc^T D and dk^T = q^T dS.
void differentiate(const Call& call) {
  const AttentionInputs inputs(call, kUnit);
  const int64_t length = inputs.length, width = inputs.width, keys = inputs.keys, columns = inputs.columns;
  const int64_t units = inputs.units, along_width = columns / kUnit, along_keys = keys / kUnit;
  const float* gradients = call.at(8);
  float* outputs = call.at(9);
  std::vector<float> sums(3 * units * width, 0.0f);  // of q, k and v, of a unit
#pragma omp parallel
  {
    const Tiles tiles_are_set_up;
    Scratch scratch(9 * keys * columns / 2 + 5 * kBlockOfRows * columns / 2 + 7 * kBlockOfRows * keys / 2);
    float *whole = scratch.take(keys, columns), *block = scratch.take(kBlockOfRows, columns);
    float *by_key = scratch.take(columns, keys), *by_value = scratch.take(columns, keys);
    float* by_query = scratch.take(kBlockOfRows, columns);
    float *weights = scratch.take(kBlockOfRows, keys), *by_weights = scratch.take(kBlockOfRows, keys);
    Number *key_transposed = scratch.take<Number>(keys, columns), *key = scratch.take<Number>(keys, columns);
    Number* value_transposed = scratch.take<Number>(keys, columns);
    Number *d = scratch.take<Number>(kBlockOfRows, keys), *ds_right = scratch.take<Number>(kBlockOfRows, keys);
    Number *ds = scratch.take<Number>(kBlockOfRows, keys), *left = scratch.take<Number>(kBlockOfRows, columns);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < units; ++unit) {
      const int64_t offset = inputs.offset(unit);
      const Matrix whole_head{whole, length, width, columns};
      inputs.copy(2, unit, 0, length, whole);
      Factor{whole_head, false, true}.copy(value_transposed);
      inputs.copy(1, unit, 0, length, whole);
      Factor{whole_head, false, true}.copy(key_transposed);
      Factor{whole_head, false, false}.copy(key);
      for (int64_t first = 0; first < length; first += kBlockOfRows) {
        const int64_t rows = std::min(kBlockOfRows, length - first), all_rows = padded(rows, kUnit);
        const Matrix queries{block, rows, width, columns};
        const Matrix by_contexts{gradients + offset + first * inputs.all, rows, width, inputs.all};
        inputs.copy(0, unit, first, rows, block);
        Factor{queries, true, false}.copy(left);
        multiply(left, all_rows, key_transposed, keys, along_width, weights, keys, false);
        Factor{by_contexts, true, false}.copy(left);
        multiply(left, all_rows, value_transposed, keys, along_width, by_weights, keys, false);
        for (int64_t row = 0; row < rows; ++row) {
          inputs.weigh(unit, first + row, weights + row * keys, by_weights + row * keys);
        }
        const Matrix by_products{by_weights, rows, length, keys};
        Factor{{weights, rows, length, keys}, false, false}.copy(d);
        Factor{by_products, false, false}.copy(ds_right);
        Factor{by_products, true, false}.copy(ds);
        multiply(ds, all_rows, key, columns, along_keys, by_query, columns, false);
        Factor{by_contexts, true, true}.copy(left);
        multiply(left, columns, d, keys, all_rows / kUnit, by_value, keys, first > 0);
        Factor{queries, true, true}.copy(left);
        multiply(left, columns, ds_right, keys, all_rows / kUnit, by_key, keys, first > 0);
        write_gradient(inputs, by_query, columns, 1, rows, outputs + inputs.offset(0, unit, first),
                       sums.data() + unit * width);
      }
      write_gradient(inputs, by_key, 1, keys, length, outputs + inputs.offset(1, unit, 0),
                     sums.data() + (units + unit) * width);
      write_gradient(inputs, by_value, 1, keys, length, outputs + inputs.offset(2, unit, 0),
                     sums.data() + (2 * units + unit) * width);
    }
  }
  add_up_biases(inputs, sums, call, 10);
}

}  // namespace

bool attention_in_bfloat16(const Call& call) {
  if (!uses_tiles()) return false;
  attend(call);
  return true;
}

bool attention_gradient_in_bfloat16(const Call& call) {
  if (!uses_tiles()) return false;
  differentiate(call);
  return true;
}

#else

bool attention_in_bfloat16(const Call&) { return false; }

bool attention_gradient_in_bfloat16(const Call&) { return false; }

#endif
