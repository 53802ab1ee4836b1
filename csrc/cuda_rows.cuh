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
constexpr float kNoLogit = -3e38f;

template <typename T>
__device__ __forceinline__ float load(const T* at, int64_t index) {
  return static_cast<float>(at[index]);
}

// A gradient: what is too large for fp16 is infinite there, so that a gradient scaler sees it.
template <typename T>
__device__ __forceinline__ void store(T* at, int64_t index, float value) {
  at[index] = static_cast<T>(value);
}

// A unit vector's entry, or a share: within fp16's range but for rounding.
template <typename T>
__device__ __forceinline__ void store_bounded(T* at, int64_t index, float value) {
  if constexpr (sizeof(T) == 2) value = clamp(value, -65504.0f, 65504.0f);
  at[index] = static_cast<T>(value);
}

template <typename V>
__device__ __forceinline__ V warp_sum(V value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}
// NaN is passed over: the sum that follows a maximum shows it.
__device__ __forceinline__ float warp_max(float value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

// The sum over the block, the same in every thread; every thread of the block must take part.
template <typename V>
__device__ V block_sum(V value) {
  MARGIN_SHARED(V, parts, [kWarps]);
  value = warp_sum(value);
  __syncthreads();  // an earlier call's parts may still be read
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  V sum = 0;
  for (int warp = 0; warp < kWarps; ++warp) sum += parts[warp];
  return sum;
}
__device__ inline float block_max(float value) {
  MARGIN_SHARED(float, parts, [kWarps]);
  value = warp_max(value);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  float most = parts[0];
  for (int warp = 1; warp < kWarps; ++warp) most = fmaxf(most, parts[warp]);
  return most;
}

// The sum of `value` over all threads of all blocks in a fixed order: the last block to arrive gets it, in its first thread,
// and calls finish(sum). parts [blocks]; *arrived was 0 when the kernel began.
template <typename Finish>
__device__ void grid_sum(double value, double* parts, unsigned* arrived, const Finish& finish) {
  MARGIN_SHARED(bool, last, );
  value = block_sum(value);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = value;
    __threadfence();
    last = atomicAdd(arrived, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  double sum = 0;
  for (unsigned b = threadIdx.x; b < gridDim.x; b += kThreads) sum += static_cast<volatile double*>(parts)[b];
  sum = block_sum(sum);
  if (threadIdx.x == 0) finish(sum);
}

// The norm of a row, and how its entries become the unit vector's: v * shrink * inverse, 0 without a direction.
struct Length {
  float norm, shrink, inverse;
  __device__ float unit(float value) const { return value * shrink * inverse; }
};

template <typename T>
__device__ Length row_length(const T* row, int64_t size) {
  const int lane = threadIdx.x % kWarp;
  float square = 0.0f, largest = 0.0f;
  for (int64_t d = lane; d < size; d += kWarp) {
    const float v = load(row, d);
    square += v * v;
    largest = fmaxf(largest, fabsf(v));
  }
  square = warp_sum(square);
  if (square < 1e30f && square > 1e-30f) {
    const float length = sqrtf(square);
    return {length, 1.0f, 1.0f / length};
  }
  // The squares may leave a float's range: again, with the largest entry scaled to 1.
  largest = warp_max(largest);
  if (square == square && largest < 1e-36f) return {kNormFloor, 0.0f, 0.0f};
  const float shrink = 1.0f / largest;
  square = 0.0f;
#pragma unroll 1
  for (int64_t d = lane; d < size; d += kWarp) {
    const float v = load(row, d) * shrink;
    square += v * v;
  }
  const float length = sqrtf(warp_sum(square)), norm = length * largest;
  if (norm <= kNormFloor) return {kNormFloor, 0.0f, 0.0f};
  return {norm > kNormCeiling ? kNormCeiling : norm, shrink, 1.0f / length};
}

// The sums that the running state follows, of a block's samples: of what is observed, less the state's mean, and its squares.
struct Moments {
  double sum, squares;
};
__device__ inline float moments_centre(const float* state, int numbers) { return numbers > 0 ? state[0] : 0.0f; }

// Every thread of the block takes part, with its sample or (counts: false) without one.
__device__ inline void block_moments(const Options& options, bool counts, float cosine, float norm, const float* state,
                                     int numbers, Moments* parts) {
  const double off = counts ? double(observed(options, cosine, norm)) - moments_centre(state, numbers) : 0.0;
  const double sum = block_sum(off), squares = block_sum(off * off);
  if (threadIdx.x == 0) parts[blockIdx.x] = {sum, squares};
}

// The state as this step uses it: in training moved by the batch's statistics, which stand in parts [blocks]. The same in
// every thread of a block.
struct State {
  float value[2];
};
__device__ inline State moved_state(const Options& options, const Moments* parts, int64_t blocks, int64_t samples,
                                    const float* state, int numbers, bool training) {
  State moved = {{numbers > 0 ? state[0] : 0.0f, numbers > 1 ? state[1] : 0.0f}};
  if (!training || numbers == 0) return moved;
  Moments all = {0, 0};
  for (int64_t b = threadIdx.x; b < blocks; b += kThreads) {
    all.sum += parts[b].sum;
    all.squares += parts[b].squares;
  }
  const double sum = block_sum(all.sum), squares = block_sum(all.squares), count = double(samples);
  const float mean = float(moments_centre(state, numbers) + sum / count);
  const double variance = (squares - sum * sum / count) / (count - 1);
  const float std = samples > 1 ? float(sqrt(variance < 0 ? 0.0 : variance)) : moved.value[1];
  const State old = moved;
  next_state(options, mean, std, old.value, moved.value);
  return moved;
}

// The mean loss; a batch that is not finite moves no state.
__device__ inline void write_result(double total, int64_t samples, const State& moved, const float* state, int numbers,
                                    float* next, float* loss) {
  const float mean = float(total / double(samples));
  *loss = mean;
  const bool finite = mean - mean == 0.0f;
  for (int i = 0; i < numbers; ++i) next[i] = finite ? moved.value[i] : state[i];
}

// The sum of exp(scale (n - peak)), with a running peak; NaN shows in `rest`.
struct RunningOthers {
  Others others = no_others();
  __device__ void add(const Target& target, float raw_cosine) {
    const float c = clamp_cosine(raw_cosine), n = shaped(c, target.shaping);
    if (c > others.highest) others.highest = c;
    if (n > others.peak) {
      raise_peak(others, target.scale, n);
      others.rest += 1.0f;
    } else {
      const float below = n - others.peak, e = expf(target.scale * below);
      others.rest += e;
      others.moment += e * below;
    }
  }
};

constexpr float kLog2E = 1.44269504088896f;

// 2^x; what is below 2^-126 is 0.
__device__ __forceinline__ float power_of_two(float x) {
#ifdef __CUDA_ARCH__
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  return exp2f(x);
#endif
}

// exp(scale (n_j - peak)) times d n_j / d c_j, of a clamped cosine; times the sample's strength it is d loss / d c_j.
// Without kShapes n_j is the cosine, and it is at most 1. steepness: scale log2(e), which a row's loop takes once.
template <bool kShapes = true>
__device__ __forceinline__ float negative_share(const SampleGradient& sample, float steepness, float cosine) {
  const float power = steepness * ((kShapes ? shaped(cosine, sample.shaping) : cosine) - sample.peak);
  const float share = power_of_two(power > 0.0f ? 0.0f : power);
  return kShapes ? share * shaped_slope(cosine, sample.shaping) : share;
}

}  // namespace margin
