// SPDX-License-Identifier: Apache-2.0
// Kernels for an encoder layer that is not trained, by the processor's matrix unit (tiles.h): what lies between two
// products stays in the cache, and nothing is kept for a gradient.
//
// T rows of a batch, H hidden width, I feed-forward width.
#include "tiles.h"

#ifdef HAS_TILES

namespace {

constexpr int64_t kDepth = 12;  // tiles of the depth that are multiplied at a time

// A factor's tiles, some of the depth at a time; all threads of a team copy them.
class Weights {
 public:
  Weights(const Factor& factor, Number* tiles) : factor_(factor), tiles_(tiles) {
    for (int64_t first = 0; first < depth(); first += kDepth) factor_.copy_together(first, some(first), at(first, 0));
  }

  int64_t depth() const { return factor_.tiles(); }
  int64_t some(int64_t first) const { return std::min(kDepth, depth() - first); }
  int64_t groups() const { return factor_.groups(); }

  // The tiles of `group` from `first` along the depth on.
  Number* at(int64_t first, int64_t group) const {
    return tiles_ + (first * groups() + group * some(first)) * kTileNumbers;
  }

 private:
  const Factor factor_;
  Number* const tiles_;
};

// The last product of a half layer, and layer normalisation of its result, the bias and the residual.
struct Output {
  // W [H, K], b [H], residual [T, H], gamma [H], beta [H], epsilon [1].
  Matrix weight;
  const float *bias, *residual, *gamma, *beta;
  float epsilon;

  // Adds `groups` groups of left tiles times the weights' from `first` along the depth on to sums, as wide as they.
  static void add(const Number* left, int64_t groups, const Weights& weights, int64_t first, float* sums) {
    const int64_t tiles = weights.some(first), stride = weights.groups() * kTile;
    for (int64_t column = 0; column < weights.groups(); column += 2) {
      for (int64_t group = 0; group < groups; group += 2) {
        float* const out = sums + group * kTile * stride + column * kTile;
        multiply(left + group * tiles * kTileNumbers, weights.at(first, column), tiles, first > 0 ? out : nullptr, out,
                 stride);
      }
    }
  }

  // Sums become rows [first, first + rows) of the result. Not inlined: GCC then uses vectors.
  [[gnu::noinline]] void finish(float* sums, int64_t stride, int64_t first, int64_t rows, float* out) const {
    const int64_t width = weight.rows;
    const float *const own_bias = bias, *const own_gamma = gamma, *const own_beta = beta;
    for (int64_t row = first; row < first + rows; ++row, sums += stride) {
      const float* added = residual + row * width;
      float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < width; ++i) {
        sums[i] = added[i] + (sums[i] + own_bias[i]);
        sum += sums[i];
      }
      normalise(sums, width, moments_of(sums, width, sum, epsilon), own_gamma, own_beta, out + row * width);
    }
  }
};

// Phi(x) - 1/2 = x R(t) with t = 2 (x / kLimit)^2 - 1 for |x| <= kLimit, off by 5e-6 at most; 1/2 or -1/2 beyond
// (benchmarks/fit_functions.py). What is computed from it is rounded to bfloat16.
constexpr float kLimit = 4.5f;
constexpr float kR[] = {1.56906072e-01f,  -7.71835923e-02f, 5.46365468e-02f,  -4.02729661e-02f, 2.88623883e-02f,
                        -1.83355102e-02f, 9.64603050e-03f,  -6.29245647e-03f, 4.96591216e-03f,  -1.82131349e-03f};

// x Phi(x).
inline __m512 gelu(__m512 x) {
  const __m512 half = _mm512_set1_ps(0.5f), one = _mm512_set1_ps(1.0f);
  const __m512 square = _mm512_min_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(kLimit * kLimit));
  const __m512 t = _mm512_fmsub_ps(square, _mm512_set1_ps(2.0f / (kLimit * kLimit)), one);
  __m512 beyond_half = _mm512_mul_ps(x, polynomial(kR, t));
  beyond_half = _mm512_max_ps(_mm512_min_ps(beyond_half, half), _mm512_sub_ps(_mm512_setzero_ps(), half));
  return _mm512_mul_ps(x, _mm512_add_ps(beyond_half, half));
}

// GELU of sums + b, columns [column, column + 32) of two groups, as tile `tile` of each of them, which have `tiles`.
void gelu_to_tiles(const float* sums, const float* bias, int64_t tile, int64_t tiles, Number* out) {
  const __m512 first_bias = _mm512_loadu_ps(bias), second_bias = _mm512_loadu_ps(bias + kTile);
  for (int64_t row = 0; row < kUnit; ++row, sums += kUnit) {
    const __m512 first = gelu(_mm512_add_ps(_mm512_load_ps(sums), first_bias));
    const __m512 second = gelu(_mm512_add_ps(_mm512_load_ps(sums + kTile), second_bias));
    const int64_t at = (row / kTile * tiles + tile) * kTileNumbers + row % kTile * kUnit;
    _mm512_store_si512(out + at, round_columns(first, second));
  }
}

// x [T, H], W [I, H], b [I], W' [H, I], b' [H], gamma [H], beta [H], epsilon [1] -> layer normalisation of
// x + W' GELU(W x + b) + b' [T, H].
void feed_forward(const Call& call) {
  const int64_t rows = call.size(0, 0), width = call.size(0, 1), inner = call.size(1, 0);
  const Matrix x{call.at(0), rows, width, width}, weight{call.at(1), inner, width, width};
  const Output output{{call.at(3), width, inner, inner}, call.at(4), call.at(0), call.at(5), call.at(6), *call.at(7)};
  const Factor left{x, true, false}, up{weight, false, true}, down{output.weight, false, true};
  const int64_t padded = down.groups() * kTile, block = rows_together(rows);
  std::vector<float> bias(up.groups() * kTile, 0.0f);
  std::copy_n(call.at(2), inner, bias.begin());
  static thread_local Kept kept_up, kept_down;
  Number *const up_tiles = kept_up.take(up.numbers()), *const down_tiles = kept_down.take(down.numbers());
#pragma omp parallel
  {
    const Tiles tiles_are_set_up;
    static thread_local Kept kept;
    Number* const inputs = kept.take(block * (left.tiles() * kUnit + kDepth * kUnit + 2 * padded));
    Number* const hidden = inputs + block * left.tiles() * kUnit;
    float* const sums = reinterpret_cast<float*>(hidden + block * kDepth * kUnit);
    alignas(64) float some[kUnit * kUnit];
    up.copy_together(0, up.tiles(), up_tiles);
    const Weights downs(down, down_tiles);
#pragma omp for schedule(dynamic)
    for (int64_t first = 0; first < rows; first += block) {
      const int64_t own = std::min(block, rows - first), groups = 2 * count_of(own, kUnit), depth = left.tiles();
      left.copy(first / kTile, groups, 0, depth, inputs);
      for (int64_t tile = 0; tile < downs.depth(); tile += kDepth) {
        const int64_t tiles = downs.some(tile);
        for (int64_t i = 0; i < tiles; ++i) {
          const Number* const columns = up_tiles + 2 * (tile + i) * depth * kTileNumbers;
          for (int64_t group = 0; group < groups; group += 2) {
            multiply(inputs + group * depth * kTileNumbers, columns, depth, nullptr, some, kUnit);
            gelu_to_tiles(some, bias.data() + (tile + i) * kUnit, i, tiles, hidden + group * tiles * kTileNumbers);
          }
        }
        Output::add(hidden, groups, downs, tile, sums);
      }
      output.finish(sums, padded, first, own, call.at(8));
    }
  }
}

// x [T, K], W [H, K], b [H], residual [T, H], gamma [H], beta [H], epsilon [1] -> layer normalisation of
// residual + W x + b [T, H].
void product_add_norm(const Call& call) {
  const int64_t rows = call.size(0, 0), depth = call.size(0, 1), width = call.size(1, 0);
  const Output output{{call.at(1), width, depth, depth}, call.at(2), call.at(3), call.at(4), call.at(5), *call.at(6)};
  const Factor left{{call.at(0), rows, depth, depth}, true, false}, right{output.weight, false, true};
  const int64_t padded = right.groups() * kTile, block = rows_together(rows);
  static thread_local Kept kept_right;
  Number* const right_tiles = kept_right.take(right.numbers());
#pragma omp parallel
  {
    const Tiles tiles_are_set_up;
    static thread_local Kept kept;
    Number* const inputs = kept.take(block * (kDepth * kUnit + 2 * padded));
    float* const sums = reinterpret_cast<float*>(inputs + block * kDepth * kUnit);
    const Weights weights(right, right_tiles);
#pragma omp for schedule(dynamic)
    for (int64_t first = 0; first < rows; first += block) {
      const int64_t own = std::min(block, rows - first), groups = 2 * count_of(own, kUnit);
      for (int64_t tile = 0; tile < weights.depth(); tile += kDepth) {
        left.copy(first / kTile, groups, tile, weights.some(tile), inputs);
        Output::add(inputs, groups, weights, tile, sums);
      }
      output.finish(sums, padded, first, own, call.at(7));
    }
  }
}

}  // namespace

EXPORT_KERNEL(FeedForward, feed_forward)
EXPORT_KERNEL(ProductAddNorm, product_add_norm)

#endif  // HAS_TILES
