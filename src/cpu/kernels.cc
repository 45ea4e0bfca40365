// SPDX-License-Identifier: Apache-2.0
// Kernels of src/cpu/ops.py for the embeddings and for what lies between the matrix products of an encoder layer, each
// in one pass over memory.
#include "kernels.h"

namespace {

constexpr float kInverseRoot2Pi = 0.3989422804f;

// The standard normal density, and the distribution function computed from it, with an error of at most 8e-8 (M.
// Abramowitz and I. Stegun, Handbook of Mathematical Functions, 26.2.17).
struct Normal {
  explicit Normal(float x) : density(kInverseRoot2Pi * exponential(-0.5f * x * x)) {
    const float t = 1.0f / (1.0f + 0.2316419f * std::fabs(x));
    float power = 1.330274429f;
    power = power * t - 1.821255978f;
    power = power * t + 1.781477937f;
    power = power * t - 0.356563782f;
    power = power * t + 0.319381530f;
    const float tail = power * t * density;
    probability = x < 0.0f ? tail : 1.0f - tail;
  }

  float density, probability;
};

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
      y[i] = value * Normal(value).probability;
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
      const Normal normal(value);
      const float gradient = dy[i] * (normal.probability + value * normal.density);
      dx[i] = gradient;
      by_bias[i] += gradient;
    }
  });
}

// What add_norm and its gradient take first: x [T, W], b [W], residual [T, W], gamma [W], beta [W], the dropout masks
// of the rows: pool [P, W], step, layer; epsilon [1].
struct AddNormInputs {
  explicit AddNormInputs(const Call& call)
      : rows(call.size(0, 0)),
        width(call.size(0, 1)),
        x(call.at(0)),
        bias(call.at(1)),
        residual(call.at(2)),
        gamma(call.at(3)),
        beta(call.at(4)),
        dropout(call, 5),
        epsilon(*call.at(8)) {}

  // Writes z = residual + (x + b) * mask of a row; gives its moments.
  Moments add(int64_t row, float* z) const {
    const float *xs = x + row * width, *residuals = residual + row * width, *keep = dropout.of(row);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) {
      z[i] = residuals[i] + (xs[i] + bias[i]) * keep[i];
      sum += z[i];
    }
    return moments_of(z, width, sum, epsilon);
  }

  const int64_t rows, width;
  const float *const x, *const bias, *const residual, *const gamma, *const beta;
  const Dropout dropout;
  const float epsilon;
};

// AddNormInputs -> layer normalisation of z [T, W].
void add_norm(const Call& call) {
  const AddNormInputs inputs(call);
  float* outputs = call.at(9);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < inputs.rows; ++row) {
    float* y = outputs + row * inputs.width;
    normalise(y, inputs.width, inputs.add(row, y), inputs.gamma, inputs.beta, y);
  }
}

// AddNormInputs, dy -> dx [T, W], db [W], dresidual [T, W], dgamma [W], dbeta [W].
// With n = (z - mean) r, r = 1 / sqrt(variance + epsilon) and g = gamma dy: dresidual = r (g - mean(g) - n mean(g n)),
// means over a row, and dx = dresidual * mask.
void add_norm_gradient(const Call& call) {
  const AddNormInputs inputs(call);
  const int64_t width = inputs.width;
  const float *gradients = call.at(9), *gamma = inputs.gamma;
  float *by_inputs = call.at(10), *by_residual = call.at(12);
  for_rows_with_sums<3>(inputs.rows, width, {call.at(11), call.at(13), call.at(14)}, [&](int64_t row, float* totals) {
    const float *dy = gradients + row * width, *keep = inputs.dropout.of(row);
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

// x [T, W], the dropout masks of its rows: pool [P, W], step, layer -> x times them [T, W].
void drop(const Call& call) {
  const int64_t rows = call.size(0, 0), width = call.size(0, 1);
  const float* inputs = call.at(0);
  const Dropout dropout(call, 1);
  float* outputs = call.at(4);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float *x = inputs + row * width, *keep = dropout.of(row);
    float* y = outputs + row * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) y[i] = x[i] * keep[i];
  }
}

// A table [R, W], of which only the shape is read, ids [T], gradients [T, W] -> the gradient by the table [R, W]: each
// row is the sum of those of its id, in their order.
void lookup_gradient(const Call& call) {
  const int64_t rows = call.size(0, 0), width = call.size(0, 1), ids = call.elements(1);
  const int32_t* id = call.at<int32_t>(1);
  const float* gradients = call.at(2);
  float* outputs = call.at(3);
  const int64_t block = (rows + kBlocks - 1) / kBlocks;
#pragma omp parallel for schedule(static)
  for (int64_t number = 0; number < kBlocks; ++number) {
    const int64_t first = std::min(rows, number * block), end = std::min(rows, first + block);
    std::fill(outputs + first * width, outputs + end * width, 0.0f);
    for (int64_t t = 0; t < ids; ++t) {
      if (id[t] < first || id[t] >= end) continue;
      float* sum = outputs + id[t] * width;
      const float* gradient = gradients + t * width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) sum[i] += gradient[i];
    }
  }
}

}  // namespace

EXPORT_KERNEL(LookupGradient, lookup_gradient)
EXPORT_KERNEL(BiasGelu, bias_gelu)
EXPORT_KERNEL(BiasGeluGradient, bias_gelu_gradient)
EXPORT_KERNEL(Drop, drop)
EXPORT_KERNEL(AddNorm, add_norm)
EXPORT_KERNEL(AddNormGradient, add_norm_gradient)
