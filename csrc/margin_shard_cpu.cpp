// The operators of a head whose classes lie on several ranks, each with one shard of them, on the CPU. Between them the ranks exchange
// a few numbers of each sample: see cifarnet/losses/sharded/compiled.py, which calls them in this order.
#include "margin_shard_cpu.h"

#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <array>
#include <optional>

#include "batch_state_cpu.h"

namespace margin {

void products_of_all(const CpuBatch& batch, ProductSides& sides, const at::Tensor& kept) {
  each_prototype_chunk(batch, sides.norm.data(), sides.inverse.data(), [&](const Vectors& chunk) {
    at::Tensor products = kept.narrow(1, chunk.first, chunk.count);
    at::mm_out(products, sides.z.values, chunk.values.t());
  });
}

Others others_of_kept(const CpuBatch& batch, const ProductSides* sides, float* all, int64_t i, const Target& target, bool leave) {
  float* products = all + i * batch.classes;
  const float factor = sides ? sides->z_inverse[i] : 1.0f;
  const ClassRow row = batch.nearest_row(products, sides ? sides->inverse.data() : nullptr, factor, i, 0, batch.classes);
  const Logits logits = logits_of(target, factor);
  Others others = no_others();
  others.peak = batch.loops.max_logit(row, logits, &others.highest);
  others.rest = batch.loops.exp_sum(row, logits, others.peak, leave ? products : nullptr,
                                    target.scale_slope != 0.0f ? &others.moment : nullptr);
  return others;
}

namespace {

// A chunk's negatives join a sample's sum, whose peak may rise.
void add_chunk(const CpuBatch& batch, const ClassRow& row, const Logits& logits, Others& others) {
  float highest, moment;
  const float top = std::max(others.peak, batch.loops.max_logit(row, logits, &highest));
  raise_peak(others, logits.scale, top);
  others.rest += batch.loops.exp_sum(row, logits, top, nullptr, &moment);
  others.moment += moment;
  others.highest = std::max(others.highest, highest);
}

}  // namespace

std::vector<Others> others_of_chunks(const CpuBatch& batch, const Target* targets, ProductSides& sides) {
  std::vector<Others> others(batch.samples, no_others());
  const at::Tensor buffer = batch.scratch({batch.samples * batch.chunk()});
  each_prototype_chunk(batch, sides.norm.data(), sides.inverse.data(), [&](const Vectors& chunk) {
    at::Tensor products = buffer.narrow(0, 0, batch.samples * chunk.count).view({batch.samples, chunk.count});
    at::mm_out(products, sides.z.values, chunk.values.t());
    float* product = products.data_ptr<float>();
    each_row(batch.samples, chunk.count, [&](int64_t i) {
      const float factor = sides.z_inverse[i];
      const ClassRow row =
          batch.nearest_row(product + i * chunk.count, chunk.inverse, factor, i, chunk.first, chunk.count);
      add_chunk(batch, row, logits_of(targets[i], factor), others[i]);
    });
  });
  return others;
}

namespace {

using Maybe = std::optional<at::Tensor>;

// Rows of numbers [N, sizeof(Row) / 4] that an operator gave out, as they were written.
template <typename Row>
Row* rows_of(const at::Tensor& rows, int64_t samples) {
  constexpr int64_t numbers = sizeof(Row) / sizeof(float);
  TORCH_CHECK_VALUE(rows.dim() == 2 && rows.size(0) == samples && rows.size(1) == numbers && rows.is_contiguous() &&
                        rows.scalar_type() == at::kFloat,
                    "expected float32 [", samples, ", ", numbers, "], not ", rows.scalar_type(), " ", rows.sizes());
  return reinterpret_cast<Row*>(rows.data_ptr<float>());
}

template <typename Row>
at::Tensor empty_rows(const at::Tensor& like, int64_t samples) {
  return at::empty({samples, int64_t(sizeof(Row) / sizeof(float))}, like.options().dtype(at::kFloat));
}

// c_y and |z| of samples [N] as the beginning of their statistics.
std::vector<Statistics> begun(const at::Tensor& cosine, const at::Tensor& norm) {
  for (const at::Tensor* each : {&cosine, &norm})
    TORCH_CHECK_VALUE(each->dim() == 1 && each->scalar_type() == at::kFloat && each->numel() == cosine.numel(),
                      "cosines and norms must be float32 [N], not ", each->scalar_type(), " ", each->sizes());
  const at::Tensor c = cosine.contiguous(), n = norm.contiguous();
  std::vector<Statistics> samples(c.numel());
  for (int64_t i = 0; i < c.numel(); ++i) {
    samples[i].cosine = c.const_data_ptr<float>()[i];
    samples[i].norm = n.const_data_ptr<float>()[i];
  }
  return samples;
}

// A batch of unit features [N, D] and the classes of this shard.
struct Shard {
  CpuBatch batch;
  at::Tensor times;

  Shard(const at::Tensor& unit, const at::Tensor& weight, const at::Tensor& own, const Maybe& times, bool keep)
      : batch(unit, weight, own, keep), times(take_times(batch, times)) {
    check_labels(batch, -1);
  }
};

// The targets of samples [N, numbers of Target]; of a `call` as make_options() takes it.
at::Tensor margin_targets_cpu(const at::Tensor& cosine, const at::Tensor& norm, const at::Tensor& state,
                              at::ArrayRef<double> call, const Maybe& margins, const Maybe& weights) {
  const Options options = make_options(call);
  check_state(state, options);
  const std::vector<Statistics> samples = begun(cosine, norm);
  OwnTensors own(cosine, margins, weights);
  const std::vector<float> paired = paired_margins(own, options, samples.data());
  const at::Tensor held = state.contiguous(), targets = empty_rows<Target>(cosine, cosine.numel());
  Target* target = rows_of<Target>(targets, cosine.numel());
  for (int64_t i = 0; i < cosine.numel(); ++i)
    target[i] = target_of(options, samples[i].cosine, samples[i].norm, held.const_data_ptr<float>(), own.pointers, i);
  return targets;
}

// The sums over this shard's negatives [N, numbers of Others], and with `keep`, where there are few enough, exponentials for
// shard_gradients() [N, C] (else [0, C]).
std::tuple<at::Tensor, at::Tensor> shard_others_cpu(const at::Tensor& unit, const at::Tensor& weight, const at::Tensor& own,
                                                    const at::Tensor& targets, const Maybe& times, bool keep) {
  check_batch(unit, weight, own, 1);
  const Shard shard(unit, weight, own, times, keep && keeps_cosines(unit, weight));
  const CpuBatch& batch = shard.batch;
  const Target* target = rows_of<Target>(targets, batch.samples);
  const at::Tensor others = empty_rows<Others>(unit, batch.samples);
  const at::Tensor kept = batch.scratch({batch.keep ? batch.samples : 0, batch.classes});
  Others* other = rows_of<Others>(others, batch.samples);
  ProductSides sides(batch);
  if (batch.keep) {
    products_of_all(batch, sides, kept);
    each_row(batch.samples, batch.classes + kMarginCost, [&](int64_t i) {
      other[i] = others_of_kept(batch, &sides, kept.data_ptr<float>(), i, target[i], true);
    });
  } else {
    const std::vector<Others> sums = others_of_chunks(batch, target, sides);
    std::copy(sums.begin(), sums.end(), other);
  }
  return {others, kept};
}

// The sums of one shard [N, numbers of Others] over the peaks [N] of all: those of several shards can then be added.
at::Tensor over_peak_cpu(const at::Tensor& others, const at::Tensor& targets, const at::Tensor& peak) {
  const at::Tensor raised = others.clone(), top = peak.contiguous();
  const int64_t samples = top.numel();
  Others* row = rows_of<Others>(raised, samples);
  const Target* target = rows_of<Target>(targets, samples);
  for (int64_t i = 0; i < samples; ++i) raise_peak(row[i], target[i].scale, top.const_data_ptr<float>()[i]);
  return raised;
}

// The losses [N] and the statistics [N, kStatistics], of the sums over the negatives of all shards.
std::tuple<at::Tensor, at::Tensor> margin_losses_cpu(const at::Tensor& cosine, const at::Tensor& norm, const at::Tensor& targets,
                                                     const at::Tensor& others) {
  const std::vector<Statistics> samples = begun(cosine, norm);
  const int64_t count = cosine.numel();
  const Target* target = rows_of<Target>(targets, count);
  const Others* other = rows_of<Others>(others, count);
  const at::Tensor losses = at::empty({count}, cosine.options()), statistics = empty_rows<Statistics>(cosine, count);
  Statistics* row = samples_of(statistics);
  for (int64_t i = 0; i < count; ++i) {
    row[i] = samples[i];
    losses.data_ptr<float>()[i] = finish_sample(target[i], other[i], row[i]);
  }
  ++cpu_calls;
  return {losses, statistics};
}

// This shard's part of the unit features' gradient, and its prototypes' gradient, of the mean loss; `want`: which of them.
Backward shard_gradients_cpu(const at::Tensor& grad, const at::Tensor& unit, const at::Tensor& weight, const at::Tensor& own,
                             const at::Tensor& statistics, const at::Tensor& kept, const Maybe& times,
                             std::array<bool, 2> want) {
  check_batch(unit, weight, own, 1);
  const Shard shard(unit, weight, own, times, kept.size(0) > 0);
  const CpuBatch& batch = shard.batch;
  const Statistics* samples = rows_of<Statistics>(statistics, batch.samples);
  const at::Tensor dz = gradient_like(unit, want[0]), dw = gradient_like(weight, want[1]);
  const float factor = *grad.const_data_ptr<float>() / float(batch.samples);
  product_gradients(batch, {samples, factor, false, dz, dw}, kept);
  return {dz, dw};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(cifarnet, library) {
  library.def(
      "margin_targets(Tensor cosine, Tensor norm, Tensor state, float[] call, Tensor? margins=None, Tensor? weights=None) "
      "-> Tensor");
  library.def(
      "shard_others(Tensor unit, Tensor weight, Tensor own, Tensor targets, Tensor? times=None, bool keep=False) "
      "-> (Tensor others, Tensor kept)");
  library.def("over_peak(Tensor others, Tensor targets, Tensor peak) -> Tensor");
  library.def(
      "margin_losses(Tensor cosine, Tensor norm, Tensor targets, Tensor others) -> (Tensor losses, Tensor statistics)");
  library.def(
      "shard_gradients(Tensor grad, Tensor unit, Tensor weight, Tensor own, Tensor statistics, Tensor kept, Tensor? times, "
      "bool[2] want) -> (Tensor features, Tensor weight)");
}

TORCH_LIBRARY_IMPL(cifarnet, CPU, library) {
  library.impl("margin_targets", &margin_targets_cpu);
  library.impl("shard_others", &shard_others_cpu);
  library.impl("over_peak", &over_peak_cpu);
  library.impl("margin_losses", &margin_losses_cpu);
  library.impl("shard_gradients", &shard_gradients_cpu);
}

}  // namespace margin
