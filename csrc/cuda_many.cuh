// Many classes on CUDA: the kernels around the matrix products. A chunk of classes goes through at a time.
//
// Where the features are 16-bit the products are fp16 with fp32 sums: cosines in fp16 lose 0.016 of a logit at s = 64,
// bf16 would lose 0.125. Of the gradient the products take shares exp(s (n_j - peak)), the sample's largest being 1, or at most
// 4 where a loss shapes the negatives; fp16 holds them times 2^13, down to 1e-11. The sample's own strength multiplies dz after
// the product, and unit(z) before that of dW, as a part of the largest one and times 2^6: a part of 10^-5 keeps its digits.
// The target's entry, which a margin can make a thousand times larger, stays out of the products and is added in fp32.
#pragma once

#include "cuda_eight.cuh"

namespace margin {

// unit = in / |in| and the norms, `stride` floats apart; a warp a row.
template <typename T, typename Unit>
__global__ void __launch_bounds__(kThreads)
    normalize_rows(const T* in, int64_t rows, int64_t size, Unit* unit, float* norm, int64_t stride) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  const Length length = row_length(in + row * size, size);
  for (int64_t d = threadIdx.x % kWarp; d < size; d += kWarp)
    store_bounded(unit, row * size + d, length.unit(load(in, row * size + d)));
  if (threadIdx.x % kWarp == 0) norm[row * stride] = length.norm;
}

// What forward's kernels share.
struct ManyForward {
  Options options;
  const int64_t* labels;
  int64_t samples, classes, size;
  const float* state;  // before the step
  int numbers;
  bool training;
  OfSamples own;
  Statistics* statistics;
  float* used;        // [2] the state that the step uses
  Others* others;     // [samples]
  Moments* moments;   // [blocks of target_cosines]
  double* parts;      // [blocks of many_loss]
  unsigned* arrived;  // target_cosines sets it to 0 for many_loss
};

// c_y in fp32, a warp a row.
template <typename T, typename W>
__global__ void __launch_bounds__(kThreads) target_cosines(ManyForward in, const T* features, const W* weight) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  float dot = 0.0f;
  if (row < in.samples) {  // whole warps
    const int64_t label = in.labels[row];
    CUDA_KERNEL_ASSERT(label >= 0 && label < in.classes && "a label is out of range");
    const T* z = features + row * in.size;
    const W* w = weight + label * in.size;
    const Length of_z = row_length(z, in.size), of_w = row_length(w, in.size);
    for (int64_t d = lane; d < in.size; d += kWarp) dot += of_z.unit(load(z, d)) * of_w.unit(load(w, d));
    dot = warp_sum(dot);
    if (lane == 0) in.statistics[row].cosine = dot;
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *in.arrived = 0;
  if (in.training && in.numbers > 0)
    block_moments(in.options, row < in.samples && lane == 0, dot, row < in.samples ? in.statistics[row].norm : 0.0f, in.state,
                  in.numbers, in.moments);
}

// One block: the state that the step uses, from the blocks' moments. Only where it moves.
static __global__ void __launch_bounds__(kThreads) update_state(ManyForward in, int64_t moments) {
  const State moved = moved_state(in.options, in.moments, moments, in.samples, in.state, in.numbers, in.training);
  if (threadIdx.x == 0)
    for (int i = 0; i < in.numbers; ++i) in.used[i] = moved.value[i];
}

// A block a sample: the chunk's negatives join its sum.
template <typename C, bool kShapesNegatives, bool kWhole>
__global__ void __launch_bounds__(kThreads) accumulate(ManyForward in, Rows<const C> cosines, int64_t first, int64_t count) {
  const int64_t row = blockIdx.x;
  const OtherColumns is_other(in.labels[row] - first, count);
  const Target target = target_of(in.options, in.statistics[row].cosine, in.statistics[row].norm, in.used, in.own, row);
  Others before = first ? in.others[row] : no_others(), here = no_others();
  for (int c = threadIdx.x * kEight; c < is_other.columns; c += kThreads * kEight)
    add_eight<kShapesNegatives>(here, target, load_eight<kWhole>(cosines.at(row), c, is_other.columns), c, is_other);
  const float peak = fmaxf(block_max(here.peak), before.peak);
  const float highest = kShapesNegatives ? fmaxf(block_max(here.highest), before.highest) : peak;
  raise_peak(here, target.scale, peak);
  raise_peak(before, target.scale, peak);
  const float rest = block_sum(here.rest), moment = target.scale_slope != 0.0f ? block_sum(here.moment) : 0.0f;
  if (threadIdx.x == 0) in.others[row] = {peak, before.rest + rest, highest, before.moment + moment};
}

// A thread a sample: completes the statistics, and the mean loss.
static __global__ void __launch_bounds__(kThreads, 4) many_loss(ManyForward in, float* next, float* loss) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  double mine = 0;
  if (i < in.samples) {
    const Target target = target_of(in.options, in.statistics[i].cosine, in.statistics[i].norm, in.used, in.own, i);
    mine = finish_sample(target, in.others[i], in.statistics[i]);
  }
  grid_sum(mine, in.parts, in.arrived, [&](double total) {
    State moved = {{0.0f, 0.0f}};
    for (int k = 0; k < in.numbers; ++k) moved.value[k] = in.used[k];
    write_result(total, in.samples, moved, in.state, in.numbers, next, loss);
  });
}

// What the gradient's kernels read of the batch.
struct ManyBackward {
  const float *grad, *most;  // most: the largest strength of a sample, by which fp16 products measure the others; else null
  const Statistics* statistics;
  const int64_t* labels;
  int64_t samples, size;
  float boost, lift;  // of shares and of scaled unit(z), where they are fp16: 2^13 and, with mv-*'s relief still in range, 2^6; else 1

  __device__ float factor() const { return *grad / float(samples); }
  // What a sample's shares are divided by, and its strength multiplied: a negative of mv-* is 1 + t times as steep, with t up to 1000.
  __device__ static float relief(const SampleGradient& sample) {
    return fmaxf(1.0f, 0.25f * (2.0f * sample.shaping.square + sample.shaping.linear));
  }
  // What the product of shares and unit(W) is multiplied by in a row of dz.
  __device__ float unscale(const SampleGradient& sample) const {
    return sample.strength * relief(sample) * (factor() / boost);
  }
  // Likewise of shares and scaled unit(z) in dW.
  __device__ float unscale() const { return (most ? *most : 1.0f) * (factor() / (boost * lift)); }
  // What unit(z) is multiplied by before that product.
  __device__ float weight_of(const SampleGradient& sample) const {
    const float strength = sample.strength * relief(sample);
    return !most ? strength : *most == 0.0f ? 0.0f : lift * (strength / *most);
  }
};

// scaled = unit(z) times the sample's strength; a warp a row.
template <typename Unit>
__global__ void __launch_bounds__(kThreads) scale_rows(ManyBackward in, const Unit* unit, Unit* scaled) {
  const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (i >= in.samples) return;
  const float weight = in.weight_of(in.statistics[i].gradient);
  for (int64_t d = threadIdx.x % kWarp; d < in.size; d += kWarp)
    store_bounded(scaled, i * in.size + d, load(unit, i * in.size + d) * weight);
}

// The samples by label: sorted [N] ascending, order [N] the samples they belong to. Each thread counts who comes before.
static __global__ void __launch_bounds__(kThreads)
    order_labels(const int64_t* labels, int64_t samples, int64_t* sorted, int64_t* order) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= samples) return;
  const int64_t label = labels[i];
  int64_t place = 0;
  for (int64_t k = 0; k < samples; ++k) place += labels[k] < label || (labels[k] == label && k < i);
  sorted[place] = label;
  order[place] = i;
}

// The samples in the order of their labels: these ascending [N], and the samples that they belong to [N].
struct LabelOrder {
  const int64_t *sorted, *order;
};

// Where the samples of a class stand in that order: [begin, end).
struct Range {
  int64_t begin, end;
};
__device__ inline Range samples_of_class(const LabelOrder& labels, int64_t samples, int64_t label) {
  int64_t begin = 0, end = samples;
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (labels.sorted[middle] < label) begin = middle + 1; else end = middle;
  }
  while (end < samples && labels.sorted[end] == label) ++end;
  return {begin, end};
}

// The unit prototypes [count, D] of the classes from `first` on, and the prototypes' norms [count].
template <typename Unit>
struct PrototypeChunk {
  const Unit* unit;
  const float* norm;
  int64_t first, count;
};

// A block a row: the negatives' shares of the gradient (the target's is zero).
// Cosines and shares may be the same memory: each thread reads eight entries before it writes them.
template <typename C, typename Share, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    gradient_shares(ManyBackward in, Rows<const C> cosines, int64_t first, int64_t count, Rows<Share> shares) {
  const int64_t i = blockIdx.x;
  const OtherColumns is_other(in.labels[i] - first, count);
  const SampleGradient sample = in.statistics[i].gradient;
  const float boost = in.boost / in.relief(sample);
  const auto fill = [&](auto of_eight) {
    for (int c = threadIdx.x * kEight; c < is_other.columns; c += kThreads * kEight)
      store_eight<kWhole>(shares.at(i), c, is_other.columns,
                          of_eight(load_eight<kWhole>(cosines.at(i), c, is_other.columns), c));
  };
  if (shapes(sample.shaping))
    fill([&](const Eight<C>& eight, int c) { return shares_of_eight<true, Share>(sample, boost, eight, c, is_other); });
  else
    fill([&](const Eight<C>& eight, int c) { return shares_of_eight<false, Share>(sample, boost, eight, c, is_other); });
}

// dz of a row by a warp, from h = shares W^ and the target's own part.
template <typename T, typename W>
__global__ void __launch_bounds__(kThreads)
    project_features(ManyBackward in, const T* features, const W* weight, const float* h, T* dz) {
  const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (i >= in.samples) return;
  const int lane = threadIdx.x % kWarp;
  const SampleGradient sample = in.statistics[i].gradient;
  const T* z = features + i * in.size;
  const W* w = weight + in.labels[i] * in.size;
  const Length of_z = row_length(z, in.size), of_w = row_length(w, in.size);
  const float unscale = in.unscale(sample), pull = sample.target * in.factor(), inverse = inverse_of(of_z.norm);
  const auto gradient = [&](int64_t d) { return unscale * h[i * in.size + d] + pull * of_w.unit(load(w, d)); };
  float across = 0.0f;
  for (int64_t d = lane; d < in.size; d += kWarp) across += gradient(d) * of_z.unit(load(z, d));
  across = warp_sum(across);
  const float outward = in.factor() * sample.norm;
  for (int64_t d = lane; d < in.size; d += kWarp) {
    const float u = of_z.unit(load(z, d));
    store(dz, i * in.size + d, (gradient(d) - across * u) * inverse + outward * u);
  }
}

// dW of a class by a warp, from the product of shares and scaled unit features, which it completes with the samples of that class.
template <typename Unit, typename W>
__global__ void __launch_bounds__(kThreads)
    project_prototypes(ManyBackward in, PrototypeChunk<Unit> chunk, LabelOrder labels, float* product, const Unit* unit, W* dw) {
  const int64_t c = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (c >= chunk.count) return;
  const int lane = threadIdx.x % kWarp;
  const auto [begin, end] = samples_of_class(labels, in.samples, chunk.first + c);
  const float unscale = in.unscale(), factor = in.factor();
  float across = 0.0f;
  for (int64_t d = lane; d < in.size; d += kWarp) {
    float sum = unscale * product[c * in.size + d];
    for (int64_t k = begin; k < end; ++k)
      sum += in.statistics[labels.order[k]].gradient.target * factor * load(unit, labels.order[k] * in.size + d);
    product[c * in.size + d] = sum;
    across += sum * load(chunk.unit, c * in.size + d);
  }
  across = warp_sum(across);
  const float inverse = inverse_of(chunk.norm[c]);
  for (int64_t d = lane; d < in.size; d += kWarp)
    store(dw, (chunk.first + c) * in.size + d, (product[c * in.size + d] - across * load(chunk.unit, c * in.size + d)) * inverse);
}

}  // namespace margin
