// A batch on CUDA, the types of its tensors, and the ways through its classes; for margin_head_cuda.cu.
#pragma once

#include "cuda_platform.cuh"

#include <algorithm>
#include <atomic>
#include <type_traits>

#include "cuda_few.cuh"
#include "cuda_many.cuh"

namespace margin {
namespace {

using at::Tensor;

// Cosines of a chunk. A setting, so that the benchmark tries others.
std::atomic<int64_t> chunk_cosines{kChunkCosines};

unsigned blocks_of(int64_t rows) { return unsigned((rows + kWarps - 1) / kWarps); }           // a warp a row
unsigned blocks_of_threads(int64_t rows) { return unsigned((rows + kThreads - 1) / kThreads); }  // a thread a row

// Few prototypes are fp32 or of the features' type; many stay as they are: a copy would double W.
struct CudaBatch : Batch {
  CudaBatch(const Tensor& z, const Tensor& w, const Tensor& y, bool keep) : Batch(z, w, y, keep) {
    if (few_classes() && weight.scalar_type() != features.scalar_type()) weight = weight.to(at::kFloat);
  }

  bool few_classes() const { return keep && classes <= kFewClasses && shared_bytes() + kFewStatic <= shared_limit(); }
  int64_t shared_bytes() const { return classes * size * int64_t(sizeof(float)); }
  // Classes that go through at a time: of few samples their prototypes are what takes memory.
  int64_t chunk() const {
    const int64_t of_prototypes = kChunkPrototypes / size;
    const int64_t most = keep ? of_prototypes : std::min(of_prototypes, chunk_cosines / samples);
    return std::min(classes, std::max<int64_t>(1024, most / 128 * 128));
  }
  at::ScalarType product_type() const { return features.scalar_type() == at::kFloat ? at::kFloat : at::kHalf; }
};

// Calls body(a null pointer of the type).
template <typename Body>
void with_type(at::ScalarType type, const Body& body) {
  if (type == at::kFloat) body(static_cast<const float*>(nullptr));
  else if (type == at::kHalf) body(static_cast<const c10::Half*>(nullptr));
  else body(static_cast<const c10::BFloat16*>(nullptr));
}

// Calls body(features, weight) with null pointers of the two types: few prototypes are fp32 or of the features' type.
template <typename Body>
void with_types(const CudaBatch& batch, const Body& body) {
  with_type(batch.features.scalar_type(), [&](auto z) {
    if (batch.weight.scalar_type() == batch.features.scalar_type()) body(z, z);
    else if constexpr (!std::is_same_v<decltype(z), const float*>) body(z, static_cast<const float*>(nullptr));
  });
}

// The same of many prototypes, of any type.
template <typename Body>
void with_any_types(const CudaBatch& batch, const Body& body) {
  with_type(batch.features.scalar_type(), [&](auto z) { with_type(batch.weight.scalar_type(), [&](auto w) { body(z, w); }); });
}

// The same for a normalisation: the type of `in` and of the products.
template <typename Body>
void with_product_types(const CudaBatch& batch, const Tensor& in, const Body& body) {
  with_type(in.scalar_type(), [&](auto from) {
    if (batch.product_type() == at::kFloat) body(from, static_cast<const float*>(nullptr));
    else body(from, static_cast<const c10::Half*>(nullptr));
  });
}

template <typename T>
T* data(const Tensor& tensor, const T*) {
  return const_cast<T*>(static_cast<const T*>(tensor.const_data_ptr()));
}

// The rows of a matrix whose rows may lie further apart than they are long.
template <typename T>
Rows<T> rows(const Tensor& matrix, T* type) {
  return {data(matrix, type), matrix.stride(0)};
}

// unit [count, D] in the products' type and norm [count] of the rows [first, first + count) of the features or weight.
void normalize(const CudaBatch& batch, const Tensor& in, int64_t first, int64_t count, const Tensor& unit, float* norm,
               int64_t stride = 1) {
  with_product_types(batch, in, [&](auto from, auto to) {
    launch(normalize_rows<std::decay_t<decltype(*from)>, std::decay_t<decltype(*to)>>, blocks_of(count), kThreads, 0,
           data(in, from) + first * batch.size, count, batch.size, data(unit, to), norm, stride);
  });
}

// [rows, columns] in a buffer, each row at a multiple of eight numbers: so loads of 16 bytes and cuBLAS's fast kernels ask.
inline int64_t pitch_of(int64_t columns) { return (columns + kEight - 1) / kEight * kEight; }
inline Tensor padded_rows(const Tensor& buffer, int64_t rows, int64_t columns) {
  return buffer.narrow(0, 0, rows * pitch_of(columns)).view({rows, pitch_of(columns)}).narrow(1, 0, columns);
}

// The classes' chunks in turn: work(first class, unit prototypes, their norms, cosines [N, count], rows apart). `kept` [N, C],
// where the cosines are kept, receives them (fill) or gives them.
template <typename Work>
void each_cosine_chunk(const CudaBatch& batch, const Tensor& unit, const Tensor& kept, bool fill, const Work& work) {
  const int64_t chunk = batch.chunk();
  const at::ScalarType type = batch.product_type();
  const Tensor prototypes = batch.scratch({chunk, batch.size}, type), norms = batch.scratch({chunk});
  const Tensor buffer = batch.scratch({batch.keep ? 0 : batch.samples * pitch_of(chunk)}, type);
  each_chunk(batch.classes, chunk, [&](int64_t first, int64_t count) {
    const Tensor part = prototypes.narrow(0, 0, count);
    const Tensor cosines = batch.keep ? kept.narrow(1, first, count) : padded_rows(buffer, batch.samples, count);
    normalize(batch, batch.weight, first, count, part, norms.data_ptr<float>());
    if (fill || !batch.keep) product(cosines, unit, part.t());
    work(first, part, norms.data_ptr<float>(), cosines);
  });
}

}  // namespace
}  // namespace margin
