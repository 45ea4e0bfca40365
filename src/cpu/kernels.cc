// The CPU kernels of src/cpu/ops.py: what lies between the matrix products of an encoder layer, each in one pass over
// memory. MindSpore calls them as custom operators of type "aot": tensors and shapes, inputs first, then outputs.
//
// T rows of a batch (B * S), W width, B batch, N heads, S sequence, A head width. All numbers are float32 but the int32
// rows of dropout masks. A result depends on neither the number of threads nor the order in which they run.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr float kInverseRoot2Pi = 0.3989422804f;
constexpr int64_t kBlocks = 32;  // of rows, whose sums are added in order

// Tensors and shapes of one call.
struct Call {
  void** tensors;
  int64_t** shapes;

  template <typename Number = float>
  Number* at(int place) const {
    return static_cast<Number*>(tensors[place]);
  }
  int64_t size(int place, int dimension) const { return shapes[place][dimension]; }
};

// e^x for x in [-87, 88], to which other x are moved; off by 2 units in the last place at most. x = n ln 2 + f with
// |f| <= ln 2 / 2, and e^f by a polynomial (S. Moshier, Cephes, expf).
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: n stands in the lowest bits
  const float n = shifted - 12582912.0f;
  float f = x - n * 0.693359375f;
  f = f + n * 2.12194440e-4f;
  float power = 1.9875691500e-4f;
  power = power * f + 1.3981999507e-3f;
  power = power * f + 8.3334519073e-3f;
  power = power * f + 4.1665795894e-2f;
  power = power * f + 1.6666665459e-1f;
  power = power * f + 5.0000001201e-1f;
  power = power * f * f + f + 1.0f;
  int32_t bits, exponent;
  std::memcpy(&bits, &power, sizeof bits);
  std::memcpy(&exponent, &shifted, sizeof exponent);
  bits += static_cast<int32_t>(static_cast<uint32_t>(exponent) << 23);
  std::memcpy(&power, &bits, sizeof power);
  return power;
}

// The normal distribution function: sigmoid(x P(x^2)), off by 2e-7 at most; P is fitted by benchmarks/fit_gelu.py.
inline float normal_probability(float x) {
  const float square = x * x;
  float power = 3.61123281e-09f;
  power = power * square - 2.66892817e-07f;
  power = power * square + 7.93821889e-06f;
  power = power * square - 1.10480317e-04f;
  power = power * square - 6.62599859e-05f;
  power = power * square + 7.26685670e-02f;
  power = power * square + 1.59576843e+00f;
  return 1.0f / (1.0f + exponential(-x * power));
}

// The dropout mask of a row: a row of the pool; a single row of the pool serves all.
inline const float* mask_of(const float* pool, const int32_t* picked, int64_t picks, int64_t row, int64_t width) {
  return pool + (picks == 1 ? picked[0] : picked[row]) * width;
}

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

// x + b: [T, W], [W] -> GELU of it [T, W].
void bias_gelu(const Call& call) {
  const int64_t rows = call.size(0, 0), width = call.size(0, 1);
  const float *inputs = call.at(0), *bias = call.at(1);
  float* outputs = call.at(2);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float* x = inputs + row * width;
    float* y = outputs + row * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      const float value = x[i] + bias[i];
      y[i] = value * normal_probability(value);
    }
  }
}

// x, b, dy -> dx [T, W], db [W]: dy (Phi(v) + v phi(v)) with v = x + b, and its sum over the rows.
void bias_gelu_gradient(const Call& call) {
  const int64_t rows = call.size(0, 0), width = call.size(0, 1);
  const float *inputs = call.at(0), *bias = call.at(1), *gradients = call.at(2);
  float* by_inputs = call.at(3);
  for_rows_with_sums<1>(rows, width, {call.at(4)}, [=](int64_t row, float* by_bias) {
    const float *x = inputs + row * width, *dy = gradients + row * width;
    float* dx = by_inputs + row * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      const float value = x[i] + bias[i];
      const float density = kInverseRoot2Pi * exponential(-0.5f * value * value);
      const float gradient = dy[i] * (normal_probability(value) + value * density);
      dx[i] = gradient;
      by_bias[i] += gradient;
    }
  });
}

struct Moments {
  float mean, scale;  // scale = 1 / sqrt(variance + epsilon)
};

// What add_norm and its gradient take first: x [T, W], b [W], residual [T, W], gamma [W], beta [W], pool [P, W],
// picked [T] or [1], epsilon [1].
struct AddNormInputs {
  explicit AddNormInputs(const Call& call)
      : rows(call.size(0, 0)),
        width(call.size(0, 1)),
        picks(call.size(6, 0)),
        x(call.at(0)),
        bias(call.at(1)),
        residual(call.at(2)),
        gamma(call.at(3)),
        beta(call.at(4)),
        pool(call.at(5)),
        picked(call.at<int32_t>(6)),
        epsilon(*call.at(7)) {}

  const float* dropout(int64_t row) const { return mask_of(pool, picked, picks, row, width); }

  // Writes z = residual + (x + b) * mask of a row; gives its moments.
  Moments add(int64_t row, float* z) const {
    const float *xs = x + row * width, *residuals = residual + row * width, *keep = dropout(row);
    float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) {
      z[i] = residuals[i] + (xs[i] + bias[i]) * keep[i];
      sum += z[i];
    }
    const float mean = sum / width;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; ++i) squares += (z[i] - mean) * (z[i] - mean);
    return {mean, 1.0f / std::sqrt(squares / width + epsilon)};
  }

  const int64_t rows, width, picks;
  const float *const x, *const bias, *const residual, *const gamma, *const beta, *const pool;
  const int32_t* const picked;
  const float epsilon;
};

// AddNormInputs -> layer normalisation of z [T, W].
void add_norm(const Call& call) {
  const AddNormInputs inputs(call);
  float* outputs = call.at(8);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < inputs.rows; ++row) {
    float* y = outputs + row * inputs.width;
    const Moments moments = inputs.add(row, y);
    const float mean = moments.mean, scale = moments.scale;
#pragma omp simd
    for (int64_t i = 0; i < inputs.width; ++i) y[i] = (y[i] - mean) * scale * inputs.gamma[i] + inputs.beta[i];
  }
}

// AddNormInputs, dy -> dx [T, W], db [W], dresidual [T, W], dgamma [W], dbeta [W].
// With n = (z - mean) r, r = 1 / sqrt(variance + epsilon) and g = gamma dy: dresidual = r (g - mean(g) - n mean(g n)),
// means over a row, and dx = dresidual * mask.
void add_norm_gradient(const Call& call) {
  const AddNormInputs inputs(call);
  const int64_t width = inputs.width;
  const float *gradients = call.at(8), *gamma = inputs.gamma;
  float *by_inputs = call.at(9), *by_residual = call.at(11);
  for_rows_with_sums<3>(inputs.rows, width, {call.at(10), call.at(12), call.at(13)}, [&](int64_t row, float* totals) {
    const float *dy = gradients + row * width, *keep = inputs.dropout(row);
    float *dx = by_inputs + row * width, *dz = by_residual + row * width;
    float *by_bias = totals, *by_gamma = totals + width, *by_beta = totals + 2 * width;
    float* n = dx;  // until dx is known
    const Moments moments = inputs.add(row, n);
    const float mean = moments.mean, scale = moments.scale;
    float sum = 0.0f, products = 0.0f;
#pragma omp simd reduction(+ : sum, products)
    for (int64_t i = 0; i < width; ++i) {
      n[i] = (n[i] - mean) * scale;
      sum += gamma[i] * dy[i];
      products += gamma[i] * dy[i] * n[i];
    }
    const float mean_g = sum / width, mean_gn = products / width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      by_gamma[i] += dy[i] * n[i];
      by_beta[i] += dy[i];
      dz[i] = scale * (gamma[i] * dy[i] - mean_g - n[i] * mean_gn);
      dx[i] = dz[i] * keep[i];
      by_bias[i] += dx[i];
    }
  });
}

// x [T, N * A], b [N * A], anything [B, S] -> x + b as heads [B, N, S, A].
void split_heads(const Call& call) {
  const int64_t batch = call.size(3, 0), heads = call.size(3, 1), length = call.size(3, 2), width = call.size(3, 3);
  const float *inputs = call.at(0), *bias = call.at(1);
  float* outputs = call.at(3);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < batch * length; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      const float *x = inputs + (row * heads + head) * width, *b = bias + head * width;
      float* y = outputs + ((row / length * heads + head) * length + row % length) * width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) y[i] = x[i] + b[i];
    }
  }
}

// Heads dy [B, N, S, A] -> dx [T, N * A], db [N * A]: the gradient of split_heads.
void split_heads_gradient(const Call& call) {
  const int64_t heads = call.size(0, 1), length = call.size(0, 2), width = call.size(0, 3);
  const int64_t rows = call.size(1, 0), all = heads * width;
  const float* gradients = call.at(0);
  float* by_inputs = call.at(1);
  for_rows_with_sums<1>(rows, all, {call.at(2)}, [=](int64_t row, float* by_bias) {
    float* dx = by_inputs + row * all;
    for (int64_t head = 0; head < heads; ++head) {
      const float* dy = gradients + ((row / length * heads + head) * length + row % length) * width;
      std::memcpy(dx + head * width, dy, sizeof(float) * width);
    }
#pragma omp simd
    for (int64_t i = 0; i < all; ++i) by_bias[i] += dx[i];
  });
}

// What masked_softmax and its gradient take first: scores [B, N, S, S], mask [B, S], scale [1], pool [P, S],
// picked [B * N * S] or [1].
struct SoftmaxInputs {
  explicit SoftmaxInputs(const Call& call)
      : rows_of_mask(call.size(0, 1) * call.size(0, 2)),
        rows(call.size(0, 0) * rows_of_mask),
        width(call.size(0, 3)),
        picks(call.size(4, 0)),
        scores(call.at(0)),
        masks(call.at(1)),
        scale(*call.at(2)),
        pool(call.at(3)),
        picked(call.at<int32_t>(4)) {}

  const float* dropout(int64_t row) const { return mask_of(pool, picked, picks, row, width); }

  // Writes e^(scale * scores + mask - the largest of the row); gives their sum.
  float exponentials(int64_t row, float* weights) const {
    const float *x = scores + row * width, *mask = masks + row / rows_of_mask * width;
    float largest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < width; ++i) {
      weights[i] = x[i] * scale + mask[i];
      largest = weights[i] > largest ? weights[i] : largest;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) {
      const float power = weights[i] - largest;
      weights[i] = power < -87.0f ? 0.0f : exponential(power);
      sum += weights[i];
    }
    return sum;
  }

  const int64_t rows_of_mask, rows, width, picks;
  const float *const scores, *const masks;
  const float scale;
  const float* const pool;
  const int32_t* const picked;
};

// SoftmaxInputs -> D [B, N, S, S]: P = softmax(scale * scores + mask) times the dropout mask.
void masked_softmax(const Call& call) {
  const SoftmaxInputs inputs(call);
  float* outputs = call.at(5);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < inputs.rows; ++row) {
    const float* keep = inputs.dropout(row);
    float* weights = outputs + row * inputs.width;
    const float factor = 1.0f / inputs.exponentials(row, weights);
#pragma omp simd
    for (int64_t i = 0; i < inputs.width; ++i) weights[i] *= factor * keep[i];
  }
}

// SoftmaxInputs, dD [B, N, S, S] -> the gradient by the scores: scale (D dD - P sum(D dD)), the sum over a row.
void masked_softmax_gradient(const Call& call) {
  const SoftmaxInputs inputs(call);
  const float *gradients = call.at(5), scale = inputs.scale;
  float* outputs = call.at(6);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < inputs.rows; ++row) {
    const float *keep = inputs.dropout(row), *dd = gradients + row * inputs.width;
    float* p = outputs + row * inputs.width;  // until the gradient is known
    const float factor = 1.0f / inputs.exponentials(row, p);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < inputs.width; ++i) {
      p[i] *= factor;
      sum += p[i] * keep[i] * dd[i];
    }
#pragma omp simd
    for (int64_t i = 0; i < inputs.width; ++i) p[i] = scale * p[i] * (keep[i] * dd[i] - sum);
  }
}

}  // namespace

// Exports a kernel under its name with MindSpore's signature: number of tensors, tensors, ranks, shapes, types, two
// more.
#define EXPORT_KERNEL(NAME, KERNEL)                                                              \
  extern "C" int NAME(int, void** tensors, int*, int64_t** shapes, const char**, void*, void*) { \
    KERNEL(Call{tensors, shapes});                                                               \
    return 0;                                                                                    \
  }

EXPORT_KERNEL(BiasGelu, bias_gelu)
EXPORT_KERNEL(BiasGeluGradient, bias_gelu_gradient)
EXPORT_KERNEL(AddNorm, add_norm)
EXPORT_KERNEL(AddNormGradient, add_norm_gradient)
EXPORT_KERNEL(SplitHeads, split_heads)
EXPORT_KERNEL(SplitHeadsGradient, split_heads_gradient)
EXPORT_KERNEL(MaskedSoftmax, masked_softmax)
EXPORT_KERNEL(MaskedSoftmaxGradient, masked_softmax_gradient)
