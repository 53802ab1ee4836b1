// The margin head on CUDA: which kernels run, in what order, with which memory.
//
// Few classes: cuda_few.cuh, three launches in all. More: matrix products through torch, the kernels of cuda_many.cuh
// around them, in chunks of classes once the cosines are too many to keep. No host synchronisation; a label out of range
// is a device-side assertion. fp32 features use fp32 products (TF32 where torch.backends allows it), 16-bit ones fp16.
#include "cuda_platform.cuh"

#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sort.h>
#include <torch/library.h>

#include <atomic>
#include <cstddef>

#include "cuda_few.cuh"
#include "cuda_many.cuh"

namespace margin {
namespace {

std::atomic<int64_t> calls{0};

constexpr int64_t kChunkCosines = int64_t(1) << 23;  // 16 MB in fp16: a chunk stays in the L2 cache

using at::Tensor;

unsigned blocks_of(int64_t rows) { return unsigned((rows + kWarps - 1) / kWarps); }

// A batch, contiguous; prototypes are fp32 or of the features' type.
struct Batch {
  Tensor features, weight, labels;
  int64_t samples, classes, size;
  bool keep;

  Batch(const Tensor& z, const Tensor& w, const Tensor& y, bool keep)
      : features(z.contiguous()),
        weight((w.scalar_type() == z.scalar_type() ? w : w.to(at::kFloat)).contiguous()), labels(y.contiguous()),
        samples(z.size(0)), classes(w.size(0)), size(z.size(1)), keep(keep) {}

  bool few() const { return keep && classes <= kFewClasses && shared_bytes() <= kFewBytes; }
  int64_t shared_bytes() const { return classes * size * int64_t(sizeof(float)); }
  int64_t chunk() const {
    if (keep) return classes;
    return std::min(classes, std::max<int64_t>(1024, kChunkCosines / samples / 128 * 128));
  }
  at::ScalarType product_type() const { return features.scalar_type() == at::kFloat ? at::kFloat : at::kHalf; }
  const int64_t* label() const { return labels.const_data_ptr<int64_t>(); }
  Tensor scratch(at::IntArrayRef shape, at::ScalarType type = at::kFloat) const {
    return at::empty(shape, features.options().dtype(type));
  }
};

// Calls body(features, weight) with null pointers of the two types.
template <typename Body>
void with_types(const Batch& batch, const Body& body) {
  const bool plain = batch.weight.scalar_type() == at::kFloat;
  const float* f32 = nullptr;
  const c10::Half* f16 = nullptr;
  const c10::BFloat16* b16 = nullptr;
  if (batch.features.scalar_type() == at::kFloat) body(f32, f32);
  else if (batch.features.scalar_type() == at::kHalf) plain ? body(f16, f32) : body(f16, f16);
  else plain ? body(b16, f32) : body(b16, b16);
}

// The same for a normalisation: the type of `in` and of the products.
template <typename Body>
void with_product_types(const Batch& batch, const Tensor& in, const Body& body) {
  const float* f32 = nullptr;
  const c10::Half* f16 = nullptr;
  const c10::BFloat16* b16 = nullptr;
  if (batch.product_type() == at::kFloat) body(f32, f32);
  else if (in.scalar_type() == at::kFloat) body(f32, f16);
  else if (in.scalar_type() == at::kHalf) body(f16, f16);
  else body(b16, f16);
}

template <typename T>
T* data(const Tensor& tensor, const T*) {
  return const_cast<T*>(static_cast<const T*>(tensor.const_data_ptr()));
}

// unit [count, D] in the products' type and norm [count] of the rows [first, first + count) of the features or weight.
void normalize(const Batch& batch, const Tensor& in, int64_t first, int64_t count, const Tensor& unit, float* norm,
               int64_t stride = 1) {
  with_product_types(batch, in, [&](auto from, auto to) {
    launch(normalize_rows<std::decay_t<decltype(*from)>, std::decay_t<decltype(*to)>>, blocks_of(count), kThreads, 0,
           data(in, from) + first * batch.size, count, batch.size, data(unit, to), norm, stride);
  });
}

// The classes' chunks in turn: work(first class, unit prototypes, their norms, cosines [N, count]). `kept` [N, C], where
// the cosines are kept, receives them (fill) or gives them.
template <typename Work>
void each_chunk(const Batch& batch, const Tensor& unit, const Tensor& kept, bool fill, const Work& work) {
  const int64_t chunk = batch.chunk();
  const at::ScalarType type = batch.product_type();
  const Tensor prototypes = batch.scratch({chunk, batch.size}, type), norms = batch.scratch({chunk});
  const Tensor buffer = batch.keep ? kept.view({-1}) : batch.scratch({batch.samples * chunk}, type);
  for (int64_t first = 0; first < batch.classes; first += chunk) {
    const int64_t count = std::min(chunk, batch.classes - first);
    const Tensor part = prototypes.narrow(0, 0, count);
    Tensor cosines = buffer.narrow(0, 0, batch.samples * count).view({batch.samples, count});
    normalize(batch, batch.weight, first, count, part, norms.data_ptr<float>());
    if (fill || !batch.keep) product(cosines, unit, part.t());
    work(first, part, norms.data_ptr<float>(), cosines);
  }
}

void few_forward(const Batch& batch, Row* rows, const Tensor& cosines) {
  with_types(batch, [&](auto z, auto w) {
    const auto kernel = few_cosines<std::decay_t<decltype(*z)>, std::decay_t<decltype(*w)>>;
    allow_shared(kernel, batch.shared_bytes());
    launch(kernel, blocks_of(batch.samples), kThreads, batch.shared_bytes(), data(batch.features, z),
           data(batch.weight, w), batch.label(), batch.samples, batch.classes, batch.size, rows,
           cosines.data_ptr<float>());
  });
}

void many_forward(const Batch& batch, const Options& options, Row* rows, const Tensor& kept, const Tensor& state, bool training,
                  const Tensor& next, float* loss) {
  const Tensor unit = batch.scratch({batch.samples, batch.size}, batch.product_type());
  const Tensor running = batch.scratch({2, batch.samples});
  float *largest = running.data_ptr<float>(), *sum = largest + batch.samples;
  const float* now = next.const_data_ptr<float>();
  normalize(batch, batch.features, 0, batch.samples, unit, &rows->norm, kRowNumbers);
  with_types(batch, [&](auto z, auto w) {
    launch(target_cosines<std::decay_t<decltype(*z)>, std::decay_t<decltype(*w)>>, blocks_of(batch.samples), kThreads, 0,
           data(batch.features, z), data(batch.weight, w), batch.label(), batch.samples, batch.classes, batch.size, rows);
  });
  launch(update_state, 1, kSingleBlock, 0, options, batch.samples, rows,
         state.const_data_ptr<float>(), int(state.numel()), training, next.data_ptr<float>());
  each_chunk(batch, unit, kept, true, [&](int64_t first, const Tensor&, const float*, const Tensor& cosines) {
    const auto run = [&](auto type) {
      launch(accumulate<std::decay_t<decltype(*type)>>, unsigned(batch.samples), kThreads, 0, options,
             data(cosines, type), batch.label(), first, cosines.size(1), now, static_cast<const Row*>(rows), largest, sum);
    };
    cosines.scalar_type() == at::kFloat ? run((const float*)nullptr) : run((const c10::Half*)nullptr);
  });
  launch(many_loss, 1, kSingleBlock, 0, options, batch.samples, now, largest, sum, rows, loss);
}

Forward forward_cuda(const Tensor& features, const Tensor& weight, const Tensor& labels, const Tensor& state,
                     int64_t loss_id, double scale, double margin, double h, double t_alpha, bool easy, bool training) {
  const Options options = make_options(loss_id, scale, margin, h, t_alpha, easy);
  check_inputs(features, weight, labels, state, options);
  const DeviceGuard guard(features.device());
  const Batch batch(features, weight, labels, keeps_cosines(features, weight));
  ++calls;
  const Tensor statistics = batch.scratch({batch.samples, kRowNumbers}), loss = batch.scratch({});
  const Tensor kept = batch.scratch({batch.keep ? batch.samples : 0, batch.classes});
  const Tensor old = state.contiguous(), next = batch.scratch(state.sizes());
  Row* rows = rows_of(statistics);
  if (batch.few()) {
    few_forward(batch, rows, kept);
    launch(few_loss, 1, kSingleBlock, 0, options, batch.label(), batch.samples, batch.classes,
           old.const_data_ptr<float>(), int(old.numel()), training, kept.const_data_ptr<float>(), rows,
           next.data_ptr<float>(), loss.data_ptr<float>());
  } else {
    many_forward(batch, options, rows, kept, old, training, next, loss.data_ptr<float>());
  }
  return {loss, next, statistics, kept};
}

void run_few_backward(const Batch& batch, const Row* rows, const float* grad, const Tensor& cosines, const Tensor& dz,
                      const Tensor& dw) {
  with_types(batch, [&](auto z, auto w) {
    using T = std::decay_t<decltype(*z)>;
    using W = std::decay_t<decltype(*w)>;
    const FewBackward<T, W> in = {
        grad, data(batch.features, z), data(batch.weight, w), batch.label(), rows, cosines.const_data_ptr<float>(),
        batch.samples, batch.classes, batch.size, data(dz, z), data(dw, w)};
    const int64_t row_blocks = dz.numel() ? blocks_of(batch.samples) : 0;
    const int64_t columns = (batch.size + kWarp - 1) / kWarp, tiles = (batch.classes + kClassTile - 1) / kClassTile;
    const int64_t blocks = row_blocks + (dw.numel() ? columns * tiles : 0);
    allow_shared(few_backward<T, W>, batch.shared_bytes());
    if (blocks) launch(few_backward<T, W>, unsigned(blocks), kThreads, batch.shared_bytes(), in, row_blocks);
  });
}

void run_many_backward(const Batch& batch, const Tensor& statistics, const float* grad, const Tensor& kept,
                       const Tensor& dz, const Tensor& dw) {
  const int64_t samples = batch.samples, chunk = batch.chunk();
  const bool want_z = dz.numel() > 0, want_w = dw.numel() > 0, half = batch.product_type() == at::kHalf;
  const Tensor unit = batch.scratch({samples, batch.size}, batch.product_type()), norms = batch.scratch({2, samples});
  const Tensor h = batch.scratch({want_z ? samples : 0, batch.size}), part = batch.scratch(h.sizes());
  const Tensor sums = batch.scratch({want_w ? chunk : 0, batch.size});
  const Tensor shares_of_kept = batch.scratch({batch.keep ? samples * chunk : 0}, batch.product_type());
  const auto [sorted, order] = at::sort(batch.labels, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  float* along = norms.data_ptr<float>() + samples;
  normalize(batch, batch.features, 0, samples, unit, norms.data_ptr<float>());
  const Row* rows = rows_of(statistics);
  const Tensor most = at::amax(statistics.select(1, offsetof(Row, gradient.scale) / sizeof(float)));
  const ManyBackward in = {grad, most.const_data_ptr<float>(), rows, batch.label(), samples, batch.size,
                           half ? 8192.0f : 1.0f};

  each_chunk(batch, unit, kept, false,
             [&, &sorted = sorted, &order = order](int64_t first, const Tensor& prototypes, const float* prototype_norms,
                                                   const Tensor& cosines) {
    const int64_t count = cosines.size(1);
    const Tensor shares = batch.keep ? shares_of_kept.view({samples, count}) : cosines;  // in place where they are ours
    const auto gradient = [&](auto from, auto to) {
      launch(gradient_shares<std::decay_t<decltype(*from)>, std::decay_t<decltype(*to)>>, unsigned(samples), kThreads, 0,
             in, data(cosines, from), first, count, data(shares, to), along);
    };
    const float* f32 = nullptr;
    const c10::Half* f16 = nullptr;
    if (!half) gradient(f32, f32);
    else if (batch.keep) gradient(f32, f16);
    else gradient(f16, f16);
    if (want_z) {
      product(first ? part : h, shares, prototypes);
      if (first) h.add_(part);
    }
    if (!want_w) return;
    product(sums.narrow(0, 0, count), shares.t(), unit);
    const auto project = [&](auto kind, auto w) {
      launch(project_prototypes<std::decay_t<decltype(*kind)>, std::decay_t<decltype(*w)>>, blocks_of(count), kThreads, 0,
             in, sums.const_data_ptr<float>(), data(prototypes, kind), prototype_norms, data(unit, kind),
             sorted.template const_data_ptr<int64_t>(), order.template const_data_ptr<int64_t>(), first, count,
             data(dw, w));
    };
    with_types(batch, [&](auto, auto w) { half ? project(f16, w) : project(f32, w); });
  });
  if (!want_z) return;
  with_types(batch, [&](auto z, auto w) {
    launch(project_features<std::decay_t<decltype(*z)>, std::decay_t<decltype(*w)>>, blocks_of(samples), kThreads, 0, in,
           data(batch.features, z), data(batch.weight, w), h.const_data_ptr<float>(), along, data(dz, z));
  });
}

Backward backward_cuda(const Tensor& grad, const Tensor& features, const Tensor& weight, const Tensor& labels,
                       const Tensor& statistics, const Tensor& kept, bool want_z, bool want_w) {
  const DeviceGuard guard(features.device());
  const Batch batch(features, weight, labels, kept.size(0) > 0);
  const Tensor dz = batch.scratch(want_z ? batch.features.sizes() : at::IntArrayRef(0), batch.features.scalar_type());
  const Tensor dw = batch.scratch(want_w ? batch.weight.sizes() : at::IntArrayRef(0), batch.weight.scalar_type());
  const float* grad_at = grad.const_data_ptr<float>();
  if (batch.few())
    run_few_backward(batch, rows_of(statistics), grad_at, kept, dz, dw);
  else
    run_many_backward(batch, statistics, grad_at, kept, dz, dw);
  return {dz, dw.to(weight.scalar_type())};
}

}  // namespace

int64_t cuda_calls() { return calls; }

TORCH_LIBRARY_IMPL(MARGIN_LIBRARY, MARGIN_DEVICE, library) {
  library.impl("margin_loss", &forward_cuda);
  library.impl("margin_loss_backward", &backward_cuda);
}

}  // namespace margin
