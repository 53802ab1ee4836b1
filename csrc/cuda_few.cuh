// Few classes on CUDA: two launches forward, one backward. The unit prototypes stand in shared memory; the cosines
// [N, C] are kept.
#pragma once

#include "cuda_rows.cuh"

namespace margin {

constexpr int64_t kFewStatic = 16 << 10;  // at least what a kernel here has of static shared memory (tests hold it to that)
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

// What launch 1 reads and writes beside the features and the weight.
struct FewForward {
  Options options;
  const int64_t* labels;
  int64_t samples, classes, size;
  const float* state;
  int numbers;
  bool training;
  OfSamples own;
  Statistics* statistics;
  float* cosines;
  Moments* moments;   // [blocks of launch 1]
  double* parts;      // [blocks of launch 2]
  unsigned* arrived;  // launch 1 sets it to 0 for launch 2
};

// Launch 1: norms and cosines, a warp a row, four classes at a time.
template <typename T, typename W>
__global__ void __launch_bounds__(kThreads) few_cosines(FewForward in, const T* features, const W* weight) {
  MARGIN_DYNAMIC_SHARED(float, unit);
  unit_prototypes(weight, in.classes, in.size, unit);
  const int lane = threadIdx.x % kWarp;
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  float own = 0.0f, norm = 0.0f;
  if (row < in.samples) {  // whole warps
    const T* z = features + row * in.size;
    const Length length = row_length(z, in.size);
    const int64_t label = in.labels[row];
    CUDA_KERNEL_ASSERT(label >= 0 && label < in.classes && "a label is out of range");
    for (int64_t first = 0; first < in.classes; first += 4) {
      float dots[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int64_t d = lane; d < in.size; d += kWarp) {
        const float v = length.unit(load(z, d));
#pragma unroll
        for (int k = 0; k < 4; ++k) dots[k] += v * unit[(first + k < in.classes ? first + k : first) * in.size + d];
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float cosine = warp_sum(dots[k]);
        if (lane != 0 || first + k >= in.classes) continue;
        in.cosines[row * in.classes + first + k] = cosine;
        if (first + k == label) own = cosine;
      }
    }
    norm = length.norm;
    if (lane == 0) {
      in.statistics[row].cosine = own;
      in.statistics[row].norm = norm;
    }
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *in.arrived = 0;
  if (in.training && in.numbers > 0)
    block_moments(in.options, row < in.samples && lane == 0, own, norm, in.state, in.numbers, in.moments);
}

// Launch 2, a thread a sample: the state, each sample's sum over its negatives, and the mean loss.
static __global__ void __launch_bounds__(kThreads, 4) few_loss(FewForward in, int64_t moments, float* next, float* loss) {
  const State moved =
      moved_state(in.options, in.moments, moments, in.samples, in.state, in.numbers, in.training);
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  double mine = 0;
  if (i < in.samples) {
    const Target own = target_of(in.options, in.statistics[i].cosine, in.statistics[i].norm, moved.value, in.own, i);
    RunningOthers others;
    for (int64_t c = 0; c < in.classes; ++c)
      if (c != in.labels[i]) others.add(own, in.cosines[i * in.classes + c]);
    mine = finish_sample(own, others.others, in.statistics[i]);
  }
  grid_sum(mine, in.parts, in.arrived, [&](double total) {
    write_result(total, in.samples, moved, in.state, in.numbers, next, loss);
  });
}

// What launch 3 reads.
template <typename T, typename W>
struct FewBackward {
  const float* grad;
  const T* features;
  const W* weight;
  const int64_t* labels;
  const Statistics* statistics;
  const float* cosines;
  int64_t samples, classes, size;
  T* dz;
  W* dw;

  __device__ float factor() const { return *grad / float(samples); }
  // d loss / d c of class c in sample i.
  __device__ float gradient(const SampleGradient& sample, int64_t i, int64_t c) const {
    if (c == labels[i]) return sample.target * factor();
    return sample.strength * factor() * negative_share(sample, sample.scale * kLog2E, clamp_cosine(cosines[i * classes + c]));
  }
};

// dz of a row by a warp.
template <typename T, typename W>
__device__ void few_features(const FewBackward<T, W>& in, int64_t block) {
  MARGIN_DYNAMIC_SHARED(float, unit);
  MARGIN_SHARED(float, grads, [kWarps][kFewClasses]);
  unit_prototypes(in.weight, in.classes, in.size, unit);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t i = block * kWarps + warp;
  if (i >= in.samples) return;  // whole warps, after the last barrier of the block
  const SampleGradient& sample = in.statistics[i].gradient;
  float across = 0.0f;
  for (int64_t c = lane; c < in.classes; c += kWarp) {
    const float cosine = in.cosines[i * in.classes + c], g = in.gradient(sample, i, c);
    grads[warp][c] = g;
    across += g * cosine;
  }
  __syncwarp();
  const float inverse = inverse_of(in.statistics[i].norm);
  across = warp_sum(across);
  const float along = in.factor() * sample.norm;
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
  MARGIN_SHARED(float, grads, [kRowChunk][kClassTile]);
  MARGIN_SHARED(float, inverses, [kRowChunk]);
  MARGIN_SHARED(float, sums, [kWarps][kClassTile][kWarp]);
  MARGIN_SHARED(float, projections, [kClassTile]);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t columns = (in.size + kWarp - 1) / kWarp, first = block / columns * kClassTile;
  const int64_t d = block % columns * kWarp + lane;
  const int tile = int(in.classes - first < kClassTile ? in.classes - first : kClassTile);
  float dots[kClassTile] = {}, across = 0.0f;
  for (int64_t start = 0; start < in.samples; start += kRowChunk) {
    const int count = int(in.samples - start < kRowChunk ? in.samples - start : kRowChunk);
    __syncthreads();  // the previous chunk's gradients have been used
    for (int r = threadIdx.x; r < count; r += kThreads) inverses[r] = inverse_of(in.statistics[start + r].norm);
    for (int e = threadIdx.x; e < count * kClassTile; e += kThreads) {
      const int r = e / kClassTile, k = e % kClassTile;
      grads[r][k] = k < tile ? in.gradient(in.statistics[start + r].gradient, start + r, first + k) : 0.0f;
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
  const float projected = projections[warp] * length.unit(load(prototype, d));
  store(in.dw, (first + warp) * in.size + d, (sum - projected) * inverse_of(length.norm));
}

// Launch 3: the first blocks take the rows' dz, the others dW.
template <typename T, typename W>
__global__ void __launch_bounds__(kThreads, 4) few_backward(FewBackward<T, W> in, int64_t row_blocks) {
  if (blockIdx.x < row_blocks)
    few_features(in, blockIdx.x);
  else
    few_weight(in, blockIdx.x - row_blocks);
}

}  // namespace margin
