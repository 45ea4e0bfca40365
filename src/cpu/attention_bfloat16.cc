// SPDX-License-Identifier: Apache-2.0
// Attention of an encoder layer as in attention.cc, with products whose inputs are rounded to bfloat16, by the matrix
// unit (AMX) of the processor; sums and the softmax are in float32. As for the framework's products, the environment
// variable ONEDNN_DEFAULT_FPMATH_MODE says whether it is wanted.
#include "attention.h"

#if defined(__AMX_BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int64_t kUnit = 32;  // rows and columns of matrices are padded to multiples of this
constexpr int64_t kTile = 16;  // rows and columns of float32 in a tile
constexpr int kRequestPermission = 0x1023, kTileData = 18;  // of arch_prctl, for this process

// Whether products are to be rounded, and this process may use the matrix unit.
bool uses_tiles() {
  const char* mode = std::getenv("ONEDNN_DEFAULT_FPMATH_MODE");
  static const bool allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return allowed && mode != nullptr && std::strcmp(mode, "BF16") == 0;
}

// Sets this thread's tile registers up, and back at the end: oneDNN uses them too.
class Tiles {
 public:
  Tiles() {
    _tile_storeconfig(before_);
    alignas(64) uint8_t wanted[64] = {1};  // byte 0: palette; 16 ..: bytes of a row, 2 each; 48 ..: rows
    for (int tile = 0; tile < 8; ++tile) {
      wanted[16 + 2 * tile] = 64;
      wanted[48 + tile] = kTile;
    }
    _tile_loadconfig(wanted);
  }
  ~Tiles() { _tile_loadconfig(before_); }

 private:
  alignas(64) uint8_t before_[64];
};

typedef uint16_t Number;  // bfloat16: the upper half of a float32
typedef uint32_t Pair;    // two of them, from one column of two rows; the upper row in the lower half

inline Number rounded(float x) {  // to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<Number>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// left [rows, depth] times right [depth / 2, columns] into out [rows, columns], or added to it.
void multiply(int64_t rows, int64_t depth, int64_t columns, const Number* left, const Pair* right, float* out,
              bool add) {
  const int64_t left_bytes = depth * sizeof(Number), right_bytes = columns * sizeof(Pair);
  for (int64_t row = 0; row < rows; row += 2 * kTile) {
    for (int64_t column = 0; column < columns; column += 2 * kTile) {
      float *upper = out + row * columns + column, *lower = upper + kTile * columns;
      if (add) {
        _tile_loadd(0, upper, right_bytes);
        _tile_loadd(1, upper + kTile, right_bytes);
        _tile_loadd(2, lower, right_bytes);
        _tile_loadd(3, lower + kTile, right_bytes);
      } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      }
      for (int64_t at = 0; at < depth; at += kUnit) {
        const Number* x = left + row * depth + at;
        const Pair* y = right + at / 2 * columns + column;
        _tile_loadd(4, x, left_bytes);
        _tile_loadd(5, x + kTile * depth, left_bytes);
        _tile_loadd(6, y, right_bytes);
        _tile_loadd(7, y + kTile, right_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(0, upper, right_bytes);
      _tile_stored(1, upper + kTile, right_bytes);
      _tile_stored(2, lower, right_bytes);
      _tile_stored(3, lower + kTile, right_bytes);
    }
  }
}

// x [rows, columns], rounded.
void round_all(const float* x, int64_t rows, int64_t columns, Number* out) {
#pragma omp simd
  for (int64_t i = 0; i < rows * columns; ++i) out[i] = rounded(x[i]);
}

// x [rows, columns], rounded -> [columns, rows].
void round_transposed(const float* x, int64_t rows, int64_t columns, Number* out) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < columns; ++i) out[i * rows + row] = rounded(x[row * columns + i]);
  }
}

// x [rows, columns], rounded, as the right factor of a product: [rows / 2, columns].
void pair_rows(const float* x, int64_t rows, int64_t columns, Pair* out) {
  for (int64_t row = 0; row < rows; row += 2, x += 2 * columns, out += columns) {
#pragma omp simd
    for (int64_t i = 0; i < columns; ++i) out[i] = rounded(x[i]) | static_cast<Pair>(rounded(x[columns + i])) << 16;
  }
}

// x [rows, columns], rounded; its transpose as the right factor of a product: [columns / 2, rows].
void pair_columns(const float* x, int64_t rows, int64_t columns, Pair* out) {
  for (int64_t row = 0; row < rows; ++row, x += columns) {
    for (int64_t i = 0; i < columns; i += 2) {
      out[i / 2 * rows + row] = rounded(x[i]) | static_cast<Pair>(rounded(x[i + 1])) << 16;
    }
  }
}

void attend(const Call& call) {
  const AttentionInputs inputs(call, kUnit);
  const int64_t length = inputs.length, width = inputs.width, keys = inputs.keys, columns = inputs.columns;
  float* outputs = call.at(8);
#pragma omp parallel
  {
    const Tiles tiles;
    Scratch scratch(2 * keys * columns + 5 * kBlockOfRows * columns / 2 + 3 * kBlockOfRows * keys / 2);
    float *whole = scratch.take(keys, columns), *block = scratch.take(kBlockOfRows, columns);
    float *context = scratch.take(kBlockOfRows, columns), *weights = scratch.take(kBlockOfRows, keys);
    Pair *key = scratch.take<Pair>(columns / 2, keys), *value = scratch.take<Pair>(keys / 2, columns);
    Number *query = scratch.take<Number>(kBlockOfRows, columns), *d = scratch.take<Number>(kBlockOfRows, keys);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < inputs.units; ++unit) {
      inputs.copy(1, unit, 0, length, whole);
      pair_columns(whole, keys, columns, key);
      inputs.copy(2, unit, 0, length, whole);
      pair_rows(whole, keys, columns, value);
      for (int64_t first = 0; first < length; first += kBlockOfRows) {
        const int64_t rows = std::min(kBlockOfRows, length - first), all_rows = padded(rows, kUnit);
        inputs.copy(0, unit, first, rows, block);
        round_all(block, all_rows, columns, query);
        multiply(all_rows, columns, keys, query, key, weights, false);
        for (int64_t row = 0; row < rows; ++row) inputs.weigh(unit, first + row, weights + row * keys);
        round_all(weights, all_rows, keys, d);
        multiply(all_rows, keys, columns, d, value, context, false);
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
  const int64_t units = inputs.units;
  const float* gradients = call.at(8);
  float* outputs = call.at(9);
  std::vector<float> sums(3 * units * width, 0.0f);  // of q, k and v, of a unit
#pragma omp parallel
  {
    const Tiles tiles;
    Scratch scratch(9 * keys * columns / 2 + 5 * kBlockOfRows * columns + 7 * kBlockOfRows * keys / 2);
    float *whole = scratch.take(keys, columns), *block = scratch.take(kBlockOfRows, columns);
    float *by_key = scratch.take(columns, keys), *by_value = scratch.take(columns, keys);
    float *by_query = scratch.take(kBlockOfRows, columns), *by_context = scratch.take(kBlockOfRows, columns);
    float *weights = scratch.take(kBlockOfRows, keys), *by_weights = scratch.take(kBlockOfRows, keys);
    Pair *key_transposed = scratch.take<Pair>(columns / 2, keys), *key = scratch.take<Pair>(keys / 2, columns);
    Pair* value_transposed = scratch.take<Pair>(columns / 2, keys);
    Pair *d = scratch.take<Pair>(kBlockOfRows / 2, keys), *ds_pairs = scratch.take<Pair>(kBlockOfRows / 2, keys);
    Number *ds = scratch.take<Number>(kBlockOfRows, keys), *left = scratch.take<Number>(kBlockOfRows, columns);
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < units; ++unit) {
      const int64_t offset = inputs.offset(unit);
      inputs.copy(2, unit, 0, length, whole);
      pair_columns(whole, keys, columns, value_transposed);
      inputs.copy(1, unit, 0, length, whole);
      pair_columns(whole, keys, columns, key_transposed);
      pair_rows(whole, keys, columns, key);
      for (int64_t first = 0; first < length; first += kBlockOfRows) {
        const int64_t rows = std::min(kBlockOfRows, length - first), all_rows = padded(rows, kUnit);
        inputs.copy(0, unit, first, rows, block);
        for (int64_t row = 0; row < rows; ++row) {
          std::memcpy(by_context + row * columns, gradients + offset + (first + row) * inputs.all,
                      sizeof(float) * width);
        }
        std::fill(block + rows * columns, block + all_rows * columns, 0.0f);
        std::fill(by_context + rows * columns, by_context + all_rows * columns, 0.0f);
        round_all(block, all_rows, columns, left);
        multiply(all_rows, columns, keys, left, key_transposed, weights, false);
        round_all(by_context, all_rows, columns, left);
        multiply(all_rows, columns, keys, left, value_transposed, by_weights, false);
        for (int64_t row = 0; row < rows; ++row) {
          inputs.weigh(unit, first + row, weights + row * keys, by_weights + row * keys);
        }
        std::fill(weights + rows * keys, weights + all_rows * keys, 0.0f);
        std::fill(by_weights + rows * keys, by_weights + all_rows * keys, 0.0f);
        pair_rows(weights, all_rows, keys, d);
        pair_rows(by_weights, all_rows, keys, ds_pairs);
        round_all(by_weights, all_rows, keys, ds);
        multiply(all_rows, keys, columns, ds, key, by_query, false);
        round_transposed(by_context, all_rows, columns, left);
        multiply(columns, all_rows, keys, left, d, by_value, first > 0);
        round_transposed(block, all_rows, columns, left);
        multiply(columns, all_rows, keys, left, ds_pairs, by_key, first > 0);
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
