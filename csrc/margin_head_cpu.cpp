// The margin head on the CPU: forward and backward, built from the loops of margin_rows.h and torch's matrix products.
//
// Three regimes. Few classes: everything in our own loops, a tile of rows at a time. More classes: one matrix product forward,
// which leaves exponentials that backward multiplies with, without looking at them again. Many: the classes go through in
// chunks that stay in the cache, and their cosines are computed again in backward; nothing of size N x C is ever
// allocated. Every sum has a fixed order.
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

constexpr int64_t kMarginCost = 256;  // what a row's margin, exponentials and logarithm cost, in elements

// `factor` is what makes cosines of a row's products.
template <typename From>
Logits logits_of(const From& from, float factor) {
  return {factor, from.scale, from.threshold, from.t};
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

// Log-sum-exp over the negatives of classes that are there at once. Few classes leave their cosines as they are; more of them
// leave their exponentials in the products' place.
void sum_kept(const Batch& batch, const Logits& logits, int64_t index, const at::Tensor& kept, const float* inverse, Row& row) {
  float* products = kept.data_ptr<float>() + index * batch.classes;
  row.shift = batch.rows.peak(products, inverse, batch.classes, batch.label[index], logits);
  const float sum = batch.rows.weigh(products, inverse, batch.classes, batch.label[index], logits, row.shift,
                                     batch.few() ? nullptr : products);
  row.log_others = row.shift + std::log(sum);
}

// The same, chunk by chunk, with a running maximum.
void sum_chunks(const Batch& batch, const std::vector<Target>& targets, const Vectors& z, float* norm, float* inverse,
                Row* rows) {
  std::vector<float> largest(batch.samples, -3e38f), sum(batch.samples, 0.0f);
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
        const float top = std::max(largest[i], batch.rows.peak(row, chunk.inverse, chunk.count, own, logits));
        if (top == -3e38f) continue;  // no negative among these classes, and none before
        sum[i] = sum[i] * std::exp(largest[i] - top) +
                 batch.rows.weigh(row, chunk.inverse, chunk.count, own, logits, top, nullptr);
        largest[i] = top;
      }
    });
  });
  for (int64_t i = 0; i < batch.samples; ++i) rows[i].log_others = largest[i] + std::log(sum[i]), rows[i].shift = largest[i];
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
  const at::Tensor next = moved_state(batch, options, rows, state.contiguous(), training);

  std::vector<Target> targets(samples);
  const auto each_row = [&](int64_t cost, const auto& work) {
    at::parallel_for(0, samples, rows_a_task(cost + kMarginCost), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) work(i);
    });
  };
  const auto aim = [&](int64_t i) {
    targets[i] = target_of(options, rows[i].cosine, rows[i].norm, next.const_data_ptr<float>());
  };
  const auto finish = [&](int64_t i) {
    rows[i].gradient = row_gradient(targets[i], rows[i].log_others);
    losses[i] = row_loss(targets[i], rows[i].log_others);
  };
  if (batch.keep) {
    each_row(batch.classes, [&](int64_t i) {
      aim(i);
      sum_kept(batch, logits_of(targets[i], shrink[i]), i, kept, batch.few() ? nullptr : inverse.data(), rows[i]);
      finish(i);
    });
  } else {
    each_row(0, aim);
    sum_chunks(batch, targets, z, norm.data(), inverse.data(), rows);
    each_row(0, finish);
  }
  const at::Tensor loss = at::empty({}, at::kFloat);
  *loss.data_ptr<float>() = float(std::accumulate(losses.begin(), losses.end(), 0.0) / samples);
  return {loss, next, statistics, kept};
}

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
        along[r] = row.norm > kNormFloor ? outward - across / row.norm : 0.0f;
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
      batch.rows.project(sum, unit + c * stride, norms[c] > kNormFloor ? 1.0f : 0.0f, 1.0f / norms[c], 0.0f, batch.size,
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
        strength[i] = factor * row.scale * (batch.keep ? std::exp(rows[i].shift - row.log_total) : 1.0f);
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
      batch.rows.project(row, chunk.row(c), chunk.pull(c), 1.0f / (chunk.norm[c] * chunk.inverse[c]), 0.0f, size,
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
                       pull.target[i] / norm[batch.label[i]], size);
      float outward = factor * line.norm;
      if (line.norm_share != 0.0f)  // what the negatives pull along unit(z): all of h's share but the label's
        outward += line.norm_share *
                   (batch.rows.dot(row, pull.z.row(i), size) * pull.inverse[i] - pull.target[i] * rows[i].cosine);
      const float along = pull.norm[i] > kNormFloor ? outward * pull.inverse[i] : 0.0f;
      batch.rows.project(row, pull.z.row(i), pull.z.pull(i), 1.0f / pull.norm[i], along, size,
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
                           logits_of(rows[i].gradient, pull.inverse[i]), rows[i].gradient.log_total, product + i * chunk.count);
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

TORCH_LIBRARY_IMPL(cifarnet, CPU, library) {
  library.impl("margin_loss", &forward_cpu);
  library.impl("margin_loss_backward", &backward_cpu);
}

}  // namespace margin
