// A batch on the CPU, and the ways through it: samples, rows of a matrix, chunks of prototypes. For margin_forward_cpu.cpp and
// margin_backward_cpu.cpp.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <vector>

#include "margin_head.h"
#include "margin_head_cpu.h"
#include "margin_rows.h"

namespace margin {

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

struct CpuBatch : Batch {
  const RowLoops& loops;
  int64_t chunk_cosines = kChunkCosines;  // of a chunk of classes, where the cosines are not kept
  const float* times = nullptr;           // [C] how many classes each drawn one stands for; null: itself
  int64_t centres = 1;                    // prototypes a class; `classes` counts them all, a label is the nearest one of its class
  int64_t stride;  // of unit prototypes, with few classes; a cache line more than D, so that rows do not fall on each other

  CpuBatch(const at::Tensor& z, const at::Tensor& w, const at::Tensor& y, bool keep)
      : Batch(z, w, y, keep), loops(chosen_loops()), stride(round_up(size, kLanes) + kLanes) {}

  bool few_classes() const { return keep && classes <= kFewClasses; }
  int64_t chunk() const {
    const int64_t step = std::max<int64_t>(256, round_up(keep ? kChunkNumbers / size : chunk_cosines / samples, 64));
    return std::min(classes, step / centres * centres);
  }
  const char* row(const at::Tensor& tensor, int64_t index) const {
    return static_cast<const char*>(tensor.const_data_ptr()) + index * size * tensor.element_size();
  }
  char* mutable_row(const at::Tensor& tensor, int64_t index) const { return const_cast<char*>(row(tensor, index)); }
  Rows rows(const at::Tensor& tensor, int64_t first, int64_t count) const {
    return {row(tensor, first), type_of(tensor), count, size};
  }

  // Unit vectors of the rows [first, first + count) of the features or the weight, `stride` apart, and their norms.
  void normalize(const at::Tensor& tensor, int64_t first, int64_t count, int64_t stride, float* unit, float* norm) const {
    at::parallel_for(0, count, rows_a_task(size), [&](int64_t begin, int64_t end) {
      loops.normalize(rows(tensor, first + begin, end - begin), stride, unit + begin * stride, norm + begin);
    });
  }
  // The place of sample `index`'s label among the classes of a chunk, or -1.
  int64_t own(int64_t index, int64_t first, int64_t count) const {
    const int64_t place = label[index] - first;
    return place >= 0 && place < count ? place : -1;
  }
  // Sample `index`'s products with a chunk of classes; `inverse` [count] or null.
  ClassRow class_row(const float* product, const float* inverse, int64_t index, int64_t first, int64_t count) const {
    return {product, inverse, times ? times + first : nullptr, count, own(index, first, count), centres};
  }
  // The same, with the nearest prototype of each class alone where a class has several; `factor` makes cosines of the products.
  ClassRow nearest_row(float* product, const float* inverse, float factor, int64_t index, int64_t first, int64_t count) const {
    const ClassRow row = class_row(product, inverse, index, first, count);
    if (centres > 1) loops.keep_nearest(row, factor, product);
    return row;
  }
};

// A class may have several prototypes, W [C, K, D]: how many, and all of them [C K, D], class after class.
inline int64_t centres_of(const at::Tensor& weight) { return weight.dim() == 3 ? weight.size(1) : 1; }
inline at::Tensor prototypes_of(const at::Tensor& weight) { return weight.dim() == 3 ? weight.flatten(0, 1) : weight; }

inline void check_centres(const at::Tensor& weight) {
  TORCH_CHECK_VALUE(weight.dim() == 3 && weight.size(0) >= 2 && weight.size(1) >= 1 && weight.size(1) <= kMostCentres,
                    "sub-centres are [at least 2 classes, 1 to ", kMostCentres, ", D], not ", weight.sizes());
}

inline void check_centres(const at::Tensor& weight, const Options& options) {
  if (weight.dim() != 3) return;
  check_centres(weight);
  const Traits traits = traits_of(options);
  TORCH_CHECK_VALUE(!traits.shapes_negatives && !traits.moves_by_negatives,
                    "sub-centres go with a loss that changes the label's logit alone, not with ", loss_names()[options.loss]);
}

// `least` is -1 where other shards have classes too.
inline void check_labels(const int64_t* label, int64_t samples, int64_t classes, int64_t least = 0) {
  for (int64_t i = 0; i < samples; ++i)
    TORCH_CHECK_INDEX(label[i] >= least && label[i] < classes, "label ", label[i], " of sample ", i,
                      " is out of range: there are ", classes, " classes");
}
inline void check_labels(const Batch& batch, int64_t least = 0) {
  check_labels(batch.label, batch.samples, batch.classes, least);
}

// Calls work(i) for each of `count` rows, in parallel; `cost` is what one takes, in elements.
template <typename Work>
void each_row(int64_t count, int64_t cost, const Work& work) {
  at::parallel_for(0, count, rows_a_task(cost), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work(i);
  });
}

// `factor` is what makes cosines of a sample's products.
template <typename From>
Logits logits_of(const From& from, float factor) {
  return {factor, from.scale, from.shaping};
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
inline Vectors vectors_of(const CpuBatch& batch, const at::Tensor& tensor, int64_t first, int64_t count, float* norm,
                          float* inverse, at::Tensor& units) {
  at::parallel_for(0, count, rows_a_task(batch.size), [&](int64_t begin, int64_t end) {
    batch.loops.lengths(batch.rows(tensor, first + begin, end - begin), norm + begin);
  });
  const auto ordinary = [](float length) { return length > kShort && length < kLong; };
  const bool raw = type_of(tensor) == Type::kFloat && std::all_of(norm, norm + count, ordinary);
  for (int64_t i = 0; i < count; ++i) inverse[i] = raw ? 1.0f / norm[i] : 1.0f;
  if (raw) return {first, count, tensor.narrow(0, first, count), norm, inverse};
  if (!units.defined()) units = batch.scratch({count, batch.size});
  const at::Tensor values = units.narrow(0, 0, count);
  batch.normalize(tensor, first, count, batch.size, values.data_ptr<float>(), norm);
  return {first, count, values, norm, inverse};
}

// The vectors of both sides where cosines come from matrix products. Of the prototypes, `norm` and `inverse` [C] are filled by
// each_prototype_chunk().
struct ProductSides {
  std::vector<float> z_norm, z_inverse, norm, inverse;
  at::Tensor units;
  Vectors z;

  explicit ProductSides(const CpuBatch& batch)
      : z_norm(batch.samples), z_inverse(batch.samples), norm(batch.classes), inverse(batch.classes),
        z(vectors_of(batch, batch.features, 0, batch.samples, z_norm.data(), z_inverse.data(), units)) {}
};

// Calls work(prototypes) for the chunks of classes in turn. `norm` and `inverse` [C] are filled on the way.
template <typename Work>
void each_prototype_chunk(const CpuBatch& batch, float* norm, float* inverse, const Work& work) {
  at::Tensor units;
  each_chunk(batch.classes, batch.chunk(), [&](int64_t first, int64_t count) {
    work(vectors_of(batch, batch.weight, first, count, norm + first, inverse + first, units));
  });
}

}  // namespace margin
