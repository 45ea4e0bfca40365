// SPDX-License-Identifier: Apache-2.0
// Attention of an encoder layer as in attention.cc, with products whose inputs are rounded to bfloat16, by the matrix
// unit of the processor (tiles.h); sums and the softmax are in float32. What is multiplied next is written into tiles
// where it is computed.
#include "attention.h"
#include "tiles.h"

#ifdef HAS_TILES

namespace {

// 2^f for f in [0, 1), off by 3e-6 of it at most (benchmarks/fit_functions.py).
constexpr float kPowersOf2[] = {1.00000259e+00f, 6.93003834e-01f, 2.41442758e-01f, 5.20114604e-02f, 1.35341671e-02f};

// 2^x for x <= 0; 0 where that is below e^kLeastPower.
inline __m512 powers_of_2(__m512 x) {
  const __mmask16 not_less = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kLeastPower * kLog2E), _CMP_NLT_UQ);
  const __m512 power = polynomial(kPowersOf2, _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF));  // of x - floor(x)
  return _mm512_maskz_scalef_ps(not_less, power, x);                                        // times 2^floor(x)
}

// The softmax of a query's scores: e^(scale * score + mask - the largest), as a power of 2. Scores and mask, which is
// given times log2 e, are padded to `keys`, the mask with -infinity.
class Softmax {
 public:
  Softmax(const float* scores, const float* mask, int64_t keys, float scale)
      : scores_(scores), mask_(mask), scale_(_mm512_set1_ps(scale * kLog2E)) {
    __m512 first = _mm512_set1_ps(-INFINITY), second = first;
    for (int64_t i = 0; i < keys; i += kUnit) {
      first = _mm512_max_ps(first, masked(i));
      second = _mm512_max_ps(second, masked(i + kTile));
    }
    largest_ = _mm512_set1_ps(_mm512_reduce_max_ps(_mm512_max_ps(first, second)));
  }

  // Sixteen of them.
  __m512 at(int64_t key) const { return powers_of_2(_mm512_sub_ps(masked(key), largest_)); }

 private:
  __m512 masked(int64_t key) const {
    return _mm512_fmadd_ps(_mm512_load_ps(scores_ + key), scale_, _mm512_load_ps(mask_ + key));
  }

  const float *scores_, *mask_;
  __m512 scale_, largest_;
};

inline float sum_of(__m512 first, __m512 second) { return _mm512_reduce_add_ps(_mm512_add_ps(first, second)); }

// One head of one sample (a unit): its numbers, and the mask of its keys, padded and times log2 e.
struct Head {
  Head(const AttentionInputs& inputs, int64_t unit, float* padded_mask)
      : inputs(inputs), unit(unit), mask(padded_mask) {
    std::fill(mask, mask + inputs.keys, -INFINITY);
    const float* own = inputs.masks + unit / inputs.heads * inputs.length;
    for (int64_t key = 0; key < inputs.length; ++key) mask[key] = own[key] * kLog2E;
  }

  // Rows [first, first + rows) of q, k or v, the bias added.
  Matrix rows_of(int which, int64_t first, int64_t rows) const {
    return {inputs.products + inputs.offset(which, unit, first), rows, inputs.width, 3 * inputs.all,
            inputs.biases[which] + unit % inputs.heads * inputs.width};
  }

  // Writes a query's softmax, not divided by its sum, times the dropout mask to its row of the left factor's tiles;
  // gives 1 / the sum.
  float weigh(int64_t row, const float* scores, Number* out) const {
    const Softmax softmax(scores, mask, inputs.keys, inputs.scale);
    const bool drops = inputs.masks_of_rows.drop();
    const float *keep = inputs.dropout(unit, row), *next = inputs.next_dropout(unit, row);
    __m512 first_sum = _mm512_setzero_ps(), second_sum = first_sum;
    for (int64_t i = 0; i < inputs.keys; i += kUnit, out += kTileNumbers) {
      __m512 first = softmax.at(i), second = softmax.at(i + kTile);
      first_sum = _mm512_add_ps(first_sum, first);
      second_sum = _mm512_add_ps(second_sum, second);
      if (drops) {
        __builtin_prefetch(next + i);
        __builtin_prefetch(next + i + kTile);
        first = _mm512_mul_ps(first, sixteen(keep, i, inputs.length));
        second = _mm512_mul_ps(second, sixteen(keep, i + kTile, inputs.length));
      }
      _mm512_store_si512(out, round_columns(first, second));
    }
    return 1.0f / sum_of(first_sum, second_sum);
  }

  const AttentionInputs& inputs;
  const int64_t unit;
  float* const mask;
};

void attend(const Call& call) {
  const AttentionInputs inputs(call, kUnit);
  const int64_t length = inputs.length, width = inputs.width, keys = inputs.keys, columns = inputs.columns;
  const int64_t along_width = columns / kUnit, along_keys = keys / kUnit;  // tiles
  float* outputs = call.at(9);
#pragma omp parallel
  {
    const Tiles tiles_are_set_up;
    Scratch scratch(keys + keys * columns + 3 * kBlockOfRows * columns / 2 + 3 * kBlockOfRows * keys / 2);
    float *mask = scratch.take(1, keys), *context = scratch.take(kBlockOfRows, columns);
    float* scores = scratch.take(kBlockOfRows, keys);
    Number *key = scratch.take<Number>(keys, columns), *value = scratch.take<Number>(keys, columns);
    Number *query = scratch.take<Number>(kBlockOfRows, columns), *d = scratch.take<Number>(kBlockOfRows, keys);
    float factors[kBlockOfRows];
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < inputs.units; ++unit) {
      const Head head(inputs, unit, mask);
      Factor{head.rows_of(1, 0, length), false, true}.copy(key);
      Factor{head.rows_of(2, 0, length), false, false}.copy(value);
      for (int64_t first = 0; first < length; first += kBlockOfRows) {
        const int64_t rows = std::min(kBlockOfRows, length - first), all_rows = padded(rows, kUnit);
        Factor{head.rows_of(0, first, rows), true, false}.copy(query);
        multiply(query, all_rows, key, keys, along_width, scores, keys, false);
        for (int64_t row = 0; row < rows; ++row) {
          Number* const out = d + row / kTile * along_keys * kTileNumbers + row % kTile * kUnit;
          factors[row] = head.weigh(first + row, scores + row * keys, out);
        }
        multiply(d, all_rows, value, columns, along_keys, context, columns, false);
        float* target = outputs + inputs.offset(unit) + first * inputs.all;
        for (int64_t row = 0; row < rows; ++row, target += inputs.all) {
          for (int64_t i = 0; i < width; ++i) target[i] = context[row * columns + i] * factors[row];
        }
      }
    }
  }
}

// The gradient of a block of queries by D and by the product q k^T, in tiles.
struct BlockGradient {
  Number *d, *ds;  // as right factors
  Number* ds_left;

  // Turns scores and the gradient by D of a block, both [rows, keys], into these. Scores are overwritten.
  void fill(const Head& head, int64_t first, int64_t rows, float* scores, const float* gradient) const {
    const AttentionInputs& inputs = head.inputs;
    const int64_t keys = inputs.keys, along_keys = keys / kUnit, along_rows = padded(rows, kUnit) / kUnit;
    for (int64_t row = 0; row < along_rows * kUnit; row += 2, scores += 2 * keys, gradient += 2 * keys) {
      const Row upper(head, first + row, row < rows, scores, gradient);
      const Row lower(head, first + row + 1, row + 1 < rows, scores + keys, gradient + keys);
      for (int64_t i = 0; i < keys; i += kUnit) {
        const int64_t right = (i / kTile * along_rows + row / kUnit) * kTileNumbers + row % kUnit * kTile;
        const int64_t left = (row / kTile * along_keys + i / kUnit) * kTileNumbers + row % kTile * kUnit;
        __m512 upper_ds[2], lower_ds[2];
        for (int half = 0; half < 2; ++half) {
          const int64_t at = right + half * along_rows * kTileNumbers;
          const __m512 upper_d = upper.differentiate(i + half * kTile, &upper_ds[half]);
          const __m512 lower_d = lower.differentiate(i + half * kTile, &lower_ds[half]);
          _mm512_store_si512(d + at, pair(upper_d, lower_d));
          _mm512_store_si512(ds + at, pair(upper_ds[half], lower_ds[half]));
        }
        _mm512_store_si512(ds_left + left, round_columns(upper_ds[0], upper_ds[1]));
        _mm512_store_si512(ds_left + left + kUnit, round_columns(lower_ds[0], lower_ds[1]));
      }
    }
  }

 private:
  // A query: its softmax P in place of the scores, up to a factor, and what its gradient needs.
  class Row {
   public:
    Row(const Head& head, int64_t row, bool is_there, float* scores, const float* gradient)
        : powers_(scores), gradient_(gradient), length_(head.inputs.length) {
      const int64_t keys = head.inputs.keys;
      if (!is_there) {
        std::fill(scores, scores + keys, 0.0f);
        keep_ = head.inputs.dropout(head.unit, 0);
        return;
      }
      const Softmax softmax(scores, head.mask, keys, head.inputs.scale);
      keep_ = head.inputs.dropout(head.unit, row);
      const float* next = head.inputs.next_dropout(head.unit, row);
      __m512 sums[2] = {}, products[2] = {};
      for (int64_t i = 0; i < keys; i += kUnit) {
        for (int half = 0; half < 2; ++half) {
          const int64_t at = i + half * kTile;
          __builtin_prefetch(next + at);
          const __m512 power = softmax.at(at);
          _mm512_store_ps(scores + at, power);
          sums[half] = _mm512_add_ps(sums[half], power);
          products[half] = _mm512_fmadd_ps(power, kept(at), products[half]);
        }
      }
      const float factor = 1.0f / sum_of(sums[0], sums[1]);
      factor_ = _mm512_set1_ps(factor);
      scaled_ = _mm512_set1_ps(factor * head.inputs.scale);
      sum_ = _mm512_set1_ps(factor * sum_of(products[0], products[1]));
    }

    // Sixteen numbers of D = P * keep, and of scale P (keep * dD - sum(P * keep * dD)).
    __m512 differentiate(int64_t key, __m512* by_product) const {
      const __m512 power = _mm512_load_ps(powers_ + key);
      *by_product = _mm512_mul_ps(_mm512_mul_ps(power, scaled_), _mm512_sub_ps(kept(key), sum_));
      return _mm512_mul_ps(_mm512_mul_ps(power, factor_), sixteen(keep_, key, length_));
    }

   private:
    __m512 kept(int64_t key) const {
      return _mm512_mul_ps(sixteen(keep_, key, length_), _mm512_load_ps(gradient_ + key));
    }

    const float *powers_, *gradient_, *keep_;
    int64_t length_;
    __m512 factor_ = _mm512_setzero_ps(), scaled_ = factor_, sum_ = factor_;
  };
};

// Writes a head's gradient [rows, columns] to its place in [T, 3 * N * A], and adds its rows to `sums` [A].
void write_gradient(const AttentionInputs& inputs, const float* gradient, int64_t rows, float* target, float* sums) {
  for (int64_t row = 0; row < rows; ++row, target += 3 * inputs.all) {
    const float* x = gradient + row * inputs.columns;
    std::memcpy(target, x, sizeof(float) * inputs.width);
#pragma omp simd
    for (int64_t i = 0; i < inputs.width; ++i) sums[i] += x[i];
  }
}

// The same from a gradient that is given transposed, [columns, keys]; `rows` [16, columns] is scratch memory.
void write_transposed(const AttentionInputs& inputs, const float* gradient, float* rows, float* target, float* sums) {
  for (int64_t first = 0; first < inputs.length; first += kTile) {
    for (int64_t column = 0; column < inputs.columns; column += kTile) {
      __m512i block[kTile];
      for (int64_t i = 0; i < kTile; ++i) block[i] = _mm512_load_si512(gradient + (column + i) * inputs.keys + first);
      transpose(block);
      for (int64_t i = 0; i < kTile; ++i) _mm512_store_si512(rows + i * inputs.columns + column, block[i]);
    }
    write_gradient(inputs, rows, std::min(kTile, inputs.length - first), target + first * 3 * inputs.all, sums);
  }
}

// As attention_gradient of attention.cc; dv and dk are computed transposed, dv^T = dc^T D and dk^T = q^T dS.
void differentiate(const Call& call) {
  const AttentionInputs inputs(call, kUnit);
  const int64_t length = inputs.length, width = inputs.width, keys = inputs.keys, columns = inputs.columns;
  const int64_t units = inputs.units, along_width = columns / kUnit, along_keys = keys / kUnit;
  const float* gradients = call.at(9);
  float* outputs = call.at(10);
  std::vector<float> sums(3 * units * width, 0.0f);  // of q, k and v, of a unit
#pragma omp parallel
  {
    const Tiles tiles_are_set_up;
    Scratch scratch(keys + 7 * keys * columns / 2 + 3 * kBlockOfRows * columns / 2 + 7 * kBlockOfRows * keys / 2);
    float *mask = scratch.take(1, keys), *by_query = scratch.take(kBlockOfRows, columns);
    float *by_key = scratch.take(columns, keys), *by_value = scratch.take(columns, keys);
    float *scores = scratch.take(kBlockOfRows, keys), *by_weights = scratch.take(kBlockOfRows, keys);
    Number *key_transposed = scratch.take<Number>(keys, columns), *key = scratch.take<Number>(keys, columns);
    Number *value_transposed = scratch.take<Number>(keys, columns), *left = scratch.take<Number>(kBlockOfRows, columns);
    const BlockGradient block{scratch.take<Number>(kBlockOfRows, keys), scratch.take<Number>(kBlockOfRows, keys),
                              scratch.take<Number>(kBlockOfRows, keys)};
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < units; ++unit) {
      const Head head(inputs, unit, mask);
      Factor{head.rows_of(2, 0, length), false, true}.copy(value_transposed);
      Factor{head.rows_of(1, 0, length), false, true}.copy(key_transposed);
      Factor{head.rows_of(1, 0, length), false, false}.copy(key);
      for (int64_t first = 0; first < length; first += kBlockOfRows) {
        const int64_t rows = std::min(kBlockOfRows, length - first), all_rows = padded(rows, kUnit);
        const Matrix queries = head.rows_of(0, first, rows);
        const Matrix by_contexts{gradients + inputs.offset(unit) + first * inputs.all, rows, width, inputs.all};
        Factor{queries, true, false}.copy(left);
        multiply(left, all_rows, key_transposed, keys, along_width, scores, keys, false);
        Factor{by_contexts, true, false}.copy(left);
        multiply(left, all_rows, value_transposed, keys, along_width, by_weights, keys, false);
        block.fill(head, first, rows, scores, by_weights);
        multiply(block.ds_left, all_rows, key, columns, along_keys, by_query, columns, false);
        Factor{by_contexts, true, true}.copy(left);
        multiply(left, columns, block.d, keys, all_rows / kUnit, by_value, keys, first > 0);
        Factor{queries, true, true}.copy(left);
        multiply(left, columns, block.ds, keys, all_rows / kUnit, by_key, keys, first > 0);
        write_gradient(inputs, by_query, rows, outputs + inputs.offset(0, unit, first), sums.data() + unit * width);
      }
      write_transposed(inputs, by_key, by_query, outputs + inputs.offset(1, unit, 0),
                       sums.data() + (units + unit) * width);
      write_transposed(inputs, by_value, by_query, outputs + inputs.offset(2, unit, 0),
                       sums.data() + (2 * units + unit) * width);
    }
  }
  add_up_biases(inputs, sums, call, 11);
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
