// The margin head's forward on the CPU, built, like its backward (margin_backward_cpu.cpp), from the loops of margin_rows.h
// and torch's matrix products.
//
// Three regimes. Few classes: everything in our own loops, a tile of rows at a time. More classes: one matrix product forward,
// which leaves exponentials that backward multiplies with, without looking at them again. Many: the classes go through in
// chunks that stay in the cache, and their cosines are computed again in backward; nothing of size N x C is ever
// allocated. Every sum has a fixed order.
#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <numeric>
#include <optional>
#include <vector>

#include "batch_state_cpu.h"
#include "margin_shard_cpu.h"

namespace margin {
namespace {

// Norms, target cosines and the cosines [N, C] of few classes.
void few_cosines(const CpuBatch& batch, Statistics* samples, float* cosines) {
  const int64_t classes = batch.classes, tiles = (batch.samples + kRowTile - 1) / kRowTile;
  const at::Tensor memory = batch.scratch({classes, batch.stride + 1});
  float *unit = memory.data_ptr<float>(), *norms = unit + classes * batch.stride;
  batch.normalize(batch.weight, 0, classes, batch.stride, unit, norms);
  each_row(tiles, kRowTile * batch.size, [&](int64_t tile) {
    const int64_t first = tile * kRowTile, count = std::min(kRowTile, batch.samples - first);
    float norm[kRowTile];
    batch.loops.cosines(batch.rows(batch.features, first, count), {unit, classes, batch.stride}, norm,
                        cosines + first * classes);
    for (int64_t i = first; i < first + count; ++i) {
      samples[i].norm = norm[i - first];
      samples[i].cosine = cosines[i * classes + batch.label[i]];
    }
  });
}

// Norms and target cosines where all cosines are kept, from the products of all classes, which `kept` receives.
void kept_cosines_of(const CpuBatch& batch, ProductSides& sides, Statistics* samples, const at::Tensor& kept) {
  products_of_all(batch, sides, kept);
  const float* products = kept.const_data_ptr<float>();
  each_row(batch.samples, batch.size, [&](int64_t i) {
    const int64_t label = batch.label[i];
    samples[i].norm = sides.z_norm[i];
    samples[i].cosine = products[i * batch.classes + label] * sides.z_inverse[i] * sides.inverse[label];
  });
}

// Norms and target cosines where the cosines are not kept, label by label.
void target_cosines(const CpuBatch& batch, const ProductSides& sides, Statistics* samples) {
  at::parallel_for(0, batch.samples, rows_a_task(batch.size), [&](int64_t begin, int64_t end) {
    std::vector<float> prototype(batch.size);
    float length;
    for (int64_t i = begin; i < end; ++i) {
      batch.loops.normalize(batch.rows(batch.weight, batch.label[i], 1), batch.size, prototype.data(), &length);
      samples[i].norm = sides.z_norm[i];
      samples[i].cosine = batch.loops.dot(sides.z.row(i), prototype.data(), batch.size) * sides.z_inverse[i];
    }
  });
}

// The losses [N] where the products of all classes are there, and the rest of the statistics. `sides` is null with few classes,
// which leave their cosines as they are; more of them leave their exponentials in the products' place.
std::vector<float> losses_of_kept(const CpuBatch& batch, const Options& options, const float* state, const OfSamples& own,
                                  const ProductSides* sides, const at::Tensor& kept, Statistics* samples) {
  std::vector<float> losses(batch.samples);
  float* all = kept.data_ptr<float>();
  each_row(batch.samples, batch.classes + kMarginCost, [&](int64_t i) {
    const Target target = target_of(options, samples[i].cosine, samples[i].norm, state, own, i);
    const Others others = others_of_kept(batch, sides, all, i, target, sides != nullptr);
    losses[i] = finish_sample(target, others, samples[i]);
  });
  return losses;
}

// The targets [N] of a batch.
std::vector<Target> targets_of(const CpuBatch& batch, const Options& options, const float* state, const OfSamples& own,
                               const Statistics* samples) {
  std::vector<Target> targets(batch.samples);
  each_row(batch.samples, kMarginCost, [&](int64_t i) {
    targets[i] = target_of(options, samples[i].cosine, samples[i].norm, state, own, i);
  });
  return targets;
}

// The losses [N] chunk by chunk, and the rest of the statistics.
std::vector<float> losses_of_chunks(const CpuBatch& batch, const Options& options, const float* state, const OfSamples& own,
                                    ProductSides& sides, Statistics* samples) {
  std::vector<float> losses(batch.samples);
  const std::vector<Target> targets = targets_of(batch, options, state, own, samples);
  const std::vector<Others> others = others_of_chunks(batch, targets.data(), sides);
  each_row(batch.samples, kMarginCost, [&](int64_t i) { losses[i] = finish_sample(targets[i], others[i], samples[i]); });
  return losses;
}

// The state that this step uses where it follows from all negatives at the old one (AdaCos). `kept` as losses_of_kept has it.
at::Tensor state_by_negatives(const CpuBatch& batch, const Options& options, const at::Tensor& state, ProductSides* sides,
                              const at::Tensor& kept, Statistics* samples) {
  const std::vector<Target> targets = targets_of(batch, options, state.const_data_ptr<float>(), {}, samples);
  std::vector<Others> others(batch.samples, no_others());
  if (batch.keep)
    each_row(batch.samples, batch.classes, [&](int64_t i) {
      others[i] = others_of_kept(batch, sides, kept.data_ptr<float>(), i, targets[i], false);
    });
  else
    others = others_of_chunks(batch, targets.data(), *sides);
  std::vector<double> log_sums(batch.samples);
  for (int64_t i = 0; i < batch.samples; ++i)
    log_sums[i] = double(targets[i].scale) * others[i].peak + std::log(others[i].rest);
  at::Tensor next = state.clone();
  *next.data_ptr<float>() = adacos_scale(log_sums, samples);
  return next;
}

}  // namespace

Forward forward_cpu(const at::Tensor& features, const at::Tensor& weight, const at::Tensor& labels, const at::Tensor& state,
                    at::ArrayRef<double> call, bool training, const std::optional<at::Tensor>& margins,
                    const std::optional<at::Tensor>& weights) {
  const Options options = make_options(call);
  check_centres(weight, options);
  const at::Tensor prototypes = prototypes_of(weight);
  check_inputs(features, prototypes, labels, state, options);
  OwnTensors own(features, margins, weights);
  CpuBatch batch(features, prototypes, labels, keeps_cosines(features, prototypes));
  batch.centres = centres_of(weight);
  check_labels(batch);
  ++cpu_calls;
  const at::Tensor statistics = batch.scratch({batch.samples, kStatistics});
  const at::Tensor kept = batch.scratch({batch.keep ? batch.samples : 0, batch.classes});
  Statistics* samples = samples_of(statistics);

  std::optional<ProductSides> sides;
  if (!batch.few_classes()) sides.emplace(batch);
  if (!sides)
    few_cosines(batch, samples, kept.data_ptr<float>());
  else if (batch.keep)
    kept_cosines_of(batch, *sides, samples, kept);
  else
    target_cosines(batch, *sides, samples);

  const at::Tensor old = state.contiguous();
  const at::Tensor used = training && traits_of(options).moves_by_negatives
                              ? state_by_negatives(batch, options, old, sides ? &*sides : nullptr, kept, samples)
                              : moved_state(batch, options, samples, old, training);
  const std::vector<float> paired = paired_margins(own, options, samples);
  const float* numbers = used.const_data_ptr<float>();
  const std::vector<float> losses =
      batch.keep ? losses_of_kept(batch, options, numbers, own.pointers, sides ? &*sides : nullptr, kept, samples)
                 : losses_of_chunks(batch, options, numbers, own.pointers, *sides, samples);

  const at::Tensor loss = batch.scratch({});
  const float mean = float(std::accumulate(losses.begin(), losses.end(), 0.0) / batch.samples);
  *loss.data_ptr<float>() = mean;
  // A batch that is not finite moves nothing: the state is a running mean, which would never forget it.
  return {loss, std::isfinite(mean) ? used : old.clone(), statistics, kept};
}

TORCH_LIBRARY_IMPL(cifarnet, CPU, library) { library.impl("margin_loss", &forward_cpu); }

}  // namespace margin
