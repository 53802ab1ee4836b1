// Many classes on CUDA: the kernels around the matrix products. A chunk of classes goes through at a time.
//
// Where the features are 16-bit the products are fp16 with fp32 sums: cosines in fp16 lose 0.016 of a logit at s = 64,
// bf16 would lose 0.125. Gradients are stored as shares of the largest scale times 2^13, which keeps probabilities down
// to 1e-9 in fp16's range; the target's entry, which a margin can make a thousand times larger, stays out of the product
// and is added in fp32.
#pragma once

#include "cuda_rows.cuh"

namespace margin {

// unit = in / |in| and the norms, `stride` floats apart; a warp a row.
template <typename T, typename Unit>
__global__ void __launch_bounds__(kThreads)
    normalize_rows(const T* in, int64_t rows, int64_t size, Unit* unit, float* norm, int64_t stride) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const Length length = row_length(in + row * size, size);
  for (int64_t d = threadIdx.x % kWarp; d < size; d += kWarp)
    store(unit, row * size + d, length.unit(load(in, row * size + d)));
  if (threadIdx.x % kWarp == 0) norm[row * stride] = length.norm;
}

// c_y in fp32, a warp a row.
template <typename T, typename W>
__global__ void __launch_bounds__(kThreads)
    target_cosines(const T* features, const W* weight, const int64_t* labels, int64_t samples, int64_t classes,
                   int64_t size, Row* rows) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= samples) return;
  const int64_t label = labels[row];
  CUDA_KERNEL_ASSERT(label >= 0 && label < classes && "a label is out of range");
  const T* z = features + row * size;
  const W* w = weight + label * size;
  const Length of_z = row_length(z, size), of_w = row_length(w, size);
  float dot = 0.0f;
  for (int64_t d = threadIdx.x % kWarp; d < size; d += kWarp) dot += of_z.unit(load(z, d)) * of_w.unit(load(w, d));
  dot = warp_sum(dot);
  if (threadIdx.x % kWarp == 0) rows[row].cosine = dot;
}

static __global__ void __launch_bounds__(kSingleBlock)
    update_state(Options options, int64_t samples, const Row* rows, const float* state, int numbers, bool training,
                 float* next) {
  moved_state(options, rows, samples, state, numbers, training, next);
}

// A block a row: the chunk's negatives join the row's log-sum-exp.
template <typename C>
__global__ void __launch_bounds__(kThreads)
    accumulate(Options options, const C* cosines, const int64_t* labels, int64_t first, int64_t count,
               const float* state, const Row* rows, float* largest, float* sum) {
  const int64_t row = blockIdx.x, own = labels[row] - first;
  const Target of_row = target_of(options, rows[row].cosine, rows[row].norm, state);
  LogSum others;
  for (int64_t c = threadIdx.x; c < count; c += kThreads)
    if (c != own) others.add(negative_logit(of_row, load(cosines, row * count + c)));
  const float before = first ? largest[row] : kNoLogit;
  const float most = fmaxf(block_max(others.largest), before);
  if (most == kNoLogit) {  // the chunk is the label's class alone, and the first
    if (threadIdx.x == 0) largest[row] = kNoLogit, sum[row] = 0.0f;
    return;
  }
  const float here = block_sum(others.sum * expf(others.largest - most));
  if (threadIdx.x != 0) return;
  sum[row] = (first ? sum[row] * expf(before - most) : 0.0f) + here;
  largest[row] = most;
}

static __global__ void __launch_bounds__(kSingleBlock)
    many_loss(Options options, int64_t samples, const float* state, const float* largest, const float* sum, Row* rows,
              float* loss) {
  double total = 0;
  for (int64_t i = threadIdx.x; i < samples; i += blockDim.x) {
    const Target target = target_of(options, rows[i].cosine, rows[i].norm, state);
    total += finish_row(target, largest[i] + logf(sum[i]), rows[i]);
  }
  total = block_sum(total);
  if (threadIdx.x == 0) *loss = float(total / double(samples));
}

// What the gradient's kernels read of the batch; `most` is the largest scale of a row, by which the others are measured.
struct ManyBackward {
  const float *grad, *most;
  const Row* rows;
  const int64_t* labels;
  int64_t samples, size;
  float boost;  // 2^13 where the shares are fp16, else 1

  __device__ float factor() const { return *grad / float(samples); }
  __device__ float unscale() const { return *most / boost * factor(); }  // of what a product of shares gives
};

// A block a row: the negatives' shares of the gradient (the target's is zero), and the row's sum of c_j times them.
// Cosines and shares may be the same memory: each thread reads an entry before it writes it.
template <typename C, typename Share>
__global__ void __launch_bounds__(kThreads)
    gradient_shares(ManyBackward in, const C* cosines, int64_t first, int64_t count, Share* shares, float* along) {
  const int64_t i = blockIdx.x, own = in.labels[i] - first;
  const RowGradient row = in.rows[i].gradient;
  const float strength = in.boost * (row.scale / *in.most);
  float sum = 0.0f;
  for (int64_t c = threadIdx.x; c < count; c += kThreads) {
    const float cosine = clamp_cosine(load(cosines, i * count + c));
    const float share = c == own ? 0.0f : strength * negative_share(row, cosine);
    sum += share * cosine;
    store(shares, i * count + c, share);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) along[i] = (first ? along[i] : 0.0f) + sum;
}

// dz of a row by a warp, from h = shares W^ and the target's own part.
template <typename T, typename W>
__global__ void __launch_bounds__(kThreads)
    project_features(ManyBackward in, const T* features, const W* weight, const float* h, const float* along, T* dz) {
  const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (i >= in.samples) return;
  const int lane = threadIdx.x % kWarp;
  const RowGradient row = in.rows[i].gradient;
  const T* z = features + i * in.size;
  const W* w = weight + in.labels[i] * in.size;
  const Length of_z = row_length(z, in.size), of_w = row_length(w, in.size);
  const float unscale = in.unscale(), pull = row.target * in.factor();
  const auto gradient = [&](int64_t d) { return unscale * h[i * in.size + d] + pull * of_w.unit(load(w, d)); };
  float across = 0.0f;
  for (int64_t d = lane; d < in.size; d += kWarp) across += gradient(d) * of_z.unit(load(z, d));
  across = of_z.norm > kNormFloor ? warp_sum(across) : 0.0f;
  const float outward = in.factor() * row.norm + row.norm_share * unscale * along[i];
  for (int64_t d = lane; d < in.size; d += kWarp) {
    const float u = of_z.unit(load(z, d));
    store(dz, i * in.size + d, (gradient(d) - across * u) / of_z.norm + (of_z.norm > kNormFloor ? outward * u : 0.0f));
  }
}

// dW of a class by a warp, from the product of shares and unit features and from the samples of that class: `sorted` are
// the labels in ascending order, `order` the samples they belong to.
template <typename Unit, typename W>
__global__ void __launch_bounds__(kThreads)
    project_prototypes(ManyBackward in, const float* product, const Unit* prototypes, const float* norms,
                       const Unit* unit, const int64_t* sorted, const int64_t* order, int64_t first, int64_t count,
                       W* dw) {
  const int64_t c = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (c >= count) return;
  const int lane = threadIdx.x % kWarp;
  int64_t begin = 0, end = in.samples;
  while (begin < end) {  // the first sample of this class
    const int64_t middle = (begin + end) / 2;
    if (sorted[middle] < first + c) begin = middle + 1; else end = middle;
  }
  for (end = begin; end < in.samples && sorted[end] == first + c;) ++end;
  const float unscale = in.unscale(), factor = in.factor();
  const auto gradient = [&](int64_t d) {
    float sum = unscale * product[c * in.size + d];
    for (int64_t k = begin; k < end; ++k)
      sum += in.rows[order[k]].gradient.target * factor * load(unit, order[k] * in.size + d);
    return sum;
  };
  float across = 0.0f;
  for (int64_t d = lane; d < in.size; d += kWarp) across += gradient(d) * load(prototypes, c * in.size + d);
  across = norms[c] > kNormFloor ? warp_sum(across) : 0.0f;
  for (int64_t d = lane; d < in.size; d += kWarp)
    store(dw, (first + c) * in.size + d, (gradient(d) - across * load(prototypes, c * in.size + d)) / norms[c]);
}

}  // namespace margin
