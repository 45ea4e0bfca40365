// SPDX-License-Identifier: Apache-2.0
// Dense products of bfloat16 with float32 sums, and their gradients, by the processor's matrix unit (tiles.h).
//
// All are [.., M, K] times [.., K, N], each matrix of the one with that of the other; `transposed` says that the second
// is given as [.., N, K].
#include "tiles.h"

#ifdef HAS_TILES

namespace {

constexpr int64_t kTilesOfDepth = 32;  // are multiplied at a time, so that a thread's share fits its cache

// As `multiply`, where out has only so many rows and columns.
void multiply_edge(const Number* left, const Number* right, int64_t tiles, const float* before, float* out,
                   int64_t stride, int64_t rows, int64_t columns) {
  alignas(64) float whole[kUnit * kUnit];
  multiply(left, right, tiles, nullptr, whole, kUnit);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < columns; ++i) {
      const int64_t at = row * stride + i;
      out[at] = whole[row * kUnit + i] + (before != nullptr ? before[at] : 0.0f);
    }
  }
}

// left times right, and `added` if there is one, into out.
void multiply(const Factor& left, const Factor& right, const float* added, float* out) {
  const int64_t rows = left.size(), columns = right.size(), depth = left.tiles(), groups = right.groups();
  const int64_t block = rows_together(rows), blocks = count_of(rows, block);
  const int64_t most = std::min(depth, kTilesOfDepth);
  static thread_local Kept all_columns;
  Number* const right_tiles = all_columns.take(groups * most * kTileNumbers);
#pragma omp parallel
  {
    const Tiles tiles_are_set_up;
    static thread_local Kept some_rows;
    Number* const left_tiles = some_rows.take(block / kTile * most * kTileNumbers);
    for (int64_t first = 0; first < depth; first += kTilesOfDepth) {
      const int64_t tiles = std::min(depth - first, kTilesOfDepth), group_numbers = tiles * kTileNumbers;
      const float* before = first > 0 ? out : added;
      right.copy_together(first, tiles, right_tiles);
#pragma omp for schedule(dynamic)
      for (int64_t number = 0; number < blocks; ++number) {
        const int64_t row = number * block, own = 2 * count_of(std::min(block, rows - row), kUnit);
        left.copy(row / kTile, own, first, tiles, left_tiles);
        for (int64_t group = 0; group < own; group += 2) {
          const int64_t at = row + group * kTile;
          const Number* of_rows = left_tiles + group * group_numbers;
          for (int64_t column = 0; column < columns; column += kUnit) {
            const Number* of_columns = right_tiles + column / kTile * group_numbers;
            const int64_t place = at * columns + column;
            const float* own_before = before != nullptr ? before + place : nullptr;
            if (at + kUnit <= rows && column + kUnit <= columns) {
              multiply(of_rows, of_columns, tiles, own_before, out + place, columns);
            } else {
              multiply_edge(of_rows, of_columns, tiles, own_before, out + place, columns, std::min(kUnit, rows - at),
                            std::min(kUnit, columns - column));
            }
          }
        }
      }
    }
  }
}

// Rounds `size` numbers.
void round(const float* x, int64_t size, Number* out) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < size; i += kUnit) {
    const __m512i rounded = round_columns(sixteen(x, i, size), sixteen(x, i + kTile, size));
    const int64_t left = size - i;
    _mm512_mask_storeu_epi16(out + i, left < kUnit ? (1u << left) - 1 : ~0u, rounded);
  }
}

// The gradient by `count` weights of `size` numbers that lie below each other, into the tensors from `place` on.
void gradient_by_weights(const Factor& left, const Factor& right, const Call& call, int place, int count,
                         int64_t size) {
  const bool rounds = call.is_bfloat16(place);
  static thread_local Kept kept;
  float* all = call.at(place);
  if (rounds || count > 1) all = reinterpret_cast<float*>(kept.take(count * size * sizeof(float) / sizeof(Number)));
  multiply(left, right, nullptr, all);
  for (int i = 0; i < count; ++i) {
    if (rounds) {
      round(all + i * size, size, call.at<Number>(place + i));
    } else if (count > 1) {
      std::copy_n(all + i * size, size, call.at(place + i));
    }
  }
}

// Matrix `number` of a tensor.
Matrix matrix_of(const Call& call, int place, int64_t number) {
  const int rank = call.ranks[place];
  const int64_t rows = call.size(place, rank - 2), columns = call.size(place, rank - 1);
  return {call.at(place) + number * rows * columns, rows, columns, columns};
}

float* target_of(const Call& call, int place, int64_t number) {
  return const_cast<float*>(matrix_of(call, place, number).numbers);
}

int64_t matrices_of(const Call& call, int place) {
  const int rank = call.ranks[place];
  return call.elements(place) / (call.size(place, rank - 2) * call.size(place, rank - 1));
}

// x, y -> x y.
template <bool transposed>
void product(const Call& call) {
  const int64_t count = matrices_of(call, 0);
  for (int64_t number = 0; number < count; ++number) {
    multiply({matrix_of(call, 0, number), true, false}, {matrix_of(call, 1, number), false, transposed}, nullptr,
             target_of(call, 2, number));
  }
}

// x, y, dz -> dx = dz y^T, dy = x^T dz (transposed: dx = dz y, dy = dz^T x). With a fourth input [.., M, K] before the
// results, that is added to dx. Only the gradient by a single matrix may be bfloat16.
template <bool transposed>
void product_gradient(const Call& call) {
  const int64_t count = matrices_of(call, 0);
  const int results = call.count - 2;
  for (int64_t number = 0; number < count; ++number) {
    const Matrix x = matrix_of(call, 0, number), y = matrix_of(call, 1, number), dz = matrix_of(call, 2, number);
    const float* added = results > 3 ? matrix_of(call, 3, number).numbers : nullptr;
    multiply({dz, true, false}, {y, false, !transposed}, added, target_of(call, results, number));
    const Factor left{transposed ? dz : x, true, true}, right{transposed ? x : dz, false, false};
    if (count == 1) {
      gradient_by_weights(left, right, call, results + 1, 1, y.rows * y.columns);
    } else {
      multiply(left, right, nullptr, target_of(call, results + 1, number));
    }
  }
}

// The matrices from `place` on below each other.
class Joined {
 public:
  static constexpr int kCount = 3;

  Joined(const Call& call, int place) : rows_(call.size(place, 0)), columns_(call.size(place, 1)) {
    for (int i = 0; i < kCount; ++i) parts_[i] = call.at(place + i);
  }

  Matrix matrix() const { return {nullptr, kCount * rows_, columns_, columns_, nullptr, parts_, rows_}; }

 private:
  const int64_t rows_, columns_;
  const float* parts_[kCount];
};

// x [M, K], three matrices [N, K] -> x times their transposes, side by side [M, 3 * N].
void joined_product(const Call& call) {
  const Joined weights(call, 1);
  multiply({matrix_of(call, 0, 0), true, false}, {weights.matrix(), false, true}, nullptr, target_of(call, 4, 0));
}

// x, three matrices, dz [M, 3 * N], what is added to dx -> dx, and the gradients by the matrices.
void joined_product_gradient(const Call& call) {
  const Joined weights(call, 1);
  const Matrix x = matrix_of(call, 0, 0), dz = matrix_of(call, 4, 0);
  multiply({dz, true, false}, {weights.matrix(), false, false}, call.at(5), target_of(call, 6, 0));
  gradient_by_weights({dz, true, true}, {x, false, false}, call, 7, Joined::kCount, call.elements(7));
}

}  // namespace

EXPORT_KERNEL(JoinedProduct, joined_product)
EXPORT_KERNEL(JoinedProductGradient, joined_product_gradient)
EXPORT_KERNEL(Product, product<false>)
EXPORT_KERNEL(ProductTransposed, product<true>)
EXPORT_KERNEL(ProductGradient, product_gradient<false>)
EXPORT_KERNEL(ProductTransposedGradient, product_gradient<true>)

// Whether the kernels above may be called.
extern "C" int MultipliesTiles() { return uses_tiles(); }

#else

extern "C" int MultipliesTiles() { return 0; }

#endif  // HAS_TILES
