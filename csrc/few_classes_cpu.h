// The gradients of few classes on the CPU, by own loops: what the losses of margin_backward_cpu.cpp and one_vs_all_cpu.cpp share.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "margin_batch_cpu.h"

namespace margin {

// Samples with what their gradients are made of, v being z / |z|: |z|, d loss / d c_j [count, C], the sum of c_j times these, and what
// goes along v besides.
struct FewSamples {
  int64_t first, count;
  std::vector<float> norm, pull, across, outward;

  FewSamples(int64_t first, int64_t count, int64_t classes)
      : first(first), count(count), norm(count), pull(count * classes), across(count), outward(count) {}
};

// dz = (sum over j of pull[j] unit[j] - across v) / |z| + outward v of the samples, and sums[j] += pull[j] v. Null: not wanted.
//
// Features of ordinary length stand for themselves: 1 / |z| goes into the few numbers beside them. Others enter as unit vectors.
inline void few_gradients(const CpuBatch& batch, Prototypes prototypes, FewSamples& of, const at::Tensor* dz, float* sums) {
  const auto ordinary = [](float length) { return length > kShort && length < kLong; };
  const int64_t classes = batch.classes, size = batch.size;
  const Rows rows = batch.rows(batch.features, of.first, of.count);
  std::vector<float> along(of.count);
  if (std::all_of(of.norm.begin(), of.norm.end(), ordinary)) {
    for (int64_t r = 0; r < of.count; ++r) {
      const float inverse = 1.0f / of.norm[r];
      for (int64_t c = 0; c < classes; ++c) of.pull[r * classes + c] *= inverse;
      along[r] = (of.outward[r] - of.across[r] * inverse) * inverse;
    }
    batch.loops.accumulate_grads(rows, prototypes, along.data(), of.pull.data(),
                                 dz ? batch.mutable_row(*dz, of.first) : nullptr, sums);
    return;
  }
  std::vector<float> unit(of.count * size), h(dz ? of.count * size : 0);
  batch.loops.normalize(rows, size, unit.data(), of.norm.data());
  std::transform(of.across.begin(), of.across.end(), along.begin(), std::negate<float>());
  batch.loops.accumulate_grads({unit.data(), Type::kFloat, of.count, size}, prototypes, along.data(), of.pull.data(),
                               dz ? h.data() : nullptr, sums);
  for (int64_t r = 0; dz && r < of.count; ++r)
    batch.loops.project(h.data() + r * size, unit.data() + r * size, 0.0f, inverse_of(of.norm[r]), of.outward[r], size,
                        batch.mutable_row(*dz, of.first + r), type_of(*dz));
}

}  // namespace margin
