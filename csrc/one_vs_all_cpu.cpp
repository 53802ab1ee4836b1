// The one-vs-all losses on the CPU: loss and gradients in one pass, since no normaliser need be known first.
//
// Few classes: everything in our own loops, a block of rows at a time. More: the classes go through in chunks that stay in the
// cache, three matrix products each; nothing of size N x C is ever allocated. Every sum has a fixed order.
#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <array>
#include <numeric>
#include <optional>
#include <vector>

#include "few_classes_cpu.h"
#include "margin_shard_cpu.h"
#include "one_vs_all_head.h"

namespace margin {
namespace {

constexpr int64_t kOwnCost = 256;     // what a sample's own class and sums cost, in elements
constexpr int64_t kFewestRows = 32;  // of a block
constexpr int64_t kPassCosines = 1 << 19;  // of a chunk: 2 MB, so that threads meet half as often as in margin_forward_cpu.cpp

// A call on its way through the classes. dz and dw are empty where they are not wanted.
struct Pass {
  const CpuBatch& batch;  // of fp32 features
  const OneVsAll& call;
  float bias;
  at::Tensor rows, dz, dw;
  OtherLogits logits;
  std::vector<double> losses, by_logit;  // of each sample: its loss, the sum of the derivatives by its logits

  Pass(const CpuBatch& batch, const OneVsAll& call, float bias, bool want_z, bool want_w)
      : batch(batch), call(call), bias(bias), rows(batch.scratch({batch.samples, kRowNumbers})),
        dz(batch.scratch(want_z ? batch.features.sizes() : at::IntArrayRef(0))),
        dw(batch.scratch(want_w ? batch.weight.sizes() : at::IntArrayRef(0))),
        logits{call.scale, shift_of(call, bias), call.rest * call.scale / batch.samples, call.spread},
        losses(batch.samples), by_logit(batch.samples) {}

  bool want_z() const { return dz.numel() > 0; }
  bool want_w() const { return dw.numel() > 0; }

  void begin(int64_t i, float norm) {
    float* row = rows.data_ptr<float>() + i * kRowNumbers;
    row[0] = norm;
    row[1] = 0.0f;
    row[2] = -3e38f;
  }

  // A sample's products with `count` classes from `first` on: cosines but for inverse[j] (null: 1). Where gradients are wanted,
  // d loss / d c_j times inverse[j] takes their place. Returns the sum over these classes of c_j d loss / d c_j.
  float take(int64_t i, float* product, const float* inverse, int64_t first, int64_t count) {
    float* row = rows.data_ptr<float>() + i * kRowNumbers;
    const int64_t own = batch.own(i, first, count);
    const float own_inverse = own >= 0 && inverse ? inverse[own] : 1.0f, cosine = own >= 0 ? product[own] * own_inverse : 0.0f;
    float* out = want_z() || want_w() ? product : nullptr;
    const OtherClasses others = batch.loops.other_classes(batch.class_row(product, inverse, i, first, count), logits, out);
    losses[i] += call.rest * others.loss;
    by_logit[i] += call.rest * others.chance;
    row[2] = std::max(row[2], others.highest);
    if (own < 0) return others.along;
    const OwnClass mine = own_class(call, cosine, bias);
    losses[i] += mine.loss;
    by_logit[i] += mine.by_logit;
    row[1] = cosine;
    const float pull = mine.by_cosine / batch.samples;
    if (out) out[own] = pull * own_inverse;
    return others.along + pull * cosine;
  }
};

// The samples [first, first + count): loss, dz, and into `sums` [C, stride] (null: none) their part of dW.
void few_block(Pass& pass, Prototypes prototypes, int64_t first, int64_t count, float* sums) {
  const CpuBatch& batch = pass.batch;
  FewSamples few(first, count, batch.classes);
  float *norm = few.norm.data(), *pull = few.pull.data();
  for (int64_t r = 0; r < count; r += kRowTile)
    batch.loops.cosines(batch.rows(batch.features, first + r, std::min(kRowTile, count - r)), prototypes, norm + r,
                        pull + r * batch.classes);
  for (int64_t r = 0; r < count; ++r) {
    pass.begin(first + r, norm[r]);
    few.across[r] = pass.take(first + r, pull + r * batch.classes, nullptr, 0, batch.classes);
  }
  if (pass.want_z() || sums) few_gradients(batch, prototypes, few, pass.want_z() ? &pass.dz : nullptr, sums);
}

// Few classes: dW from the sums of at most kMostBlocks blocks of rows, added in order.
void few_classes(Pass& pass) {
  const CpuBatch& batch = pass.batch;
  const int64_t classes = batch.classes, stride = batch.stride, plane = classes * stride;
  const int64_t block = round_up(std::max(kFewestRows, (batch.samples + kMostBlocks - 1) / kMostBlocks), kRowTile);
  const int64_t blocks = (batch.samples + block - 1) / block;
  const at::Tensor memory = batch.scratch({plane * (pass.want_w() ? blocks + 1 : 1) + classes});
  float *unit = memory.data_ptr<float>(), *norms = unit + plane, *sum_of_blocks = norms + classes;
  batch.normalize(batch.weight, 0, classes, stride, unit, norms);
  each_row(blocks, block * stride, [&](int64_t b) {
    float* sums = pass.want_w() ? sum_of_blocks + b * plane : nullptr;
    if (sums) std::fill(sums, sums + plane, 0.0f);
    few_block(pass, {unit, classes, stride}, b * block, std::min(block, batch.samples - b * block), sums);
  });
  if (!pass.want_w()) return;
  each_row(classes, blocks * stride, [&](int64_t c) {
    float* sum = sum_of_blocks + c * stride;
    for (int64_t b = 1; b < blocks; ++b) batch.loops.add(sum + b * plane, stride, sum);
    batch.loops.project(sum, unit + c * stride, 1.0f, inverse_of(norms[c]), 0.0f, batch.size, batch.mutable_row(pass.dw, c),
                        Type::kFloat);
  });
}

// A chunk of classes: their cosines, which the gradient by them replaces, then its products with the prototypes and unit(z).
void chunk_of_classes(Pass& pass, const at::Tensor& unit, const Vectors& chunk, const at::Tensor& buffer) {
  const CpuBatch& batch = pass.batch;
  at::Tensor products = buffer.narrow(0, 0, batch.samples * chunk.count).view({batch.samples, chunk.count});
  at::mm_out(products, unit, chunk.values.t());
  float* all = products.data_ptr<float>();
  each_row(batch.samples, chunk.count + kOwnCost, [&](int64_t i) {
    pass.take(i, all + i * chunk.count, chunk.inverse, chunk.first, chunk.count);
  });
  if (pass.want_z()) at::addmm_out(pass.dz, pass.dz, products, chunk.values, chunk.first ? 1 : 0, 1);
  if (!pass.want_w()) return;
  at::Tensor sums = pass.dw.narrow(0, chunk.first, chunk.count);
  at::mm_out(sums, products.t(), unit);
  float* sum = sums.data_ptr<float>();
  each_row(chunk.count, batch.size, [&](int64_t c) {
    batch.loops.project(sum + c * batch.size, chunk.row(c), chunk.pull(c), chunk.outer(c), 0.0f, batch.size,
                        sum + c * batch.size, Type::kFloat);
  });
}

void many_classes(Pass& pass) {
  const CpuBatch& batch = pass.batch;
  const at::Tensor unit = batch.scratch({batch.samples, batch.size}), buffer = batch.scratch({batch.samples * batch.chunk()});
  std::vector<float> norm(batch.samples), of_classes(2 * batch.classes);
  float* units = unit.data_ptr<float>();
  batch.normalize(batch.features, 0, batch.samples, batch.size, units, norm.data());
  for (int64_t i = 0; i < batch.samples; ++i) pass.begin(i, norm[i]);
  each_prototype_chunk(batch, of_classes.data(), of_classes.data() + batch.classes,
                       [&](const Vectors& chunk) { chunk_of_classes(pass, unit, chunk, buffer); });
  if (!pass.want_z()) return;
  float* dz = pass.dz.data_ptr<float>();
  each_row(batch.samples, batch.size, [&](int64_t i) {
    float* row = dz + i * batch.size;
    batch.loops.project(row, units + i * batch.size, 1.0f, inverse_of(norm[i]), 0.0f, batch.size, row, Type::kFloat);
  });
}

float mean_of(const std::vector<double>& values) {
  return float(std::accumulate(values.begin(), values.end(), 0.0) / double(values.size()));
}

void run(Pass& pass) {
  ++cpu_calls;
  pass.batch.classes <= kFewClasses ? few_classes(pass) : many_classes(pass);
}

OneVsAllResult one_vs_all_cpu(const at::Tensor& features, const at::Tensor& weight, const at::Tensor& labels,
                              const at::Tensor& bias, at::ArrayRef<double> numbers, bool want_z, bool want_w) {
  const OneVsAll call = make_one_vs_all(numbers);
  check_one_vs_all(features, weight, labels, bias);
  CpuBatch batch(features.to(at::kFloat), weight, labels, false);
  batch.chunk_cosines = kPassCosines;
  check_labels(batch);
  Pass pass(batch, call, bias.item<float>(), want_z, want_w);
  run(pass);
  const at::Tensor loss = batch.scratch({}), by_bias = batch.scratch(bias.sizes());
  *loss.data_ptr<float>() = mean_of(pass.losses);
  *by_bias.data_ptr<float>() = call.sign * mean_of(pass.by_logit);
  return {loss, pass.rows, pass.dz, pass.dw, by_bias};
}

// The part of one shard of the classes (see margin_shard_cpu.h), of unit features: the losses [N], rows and gradients whose sums
// over the shards are the whole's (a sample's c_y is 0 where its class lies elsewhere, its largest other cosine this shard's).
OneVsAllResult shard_one_vs_all_cpu(const at::Tensor& unit, const at::Tensor& weight, const at::Tensor& own, const at::Tensor& bias,
                                    at::ArrayRef<double> numbers, const std::optional<at::Tensor>& times,
                                    std::array<bool, 2> want) {
  const OneVsAll call = make_one_vs_all(numbers);
  check_one_vs_all(unit, weight, own, bias, 1);
  CpuBatch batch(unit.to(at::kFloat), weight, own, false);
  batch.chunk_cosines = kPassCosines;
  check_labels(batch, -1);
  const at::Tensor held = take_times(batch, times);
  Pass pass(batch, call, bias.item<float>(), want[0], want[1]);
  run(pass);
  const at::Tensor losses = batch.scratch({batch.samples}), by_bias = batch.scratch(bias.sizes());
  std::copy(pass.losses.begin(), pass.losses.end(), losses.data_ptr<float>());
  *by_bias.data_ptr<float>() = call.sign * mean_of(pass.by_logit);
  return {losses, pass.rows, pass.dz, pass.dw, by_bias};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(cifarnet, library) {
  library.def(
      "shard_one_vs_all(Tensor unit, Tensor weight, Tensor own, Tensor bias, float[] call, Tensor? times, bool[2] want) "
      "-> (Tensor losses, Tensor rows, Tensor features, Tensor weight, Tensor bias)");
}

TORCH_LIBRARY_IMPL(cifarnet, CPU, library) {
  library.impl("one_vs_all", &one_vs_all_cpu);
  library.impl("shard_one_vs_all", &shard_one_vs_all_cpu);
}

}  // namespace margin
