// SPDX-License-Identifier: Apache-2.0
// What the CPU kernels share. MindSpore calls them as custom operators of type "aot": tensors and shapes, inputs first,
// then outputs.
//
// T rows of a batch (B * S), W width, B batch, N heads, S sequence, A head width. All numbers are float32 but the int32
// ids, step and layer, and gradients by weights, which may be bfloat16. A result depends on neither the number of
// threads nor the order in which they run.
#ifndef SRC_CPU_KERNELS_H_
#define SRC_CPU_KERNELS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

// Tensors and shapes of one call.
struct Call {
  int count;  // of tensors
  void** tensors;
  int* ranks;
  int64_t** shapes;
  const char** types;  // may be absent: float32

  template <typename Number = float>
  Number* at(int place) const {
    return static_cast<Number*>(tensors[place]);
  }
  bool is_bfloat16(int place) const { return types != nullptr && std::strcmp(types[place], "bfloat16") == 0; }
  int64_t size(int place, int dimension) const { return shapes[place][dimension]; }
  int64_t elements(int place) const {
    int64_t product = 1;
    for (int dimension = 0; dimension < ranks[place]; ++dimension) product *= size(place, dimension);
    return product;
  }
};

namespace {

constexpr int64_t kBlocks = 32;  // of rows, whose sums are added in order

// e^x = 2^n e^f with x = n ln 2 + f, |f| <= ln 2 / 2, and e^f by a polynomial (S. Moshier, Cephes, expf).
constexpr float kLog2E = 1.44269504f;
constexpr float kShift = 12582912.0f;                              // 1.5 * 2^23: n stands in the lowest bits of a sum
constexpr float kLn2 = 0.693359375f, kLn2Excess = 2.12194440e-4f;  // ln 2 is the first minus the second
constexpr float kPowers[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                             4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};  // of f, from f^7 to f^2

constexpr float kLeastPower = -87.0f;  // below it e^x is a denormal number, which is slow

// e^x for x in [-87, 88], to which other x are moved; off by 2 units in the last place at most.
inline float exponential(float x) {
  x = x < kLeastPower ? kLeastPower : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * kLog2E + kShift;
  const float n = shifted - kShift;
  float f = x - n * kLn2;
  f = f + n * kLn2Excess;
  float power = kPowers[0];
  power = power * f + kPowers[1];
  power = power * f + kPowers[2];
  power = power * f + kPowers[3];
  power = power * f + kPowers[4];
  power = power * f + kPowers[5];
  power = power * f * f + f + 1.0f;
  int32_t bits, exponent;
  std::memcpy(&bits, &power, sizeof bits);
  std::memcpy(&exponent, &shifted, sizeof exponent);
  bits += static_cast<int32_t>(static_cast<uint32_t>(exponent) << 23);
  std::memcpy(&power, &bits, sizeof power);
  return power;
}

inline float dot(const float* a, const float* b, int64_t size) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < size; ++i) sum += a[i] * b[i];
  return sum;
}

// Turns numbers x into e^(factor * x + added - the largest of these); gives their sum.
inline float powers_of_softmax(float* x, const float* added, float factor, int64_t count) {
  float largest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < count; ++i) {
    x[i] = x[i] * factor + added[i];
    largest = x[i] > largest ? x[i] : largest;
  }
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    const float power = x[i] - largest;
    x[i] = power < kLeastPower ? 0.0f : exponential(power);
    sum += x[i];
  }
  return sum;
}

struct Moments {
  float mean, scale;  // scale = 1 / sqrt(variance + epsilon)
};

// Those of a row z, whose sum is known.
inline Moments moments_of(const float* z, int64_t width, float sum, float epsilon) {
  const float mean = sum / width;
  float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < width; ++i) squares += (z[i] - mean) * (z[i] - mean);
  return {mean, 1.0f / std::sqrt(squares / width + epsilon)};
}

// Layer normalisation of a row.
inline void normalise(const float* z, int64_t width, const Moments& moments, const float* gamma, const float* beta,
                      float* out) {
  const float mean = moments.mean, scale = moments.scale;
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) out[i] = (z[i] - mean) * scale * gamma[i] + beta[i];
}

// The dropout masks of a tensor's rows, as src/dropout.py picks them: a pool [P, W] of masks, step [1] and layer [1].
class Dropout {
 public:
  Dropout(const Call& call, int place)
      : pool_(call.at(place)), masks_(call.size(place, 0)), width_(call.size(place, 1)) {
    const int64_t step = *call.at<int32_t>(place + 1) % masks_, layer = *call.at<int32_t>(place + 2);
    slope_ = (step * 2027 + layer * 733) % masks_;
    shift_ = (step * 1361 + layer * 3319) % masks_;
  }

  // Whether they drop anything: where nothing is to be dropped, the pool is a row of ones (src/dropout.py, no_mask).
  bool drop() const { return masks_ > 1; }

  // The mask of a row.
  const float* of(int64_t row) const {
    const int64_t x = row * 1009 % masks_;
    return pool_ + (x * x + x * slope_ + shift_) % masks_ * width_;
  }

 private:
  const float* pool_;
  int64_t masks_, width_, slope_, shift_;
};

// Calls each(row, sums) for every row, where sums are SUMS rows of W numbers to add to; adds them up into `totals`.
template <int SUMS, typename Each>
void for_rows_with_sums(int64_t rows, int64_t width, float* const (&totals)[SUMS], Each each) {
  const int64_t block = (rows + kBlocks - 1) / kBlocks, length = SUMS * width;
  std::vector<float> sums(kBlocks * length, 0.0f);
#pragma omp parallel for schedule(static)
  for (int64_t number = 0; number < kBlocks; ++number) {
    const int64_t end = std::min(rows, (number + 1) * block);
    for (int64_t row = number * block; row < end; ++row) each(row, sums.data() + number * length);
  }
  for (int which = 0; which < SUMS; ++which) {
    float* total = totals[which];
    std::fill(total, total + width, 0.0f);
    for (int64_t number = 0; number < kBlocks; ++number) {
      const float* part = sums.data() + number * length + which * width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) total[i] += part[i];
    }
  }
}

}  // namespace

// Exports a kernel under its name with MindSpore's signature: number of tensors, tensors, ranks, shapes, types, two
// more.
#define EXPORT_KERNEL(NAME, KERNEL)                                                                                \
  extern "C" int NAME(int count, void** tensors, int* ranks, int64_t** shapes, const char** types, void*, void*) { \
    KERNEL(Call{count, tensors, ranks, shapes, types});                                                            \
    return 0;                                                                                                      \
  }

#endif  // SRC_CPU_KERNELS_H_
