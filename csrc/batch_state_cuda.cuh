// What a loss takes from the whole batch before the losses of its samples, on CUDA: AdaCos's scale, which margin goes to which
// sample, and ElasticFace's draws. For margin_head_cuda.cu; batch_state_cpu.h is the same on the CPU. torch's own operators
// serve where the work is a few numbers a sample.
#pragma once

#include "cuda_platform.cuh"

#include <ATen/ops/acos.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/median.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/sub.h>

#include <cmath>
#include <cstddef>
#include <tuple>

#include "cuda_batch.cuh"
#include "normal_draws.h"

namespace margin {
namespace {

// The cosines to the own classes [N].
Tensor own_cosines(const Tensor& statistics) { return statistics.select(1, offsetof(Statistics, cosine) / sizeof(float)); }

// AdaCos's s [1] of a batch: log_sums [N] log of the sum over the negatives at the old s (arXiv 1905.00292, eq. 15).
Tensor adacos_scale(const Tensor& log_sums, const Tensor& cosine) {
  const Tensor median = at::median(at::acos(at::clamp(cosine, -kCosineLimit, kCosineLimit)));  // the lower one of an even number
  const Tensor log_b = at::sub(at::logsumexp(log_sums, 0), std::log(double(log_sums.size(0))));
  return at::clamp_min(at::div(log_b, at::cos(at::clamp_max(median, double(kPi) / 4))), double(kLeastScale)).view({1});
}

// The samples' margins; where the loss pairs them, the smallest for the sample with the largest cosine.
OfSamples own_of(OwnTensors& own, const Options& options, const Tensor& statistics) {
  if (own.pairs(options)) {
    const Tensor order = std::get<1>(at::sort(own_cosines(statistics), /*stable=*/true, /*dim=*/0, /*descending=*/true));
    own.margins = at::scatter(own.margins, 0, order, std::get<0>(at::sort(own.margins)));
    own.pointers.margins = own.margins.const_data_ptr<float>();
  }
  return own.pointers;
}

__global__ void __launch_bounds__(kThreads)
    draw_normal(const float* state, int64_t ahead, int64_t count, float mean, float std, float* drawn) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) drawn[i] = mean + std * normal_draw(state, ahead, i);
}

Tensor normal_draws_cuda(const Tensor& state, int64_t ahead, int64_t count, double mean, double std) {
  check_draws(state);
  const DeviceGuard guard(state.device());
  const Tensor drawn = at::empty({count}, state.options());
  if (count)
    launch(draw_normal, blocks_of_threads(count), kThreads, 0, state.const_data_ptr<float>(), ahead, count, float(mean),
           float(std), drawn.data_ptr<float>());
  return drawn;
}

}  // namespace
}  // namespace margin
