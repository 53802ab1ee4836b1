// What the CUDA kernels share: typed loads, reductions in a fixed order, the norm of a row, and the head's running state.
//
// A warp serves a row wherever a row is read whole. Every sum has a fixed order (butterflies, then warps in turn): no
// atomics, so the same input gives the same bits. No fast-math.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <stdint.h>

#include "margin_head.h"

namespace margin {

constexpr int kWarp = 32;
constexpr int kThreads = 256;  // of every kernel but those of a single block
constexpr int kWarps = kThreads / kWarp;
constexpr int kSingleBlock = 512;
constexpr float kNoLogit = -3e38f;

template <typename T>
__device__ __forceinline__ float load(const T* at, int64_t index) {
  return static_cast<float>(at[index]);
}
template <typename T>
__device__ __forceinline__ void store(T* at, int64_t index, float value) {
  if constexpr (sizeof(T) == 2 && !__is_same(T, c10::BFloat16)) value = clamp(value, -65504.0f, 65504.0f);  // stays finite
  at[index] = static_cast<T>(value);
}

template <typename V>
__device__ __forceinline__ V warp_sum(V value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

// The sum over the block, the same in every thread; every thread of the block must take part.
template <typename V>
__device__ V block_sum(V value) {
  __shared__ V parts[kSingleBlock / kWarp];
  value = warp_sum(value);
  __syncthreads();  // an earlier call's parts may still be read
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  V sum = 0;
  for (int warp = 0; warp < int(blockDim.x) / kWarp; ++warp) sum += parts[warp];
  return sum;
}
__device__ inline float block_max(float value) {
  __shared__ float parts[kSingleBlock / kWarp];
  value = warp_max(value);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  float most = parts[0];
  for (int warp = 1; warp < int(blockDim.x) / kWarp; ++warp) most = fmaxf(most, parts[warp]);
  return most;
}

// The norm of a row, and how its entries become the unit vector's: v * shrink * inverse.
struct Length {
  float norm, shrink, inverse;
  __device__ float unit(float value) const { return value * shrink * inverse; }
};

template <typename T>
__device__ Length row_length(const T* row, int64_t size) {
  const int lane = threadIdx.x % kWarp;
  float square = 0.0f, largest = 0.0f, shrink = 1.0f;
  for (int64_t d = lane; d < size; d += kWarp) {
    const float v = load(row, d);
    square += v * v;
    largest = fmaxf(largest, fabsf(v));
  }
  square = warp_sum(square);
  if (!(square < 1e30f)) {  // the squares may have overflowed: again, with the largest entry scaled to 1
    shrink = 1.0f / warp_max(largest);
    square = 0.0f;
    for (int64_t d = lane; d < size; d += kWarp) {
      const float v = load(row, d) * shrink;
      square += v * v;
    }
    square = warp_sum(square);
  }
  const float length = fmaxf(sqrtf(square), kNormFloor);
  return {fminf(length / shrink, kNormCeiling), shrink, 1.0f / length};
}

// The state as this step uses it: in training moved by the batch's statistics. One block; the result is the same in every
// thread, and thread 0 writes it to `next`.
struct State {
  float value[2];
};
__device__ inline State moved_state(const Options& options, const Row* rows, int64_t samples, const float* state,
                                    int numbers, bool training, float* next) {
  State moved = {{numbers > 0 ? state[0] : 0.0f, numbers > 1 ? state[1] : 0.0f}};
  if (training && numbers > 0) {
    double sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < samples; i += blockDim.x) sum += observed(options, rows[i].cosine, rows[i].norm);
    const double mean = block_sum(sum) / double(samples);
    for (int64_t i = threadIdx.x; i < samples; i += blockDim.x) {
      const double off = observed(options, rows[i].cosine, rows[i].norm) - mean;
      squares += off * off;
    }
    squares = block_sum(squares);
    const float std = samples > 1 ? float(sqrt(squares / double(samples - 1))) : moved.value[1];
    const State old = moved;
    next_state(options, float(mean), std, old.value, moved.value);
  }
  if (threadIdx.x == 0)
    for (int i = 0; i < numbers; ++i) next[i] = moved.value[i];
  return moved;
}

// Completes a row once log S is known; returns its loss.
__device__ inline double finish_row(const Target& target, float log_others, Row& row) {
  row.log_others = log_others;
  row.shift = 0.0f;
  row.gradient = row_gradient(target, log_others);
  return row_loss(target, log_others);
}

// Log-sum-exp's running maximum and sum, one logit more.
struct LogSum {
  float largest = kNoLogit, sum = 0.0f;
  __device__ void add(float logit) {
    if (logit > largest) {
      sum = sum * expf(largest - logit) + 1.0f;
      largest = logit;
    } else {
      sum += expf(logit - largest);
    }
  }
};

__device__ inline float negative_logit(const Target& target, float raw_cosine) {
  const float c = clamp_cosine(raw_cosine);
  return target.scale * (c > target.threshold ? c * (c + target.t) : c);
}

// d loss / d c_j of a negative, as a share of the scale: the probability times the negatives' derivative.
__device__ inline float negative_share(const RowGradient& row, float cosine) {
  const bool hard = cosine > row.threshold;
  const float n = hard ? cosine * (cosine + row.t) : cosine;
  return expf(fminf(row.scale * n - row.log_total, 0.0f)) * (hard ? 2.0f * cosine + row.t : 1.0f);
}

}  // namespace margin
