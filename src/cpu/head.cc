// SPDX-License-Identifier: Apache-2.0
// Kernels for self-matching and the answer span of src/layers.py, and their gradients, each in one pass over memory.
//
// U fused width: the encoder's and those of the concepts.
#include "kernels.h"

namespace {

// u [T, U], w [U], w' [U] -> u * w [T, U], u . w' [T].
void match_factors(const Call& call) {
  const int64_t rows = call.size(0, 0), width = call.size(0, 1);
  const float *inputs = call.at(0), *diagonal = call.at(1), *vector = call.at(2);
  float *scaled = call.at(3), *scores = call.at(4);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float* u = inputs + row * width;
    float* target = scaled + row * width;
    scores[row] = dot(u, vector, width);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) target[i] = u[i] * diagonal[i];
  }
}

// u, w, w', the gradients by both results -> those by u [T, U], w [U], w' [U].
void match_factors_gradient(const Call& call) {
  const int64_t rows = call.size(0, 0), width = call.size(0, 1);
  const float *inputs = call.at(0), *diagonal = call.at(1), *vector = call.at(2);
  const float *by_scaled = call.at(3), *by_scores = call.at(4);
  float* by_inputs = call.at(5);
  for_rows_with_sums<2>(rows, width, {call.at(6), call.at(7)}, [=](int64_t row, float* sums) {
    const float *u = inputs + row * width, *by_product = by_scaled + row * width, by_score = by_scores[row];
    float *du = by_inputs + row * width, *by_diagonal = sums, *by_vector = sums + width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      du[i] = by_product[i] * diagonal[i] + by_score * vector[i];
      by_diagonal[i] += by_product[i] * u[i];
      by_vector[i] += by_score * u[i];
    }
  });
}

// r [B, S, S], c [B, S] -> the softmax of each row of r + c [B, S, S].
void match_softmax(const Call& call) {
  const int64_t length = call.size(0, 2), rows = call.size(0, 0) * length;
  const float *scores = call.at(0), *columns = call.at(1);
  float* outputs = call.at(2);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    float* y = outputs + row * length;
    std::memcpy(y, scores + row * length, length * sizeof(float));
    const float factor = 1.0f / powers_of_softmax(y, columns + row / length * length, 1.0f, length);
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) y[i] *= factor;
  }
}

// The softmax A, dA -> the gradients by r, A (dA - sum(A dA)) with the sum over a row, and by c, its sum over the rows.
void match_softmax_gradient(const Call& call) {
  const int64_t batch = call.size(0, 0), length = call.size(0, 2);
  const float *outputs = call.at(0), *gradients = call.at(1);
  float *by_scores = call.at(2), *by_columns = call.at(3);
#pragma omp parallel for schedule(static)
  for (int64_t sample = 0; sample < batch; ++sample) {
    float* sums = by_columns + sample * length;
    std::fill(sums, sums + length, 0.0f);
    for (int64_t row = sample * length; row < (sample + 1) * length; ++row) {
      const float *a = outputs + row * length, *da = gradients + row * length;
      const float sum = dot(a, da, length);
      float* dr = by_scores + row * length;
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) {
        dr[i] = a[i] * (da[i] - sum);
        sums[i] += dr[i];
      }
    }
  }
}

// The weights of the logits, from W [2, 6 U], blocks W1 .. W6: logit k of a word piece is u . own + v . matched + (u *
// v) . both, and what others read of it is v . read.
struct SpanWeights {
  struct Logit {
    std::vector<float> own, matched, both, read;  // [U] each
  };

  SpanWeights(const float* weight, int64_t width) {
    for (int k = 0; k < 2; ++k, weight += 6 * width) {
      for (int64_t i = 0; i < width; ++i) {
        const auto block = [&](int number) { return weight[(number - 1) * width + i]; };
        logits[k].own.push_back(block(1) + block(4) + block(6));
        logits[k].matched.push_back(block(2) - block(4));
        logits[k].both.push_back(block(3));
        logits[k].read.push_back(block(5) - block(6));
      }
    }
  }

  Logit logits[2];
};

// u [T, U], v [T, U], W [2, 6 U] -> [T, 2], [T, 2]: see SpanWeights.
void span_scores(const Call& call) {
  const int64_t rows = call.size(0, 0), width = call.size(0, 1);
  const float *inputs = call.at(0), *matches = call.at(1);
  float *scores = call.at(3), *reads = call.at(4);
  const SpanWeights weights(call.at(2), width);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float *u = inputs + row * width, *v = matches + row * width;
    for (int k = 0; k < 2; ++k) {
      const auto& logit = weights.logits[k];
      const float *own = logit.own.data(), *matched = logit.matched.data(), *both = logit.both.data();
      float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < width; ++i) sum += u[i] * own[i] + v[i] * (matched[i] + u[i] * both[i]);
      scores[2 * row + k] = sum;
      reads[2 * row + k] = dot(v, logit.read.data(), width);
    }
  }
}

// u, v, W, the gradients by both results -> those by u [T, U], v [T, U], W [2, 6 U].
void span_scores_gradient(const Call& call) {
  const int64_t rows = call.size(0, 0), width = call.size(0, 1);
  const float *inputs = call.at(0), *matches = call.at(1), *by_scores = call.at(3), *by_reads = call.at(4);
  float *by_inputs = call.at(5), *by_matches = call.at(6), *by_weight = call.at(7);
  const SpanWeights weights(call.at(2), width);
  const auto &first = weights.logits[0], &second = weights.logits[1];
  const float *own_0 = first.own.data(), *matched_0 = first.matched.data(), *both_0 = first.both.data();
  const float *own_1 = second.own.data(), *matched_1 = second.matched.data(), *both_1 = second.both.data();
  const float *read_0 = first.read.data(), *read_1 = second.read.data();
  // W1, W2, W3 and W5 of each logit take sums over the rows; the others follow from these.
  const auto block = [=](int k, int number) { return by_weight + (6 * k + number - 1) * width; };
  for_rows_with_sums<8>(
      rows, width,
      {block(0, 1), block(0, 2), block(0, 3), block(0, 5), block(1, 1), block(1, 2), block(1, 3), block(1, 5)},
      [=](int64_t row, float* sums) {
        const float *u = inputs + row * width, *v = matches + row * width;
        const float g_0 = by_scores[2 * row], g_1 = by_scores[2 * row + 1];
        const float h_0 = by_reads[2 * row], h_1 = by_reads[2 * row + 1];
        float *du = by_inputs + row * width, *dv = by_matches + row * width;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          const float x = u[i], y = v[i];
          du[i] = g_0 * (own_0[i] + y * both_0[i]) + g_1 * (own_1[i] + y * both_1[i]);
          dv[i] = g_0 * (matched_0[i] + x * both_0[i]) + g_1 * (matched_1[i] + x * both_1[i]) + h_0 * read_0[i] +
                  h_1 * read_1[i];
          sums[i] += g_0 * x;
          sums[width + i] += g_0 * y;
          sums[2 * width + i] += g_0 * x * y;
          sums[3 * width + i] += h_0 * y;
          sums[4 * width + i] += g_1 * x;
          sums[5 * width + i] += g_1 * y;
          sums[6 * width + i] += g_1 * x * y;
          sums[7 * width + i] += h_1 * y;
        }
      });
  for (int k = 0; k < 2; ++k) {
    for (int64_t i = 0; i < width; ++i) {
      block(k, 4)[i] = block(k, 1)[i] - block(k, 2)[i];
      block(k, 6)[i] = block(k, 1)[i] - block(k, 5)[i];
    }
  }
}

}  // namespace

EXPORT_KERNEL(MatchFactors, match_factors)
EXPORT_KERNEL(MatchFactorsGradient, match_factors_gradient)
EXPORT_KERNEL(MatchSoftmax, match_softmax)
EXPORT_KERNEL(MatchSoftmaxGradient, match_softmax_gradient)
EXPORT_KERNEL(SpanScores, span_scores)
EXPORT_KERNEL(SpanScoresGradient, span_scores_gradient)
