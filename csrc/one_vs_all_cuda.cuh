// The one-vs-all losses on CUDA: kernels around three matrix products for each chunk of classes, and their order. For
// margin_head_cuda.cu.
//
// As with the softmax losses, 16-bit features go through fp16 products with fp32 sums, and the own class stays out of them: its
// cosine and its part of both gradients are fp32. Of the gradient the products take sigma(f_j) g'(c_j), which fp16 holds times
// a factor that keeps the largest in range, down to 1e-11.
#pragma once

#include "cuda_batch.cuh"
#include "one_vs_all_head.h"

namespace margin {

// What is known of a sample. loss and by_logit: sums over the classes so far, each with its weight.
struct YesNoSample {
  double loss, by_logit;
  float by_cosine;  // d loss / d c_y, own class
};

struct YesNoBatch {
  OneVsAll call;
  const int64_t* labels;
  int64_t samples, classes, size;
  const float* bias;
  float* rows;  // [samples, kRowNumbers]
  YesNoSample* sums;
  float boost;  // of the shares

  // What a product with shares is multiplied by, and d loss / d c_y.
  __device__ float unscale() const { return call.rest * call.scale / (boost * float(samples)); }
  __device__ float own_pull(int64_t i) const { return sums[i].by_cosine / float(samples); }
};

// A warp a row: |z|, c_y in fp32, and the own class's term.
template <typename T, typename W>
__global__ void __launch_bounds__(kThreads) own_classes(YesNoBatch in, const T* features, const W* weight, unsigned* arrived) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (blockIdx.x == 0 && threadIdx.x < 2) arrived[threadIdx.x] = 0;
  if (row >= in.samples) return;  // whole warps
  const int64_t label = in.labels[row];
  CUDA_KERNEL_ASSERT(label >= 0 && label < in.classes && "a label is out of range");
  const T* z = features + row * in.size;
  const W* w = weight + label * in.size;
  const Length of_z = row_length(z, in.size), of_w = row_length(w, in.size);
  float dot = 0.0f;
  for (int64_t d = lane; d < in.size; d += kWarp) dot += of_z.unit(load(z, d)) * of_w.unit(load(w, d));
  dot = warp_sum(dot);
  if (lane != 0) return;
  const OwnClass own = own_class(in.call, dot, *in.bias);
  in.sums[row] = {own.loss, own.by_logit, own.by_cosine};
  in.rows[row * kRowNumbers] = of_z.norm;
  in.rows[row * kRowNumbers + 1] = dot;
  in.rows[row * kRowNumbers + 2] = kNoLogit;
}

// A block a row: the chunk's other classes join its sums; into `shares`, unless there are none, go sigma(f_j) g'(c_j) times the boost,
// and zero for the label. Cosines and shares may be the same memory: each thread reads an entry before it writes it.
template <typename C, typename Share>
__global__ void __launch_bounds__(kThreads)
    other_classes(YesNoBatch in, Rows<const C> cosines, int64_t first, int64_t count, Rows<Share> shares) {
  const int64_t row = blockIdx.x, own = in.labels[row] - first;
  const float shift = shift_of(in.call, *in.bias);
  float loss = 0.0f, chance = 0.0f, most = kNoLogit;
  for (int64_t c = threadIdx.x; c < count; c += kThreads) {
    const float cosine = clamp_cosine(load(cosines.at(row), c));
    const Tau<float> tau = spread<Scalar>(cosine, in.call.spread);
    const Logistic<float> yes = logistic<Scalar>(in.call.scale * tau.value + shift);
    if (shares.first) store_bounded(shares.at(row), c, c == own ? 0.0f : in.boost * yes.chance * tau.slope);
    if (c == own) continue;
    loss += yes.loss;
    chance += yes.chance;
    most = fmaxf(most, cosine);
  }
  loss = block_sum(loss);
  chance = block_sum(chance);
  most = block_max(most);
  if (threadIdx.x != 0) return;
  in.sums[row].loss += in.call.rest * loss;
  in.sums[row].by_logit += in.call.rest * chance;
  float* highest = in.rows + row * kRowNumbers + 2;
  *highest = fmaxf(*highest, most);
}

// A thread a sample: the mean loss, and its derivative by the bias. parts [2, blocks].
static __global__ void __launch_bounds__(kThreads)
    one_vs_all_means(YesNoBatch in, double* parts, unsigned* arrived, float* loss, float* by_bias) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const bool there = i < in.samples;
  grid_sum(there ? in.sums[i].loss : 0.0, parts, arrived, [&](double sum) { *loss = float(sum / double(in.samples)); });
  grid_sum(there ? in.sums[i].by_logit : 0.0, parts + gridDim.x, arrived + 1,
           [&](double sum) { *by_bias = float(in.call.sign * sum / double(in.samples)); });
}

// dz of a row by a warp, in place of h = shares W^.
template <typename T, typename W>
__global__ void __launch_bounds__(kThreads) yes_no_features(YesNoBatch in, const T* features, const W* weight, float* h) {
  const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (i >= in.samples) return;
  const int lane = threadIdx.x % kWarp;
  const T* z = features + i * in.size;
  const W* w = weight + in.labels[i] * in.size;
  const Length of_z = row_length(z, in.size), of_w = row_length(w, in.size);
  const float unscale = in.unscale(), pull = in.own_pull(i), inverse = inverse_of(of_z.norm);
  const auto gradient = [&](int64_t d) { return unscale * h[i * in.size + d] + pull * of_w.unit(load(w, d)); };
  float across = 0.0f;
  for (int64_t d = lane; d < in.size; d += kWarp) across += gradient(d) * of_z.unit(load(z, d));
  across = warp_sum(across);
  for (int64_t d = lane; d < in.size; d += kWarp)
    h[i * in.size + d] = (gradient(d) - across * of_z.unit(load(z, d))) * inverse;
}

// dW of a class by a warp, in place of the product of shares and unit(z) in dw [count, D], with the samples of that class.
template <typename Unit>
__global__ void __launch_bounds__(kThreads)
    yes_no_prototypes(YesNoBatch in, PrototypeChunk<Unit> chunk, LabelOrder labels, const Unit* unit, float* dw) {
  const int64_t c = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (c >= chunk.count) return;
  const int lane = threadIdx.x % kWarp;
  const auto [begin, end] = samples_of_class(labels, in.samples, chunk.first + c);
  const float unscale = in.unscale();
  float across = 0.0f;
  for (int64_t d = lane; d < in.size; d += kWarp) {
    float sum = unscale * dw[c * in.size + d];
    for (int64_t k = begin; k < end; ++k) sum += in.own_pull(labels.order[k]) * load(unit, labels.order[k] * in.size + d);
    dw[c * in.size + d] = sum;
    across += sum * load(chunk.unit, c * in.size + d);
  }
  across = warp_sum(across);
  const float inverse = inverse_of(chunk.norm[c]);
  for (int64_t d = lane; d < in.size; d += kWarp)
    dw[c * in.size + d] = (dw[c * in.size + d] - across * load(chunk.unit, c * in.size + d)) * inverse;
}

}  // namespace margin
