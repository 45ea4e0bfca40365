// SPDX-License-Identifier: Apache-2.0
// The kernels of src/cpu/optimizer.py: clipping, weight decay, Adam and the moving average in one pass over all
// weights, which change their inputs; gradients as float32.
#include "kernels.h"

namespace {

constexpr int64_t kPiece = 16384;  // numbers of a tensor that are handled together

// Numbers [first, first + size) of a tensor.
struct Piece {
  int64_t tensor, first, size;
};

// The pieces of the tensors at [place, place + count) of a call.
std::vector<Piece> pieces_of(const Call& call, int64_t place, int64_t count) {
  std::vector<Piece> pieces;
  for (int64_t tensor = 0; tensor < count; ++tensor) {
    const int64_t size = call.elements(place + tensor);
    for (int64_t first = 0; first < size; first += kPiece) {
      pieces.push_back({tensor, first, std::min(kPiece, size - first)});
    }
  }
  return pieces;
}

// A piece of a tensor of the call, as float32: in its place, or in `room` for kPiece numbers.
const float* numbers_of(const Call& call, int64_t place, const Piece& piece, float* room) {
  if (!call.is_bfloat16(place + piece.tensor)) return call.at(place + piece.tensor) + piece.first;
  const uint16_t* x = call.at<uint16_t>(place + piece.tensor) + piece.first;
  for (int64_t i = 0; i < piece.size; ++i) {
    const uint32_t bits = static_cast<uint32_t>(x[i]) << 16;
    std::memcpy(room + i, &bits, sizeof bits);
  }
  return room;
}

// The global norm of the tensors from `place` on: squares are summed in float64, in the order of the pieces.
double norm_of(const Call& call, int64_t place, const std::vector<Piece>& pieces) {
  const int64_t count = pieces.size();
  std::vector<double> squares(count);
#pragma omp parallel for schedule(static)
  for (int64_t number = 0; number < count; ++number) {
    const Piece& piece = pieces[number];
    float room[kPiece];
    const float* x = numbers_of(call, place, piece, room);
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < piece.size; ++i) sum += static_cast<double>(x[i]) * x[i];
    squares[number] = sum;
  }
  double sum = 0.0;
  for (const double square : squares) sum += square;
  return std::sqrt(sum);
}

// Moments below it change no weight. Without a gradient they would decay to denormal numbers, which are slow.
constexpr float kLeastMoment = 1e-30f;

struct AdamRates {
  float clip, decay, size, beta_1, beta_2, epsilon, share;
};

// Updates the average `a` only if AVERAGES.
template <bool AVERAGES>
void update(int64_t size, const AdamRates& rates, float* __restrict p, float* __restrict m, float* __restrict v,
            float* __restrict a, const float* __restrict gradients) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) {
    const float gradient = gradients[i] * rates.clip;
    const float first = m[i] + (gradient - m[i]) * (1.0f - rates.beta_1);
    const float second = v[i] + (gradient * gradient - v[i]) * (1.0f - rates.beta_2);
    m[i] = std::fabs(first) < kLeastMoment ? 0.0f : first;
    v[i] = second < kLeastMoment ? 0.0f : second;
    p[i] -= rates.decay * p[i];
    p[i] -= rates.size * m[i] / (std::sqrt(v[i]) + rates.epsilon);
    if constexpr (AVERAGES) a[i] -= rates.share * (a[i] - p[i]);
  }
}

// N weights, first and second moments, with AVERAGES N averages (all are changed), learning rate, scale, powers of both
// betas, settings [weight decay, largest norm or 0, beta 1, beta 2, epsilon, share], factors [N] of the learning rate,
// N gradients, float32 or bfloat16 -> the norm [1] of the gradients times scale. Each average moves to its weights by
// the share.
template <bool AVERAGES>
void adam(const Call& call) {
  constexpr int64_t kChanged = AVERAGES ? 4 : 3;
  const int64_t count = (call.count - 7) / (kChanged + 1), others = kChanged * count, gradients = others + 6;
  const float rate = *call.at(others), power_1 = *call.at(others + 2), power_2 = *call.at(others + 3);
  const float *settings = call.at(others + 4), *factors = call.at(others + 5);
  const auto pieces = pieces_of(call, 0, count);
  const int64_t last = pieces.size();
  float scale = *call.at(others + 1);
  const float norm = static_cast<float>(norm_of(call, gradients, pieces) * scale);
  if (settings[1] > 0.0f) scale *= std::min(1.0f, settings[1] / (norm + 1e-12f));
  const float correction = std::sqrt(1.0f - power_2) / (1.0f - power_1);
#pragma omp parallel for schedule(static)
  for (int64_t number = 0; number < last; ++number) {
    const Piece& piece = pieces[number];
    const float own = rate * factors[piece.tensor];
    const AdamRates rates{scale,       own * settings[0], own * correction, settings[2],
                          settings[3], settings[4],       settings[5]};
    const auto at = [&](int64_t place) { return call.at(place + piece.tensor) + piece.first; };
    float* const averages = AVERAGES ? at(3 * count) : nullptr;
    float room[kPiece];
    update<AVERAGES>(piece.size, rates, at(0), at(count), at(2 * count), averages,
                     numbers_of(call, gradients, piece, room));
  }
  *call.at(call.count - 1) = norm;
}

// x, float32 or bfloat16 -> the same in float32.
void widen(const Call& call) {
  const auto pieces = pieces_of(call, 0, 1);
  const int64_t count = pieces.size();
#pragma omp parallel for schedule(static)
  for (int64_t number = 0; number < count; ++number) {
    const Piece& piece = pieces[number];
    float* target = call.at(1) + piece.first;
    const float* x = numbers_of(call, 0, piece, target);
    if (x != target) std::copy_n(x, piece.size, target);
  }
}

}  // namespace

EXPORT_KERNEL(Widen, widen)
EXPORT_KERNEL(Adam, adam<false>)
EXPORT_KERNEL(AdamAndAverage, adam<true>)
