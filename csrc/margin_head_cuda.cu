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

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "cuda_few.cuh"
#include "cuda_many.cuh"

namespace margin {
namespace {

std::atomic<int64_t> calls{0};

constexpr int64_t kChunkCosines = int64_t(1) << 23;  // 16 MB in fp16: a chunk stays in the L2 cache
constexpr int64_t kCountedLabels = 2048;  // up to here labels are ordered by counting, in one launch; more are sorted

using at::Tensor;

unsigned blocks_of(int64_t rows) { return unsigned((rows + kWarps - 1) / kWarps); }           // a warp a row
unsigned blocks_of_threads(int64_t rows) { return unsigned((rows + kThreads - 1) / kThreads); }  // a thread a row

// A batch, contiguous. Few prototypes are fp32 or of the features' type; many stay as they are: a copy would double W.
struct Batch {
  Tensor features, weight, labels;
  int64_t samples, classes, size;
  bool keep;

  Batch(const Tensor& z, const Tensor& w, const Tensor& y, bool keep)
      : features(z.contiguous()), labels(y.contiguous()), samples(z.size(0)), classes(w.size(0)), size(z.size(1)),
        keep(keep) {
    weight = (few() && w.scalar_type() != z.scalar_type() ? w.to(at::kFloat) : w).contiguous();
  }

  bool few() const { return keep && classes <= kFewClasses && shared_bytes() + kFewStatic <= shared_limit(); }
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

// Calls body(a null pointer of the type).
template <typename Body>
void with_type(at::ScalarType type, const Body& body) {
  if (type == at::kFloat) body(static_cast<const float*>(nullptr));
  else if (type == at::kHalf) body(static_cast<const c10::Half*>(nullptr));
  else body(static_cast<const c10::BFloat16*>(nullptr));
}

// Calls body(features, weight) with null pointers of the two types: few prototypes are fp32 or of the features' type.
template <typename Body>
void with_types(const Batch& batch, const Body& body) {
  with_type(batch.features.scalar_type(), [&](auto z) {
    if (batch.weight.scalar_type() == batch.features.scalar_type()) body(z, z);
    else if constexpr (!std::is_same_v<decltype(z), const float*>) body(z, static_cast<const float*>(nullptr));
  });
}

// The same of many prototypes, of any type.
template <typename Body>
void with_any_types(const Batch& batch, const Body& body) {
  with_type(batch.features.scalar_type(), [&](auto z) { with_type(batch.weight.scalar_type(), [&](auto w) { body(z, w); }); });
}

// The same for a normalisation: the type of `in` and of the products.
template <typename Body>
void with_product_types(const Batch& batch, const Tensor& in, const Body& body) {
  with_type(in.scalar_type(), [&](auto from) {
    if (batch.product_type() == at::kFloat) body(from, static_cast<const float*>(nullptr));
    else body(from, static_cast<const c10::Half*>(nullptr));
  });
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

// What every forward needs beside its results, in one allocation: the blocks' partial sums.
struct Partial {
  Tensor memory;
  Moments* moments;
  double* parts;
  unsigned* arrived;

  explicit Partial(const Batch& batch) {
    const int64_t rows = blocks_of(batch.samples), threads = blocks_of_threads(batch.samples);
    memory = batch.scratch({2 * rows + threads + 1}, at::kDouble);
    moments = reinterpret_cast<Moments*>(memory.data_ptr<double>());
    parts = memory.data_ptr<double>() + 2 * rows;
    arrived = reinterpret_cast<unsigned*>(parts + threads);
  }
};

void few_forward(const Batch& batch, const FewForward& in, const Tensor& next, const Tensor& loss) {
  const unsigned blocks = blocks_of(batch.samples);
  with_types(batch, [&](auto z, auto w) {
    const auto kernel = few_cosines<std::decay_t<decltype(*z)>, std::decay_t<decltype(*w)>>;
    allow_shared(kernel, batch.shared_bytes());
    launch(kernel, blocks, kThreads, batch.shared_bytes(), in, data(batch.features, z), data(batch.weight, w));
  });
  launch(few_loss, blocks_of_threads(batch.samples), kThreads, 0, in, blocks, next.data_ptr<float>(), loss.data_ptr<float>());
}

void many_forward(const Batch& batch, ManyForward in, const Tensor& kept, const Tensor& next, const Tensor& loss) {
  const Tensor unit = batch.scratch({batch.samples, batch.size}, batch.product_type());
  const Tensor others = batch.scratch({batch.samples, sizeof(Others) / sizeof(float)}), used = batch.scratch({2});
  const bool moves = in.training && in.numbers > 0;
  in.others = reinterpret_cast<Others*>(others.data_ptr<float>());
  in.used = moves ? used.data_ptr<float>() : const_cast<float*>(in.state);
  normalize(batch, batch.features, 0, batch.samples, unit, &in.rows->norm, kRowNumbers);
  with_any_types(batch, [&](auto z, auto w) {
    launch(target_cosines<std::decay_t<decltype(*z)>, std::decay_t<decltype(*w)>>, blocks_of(batch.samples), kThreads, 0, in,
           data(batch.features, z), data(batch.weight, w));
  });
  if (moves) launch(update_state, 1, kThreads, 0, in, blocks_of(batch.samples));
  each_chunk(batch, unit, kept, true, [&](int64_t first, const Tensor&, const float*, const Tensor& cosines) {
    const auto run = [&](auto type) {
      using C = std::decay_t<decltype(*type)>;
      const auto kernel = in.options.loss == kCurricularface ? accumulate<C, true> : accumulate<C, false>;
      launch(kernel, unsigned(batch.samples), kThreads, 0, in, data(cosines, type), first, cosines.size(1));
    };
    cosines.scalar_type() == at::kFloat ? run((const float*)nullptr) : run((const c10::Half*)nullptr);
  });
  launch(many_loss, blocks_of_threads(batch.samples), kThreads, 0, in, next.data_ptr<float>(), loss.data_ptr<float>());
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
  const float* before = old.const_data_ptr<float>();
  const int numbers = int(old.numel());
  const Partial partial(batch);
  Row* rows = rows_of(statistics);
  if (batch.few())
    few_forward(batch, {options, batch.label(), batch.samples, batch.classes, batch.size, before, numbers, training, rows,
                        kept.data_ptr<float>(), partial.moments, partial.parts, partial.arrived}, next, loss);
  else
    many_forward(batch, {options, batch.label(), batch.samples, batch.classes, batch.size, before, numbers, training, rows,
                         nullptr, nullptr, partial.moments, partial.parts, partial.arrived}, kept, next, loss);
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

// The labels [N] in ascending order, and the samples they belong to.
std::tuple<Tensor, Tensor> ordered_labels(const Batch& batch) {
  if (batch.samples > kCountedLabels) return at::sort(batch.labels, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const Tensor sorted = batch.scratch({batch.samples}, at::kLong), order = batch.scratch({batch.samples}, at::kLong);
  launch(order_labels, blocks_of_threads(batch.samples), kThreads, 0, batch.label(), batch.samples,
         sorted.data_ptr<int64_t>(), order.data_ptr<int64_t>());
  return {sorted, order};
}

// unit(z) [N, D] times each row's strength, as dW's product takes it.
Tensor scaled_rows(const Batch& batch, const ManyBackward& in, const Tensor& unit) {
  const Tensor scaled = batch.scratch(unit.sizes(), unit.scalar_type());
  const auto run = [&](auto type) {
    using Unit = std::decay_t<decltype(*type)>;
    launch(scale_rows<Unit>, blocks_of(batch.samples), kThreads, 0, in, data(unit, type),
           static_cast<Unit*>(scaled.data_ptr()));
  };
  unit.scalar_type() == at::kFloat ? run((const float*)nullptr) : run((const c10::Half*)nullptr);
  return scaled;
}

void run_many_backward(const Batch& batch, const Tensor& statistics, const float* grad, const Tensor& kept,
                       const Tensor& dz, const Tensor& dw) {
  const int64_t samples = batch.samples, chunk = batch.chunk();
  const bool want_z = dz.numel() > 0, want_w = dw.numel() > 0, half = batch.product_type() == at::kHalf;
  const Tensor unit = batch.scratch({samples, batch.size}, batch.product_type()), norms = batch.scratch({2, samples});
  const Tensor h = batch.scratch({want_z ? samples : 0, batch.size}), part = batch.scratch(h.sizes());
  const Tensor sums = batch.scratch({want_w ? chunk : 0, batch.size});
  const Tensor shares_of_kept = batch.scratch({batch.keep ? samples * chunk : 0}, batch.product_type());
  float* along = norms.data_ptr<float>() + samples;
  normalize(batch, batch.features, 0, samples, unit, norms.data_ptr<float>());
  const Row* rows = rows_of(statistics);
  const Tensor most =
      half && want_w ? at::amax(statistics.select(1, offsetof(Row, gradient.strength) / sizeof(float))) : Tensor();
  const ManyBackward in = {grad, most.defined() ? most.const_data_ptr<float>() : nullptr, rows, batch.label(), samples,
                           batch.size, half ? 8192.0f : 1.0f};
  Tensor sorted, order, scaled;
  if (want_w) {
    std::tie(sorted, order) = ordered_labels(batch);
    scaled = scaled_rows(batch, in, unit);
  }

  each_chunk(batch, unit, kept, false,
             [&](int64_t first, const Tensor& prototypes, const float* prototype_norms, const Tensor& cosines) {
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
    product(sums.narrow(0, 0, count), shares.t(), scaled);
    const auto project = [&](auto kind, auto w) {
      launch(project_prototypes<std::decay_t<decltype(*kind)>, std::decay_t<decltype(*w)>>, blocks_of(count), kThreads, 0,
             in, sums.const_data_ptr<float>(), data(prototypes, kind), prototype_norms, data(unit, kind),
             sorted.template const_data_ptr<int64_t>(), order.template const_data_ptr<int64_t>(), first, count,
             data(dw, w));
    };
    with_type(batch.weight.scalar_type(), [&](auto w) { half ? project(f16, w) : project(f32, w); });
  });
  if (!want_z) return;
  with_any_types(batch, [&](auto z, auto w) {
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
