// Few classes on CUDA: two launches forward, one backward. The unit prototypes stand in shared memory; the cosines
// [N, C] are kept.
#pragma once

#include "cuda_rows.cuh"

namespace margin {

constexpr int kFewClasses = 64;
constexpr int64_t kFewBytes = 72 << 10;  // of shared memory for the prototypes: with the rest under the 99 KB of sm_86
constexpr int kClassTile = kWarps;       // classes whose dW a block computes: one a warp where it looks after their rows
constexpr int kRowChunk = 128;           // rows whose gradients stand in shared memory at a time

template <typename W>
__device__ void unit_prototypes(const W* weight, int64_t classes, int64_t size, float* unit) {
  for (int64_t c = threadIdx.x / kWarp; c < classes; c += kWarps) {
    const Length length = row_length(weight + c * size, size);
    for (int64_t d = threadIdx.x % kWarp; d < size; d += kWarp)
      unit[c * size + d] = length.unit(load(weight + c * size, d));
  }
  __syncthreads();
}

// Launch 1: norms and cosines, a warp a row, four classes at a time.
template <typename T, typename W>
__global__ void __launch_bounds__(kThreads)
    few_cosines(const T* features, const W* weight, const int64_t* labels, int64_t samples, int64_t classes,
                int64_t size, Row* rows, float* cosines) {
  MARGIN_DYNAMIC_SHARED(float, unit);
  unit_prototypes(weight, classes, size, unit);
  const int lane = threadIdx.x % kWarp;
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= samples) return;  // whole warps, after the last barrier
  const T* z = features + row * size;
  const Length length = row_length(z, size);
  const int64_t label = labels[row];
  CUDA_KERNEL_ASSERT(label >= 0 && label < classes && "a label is out of range");
  for (int64_t first = 0; first < classes; first += 4) {
    float dots[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int64_t d = lane; d < size; d += kWarp) {
      const float v = length.unit(load(z, d));
#pragma unroll
      for (int k = 0; k < 4; ++k) dots[k] += v * unit[(first + k < classes ? first + k : first) * size + d];
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float cosine = warp_sum(dots[k]);
      if (lane != 0 || first + k >= classes) continue;
      cosines[row * classes + first + k] = cosine;
      if (first + k == label) rows[row].cosine = cosine;
    }
  }
  if (lane == 0) rows[row].norm = length.norm;
}

// Launch 2, one block: the state, each row's log S, and the mean loss.
static __global__ void __launch_bounds__(kSingleBlock)
    few_loss(Options options, const int64_t* labels, int64_t samples, int64_t classes, const float* state, int numbers,
             bool training, const float* cosines, Row* rows, float* next, float* loss) {
  const State moved = moved_state(options, rows, samples, state, numbers, training, next);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < samples; i += blockDim.x) {
    const Target own = target_of(options, rows[i].cosine, rows[i].norm, moved.value);
    LogSum others;
    for (int64_t c = 0; c < classes; ++c)
      if (c != labels[i]) others.add(negative_logit(own, cosines[i * classes + c]));
    sum += finish_row(own, others.largest + logf(others.sum), rows[i]);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) *loss = float(sum / double(samples));
}

// What launch 3 reads.
template <typename T, typename W>
struct FewBackward {
  const float* grad;
  const T* features;
  const W* weight;
  const int64_t* labels;
  const Row* rows;
  const float* cosines;
  int64_t samples, classes, size;
  T* dz;
  W* dw;

  __device__ float factor() const { return *grad / float(samples); }
  // d loss / d c of class c in row i.
  __device__ float gradient(const RowGradient& row, int64_t i, int64_t c) const {
    if (c == labels[i]) return row.target * factor();
    return row.scale * factor() * negative_share(row, clamp_cosine(cosines[i * classes + c]));
  }
};

// dz of a row by a warp.
template <typename T, typename W>
__device__ void few_features(const FewBackward<T, W>& in, int64_t block) {
  MARGIN_DYNAMIC_SHARED(float, unit);
  __shared__ float grads[kWarps][kFewClasses];
  unit_prototypes(in.weight, in.classes, in.size, unit);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t i = block * kWarps + warp;
  if (i >= in.samples) return;  // whole warps, after the last barrier of the block
  const RowGradient row = in.rows[i].gradient;
  float across = 0.0f, along = 0.0f;
  for (int64_t c = lane; c < in.classes; c += kWarp) {
    const float cosine = in.cosines[i * in.classes + c], g = in.gradient(row, i, c);
    grads[warp][c] = g;
    across += g * cosine;
    if (c != in.labels[i]) along += g * clamp_cosine(cosine);
  }
  __syncwarp();
  const float norm = in.rows[i].norm;
  const bool floor = norm <= kNormFloor;
  const float inverse = 1.0f / norm;
  across = floor ? 0.0f : warp_sum(across);
  along = floor ? 0.0f : in.factor() * row.norm + row.norm_share * warp_sum(along);
  for (int64_t d = lane; d < in.size; d += kWarp) {
    const float u = load(in.features, i * in.size + d) * inverse;
    float h = 0.0f;
    for (int64_t c = 0; c < in.classes; ++c) h += grads[warp][c] * unit[c * in.size + d];
    store(in.dz, i * in.size + d, (h - across * u) * inverse + along * u);
  }
}

// dW of kClassTile classes and 32 columns by a block: its warps share the rows, and their sums are added in order.
template <typename T, typename W>
__device__ void few_weight(const FewBackward<T, W>& in, int64_t block) {
  __shared__ float grads[kRowChunk][kClassTile], inverses[kRowChunk];
  __shared__ float sums[kWarps][kClassTile][kWarp], projections[kClassTile];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t columns = (in.size + kWarp - 1) / kWarp, first = block / columns * kClassTile;
  const int64_t d = block % columns * kWarp + lane;
  const int tile = int(in.classes - first < kClassTile ? in.classes - first : kClassTile);
  float dots[kClassTile] = {}, across = 0.0f;
  for (int64_t start = 0; start < in.samples; start += kRowChunk) {
    const int count = int(in.samples - start < kRowChunk ? in.samples - start : kRowChunk);
    __syncthreads();  // the previous chunk's gradients have been used
    for (int r = threadIdx.x; r < count; r += kThreads) inverses[r] = 1.0f / in.rows[start + r].norm;
    for (int e = threadIdx.x; e < count * kClassTile; e += kThreads) {
      const int r = e / kClassTile, k = e % kClassTile;
      grads[r][k] = k < tile ? in.gradient(in.rows[start + r].gradient, start + r, first + k) : 0.0f;
    }
    __syncthreads();
    if (warp < tile)
      for (int r = lane; r < count; r += kWarp) across += grads[r][warp] * in.cosines[(start + r) * in.classes + first + warp];
    if (d < in.size)
      for (int r = warp; r < count; r += kWarps) {
        const float u = load(in.features, (start + r) * in.size + d) * inverses[r];
#pragma unroll
        for (int k = 0; k < kClassTile; ++k) dots[k] += grads[r][k] * u;
      }
  }
#pragma unroll
  for (int k = 0; k < kClassTile; ++k) sums[warp][k][lane] = dots[k];
  across = warp_sum(across);
  if (lane == 0) projections[warp] = across;
  __syncthreads();
  if (warp >= tile) return;
  const W* prototype = in.weight + (first + warp) * in.size;
  const Length length = row_length(prototype, in.size);  // the whole warp: it is its own class from here on
  if (d >= in.size) return;
  float sum = 0.0f;
  for (int w = 0; w < kWarps; ++w) sum += sums[w][warp][lane];
  const float projected = length.norm > kNormFloor ? projections[warp] * length.unit(load(prototype, d)) : 0.0f;
  store(in.dw, (first + warp) * in.size + d, (sum - projected) / length.norm);
}

// Launch 3: the first blocks take the rows' dz, the others dW.
template <typename T, typename W>
__global__ void __launch_bounds__(kThreads) few_backward(FewBackward<T, W> in, int64_t row_blocks) {
  if (blockIdx.x < row_blocks)
    few_features(in, blockIdx.x);
  else
    few_weight(in, blockIdx.x - row_blocks);
}

}  // namespace margin
