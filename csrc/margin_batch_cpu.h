// A batch on the CPU, and the ways through it: rows, tiles of rows, chunks of classes. For margin_forward_cpu.cpp and
// margin_backward_cpu.cpp.
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

constexpr int64_t kFewClasses = 64;         // up to here our own products are at least as fast as the library's
constexpr int64_t kChunkCosines = 1 << 18;  // 1 MB of cosines a chunk, where they are not kept
constexpr int64_t kChunkNumbers = 1 << 22;  // 16 MB of prototypes a chunk, where they are
constexpr int64_t kMostBlocks = 16;         // of rows, each with its own sums for the weight's gradient
constexpr int64_t kGrain = 1 << 15;         // elements that are worth a thread
constexpr float kShort = 1e-10f, kLong = 1e10f;  // prototypes between these lengths enter the products as they are

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
inline int64_t rows_a_task(int64_t row_size) { return std::max<int64_t>(1, kGrain / row_size); }

inline Type type_of(const at::Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) return Type::kFloat;
  return tensor.scalar_type() == at::kHalf ? Type::kHalf : Type::kBFloat16;
}

// A batch and its prototypes, contiguous, with what every step needs to know of them.
struct Batch {
  const Rows& rows;
  at::Tensor features, weight, labels;
  int64_t samples, classes, size;
  int64_t stride;  // of unit prototypes, with few classes; a cache line more than D, so that rows do not fall on each other
  bool keep;       // whether the cosines of all classes are there at once
  const int64_t* label;

  Batch(const at::Tensor& z, const at::Tensor& w, const at::Tensor& y, bool keep)
      : rows(chosen_rows()), features(z.contiguous()), weight(w.contiguous()), labels(y.contiguous()),
        samples(z.size(0)), classes(w.size(0)), size(z.size(1)), stride(round_up(size, kLanes) + kLanes), keep(keep),
        label(labels.const_data_ptr<int64_t>()) {}

  bool few() const { return keep && classes <= kFewClasses; }
  int64_t chunk() const {
    return std::min(classes, std::max<int64_t>(256, round_up(keep ? kChunkNumbers / size : kChunkCosines / samples, 64)));
  }
  const char* row(const at::Tensor& tensor, int64_t index) const {
    return static_cast<const char*>(tensor.const_data_ptr()) + index * size * tensor.element_size();
  }
  at::Tensor scratch(int64_t count, int64_t width) const { return at::empty({count, width}, at::kFloat); }

  // Unit vectors of the rows [first, first + count) of the features or the weight, `stride` apart, and their norms.
  void normalize(const at::Tensor& tensor, int64_t first, int64_t count, int64_t stride, float* unit, float* norm) const {
    at::parallel_for(0, count, rows_a_task(size), [&](int64_t begin, int64_t end) {
      rows.normalize(row(tensor, first + begin), type_of(tensor), end - begin, size, stride, unit + begin * stride,
                     norm + begin);
    });
  }
  // The place of sample `index`'s label among the classes of a chunk, or -1.
  int64_t own(int64_t index, int64_t first, int64_t count) const {
    const int64_t place = label[index] - first;
    return place >= 0 && place < count ? place : -1;
  }
};

// `factor` is what makes cosines of a row's products.
template <typename From>
Logits logits_of(const From& from, float factor) {
  return {factor, from.scale, from.threshold, from.t};
}

// Rows [first, first + count) of the features or the weight as the matrix products take them: unit(row) is values[row] times
// inverse[row]. fp32 rows of ordinary length stand for themselves (inverse is 1 / norm), others as unit vectors (1).
struct Vectors {
  int64_t first, count;
  at::Tensor values;            // [count, D], fp32
  const float *norm, *inverse;  // [count]

  const float* row(int64_t i) const { return values.const_data_ptr<float>() + i * values.size(1); }
  float pull(int64_t i) const { return inverse[i] * inverse[i]; }                 // 1 / |values[i]|^2
  float outer(int64_t i) const { return inverse_of(norm[i]) / inverse[i]; }  // what is left of 1 / norm beside inverse
};

// `norm` and `inverse` [count] are filled; `units` is where unit vectors stand, made when it is first needed.
inline Vectors vectors_of(const Batch& batch, const at::Tensor& tensor, int64_t first, int64_t count, float* norm, float* inverse,
                          at::Tensor& units) {
  at::parallel_for(0, count, rows_a_task(batch.size), [&](int64_t begin, int64_t end) {
    batch.rows.lengths(batch.row(tensor, first + begin), type_of(tensor), end - begin, batch.size, norm + begin);
  });
  const auto ordinary = [](float length) { return length > kShort && length < kLong; };
  const bool raw = type_of(tensor) == Type::kFloat && std::all_of(norm, norm + count, ordinary);
  for (int64_t i = 0; i < count; ++i) inverse[i] = raw ? 1.0f / norm[i] : 1.0f;
  if (raw) return {first, count, tensor.narrow(0, first, count), norm, inverse};
  if (!units.defined()) units = batch.scratch(count, batch.size);
  const at::Tensor values = units.narrow(0, 0, count);
  batch.normalize(tensor, first, count, batch.size, values.data_ptr<float>(), norm);
  return {first, count, values, norm, inverse};
}

// Calls work(prototypes) for the chunks of classes in turn. `norm` and `inverse` [C] are filled on the way.
template <typename Work>
void each_chunk(const Batch& batch, float* norm, float* inverse, const Work& work) {
  at::Tensor units;
  for (int64_t first = 0, step = batch.chunk(); first < batch.classes; first += step)
    work(vectors_of(batch, batch.weight, first, std::min(step, batch.classes - first), norm + first, inverse + first, units));
}

}  // namespace margin
