// The margin head's forward on the CPU, built, like its backward (margin_backward_cpu.cpp), from the loops of margin_rows.h
// and torch's matrix products.
//
// Three regimes. Few classes: everything in our own loops, a tile of rows at a time. More classes: one matrix product forward,
// which leaves exponentials that backward multiplies with, without looking at them again. Many: the classes go through in
// chunks that stay in the cache, and their cosines are computed again in backward; nothing of size N x C is ever
// allocated. Every sum has a fixed order.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <numeric>
#include <vector>

#include "margin_batch_cpu.h"

namespace margin {
namespace {

constexpr int64_t kMarginCost = 256;  // what a row's margin, exponentials and logarithm cost, in elements

void check_labels(const Batch& batch) {
  for (int64_t i = 0; i < batch.samples; ++i)
    TORCH_CHECK_INDEX(batch.label[i] >= 0 && batch.label[i] < batch.classes, "label ", batch.label[i], " of sample ", i,
                      " is out of range: there are ", batch.classes, " classes");
}

// Norms, target cosines and the cosines [N, C] of few classes.
void few_cosines(const Batch& batch, Row* rows, float* cosines) {
  const int64_t classes = batch.classes, tiles = (batch.samples + kRowTile - 1) / kRowTile;
  const at::Tensor prototypes = batch.scratch(classes, batch.stride + 1);
  float *unit = prototypes.data_ptr<float>(), *norms = unit + classes * batch.stride;
  batch.normalize(batch.weight, 0, classes, batch.stride, unit, norms);
  at::parallel_for(0, tiles, rows_a_task(kRowTile * batch.size), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin * kRowTile; row < std::min(end * kRowTile, batch.samples); row += kRowTile) {
      const int64_t count = std::min(kRowTile, batch.samples - row);
      float norm[kRowTile];
      batch.rows.measure(batch.row(batch.features, row), type_of(batch.features), count, batch.size, unit, classes,
                         batch.stride, norm, cosines + row * classes);
      for (int64_t i = row; i < row + count; ++i) {
        rows[i].norm = norm[i - row];
        rows[i].cosine = cosines[i * classes + batch.label[i]];
      }
    }
  });
}

// Norms and target cosines by matrix products; where they are kept, `kept` receives the products of all classes.
void many_cosines(const Batch& batch, const Vectors& z, Row* rows, const at::Tensor& kept, float* norm, float* inverse) {
  if (batch.keep)
    each_chunk(batch, norm, inverse, [&](const Vectors& chunk) {
      at::Tensor products = kept.narrow(1, chunk.first, chunk.count);
      at::mm_out(products, z.values, chunk.values.t());
    });
  at::parallel_for(0, batch.samples, rows_a_task(batch.size), [&](int64_t begin, int64_t end) {
    std::vector<float> prototype(batch.keep ? 0 : batch.size);
    float length;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t label = batch.label[i];
      rows[i].norm = z.norm[i];
      if (batch.keep) {
        rows[i].cosine = kept.const_data_ptr<float>()[i * batch.classes + label] * z.inverse[i] * inverse[label];
        continue;
      }
      batch.rows.normalize(batch.row(batch.weight, label), type_of(batch.weight), 1, batch.size, batch.size,
                           prototype.data(), &length);
      rows[i].cosine = batch.rows.dot(z.row(i), prototype.data(), batch.size) * z.inverse[i];
    }
  });
}

// The state that this step uses: in training moved by the statistics of the batch, else a copy.
at::Tensor moved_state(const Batch& batch, const Options& options, const Row* rows, const at::Tensor& state, bool training) {
  at::Tensor next = state.clone();
  if (!training || state.numel() == 0) return next;
  double sum = 0, squares = 0;
  const auto value = [&](int64_t i) { return double(observed(options, rows[i].cosine, rows[i].norm)); };
  for (int64_t i = 0; i < batch.samples; ++i) sum += value(i);
  const double mean = sum / batch.samples;
  for (int64_t i = 0; i < batch.samples; ++i) squares += (value(i) - mean) * (value(i) - mean);
  const float* old = state.const_data_ptr<float>();
  const float std = batch.samples > 1 ? std::sqrt(squares / (batch.samples - 1)) : old[state.numel() - 1];
  next_state(options, mean, std, old, next.data_ptr<float>());
  return next;
}

// The sum over the negatives of classes that are there at once. Few classes leave their cosines as they are; more of them
// leave their exponentials in the products' place.
Others sum_kept(const Batch& batch, const Logits& logits, int64_t index, const at::Tensor& kept, const float* inverse) {
  float* products = kept.data_ptr<float>() + index * batch.classes;
  Others others;
  others.peak = batch.rows.peak(products, inverse, batch.classes, batch.label[index], logits, &others.highest);
  others.rest = batch.rows.weigh(products, inverse, batch.classes, batch.label[index], logits, others.peak,
                                 batch.few() ? nullptr : products);
  return others;
}

// The same, chunk by chunk, with a running peak.
std::vector<Others> sum_chunks(const Batch& batch, const std::vector<Target>& targets, const Vectors& z, float* norm,
                               float* inverse) {
  std::vector<Others> all(batch.samples, {-3e38f, 0.0f, -3e38f});
  const at::Tensor buffer = batch.scratch(batch.samples, batch.chunk());
  each_chunk(batch, norm, inverse, [&](const Vectors& chunk) {
    at::Tensor products = buffer.view({-1}).narrow(0, 0, batch.samples * chunk.count).view({batch.samples, chunk.count});
    at::mm_out(products, z.values, chunk.values.t());
    const float* product = products.const_data_ptr<float>();
    at::parallel_for(0, batch.samples, rows_a_task(chunk.count), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float* row = product + i * chunk.count;
        const int64_t own = batch.own(i, chunk.first, chunk.count);
        const Logits logits = logits_of(targets[i], z.inverse[i]);
        Others& others = all[i];
        float highest;
        const float top = std::max(others.peak, batch.rows.peak(row, chunk.inverse, chunk.count, own, logits, &highest));
        others.rest = others.rest * std::exp(logits.scale * (others.peak - top)) +
                      batch.rows.weigh(row, chunk.inverse, chunk.count, own, logits, top, nullptr);
        others.peak = top;
        others.highest = std::max(others.highest, highest);
      }
    });
  });
  return all;
}

}  // namespace

Forward forward_cpu(const at::Tensor& features, const at::Tensor& weight, const at::Tensor& labels,
                    const at::Tensor& state, int64_t loss_id, double scale, double margin, double h, double t_alpha,
                    bool easy, bool training) {
  const Options options = make_options(loss_id, scale, margin, h, t_alpha, easy);
  check_inputs(features, weight, labels, state, options);
  const Batch batch(features, weight, labels, keeps_cosines(features, weight));
  check_labels(batch);
  ++cpu_calls;
  const int64_t samples = batch.samples, classes = batch.few() ? 0 : batch.classes;
  const at::Tensor statistics = batch.scratch(samples, kRowNumbers);
  const at::Tensor kept = batch.scratch(batch.keep ? samples : 0, batch.classes);
  Row* rows = rows_of(statistics);

  std::vector<float> norm(classes), inverse(classes), losses(samples);
  std::vector<float> length(batch.few() ? 0 : samples), shrink(samples, 1.0f);
  at::Tensor units;
  Vectors z;
  if (batch.few()) {
    few_cosines(batch, rows, kept.data_ptr<float>());
  } else {
    z = vectors_of(batch, batch.features, 0, samples, length.data(), shrink.data(), units);
    many_cosines(batch, z, rows, kept, norm.data(), inverse.data());
  }
  const at::Tensor old = state.contiguous(), used = moved_state(batch, options, rows, old, training);

  std::vector<Target> targets(samples);
  const auto each_row = [&](int64_t cost, const auto& work) {
    at::parallel_for(0, samples, rows_a_task(cost + kMarginCost), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) work(i);
    });
  };
  const auto aim = [&](int64_t i) {
    targets[i] = target_of(options, rows[i].cosine, rows[i].norm, used.const_data_ptr<float>());
  };
  if (batch.keep) {
    each_row(batch.classes, [&](int64_t i) {
      aim(i);
      const Others others =
          sum_kept(batch, logits_of(targets[i], shrink[i]), i, kept, batch.few() ? nullptr : inverse.data());
      losses[i] = finish_row(targets[i], others, rows[i]);
    });
  } else {
    each_row(0, aim);
    const std::vector<Others> all = sum_chunks(batch, targets, z, norm.data(), inverse.data());
    each_row(0, [&](int64_t i) { losses[i] = finish_row(targets[i], all[i], rows[i]); });
  }
  const at::Tensor loss = at::empty({}, at::kFloat);
  const float mean = *loss.data_ptr<float>() = float(std::accumulate(losses.begin(), losses.end(), 0.0) / samples);
  // A batch that is not finite moves nothing: the state is a running mean, which would never forget it.
  return {loss, std::isfinite(mean) ? used : old.clone(), statistics, kept};
}

TORCH_LIBRARY_IMPL(cifarnet, CPU, library) { library.impl("margin_loss", &forward_cpu); }

}  // namespace margin
