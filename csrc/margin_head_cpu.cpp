// The margin head on the CPU: forward and backward, built from the loops of margin_rows.h and torch's matrix products.
//
// Three regimes. Few classes: cosines, loss and gradients come from our own loops, a tile of rows at a time. More classes:
// one matrix product each. Many: the classes go through in chunks that stay in the cache, and their cosines are computed
// again in backward; nothing of size N x C is ever allocated. Every sum has a fixed order.
#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <vector>

#include "margin_batch_cpu.h"

namespace margin {
namespace {

void few_cosines(const Batch& batch, Row* rows, float* cosines) {
  const int64_t classes = batch.classes, tiles = (batch.samples + kRowTile - 1) / kRowTile;
  const at::Tensor prototypes = batch.scratch(classes, batch.padded + 1);
  float *unit = prototypes.data_ptr<float>(), *norms = unit + classes * batch.padded;
  batch.normalize(batch.weight, 0, classes, unit, norms);
  at::parallel_for(0, tiles, rows_a_task(kRowTile * batch.padded), [&](int64_t begin, int64_t end) {
    end = std::min(end * kRowTile, batch.samples);
    each_tile(batch, begin * kRowTile, end, [&](int64_t row, int64_t count, const float* tile, const float* norm) {
      batch.rows.products(tile, count, unit, classes, batch.padded, cosines + row * classes, classes);
      for (int64_t i = row; i < row + count; ++i) {
        rows[i].norm = norm[i - row];
        rows[i].cosine = cosines[i * classes + batch.label[i]];
      }
    });
  });
}

// The state after this step, from the statistics of the batch; a copy where it does not move.
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

// Norms and target cosines by matrix products; where the cosines are kept, all of them, else the targets' alone.
void many_cosines(const Batch& batch, const at::Tensor& unit, Row* rows, const at::Tensor& kept) {
  std::vector<float> norm(batch.samples);
  batch.normalize(batch.features, 0, batch.samples, unit.data_ptr<float>(), norm.data());
  if (batch.keep) each_chunk(batch, unit, kept, true, [](auto&&...) {});
  at::parallel_for(0, batch.samples, rows_a_task(batch.padded), [&](int64_t begin, int64_t end) {
    std::vector<float> prototype(batch.padded);
    float length;
    for (int64_t i = begin; i < end; ++i) {
      rows[i].norm = norm[i];
      if (batch.keep) {
        rows[i].cosine = kept.const_data_ptr<float>()[i * batch.classes + batch.label[i]];
        continue;
      }
      batch.rows.normalize(batch.row(batch.weight, batch.label[i]), type_of(batch.weight), 1, batch.size, batch.padded,
                           prototype.data(), &length);
      rows[i].cosine =
          batch.rows.dot(unit.const_data_ptr<float>() + i * batch.padded, prototype.data(), batch.padded);
    }
  });
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
  const int64_t samples = batch.samples, classes = batch.classes;
  const at::Tensor statistics = batch.scratch(samples, kRowNumbers);
  const at::Tensor kept = batch.keep ? batch.scratch(samples, classes) : batch.scratch(0, classes);
  Row* rows = rows_of(statistics);

  at::Tensor unit;
  if (batch.few()) {
    few_cosines(batch, rows, kept.data_ptr<float>());
  } else {
    unit = batch.scratch(samples, batch.padded);
    many_cosines(batch, unit, rows, kept);
  }
  const at::Tensor next = moved_state(batch, options, rows, state.contiguous(), training);

  std::vector<Target> targets(samples);
  std::vector<float> largest(samples, -3e38f), sum(samples, 0.0f);
  for (int64_t i = 0; i < samples; ++i)
    targets[i] = target_of(options, rows[i].cosine, rows[i].norm, next.const_data_ptr<float>());
  const auto accumulate = [&](int64_t first, int64_t count, const float* cosines) {
    at::parallel_for(0, samples, rows_a_task(count), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        batch.rows.accumulate(cosines + i * count, count, batch.own(i, first, count), targets[i], &largest[i], &sum[i]);
    });
  };
  if (batch.keep)
    accumulate(0, classes, kept.const_data_ptr<float>());
  else
    each_chunk(batch, unit, kept, true, [&](int64_t first, const at::Tensor&, const float*, const at::Tensor& cosines) {
      accumulate(first, cosines.size(1), cosines.const_data_ptr<float>());
    });

  double total = 0;
  for (int64_t i = 0; i < samples; ++i) {
    rows[i].log_others = largest[i] + std::log(sum[i]);
    rows[i].gradient = row_gradient(targets[i], rows[i].log_others);
    total += row_loss(targets[i], rows[i].log_others);
  }
  const at::Tensor loss = at::empty({}, at::kFloat);
  *loss.data_ptr<float>() = float(total / samples);
  return {loss, next, statistics, kept};
}

namespace {

// d loss / d |z| of a row, with the sum over its negatives of c_j d loss / d c_j.
float outward(const RowGradient& row, float factor, float along) { return factor * row.norm + row.norm_share * along; }

// Backward with few classes: dz by tiles of rows, dW from the sums of at most kMostBlocks blocks of rows, added in order.
void few_backward(const Batch& batch, const Row* rows, const float* cosines, float factor,
                  const at::Tensor& dz, const at::Tensor& dw) {
  const int64_t samples = batch.samples, classes = batch.classes, padded = batch.padded, plane = classes * padded;
  const bool want_z = dz.numel() > 0, want_w = dw.numel() > 0;
  const int64_t block = round_up(std::max<int64_t>(32, (samples + kMostBlocks - 1) / kMostBlocks), kRowTile);
  const int64_t blocks = (samples + block - 1) / block;
  const at::Tensor prototypes = batch.scratch(classes, padded + 1), sums = batch.scratch(want_w ? blocks : 0, plane);
  float *unit = prototypes.data_ptr<float>(), *norms = unit + plane;
  batch.normalize(batch.weight, 0, classes, unit, norms);

  at::parallel_for(0, blocks, std::max<int64_t>(1, kGrain / (block * padded)), [&](int64_t begin, int64_t end) {
    std::vector<float> grad(kRowTile * classes), h(padded);
    for (int64_t b = begin; b < end; ++b) {
      float* sum = want_w ? sums.data_ptr<float>() + b * plane : nullptr;
      if (want_w) std::fill(sum, sum + plane, 0.0f);
      each_tile(batch, b * block, std::min((b + 1) * block, samples),
                [&](int64_t row, int64_t count, const float* tile, const float* norm) {
        std::fill(grad.begin(), grad.end(), 0.0f);
        for (int64_t r = 0; r < count; ++r) {
          const int64_t i = row + r;
          float* own = grad.data() + r * classes;
          const float along = batch.rows.gradient(cosines + i * classes, classes, batch.label[i], rows[i].gradient, factor, own);
          if (!want_z) continue;
          batch.rows.combine(own, unit, classes, padded, h.data());
          batch.rows.project(h.data(), tile + r * padded, norm[r],
                             outward(rows[i].gradient, factor, along), batch.size, padded,
                             const_cast<char*>(batch.row(dz, i)), type_of(dz));
        }
        if (want_w) batch.rows.accumulate_outer(grad.data(), tile, classes, padded, sum);
      });
    }
  });
  if (!want_w) return;
  at::parallel_for(0, classes, rows_a_task(blocks * padded), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      float* sum = sums.data_ptr<float>() + c * padded;
      for (int64_t b = 1; b < blocks; ++b) batch.rows.add(sum + b * plane, padded, sum);
      batch.rows.project(sum, unit + c * padded, norms[c], 0.0f, batch.size, padded,
                         const_cast<char*>(batch.row(dw, c)), type_of(dw));
    }
  });
}

// Backward by matrix products: dz += G W^, and dW of each chunk = G^T z^, both through the normalisation's backward.
void many_backward(const Batch& batch, const Row* rows, const at::Tensor& kept, float factor,
                   const at::Tensor& dz, const at::Tensor& dw) {
  const int64_t samples = batch.samples, padded = batch.padded, chunk = batch.chunk();
  const bool want_z = dz.numel() > 0, want_w = dw.numel() > 0;
  // The products go where the gradients will stand if they fit there, else through a buffer.
  const auto direct = [&](const at::Tensor& out) { return out.scalar_type() == at::kFloat && padded == batch.size; };
  const at::Tensor unit = batch.scratch(samples, padded);
  const at::Tensor sums = direct(dw) ? at::Tensor() : batch.scratch(want_w ? chunk : 0, padded);
  const at::Tensor buffer = batch.scratch(1, batch.keep ? samples * chunk : 0).view({-1});  // else in the cosines' place
  std::vector<float> norm(samples), along(samples, 0.0f);
  at::Tensor h = direct(dz) ? dz : batch.scratch(want_z ? samples : 0, padded);
  batch.normalize(batch.features, 0, samples, unit.data_ptr<float>(), norm.data());

  each_chunk(batch, unit, kept, false,
             [&](int64_t first, const at::Tensor& prototypes, const float* norms, const at::Tensor& cosines) {
    const int64_t count = cosines.size(1);
    const at::Tensor grad = batch.keep ? buffer.narrow(0, 0, samples * count).view({samples, count}) : cosines;
    const int64_t stride = cosines.stride(0);
    const float* from = cosines.const_data_ptr<float>();
    float* to = grad.data_ptr<float>();
    at::parallel_for(0, samples, rows_a_task(count), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        along[i] += batch.rows.gradient(from + i * stride, count, batch.own(i, first, count), rows[i].gradient, factor,
                                        to + i * count);
    });
    if (want_z) at::addmm_out(h, h, grad, prototypes, first ? 1 : 0, 1);
    if (!want_w) return;
    at::Tensor sum = direct(dw) ? dw.narrow(0, first, count) : sums.narrow(0, 0, count);
    at::mm_out(sum, grad.t(), unit);
    at::parallel_for(0, count, rows_a_task(padded), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c)
        batch.rows.project(sum.const_data_ptr<float>() + c * padded, prototypes.const_data_ptr<float>() + c * padded,
                           norms[c], 0.0f, batch.size, padded, const_cast<char*>(batch.row(dw, first + c)), type_of(dw));
    });
  });
  if (!want_z) return;
  at::parallel_for(0, samples, rows_a_task(padded), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      batch.rows.project(h.const_data_ptr<float>() + i * padded, unit.const_data_ptr<float>() + i * padded, norm[i],
                         outward(rows[i].gradient, factor, along[i]), batch.size, padded,
                         const_cast<char*>(batch.row(dz, i)), type_of(dz));
  });
}

}  // namespace

Backward backward_cpu(const at::Tensor& grad, const at::Tensor& features, const at::Tensor& weight,
                      const at::Tensor& labels, const at::Tensor& statistics, const at::Tensor& kept, bool want_z,
                      bool want_w) {
  const Batch batch(features, weight, labels, kept.size(0) > 0);
  const Row* rows = rows_of(statistics);
  const float factor = *grad.const_data_ptr<float>() / float(batch.samples);
  const auto like = [](const at::Tensor& tensor, bool wanted) {
    return wanted ? at::empty(tensor.sizes(), tensor.scalar_type()) : at::empty({0}, tensor.scalar_type());
  };
  const at::Tensor dz = like(features, want_z), dw = like(weight, want_w);
  if (batch.few())
    few_backward(batch, rows, kept.const_data_ptr<float>(), factor, dz, dw);
  else
    many_backward(batch, rows, kept, factor, dz, dw);
  return {dz, dw};
}

TORCH_LIBRARY_IMPL(cifarnet, CPU, library) {
  library.impl("margin_loss", &forward_cpu);
  library.impl("margin_loss_backward", &backward_cpu);
}

}  // namespace margin
