// The margin head's backward on the CPU, in the three regimes of margin_forward_cpu.cpp.
#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <numeric>
#include <vector>

#include "few_classes_cpu.h"
#include "margin_shard_cpu.h"

namespace margin {
namespace {

// Few classes, the samples [first, first + count): dz, and into `sums` [C, stride] (null: none) their part of dW.
void few_block(const CpuBatch& batch, const Gradients& out, const float* cosines, Prototypes prototypes, int64_t first,
               int64_t count, float* sums) {
  FewSamples few(first, count, batch.classes);
  for (int64_t r = 0; r < count; ++r) {
    const Statistics& sample = out.samples[first + r];
    const ClassRow row = batch.class_row(cosines + (first + r) * batch.classes, nullptr, first + r, 0, batch.classes);
    const float negatives = batch.loops.gradient(row, sample.gradient, out.factor, few.pull.data() + r * batch.classes);
    few.norm[r] = sample.norm;
    few.across[r] = negatives + out.factor * sample.gradient.target * sample.cosine;
    few.outward[r] = out.factor * sample.gradient.norm;
  }
  few_gradients(batch, prototypes, few, out.want_z() ? &out.dz : nullptr, sums);
}

// Backward with few classes: dz by tiles of rows, dW from the sums of at most kMostBlocks blocks of rows, added in order.
void few_backward(const CpuBatch& batch, const Gradients& out, const float* cosines) {
  const int64_t classes = batch.classes, stride = batch.stride, plane = classes * stride;
  const int64_t block = round_up(std::max<int64_t>(64, (batch.samples + kMostBlocks - 1) / kMostBlocks), kRowTile);
  const int64_t blocks = (batch.samples + block - 1) / block;
  const at::Tensor memory = batch.scratch({classes, stride + 1}), sums = batch.scratch({out.want_w() ? blocks : 0, plane});
  float *unit = memory.data_ptr<float>(), *norms = unit + plane, *sum_of_blocks = sums.data_ptr<float>();
  batch.normalize(batch.weight, 0, classes, stride, unit, norms);

  each_row(blocks, block * stride, [&](int64_t b) {
    float* sum = out.want_w() ? sum_of_blocks + b * plane : nullptr;
    if (sum) std::fill(sum, sum + plane, 0.0f);
    few_block(batch, out, cosines, {unit, classes, stride}, b * block, std::min(block, batch.samples - b * block), sum);
  });
  if (!out.want_w()) return;
  each_row(classes, blocks * stride, [&](int64_t c) {
    float* sum = sum_of_blocks + c * stride;
    for (int64_t b = 1; b < blocks; ++b) batch.loops.add(sum + b * plane, stride, sum);
    batch.loops.project(sum, unit + c * stride, 1.0f, inverse_of(norms[c]), 0.0f, batch.size, batch.mutable_row(out.dw, c),
                        type_of(out.dw));
  });
}

// What backward multiplies with in the regimes of matrix products: d loss / d c_ij is strength[i] times the exponential of
// exp_sum() for a negative, target[i] for the label. The labels' few terms are added beside the products.
struct Pull {
  std::vector<float> strength, target;
  std::vector<int64_t> order;  // the samples by label
  at::Tensor scaled;           // strength unit(z) [N, D]

  Pull(const CpuBatch& batch, const ProductSides& sides, const Gradients& out)
      : strength(batch.samples), target(batch.samples), order(batch.samples),
        scaled(batch.scratch({batch.samples, batch.size})) {
    float* rows = scaled.data_ptr<float>();
    each_row(batch.samples, batch.size, [&](int64_t i) {
      strength[i] = out.factor * out.samples[i].gradient.strength;
      target[i] = out.factor * out.samples[i].gradient.target;
      batch.loops.axpby(strength[i] * sides.z_inverse[i], sides.z.row(i), Type::kFloat, 0.0f, rows + i * batch.size,
                        batch.size);
    });
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return batch.label[a] < batch.label[b]; });
  }
};

// dW of a chunk's classes from sum = exponentials^T strength unit(z): the labels' terms, then the normalisation's backward.
void finish_weight(const CpuBatch& batch, const ProductSides& sides, const Pull& pull, const Vectors& chunk, float* sum,
                   const at::Tensor& dw) {
  const int64_t size = batch.size;
  const auto before = [&](int64_t sample, int64_t label) { return batch.label[sample] < label; };
  at::parallel_for(0, chunk.count, rows_a_task(size), [&](int64_t begin, int64_t end) {
    auto next = std::lower_bound(pull.order.begin(), pull.order.end(), chunk.first + begin, before);
    for (int64_t c = begin; c < end; ++c) {
      float* row = sum + c * size;
      for (; next != pull.order.end() && batch.label[*next] == chunk.first + c; ++next)
        batch.loops.axpby(pull.target[*next] * sides.z_inverse[*next] * chunk.inverse[c], sides.z.row(*next), Type::kFloat,
                          1.0f, row, size);
      batch.loops.project(row, chunk.row(c), chunk.pull(c), chunk.outer(c), 0.0f, size,
                          batch.mutable_row(dw, chunk.first + c), type_of(dw));
    }
  });
}

// dz from h = exponentials . prototypes, likewise.
void finish_features(const CpuBatch& batch, const ProductSides& sides, const Pull& pull, const Gradients& out, float* h) {
  const int64_t size = batch.size;
  const Vectors& z = sides.z;
  each_row(batch.samples, size, [&](int64_t i) {
    float* row = h + i * size;
    const SampleGradient& gradient = out.samples[i].gradient;
    const int64_t label = batch.label[i];
    if (label >= 0)
      batch.loops.axpby(pull.target[i] * inverse_of(sides.norm[label]), batch.row(batch.weight, label), type_of(batch.weight),
                        pull.strength[i], row, size);
    else
      batch.loops.axpby(0.0f, z.row(i), Type::kFloat, pull.strength[i], row, size);
    const float outward = out.with_norm ? out.factor * gradient.norm : 0.0f;
    batch.loops.project(row, z.row(i), z.pull(i), inverse_of(z.norm[i]), outward * z.inverse[i], size,
                        batch.mutable_row(out.dz, i), type_of(out.dz));
  });
}

// A chunk's exponentials [N, count] computed again, into `weights`.
void exponentials_of(const CpuBatch& batch, const ProductSides& sides, const Statistics* samples, const Vectors& chunk,
                     at::Tensor& weights) {
  at::mm_out(weights, sides.z.values, chunk.values.t());
  float* products = weights.data_ptr<float>();
  each_row(batch.samples, chunk.count, [&](int64_t i) {
    float* product = products + i * chunk.count;
    const float factor = sides.z_inverse[i];
    const ClassRow row = batch.nearest_row(product, chunk.inverse, factor, i, chunk.first, chunk.count);
    batch.loops.exp_sum(row, logits_of(samples[i].gradient, factor), samples[i].gradient.peak, product, nullptr);
  });
}

}  // namespace

void product_gradients(const CpuBatch& batch, const Gradients& out, const at::Tensor& kept) {
  const int64_t samples = batch.samples, size = batch.size;
  // The products go where the gradients will stand if they fit there, else through a buffer.
  const auto direct = [](const at::Tensor& gradient) { return gradient.scalar_type() == at::kFloat; };
  at::Tensor h = direct(out.dz) ? out.dz : batch.scratch({out.want_z() ? samples : 0, size});
  const at::Tensor sums = direct(out.dw) ? at::Tensor() : batch.scratch({out.want_w() ? batch.chunk() : 0, size});
  const at::Tensor buffer = batch.scratch({batch.keep ? 0 : samples * batch.chunk()});
  ProductSides sides(batch);
  const Pull pull(batch, sides, out);

  each_prototype_chunk(batch, sides.norm.data(), sides.inverse.data(), [&](const Vectors& chunk) {
    at::Tensor weights = batch.keep ? kept.narrow(1, chunk.first, chunk.count)
                                    : buffer.narrow(0, 0, samples * chunk.count).view({samples, chunk.count});
    if (!batch.keep) exponentials_of(batch, sides, out.samples, chunk, weights);
    if (out.want_z()) at::addmm_out(h, h, weights, chunk.values, chunk.first ? 1 : 0, 1);
    if (!out.want_w()) return;
    at::Tensor sum = direct(out.dw) ? out.dw.narrow(0, chunk.first, chunk.count) : sums.narrow(0, 0, chunk.count);
    at::mm_out(sum, weights.t(), pull.scaled);
    finish_weight(batch, sides, pull, chunk, sum.data_ptr<float>(), out.dw);
  });
  if (out.want_z()) finish_features(batch, sides, pull, out, h.data_ptr<float>());
}

Backward backward_cpu(const at::Tensor& grad, const at::Tensor& features, const at::Tensor& weight,
                      const at::Tensor& labels, const at::Tensor& statistics, const at::Tensor& kept, bool want_z,
                      bool want_w) {
  const at::Tensor prototypes = prototypes_of(weight);
  check_batch(features, prototypes, labels);
  check_kept(statistics, kept, features.size(0), prototypes.size(0));
  CpuBatch batch(features, prototypes, labels, kept.size(0) > 0);
  check_labels(batch);
  batch.centres = centres_of(weight);
  const at::Tensor dz = gradient_like(features, want_z), dw = gradient_like(prototypes, want_w);
  const Gradients out = {samples_of(statistics), *grad.const_data_ptr<float>() / float(batch.samples), true, dz, dw};
  if (batch.few_classes())
    few_backward(batch, out, kept.const_data_ptr<float>());
  else
    product_gradients(batch, out, kept);
  return {dz, want_w ? dw.view(weight.sizes()) : dw};
}

TORCH_LIBRARY_IMPL(cifarnet, CPU, library) { library.impl("margin_loss_backward", &backward_cpu); }

}  // namespace margin
