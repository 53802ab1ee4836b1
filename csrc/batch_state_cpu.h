// What a loss takes from the whole batch before the losses of its samples: the state as the step uses it, and which margin goes to
// which sample. For margin_forward_cpu.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "margin_head.h"

namespace margin {

// The state that this step uses: in training moved by the statistics of the batch, else a copy.
inline at::Tensor moved_state(const Batch& batch, const Options& options, const Statistics* samples, const at::Tensor& state,
                       bool training) {
  at::Tensor next = state.clone();
  if (!training || state.numel() == 0) return next;
  double sum = 0, squares = 0;
  const auto value = [&](int64_t i) { return double(observed(options, samples[i].cosine, samples[i].norm)); };
  for (int64_t i = 0; i < batch.samples; ++i) sum += value(i);
  const double mean = sum / batch.samples;
  for (int64_t i = 0; i < batch.samples; ++i) squares += (value(i) - mean) * (value(i) - mean);
  const float* old = state.const_data_ptr<float>();
  const float std = batch.samples > 1 ? std::sqrt(squares / (batch.samples - 1)) : old[state.numel() - 1];
  next_state(options, mean, std, old, next.data_ptr<float>());
  return next;
}

// AdaCos's s of a batch: log_sums [N], log of the sum over the negatives at the old s (arXiv 1905.00292, eq. 15).
inline float adacos_scale(const std::vector<double>& log_sums, const Statistics* samples) {
  const int64_t count = int64_t(log_sums.size());
  const double largest = *std::max_element(log_sums.begin(), log_sums.end());
  double sum = 0;
  for (const double one : log_sums) sum += std::exp(one - largest);
  std::vector<float> cosine(count);  // the lower median of the angles is the upper one of the cosines
  for (int64_t i = 0; i < count; ++i) {
    cosine[i] = clamp_cosine(samples[i].cosine);
    if (!(cosine[i] == cosine[i])) return NAN;
  }
  std::nth_element(cosine.begin(), cosine.begin() + count / 2, cosine.end());
  const double lower = std::max(double(cosine[count / 2]), std::cos(double(kPi) / 4));  // cos(min(pi/4, theta))
  return std::max(kLeastScale, float((largest + std::log(sum / count)) / lower));
}

// Where the loss pairs margins with samples: the smallest for the sample with the largest cosine. `own` points to the result [N].
inline std::vector<float> paired_margins(OwnTensors& own, const Options& options, const Statistics* samples) {
  std::vector<float> paired;
  if (!own.pairs(options)) return paired;
  const int64_t count = own.margins.numel();
  const float* given = own.pointers.margins;
  std::vector<float> sorted(given, given + count);
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](int64_t i) { return samples[i].cosine == samples[i].cosine ? samples[i].cosine : 2.0f; };
  std::sort(sorted.begin(), sorted.end());
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return key(a) != key(b) ? key(a) > key(b) : a < b; });
  paired.resize(count);
  for (int64_t place = 0; place < count; ++place) paired[order[place]] = sorted[place];
  own.pointers.margins = paired.data();
  return paired;
}

}  // namespace margin
