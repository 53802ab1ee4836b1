// The margin head's backward on the CPU, in the three regimes of margin_forward_cpu.cpp.
#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <numeric>
#include <vector>

#include "margin_batch_cpu.h"

namespace margin {
namespace {

// Backward with few classes: dz by tiles of rows, dW from the sums of at most kMostBlocks blocks of rows, added in order.
void few_backward(const Batch& batch, const Row* rows, const float* cosines, float factor,
                  const at::Tensor& dz, const at::Tensor& dw) {
  const int64_t samples = batch.samples, classes = batch.classes, stride = batch.stride, plane = classes * stride;
  const bool want_z = dz.numel() > 0, want_w = dw.numel() > 0;
  const int64_t block = round_up(std::max<int64_t>(32, (samples + kMostBlocks - 1) / kMostBlocks), kRowTile);
  const int64_t blocks = (samples + block - 1) / block;
  const at::Tensor prototypes = batch.scratch(classes, stride + 1), sums = batch.scratch(want_w ? blocks : 0, plane);
  float *unit = prototypes.data_ptr<float>(), *norms = unit + plane;
  batch.normalize(batch.weight, 0, classes, stride, unit, norms);

  at::parallel_for(0, blocks, std::max<int64_t>(1, kGrain / (block * stride)), [&](int64_t begin, int64_t end) {
    std::vector<float> grad(block * classes), norm(block), along(block);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * block, count = std::min(block, samples - first);
      for (int64_t r = 0; r < count; ++r) {
        const Row& row = rows[first + r];
        const float negatives = batch.rows.gradient(cosines + (first + r) * classes, classes, batch.label[first + r],
                                                    row.gradient, factor, grad.data() + r * classes);
        // Along unit(z): what |z| itself gets, less what the cosines' normalisation takes away.
        const float across = negatives + factor * row.gradient.target * row.cosine;
        const float outward = factor * row.gradient.norm + row.gradient.norm_share * negatives;
        norm[r] = row.norm;
        along[r] = outward - across * inverse_of(row.norm);
      }
      float* sum = want_w ? sums.data_ptr<float>() + b * plane : nullptr;
      if (want_w) std::fill(sum, sum + plane, 0.0f);
      batch.rows.spread(batch.row(batch.features, first), type_of(batch.features), count, batch.size, norm.data(),
                        along.data(), grad.data(), unit, classes, stride,
                        want_z ? const_cast<char*>(batch.row(dz, first)) : nullptr, sum);
    }
  });
  if (!want_w) return;
  at::parallel_for(0, classes, rows_a_task(blocks * stride), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      float* sum = sums.data_ptr<float>() + c * stride;
      for (int64_t b = 1; b < blocks; ++b) batch.rows.add(sum + b * plane, stride, sum);
      batch.rows.project(sum, unit + c * stride, 1.0f, inverse_of(norms[c]), 0.0f, batch.size,
                         const_cast<char*>(batch.row(dw, c)), type_of(dw));
    }
  });
}

// What backward multiplies with in the regimes of matrix products: d loss / d c_ij is strength[i] times the exponential of
// weigh() for a negative, target[i] for the label. The labels' few terms are added beside the products.
struct Pull {
  std::vector<float> norm, inverse, strength, target;
  std::vector<int64_t> order;  // the samples by label
  at::Tensor units, scaled;    // scaled: strength unit(z) [N, D]
  Vectors z;

  Pull(const Batch& batch, const Row* rows, float factor)
      : norm(batch.samples), inverse(batch.samples), strength(batch.samples), target(batch.samples), order(batch.samples),
        scaled(batch.scratch(batch.samples, batch.size)),
        z(vectors_of(batch, batch.features, 0, batch.samples, norm.data(), inverse.data(), units)) {
    at::parallel_for(0, batch.samples, rows_a_task(batch.size), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const RowGradient& row = rows[i].gradient;
        strength[i] = factor * row.strength;
        target[i] = factor * row.target;
        batch.rows.blend(scaled.data_ptr<float>() + i * batch.size, 0.0f, z.row(i), Type::kFloat, strength[i] * inverse[i],
                         batch.size);
      }
    });
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return batch.label[a] < batch.label[b]; });
  }
};

// dW of a chunk's classes from sum = exponentials^T strength unit(z): the labels' terms, then the normalisation's backward.
void finish_weight(const Batch& batch, const Pull& pull, const Vectors& chunk, float* sum, const at::Tensor& dw) {
  const int64_t size = batch.size;
  const auto before = [&](int64_t sample, int64_t label) { return batch.label[sample] < label; };
  at::parallel_for(0, chunk.count, rows_a_task(size), [&](int64_t begin, int64_t end) {
    auto next = std::lower_bound(pull.order.begin(), pull.order.end(), chunk.first + begin, before);
    for (int64_t c = begin; c < end; ++c) {
      float* row = sum + c * size;
      for (; next != pull.order.end() && batch.label[*next] == chunk.first + c; ++next)
        batch.rows.blend(row, 1.0f, pull.z.row(*next), Type::kFloat,
                         pull.target[*next] * pull.inverse[*next] * chunk.inverse[c], size);
      batch.rows.project(row, chunk.row(c), chunk.pull(c), chunk.outer(c), 0.0f, size,
                         const_cast<char*>(batch.row(dw, chunk.first + c)), type_of(dw));
    }
  });
}

// dz from h = exponentials . prototypes, likewise.
void finish_features(const Batch& batch, const Row* rows, const Pull& pull, const float* norm, float factor, float* h,
                     const at::Tensor& dz) {
  const int64_t size = batch.size;
  at::parallel_for(0, batch.samples, rows_a_task(size), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = h + i * size;
      const RowGradient& line = rows[i].gradient;
      batch.rows.blend(row, pull.strength[i], batch.row(batch.weight, batch.label[i]), type_of(batch.weight),
                       pull.target[i] * inverse_of(norm[batch.label[i]]), size);
      float outward = factor * line.norm;
      if (line.norm_share != 0.0f)  // what the negatives pull along unit(z): all of h's share but the label's
        outward += line.norm_share *
                   (batch.rows.dot(row, pull.z.row(i), size) * pull.inverse[i] - pull.target[i] * rows[i].cosine);
      batch.rows.project(row, pull.z.row(i), pull.z.pull(i), inverse_of(pull.norm[i]), outward * pull.inverse[i], size,
                         const_cast<char*>(batch.row(dz, i)), type_of(dz));
    }
  });
}

// Backward by matrix products.
void many_backward(const Batch& batch, const Row* rows, const at::Tensor& kept, float factor,
                   const at::Tensor& dz, const at::Tensor& dw) {
  const int64_t samples = batch.samples, size = batch.size;
  const bool want_z = dz.numel() > 0, want_w = dw.numel() > 0;
  // The products go where the gradients will stand if they fit there, else through a buffer.
  const auto direct = [](const at::Tensor& out) { return out.scalar_type() == at::kFloat; };
  at::Tensor h = direct(dz) ? dz : batch.scratch(want_z ? samples : 0, size);
  const at::Tensor sums = direct(dw) ? at::Tensor() : batch.scratch(want_w ? batch.chunk() : 0, size);
  const at::Tensor buffer = batch.scratch(1, batch.keep ? 0 : samples * batch.chunk()).view({-1});
  std::vector<float> norm(batch.classes), inverse(batch.classes);
  const Pull pull(batch, rows, factor);

  each_chunk(batch, norm.data(), inverse.data(), [&](const Vectors& chunk) {
    at::Tensor weights = batch.keep ? kept.narrow(1, chunk.first, chunk.count)
                                    : buffer.narrow(0, 0, samples * chunk.count).view({samples, chunk.count});
    if (!batch.keep) {
      at::mm_out(weights, pull.z.values, chunk.values.t());
      float* product = weights.data_ptr<float>();
      at::parallel_for(0, samples, rows_a_task(chunk.count), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          batch.rows.weigh(product + i * chunk.count, chunk.inverse, chunk.count, batch.own(i, chunk.first, chunk.count),
                           logits_of(rows[i].gradient, pull.inverse[i]), rows[i].gradient.peak, product + i * chunk.count);
      });
    }
    if (want_z) at::addmm_out(h, h, weights, chunk.values, chunk.first ? 1 : 0, 1);
    if (!want_w) return;
    at::Tensor sum = direct(dw) ? dw.narrow(0, chunk.first, chunk.count) : sums.narrow(0, 0, chunk.count);
    at::mm_out(sum, weights.t(), pull.scaled);
    finish_weight(batch, pull, chunk, sum.data_ptr<float>(), dw);
  });
  if (want_z) finish_features(batch, rows, pull, norm.data(), factor, h.data_ptr<float>(), dz);
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

TORCH_LIBRARY_IMPL(cifarnet, CPU, library) { library.impl("margin_loss_backward", &backward_cpu); }

}  // namespace margin
