// One shard of the classes on the CPU: the sums over its negatives, and its part of both gradients. A process that holds all classes
// is a single shard. A sample whose class lies in another shard has the label -1.
#pragma once

#include <vector>

#include "margin_batch_cpu.h"

namespace margin {

constexpr int64_t kMarginCost = 256;  // what a sample's margin, exponentials and logarithm cost, in elements

// The products of all samples with all classes into `kept` [N, C], and the lengths of the prototypes into `sides`.
void products_of_all(const CpuBatch& batch, ProductSides& sides, const at::Tensor& kept);

// The sum over the negatives of sample i, whose products stand in row i of `all` [N, C]; with `leave`, exponentials for backward
// take their place. `sides` is null where they are cosines already.
Others others_of_kept(const CpuBatch& batch, const ProductSides* sides, float* all, int64_t i, const Target& target, bool leave);

// The sums over the negatives [N], of targets [N], chunk by chunk: nothing of size N x C is held.
std::vector<Others> others_of_chunks(const CpuBatch& batch, const Target* targets, ProductSides& sides);

// What backward reads and writes: `factor` is d result / d loss of a sample; with_norm: dz has the norms' part too. An empty dz or
// dw is not wanted.
struct Gradients {
  const Statistics* samples;
  float factor;
  bool with_norm;
  const at::Tensor &dz, &dw;
  bool want_z() const { return dz.numel() > 0; }
  bool want_w() const { return dw.numel() > 0; }
};

// Lets the batch know how many classes each drawn one stands for [C], if it is given; what is returned holds these numbers.
inline at::Tensor take_times(CpuBatch& batch, const std::optional<at::Tensor>& times) {
  if (!times) return {};
  TORCH_CHECK_VALUE(times->dim() == 1 && times->numel() == batch.classes && times->scalar_type() == at::kFloat,
                    "times must be float32 [", batch.classes, "], not ", times->scalar_type(), " ", times->sizes());
  const at::Tensor held = times->contiguous();
  batch.times = held.const_data_ptr<float>();
  return held;
}

inline at::Tensor gradient_like(const at::Tensor& tensor, bool wanted) {
  return at::empty(wanted ? tensor.sizes() : at::IntArrayRef(0), tensor.options());
}

// Both gradients by matrix products; an empty `kept` is computed again, chunk by chunk.
void product_gradients(const CpuBatch& batch, const Gradients& out, const at::Tensor& kept);

}  // namespace margin
