// SPDX-License-Identifier: Apache-2.0
// The memory layer of src/layers.py from the projected word pieces to what they read, and its gradient: concept vectors
// are read where they lie, no [T, K, D] is ever in memory.
//
// D concept width, K concepts of a word piece, R concept vectors of the knowledge base.
#include "kernels.h"

namespace {

// What memory and its gradient take first: p [T, D], sentinel [D], ids [T, K], vectors [R, D]. An id that is 0, or none
// of the vectors', is no concept.
struct MemoryInputs {
  explicit MemoryInputs(const Call& call)
      : rows(call.size(0, 0)),
        width(call.size(0, 1)),
        most(call.size(2, 1)),
        count(call.size(3, 0)),
        projected(call.at(0)),
        sentinel(call.at(1)),
        ids(call.at<int32_t>(2)),
        vectors(call.at(3)) {}

  // The vectors that a word piece attends to, the sentinel first; none if it has no concept in the first place.
  std::vector<const float*> attended(int64_t row) const {
    const int32_t* concepts = ids + row * most;
    std::vector<const float*> found;
    if (most == 0 || concepts[0] <= 0) return found;
    found.push_back(sentinel);
    for (int64_t i = 0; i < most; ++i) {
      if (concepts[i] > 0 && concepts[i] < count) found.push_back(vectors + concepts[i] * width);
    }
    return found;
  }

  // softmax_k(p . m_k) over the vectors m_k that a word piece attends to.
  std::vector<float> attention(int64_t row, const std::vector<const float*>& found) const {
    std::vector<float> weights(found.size());
    float largest = -INFINITY, sum = 0.0f;
    for (size_t k = 0; k < found.size(); ++k) {
      weights[k] = dot(projected + row * width, found[k], width);
      largest = std::max(largest, weights[k]);
    }
    for (float& weight : weights) {
      const float power = weight - largest;
      weight = power < kLeastPower ? 0.0f : exponential(power);
      sum += weight;
    }
    for (float& weight : weights) weight /= sum;
    return weights;
  }

  void add(float* target, float factor, const float* vector) const {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) target[i] += factor * vector[i];
  }

  const int64_t rows, width, most, count;
  const float *const projected, *const sentinel;
  const int32_t* const ids;
  const float* const vectors;
};

// MemoryInputs -> sum_k softmax_k(p . m_k) m_k [T, D]; 0 for a word piece without concepts.
void memory(const Call& call) {
  const MemoryInputs inputs(call);
  float* outputs = call.at(4);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < inputs.rows; ++row) {
    float* y = outputs + row * inputs.width;
    std::fill(y, y + inputs.width, 0.0f);
    const auto found = inputs.attended(row);
    const auto weights = inputs.attention(row, found);
    for (size_t k = 0; k < found.size(); ++k) inputs.add(y, weights[k], found[k]);
  }
}

// MemoryInputs, dy [T, D] -> dp [T, D], dsentinel [D]. With weights w_k the gradient by the scores is
// ds_k = w_k (dy . m_k - sum_l w_l dy . m_l); dp = sum_k ds_k m_k, dsentinel = sum over the rows of w_0 dy + ds_0 p.
void memory_gradient(const Call& call) {
  const MemoryInputs inputs(call);
  const int64_t width = inputs.width;
  const float* gradients = call.at(4);
  float* by_projected = call.at(5);
  for_rows_with_sums<1>(inputs.rows, width, {call.at(6)}, [&](int64_t row, float* by_sentinel) {
    const float* dy = gradients + row * width;
    float* dp = by_projected + row * width;
    std::fill(dp, dp + width, 0.0f);
    const auto found = inputs.attended(row);
    const auto weights = inputs.attention(row, found);
    std::vector<float> by_weights(found.size());
    float sum = 0.0f;
    for (size_t k = 0; k < found.size(); ++k) {
      by_weights[k] = dot(dy, found[k], inputs.width);
      sum += weights[k] * by_weights[k];
    }
    for (size_t k = 0; k < found.size(); ++k) inputs.add(dp, weights[k] * (by_weights[k] - sum), found[k]);
    if (found.empty()) return;
    inputs.add(by_sentinel, weights[0], dy);
    inputs.add(by_sentinel, weights[0] * (by_weights[0] - sum), inputs.projected + row * width);
  });
}

}  // namespace

EXPORT_KERNEL(Memory, memory)
EXPORT_KERNEL(MemoryGradient, memory_gradient)
