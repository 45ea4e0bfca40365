// SPDX-License-Identifier: Apache-2.0
// The processor's matrix unit (AMX) for products whose inputs are rounded to bfloat16; sums are in float32. As for the
// framework's products, the environment variable ONEDNN_DEFAULT_FPMATH_MODE says whether it is wanted.
#ifndef SRC_CPU_TILES_H_
#define SRC_CPU_TILES_H_

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define HAS_TILES 1

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of GCC 12 in its own header
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "kernels.h"

namespace {

constexpr int64_t kTile = 16;  // rows and columns of float32 in a tile
constexpr int64_t kUnit = 32;  // rows and columns of matrices are padded to multiples of this
constexpr int kRequestPermission = 0x1023, kTileData = 18;  // of arch_prctl, for this process

// Asks once whether this process may use the matrix unit.
inline bool may_use_tiles() {
  static const bool allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return allowed;
}

// Whether products are to be rounded, and by the matrix unit.
inline bool uses_tiles() {
  const char* mode = std::getenv("ONEDNN_DEFAULT_FPMATH_MODE");
  return mode != nullptr && std::strcmp(mode, "BF16") == 0 && may_use_tiles();
}

// Settings of the tile registers. Byte 0: palette; 16 ..: bytes of a row, 2 each; 48 ..: rows. A constant, as GCC 12
// takes only the first 8 bytes for read when they are loaded, and may not write the others of a variable before.
alignas(64) constexpr uint8_t kTileSettings[64] = {1, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0,  0,  0,  0,  0,  0,  64, 0, 64,
                                                   0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0,  64, 0,  0,  0,  0,  0,  0, 0,
                                                   0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  16, 16, 16, 16, 16, 16, 16, 16};

// Sets this thread's tile registers up, and back at the end: oneDNN uses them too.
class Tiles {
 public:
  Tiles() {
    may_use_tiles();
    _tile_storeconfig(before_);
    _tile_loadconfig(kTileSettings);
  }
  ~Tiles() { _tile_loadconfig(before_); }

 private:
  alignas(64) uint8_t before_[64];
};

typedef uint16_t Number;  // bfloat16: the upper half of a float32

constexpr int64_t kTileNumbers = 512;

inline int64_t count_of(int64_t size, int64_t unit) { return (size + unit - 1) / unit; }

// Memory that is kept for the next call of this thread: fresh memory is slow to write.
class Kept {
 public:
  Number* take(int64_t numbers) {
    numbers = count_of(numbers, kUnit) * kUnit;  // whole cache lines
    if (numbers > size_) {
      memory_.reset(static_cast<Number*>(std::aligned_alloc(64, numbers * sizeof(Number))));
      size_ = numbers;
    }
    return memory_.get();
  }

 private:
  std::unique_ptr<Number, decltype(&std::free)> memory_{nullptr, std::free};
  int64_t size_ = 0;
};

// A matrix [rows, columns], whose rows begin `stride` numbers apart; the bias, if there is one, is added to each. It
// may be made of several below each other, each of as many rows.
struct Matrix {
  const float* numbers;
  int64_t rows, columns, stride;
  const float* bias = nullptr;
  const float* const* parts = nullptr;
  int64_t rows_of_part = 0;

  const float* row(int64_t row) const {
    if (parts == nullptr) return numbers + row * stride;
    return parts[row / rows_of_part] + row % rows_of_part * stride;
  }
};

// Sixteen numbers from `column` on, as far as there are `columns`; then zeros.
inline __m512 sixteen(const float* row, int64_t column, int64_t columns) {
  const int64_t left = columns - column;
  if (left >= kTile) return _mm512_loadu_ps(row + column);
  return _mm512_maskz_loadu_ps(left <= 0 ? 0 : (1u << left) - 1, row + column);
}

// Columns [column, column + 16) of a row; zeros outside of the matrix.
inline __m512 sixteen(const Matrix& x, int64_t row, int64_t column) {
  if (row >= x.rows) return _mm512_setzero_ps();
  const __m512 numbers = sixteen(x.row(row), column, x.columns);
  return x.bias == nullptr ? numbers : _mm512_add_ps(numbers, sixteen(x.bias, column, x.columns));
}

// Of so many rows of a left factor, how many a thread handles together: a multiple of kUnit, smaller where few rows
// would leave threads idle.
inline int64_t rows_together(int64_t rows) { return rows >= 1024 ? 128 : 64; }

// The sum of coefficients[i] x^i.
template <int64_t COUNT>
__m512 polynomial(const float (&coefficients)[COUNT], __m512 x) {
  __m512 sum = _mm512_set1_ps(coefficients[COUNT - 1]);
  for (int64_t i = COUNT - 2; i >= 0; --i) sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(coefficients[i]));
  return sum;
}

// 32 columns of a row, rounded.
inline __m512i round_columns(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

// 16 columns of two rows, rounded and in pairs.
inline __m512i pair(__m512 upper, __m512 lower) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(lower, upper));
}

// Rows [row, row + 16) as pairs of columns [column, column + 32).
inline void pair_columns(const Matrix& x, int64_t row, int64_t column, __m512i* pairs) {
  for (int64_t i = 0; i < kTile; ++i) {
    pairs[i] = round_columns(sixteen(x, row + i, column), sixteen(x, row + i, column + kTile));
  }
}

// Columns [column, column + 16) of rows [row, row + 32), in pairs of rows.
inline void pair_rows(const Matrix& x, int64_t row, int64_t column, __m512i* pairs) {
  for (int64_t i = 0; i < kTile; ++i) {
    pairs[i] = pair(sixteen(x, row + 2 * i, column), sixteen(x, row + 2 * i + 1, column));
  }
}

// Transposes 16 x 16 pairs, or float32.
inline void transpose(__m512i* x) {
  __m512i y[kTile];
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    for (int half = 0; half < 16; half += 8) {
      y[half + i] = _mm512_shuffle_i32x4(x[half + i], x[half + 4 + i], 0x88);
      y[half + 4 + i] = _mm512_shuffle_i32x4(x[half + i], x[half + 4 + i], 0xdd);
    }
  }
  for (int i = 0; i < 8; ++i) {
    x[i] = _mm512_shuffle_i32x4(y[i], y[8 + i], 0x88);
    x[8 + i] = _mm512_shuffle_i32x4(y[i], y[8 + i], 0xdd);
  }
}

// A factor of a product, copied into tiles of 16 x 32 numbers, padded with zeros, in the order in which they are
// multiplied. A tile of the left factor holds 16 rows (a group), one of the right factor 16 columns, each as 16 pairs
// of numbers that follow each other along the depth, which runs along the sum.
struct Factor {
  Matrix x;
  bool left, transposed;

  bool along_rows() const { return left != transposed; }  // the depth is
  int64_t size() const { return along_rows() ? x.rows : x.columns; }
  int64_t groups() const { return 2 * count_of(size(), kUnit); }                        // padded to an even number
  int64_t tiles() const { return count_of(along_rows() ? x.columns : x.rows, kUnit); }  // along the depth
  int64_t numbers() const { return groups() * tiles() * kTileNumbers; }

  // Writes a tile.
  void copy(int64_t group, int64_t tile, Number* out) const {
    __m512i pairs[kTile];
    if (along_rows()) {
      pair_columns(x, group * kTile, tile * kUnit, pairs);
    } else {
      pair_rows(x, tile * kUnit, group * kTile, pairs);
    }
    if (transposed) transpose(pairs);
    for (int64_t row = 0; row < kTile; ++row) _mm512_store_si512(out + row * kUnit, pairs[row]);
  }

  // Writes some tiles of some groups, those of a group together, in the order in which x lies in memory.
  void copy(int64_t first_group, int64_t some_groups, int64_t first_tile, int64_t some_tiles, Number* out) const {
    const int64_t outer = along_rows() ? some_groups : some_tiles, inner = along_rows() ? some_tiles : some_groups;
    for (int64_t i = 0; i < outer; ++i) {
      for (int64_t j = 0; j < inner; ++j) {
        const int64_t group = along_rows() ? i : j, tile = along_rows() ? j : i;
        copy(first_group + group, first_tile + tile, out + (group * some_tiles + tile) * kTileNumbers);
      }
    }
  }

  // Writes some tiles of all groups, those of a group together; all threads of a team share the work, as x lies in
  // memory: by groups, or by tiles along the depth.
  void copy_together(int64_t first, int64_t some, Number* out) const {
    const int64_t all = groups(), shares = along_rows() ? all : some, others = all + some - shares;
#pragma omp for schedule(static)
    for (int64_t share = 0; share < shares; ++share) {
      for (int64_t other = 0; other < others; ++other) {
        const int64_t group = along_rows() ? share : other, tile = along_rows() ? other : share;
        copy(group, first + tile, out + (group * some + tile) * kTileNumbers);
      }
    }
  }

  // Writes all tiles.
  void copy(Number* out) const { copy(0, groups(), 0, tiles(), out); }
};

// Two rows of tiles times two columns of tiles, `tiles` along the depth, and `before`, if there is one, into out [32,
// 32]; both have the same stride.
inline void multiply(const Number* left, const Number* right, int64_t tiles, const float* before, float* out,
                     int64_t stride) {
  const int64_t bytes = stride * sizeof(float), row = tiles * kTileNumbers;
  if (before != nullptr) {
    _tile_loadd(0, before, bytes);
    _tile_loadd(1, before + kTile, bytes);
    _tile_loadd(2, before + kTile * stride, bytes);
    _tile_loadd(3, before + kTile * stride + kTile, bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t i = 0; i < tiles; ++i, left += kTileNumbers, right += kTileNumbers) {
    _tile_loadd(4, left, 64);
    _tile_loadd(6, right, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, right + row, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, left + row, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, out, bytes);
  _tile_stored(1, out + kTile, bytes);
  _tile_stored(2, out + kTile * stride, bytes);
  _tile_stored(3, out + kTile * stride + kTile, bytes);
}

// All rows of tiles times all columns of tiles into out, or added to it; both are a multiple of 32.
inline void multiply(const Number* left, int64_t rows, const Number* right, int64_t columns, int64_t tiles, float* out,
                     int64_t stride, bool add) {
  for (int64_t row = 0; row < rows; row += kUnit) {
    for (int64_t column = 0; column < columns; column += kUnit) {
      float* target = out + row * stride + column;
      multiply(left + row / kTile * tiles * kTileNumbers, right + column / kTile * tiles * kTileNumbers, tiles,
               add ? target : nullptr, target, stride);
    }
  }
}

}  // namespace

#endif
#endif  // SRC_CPU_TILES_H_
