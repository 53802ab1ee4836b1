// A batch on the CPU, and the ways through it: rows, tiles of rows, chunks of classes. For margin_head_cpu.cpp alone.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <vector>

#include "margin_head.h"
#include "margin_head_cpu.h"
#include "margin_rows.h"

namespace margin {
namespace {

constexpr int64_t kFewClasses = 64;         // up to here our own products are at least as fast as the library's
constexpr int64_t kChunkCosines = 1 << 18;  // 1 MB of cosines a chunk
constexpr int64_t kMostBlocks = 16;         // of rows, each with its own sums for the weight's gradient
constexpr int64_t kGrain = 1 << 15;         // elements that are worth a thread

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
int64_t rows_a_task(int64_t row_size) { return std::max<int64_t>(1, kGrain / row_size); }

Type type_of(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) return Type::kFloat;
  return tensor.scalar_type() == at::kHalf ? Type::kHalf : Type::kBFloat16;
}

// A batch and its prototypes, contiguous, with what every step needs to know of them.
struct Batch {
  const Rows& rows;
  at::Tensor features, weight, labels;
  int64_t samples, classes, size, padded;
  bool keep;  // whether all cosines are there at once
  const int64_t* label;

  Batch(const at::Tensor& z, const at::Tensor& w, const at::Tensor& y, bool keep)
      : rows(chosen_rows()), features(z.contiguous()), weight(w.contiguous()), labels(y.contiguous()),
        samples(z.size(0)), classes(w.size(0)), size(z.size(1)), padded(round_up(size, kLanes)), keep(keep),
        label(labels.const_data_ptr<int64_t>()) {}

  bool few() const { return keep && classes <= kFewClasses; }
    int64_t chunk() const {
    return std::min(classes, std::max<int64_t>(256, round_up(kChunkCosines / samples, 64)));
  }
  const char* row(const at::Tensor& tensor, int64_t index) const {
    return static_cast<const char*>(tensor.const_data_ptr()) + index * size * tensor.element_size();
  }
  at::Tensor scratch(int64_t count, int64_t width) const { return at::empty({count, width}, at::kFloat); }

  // Unit vectors of the rows [first, first + count) of the features or the weight, and their norms.
  void normalize(const at::Tensor& tensor, int64_t first, int64_t count, float* unit, float* norm) const {
    at::parallel_for(0, count, rows_a_task(padded), [&](int64_t begin, int64_t end) {
      rows.normalize(row(tensor, first + begin), type_of(tensor), end - begin, size, padded, unit + begin * padded,
                     norm + begin);
    });
  }
  // The place of sample `index`'s label among the classes of a chunk, or -1.
  int64_t own(int64_t index, int64_t first, int64_t count) const {
    const int64_t place = label[index] - first;
    return place >= 0 && place < count ? place : -1;
  }
};

void check_labels(const Batch& batch) {
  for (int64_t i = 0; i < batch.samples; ++i)
    TORCH_CHECK_INDEX(batch.label[i] >= 0 && batch.label[i] < batch.classes, "label ", batch.label[i], " of sample ", i,
                      " is out of range: there are ", batch.classes, " classes");
}

// Calls work(first row, rows, unit vectors, norms) for each tile of a range of rows; the last tile's missing rows are zero.
template <typename Work>
void each_tile(const Batch& batch, int64_t begin, int64_t end, const Work& work) {
  std::vector<float> unit(kRowTile * batch.padded);
  float norms[kRowTile];
  for (int64_t row = begin; row < end; row += kRowTile) {
    const int64_t count = std::min(kRowTile, end - row);
    std::fill(unit.begin() + count * batch.padded, unit.end(), 0.0f);
    batch.rows.normalize(batch.row(batch.features, row), type_of(batch.features), count, batch.size, batch.padded,
                         unit.data(), norms);
    work(row, count, unit.data(), norms);
  }
}

// The classes' chunks in turn: work(first class, unit prototypes, their norms, cosines [N, count]). Where the cosines are
// kept, `kept` [N, C] receives them (fill) or gives them; else they stand in a buffer of one chunk.
template <typename Work>
void each_chunk(const Batch& batch, const at::Tensor& unit, const at::Tensor& kept, bool fill, const Work& work) {
  const int64_t chunk = batch.chunk(), padded = batch.padded;
  const at::Tensor prototypes = batch.scratch(chunk, padded), norms = batch.scratch(1, chunk);
  const at::Tensor buffer = batch.scratch(1, batch.keep ? 0 : batch.samples * chunk).view({-1});
  for (int64_t first = 0; first < batch.classes; first += chunk) {
    const int64_t count = std::min(chunk, batch.classes - first);
    at::Tensor part = prototypes.narrow(0, 0, count);
    at::Tensor cosines = batch.keep ? kept.narrow(1, first, count)
                                    : buffer.narrow(0, 0, batch.samples * count).view({batch.samples, count});
    batch.normalize(batch.weight, first, count, part.data_ptr<float>(), norms.data_ptr<float>());
    if (fill || !batch.keep) at::mm_out(cosines, unit, part.t());
    work(first, part, norms.const_data_ptr<float>(), cosines);
  }
}

}  // namespace
}  // namespace margin
