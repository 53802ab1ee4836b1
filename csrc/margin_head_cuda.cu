// The margin head on CUDA: which kernels run, in what order, with which memory.
//
// Few classes: cuda_few.cuh, three launches in all. More: matrix products through torch, the kernels of cuda_many.cuh
// around them, in chunks of classes once the cosines are too many to keep. No host synchronisation; a label out of range
// is a device-side assertion. fp32 features use fp32 products (TF32 where torch.backends allows it), 16-bit ones fp16.
#include "cuda_platform.cuh"

#include <ATen/ops/add.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/log.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sort.h>
#include <torch/library.h>

#include <atomic>
#include <cstddef>
#include <tuple>

#include "batch_state_cuda.cuh"
#include "cuda_batch.cuh"

namespace margin {
namespace {

std::atomic<int64_t> calls{0};

constexpr int64_t kCountedLabels = 2048;  // up to here labels are ordered by counting, in one launch; more are sorted

// What every forward needs beside its results, in one allocation: the blocks' partial sums.
struct Partial {
  Tensor memory;
  Moments* moments;
  double* parts;
  unsigned* arrived;

  explicit Partial(const CudaBatch& batch) {
    const int64_t of_warps = blocks_of(batch.samples), of_threads = blocks_of_threads(batch.samples);
    memory = batch.scratch({2 * of_warps + of_threads + 1}, at::kDouble);
    moments = reinterpret_cast<Moments*>(memory.data_ptr<double>());
    parts = memory.data_ptr<double>() + 2 * of_warps;
    arrived = reinterpret_cast<unsigned*>(parts + of_threads);
  }
};

void few_forward(const CudaBatch& batch, FewForward in, OwnTensors& own, const Tensor& statistics, const Tensor& next,
                 const Tensor& loss) {
  const unsigned blocks = blocks_of(batch.samples);
  with_types(batch, [&](auto z, auto w) {
    const auto kernel = few_cosines<std::decay_t<decltype(*z)>, std::decay_t<decltype(*w)>>;
    allow_shared(kernel, shared_limit() - kFewStatic);  // not less: another call, or a graph, may need more
    launch(kernel, blocks, kThreads, batch.shared_bytes(), in, data(batch.features, z), data(batch.weight, w));
  });
  in.own = own_of(own, in.options, statistics);
  launch(few_loss, blocks_of_threads(batch.samples), kThreads, 0, in, blocks, next.data_ptr<float>(), loss.data_ptr<float>());
}

// The sums over the negatives, chunk by chunk, into in.others. `fill`: the cosines are not in `kept` yet.
void accumulate_chunks(const CudaBatch& batch, const ManyForward& in, const Tensor& unit, const Tensor& kept, bool fill) {
  const bool shapes_negatives = traits_of(in.options).shapes_negatives;
  each_cosine_chunk(batch, unit, kept, fill, [&](int64_t first, const Tensor&, const float*, const Tensor& cosines) {
    const auto run = [&](auto type) {
      using C = std::decay_t<decltype(*type)>;
      const bool whole = whole_eights(cosines.stride(0));
      const auto kernel = shapes_negatives ? (whole ? accumulate<C, true, true> : accumulate<C, true, false>)
                                           : (whole ? accumulate<C, false, true> : accumulate<C, false, false>);
      launch(kernel, unsigned(batch.samples), kThreads, 0, in, rows(cosines, type), first, cosines.size(1));
    };
    cosines.scalar_type() == at::kFloat ? run((const float*)nullptr) : run((const c10::Half*)nullptr);
  });
}

void many_forward(const CudaBatch& batch, ManyForward in, OwnTensors& own, const Tensor& statistics, const Tensor& old,
                  const Tensor& kept, const Tensor& next, const Tensor& loss) {
  const Tensor unit = batch.scratch({batch.samples, batch.size}, batch.product_type());
  const Tensor others = batch.scratch({batch.samples, sizeof(Others) / sizeof(float)}), used = batch.scratch({2});
  const bool by_negatives = in.training && traits_of(in.options).moves_by_negatives;
  const bool moves = in.training && in.numbers > 0 && !by_negatives;
  in.others = reinterpret_cast<Others*>(others.data_ptr<float>());
  in.used = moves ? used.data_ptr<float>() : const_cast<float*>(in.state);
  normalize(batch, batch.features, 0, batch.samples, unit, &in.statistics->norm, kStatistics);
  with_any_types(batch, [&](auto z, auto w) {
    launch(target_cosines<std::decay_t<decltype(*z)>, std::decay_t<decltype(*w)>>, blocks_of(batch.samples), kThreads, 0, in,
           data(batch.features, z), data(batch.weight, w));
  });
  if (moves) launch(update_state, 1, kThreads, 0, in, blocks_of(batch.samples));
  in.own = own_of(own, in.options, statistics);
  Tensor scale;
  if (by_negatives) {  // once more, at the scale that the sums at the old one give
    accumulate_chunks(batch, in, unit, kept, true);
    const Tensor log_rest = at::log(others.select(1, offsetof(Others, rest) / sizeof(float)));
    const Tensor sums = at::add(log_rest, at::mul(others.select(1, offsetof(Others, peak) / sizeof(float)), old));
    scale = adacos_scale(sums, own_cosines(statistics));
    in.used = scale.data_ptr<float>();
  }
  accumulate_chunks(batch, in, unit, kept, !by_negatives);
  launch(many_loss, blocks_of_threads(batch.samples), kThreads, 0, in, next.data_ptr<float>(), loss.data_ptr<float>());
}

Forward forward_cuda(const Tensor& features, const Tensor& weight, const Tensor& labels, const Tensor& state,
                     at::ArrayRef<double> call, bool training, const std::optional<Tensor>& margins,
                     const std::optional<Tensor>& weights) {
  const Options options = make_options(call);
  check_inputs(features, weight, labels, state, options);
  OwnTensors own(features, margins, weights);
  const DeviceGuard guard(features.device());
  const CudaBatch batch(features, weight, labels, keeps_cosines(features, weight));
  ++calls;
  const Tensor statistics = batch.scratch({batch.samples, kStatistics}), loss = batch.scratch({});
  const Tensor kept = batch.scratch({batch.keep ? batch.samples : 0, batch.classes});
  const Tensor old = state.contiguous(), next = batch.scratch(state.sizes());
  const float* before = old.const_data_ptr<float>();
  const int numbers = int(old.numel());
  const Partial partial(batch);
  Statistics* samples = samples_of(statistics);
  if (batch.few_classes() && !(training && traits_of(options).moves_by_negatives))
    few_forward(batch, {options, batch.label, batch.samples, batch.classes, batch.size, before, numbers, training, own.pointers, samples,
                        kept.data_ptr<float>(), partial.moments, partial.parts, partial.arrived}, own, statistics, next, loss);
  else
    many_forward(batch, {options, batch.label, batch.samples, batch.classes, batch.size, before, numbers, training, own.pointers, samples,
                         nullptr, nullptr, partial.moments, partial.parts, partial.arrived}, own, statistics, old, kept, next, loss);
  return {loss, next, statistics, kept};
}

void run_few_backward(const CudaBatch& batch, const Statistics* samples, const float* grad, const Tensor& cosines,
                      const Tensor& dz, const Tensor& dw) {
  with_types(batch, [&](auto z, auto w) {
    using T = std::decay_t<decltype(*z)>;
    using W = std::decay_t<decltype(*w)>;
    const FewBackward<T, W> in = {
        grad, data(batch.features, z), data(batch.weight, w), batch.label, samples, cosines.const_data_ptr<float>(),
        batch.samples, batch.classes, batch.size, data(dz, z), data(dw, w)};
    const int64_t row_blocks = dz.numel() ? blocks_of(batch.samples) : 0;
    const int64_t columns = (batch.size + kWarp - 1) / kWarp, tiles = (batch.classes + kClassTile - 1) / kClassTile;
    const int64_t blocks = row_blocks + (dw.numel() ? columns * tiles : 0);
    allow_shared(few_backward<T, W>, shared_limit() - kFewStatic);
    if (blocks) launch(few_backward<T, W>, unsigned(blocks), kThreads, batch.shared_bytes(), in, row_blocks);
  });
}

// The labels [N] in ascending order, and the samples they belong to.
std::tuple<Tensor, Tensor> ordered_labels(const CudaBatch& batch) {
  if (batch.samples > kCountedLabels) return at::sort(batch.labels, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const Tensor sorted = batch.scratch({batch.samples}, at::kLong), order = batch.scratch({batch.samples}, at::kLong);
  launch(order_labels, blocks_of_threads(batch.samples), kThreads, 0, batch.label, batch.samples,
         sorted.data_ptr<int64_t>(), order.data_ptr<int64_t>());
  return {sorted, order};
}

// unit(z) [N, D] times each sample's strength, as dW's product takes it.
Tensor scaled_rows(const CudaBatch& batch, const ManyBackward& in, const Tensor& unit) {
  const Tensor scaled = batch.scratch(unit.sizes(), unit.scalar_type());
  const auto run = [&](auto type) {
    using Unit = std::decay_t<decltype(*type)>;
    launch(scale_rows<Unit>, blocks_of(batch.samples), kThreads, 0, in, data(unit, type),
           static_cast<Unit*>(scaled.data_ptr()));
  };
  unit.scalar_type() == at::kFloat ? run((const float*)nullptr) : run((const c10::Half*)nullptr);
  return scaled;
}

void run_many_backward(const CudaBatch& batch, const Tensor& statistics, const float* grad, const Tensor& kept,
                       const Tensor& dz, const Tensor& dw) {
  const int64_t samples = batch.samples, chunk = batch.chunk();
  const bool want_z = dz.numel() > 0, want_w = dw.numel() > 0, half = batch.product_type() == at::kHalf;
  const Tensor unit = batch.scratch({samples, batch.size}, batch.product_type()), norms = batch.scratch({samples});
  const Tensor h = batch.scratch({want_z ? samples : 0, batch.size}), part = batch.scratch(h.sizes());
  const Tensor sums = batch.scratch({want_w ? chunk : 0, batch.size});
  const Tensor shares_of_kept = batch.scratch({batch.keep ? samples * pitch_of(chunk) : 0}, batch.product_type());
  normalize(batch, batch.features, 0, samples, unit, norms.data_ptr<float>());
  const Tensor most =
      half && want_w ? at::amax(statistics.select(1, offsetof(Statistics, gradient.strength) / sizeof(float))) : Tensor();
  const ManyBackward in = {grad, most.defined() ? most.const_data_ptr<float>() : nullptr, samples_of(statistics),
                           batch.label, samples, batch.size, half ? 8192.0f : 1.0f, half ? 64.0f : 1.0f};
  Tensor sorted, order, scaled;
  if (want_w) {
    std::tie(sorted, order) = ordered_labels(batch);
    scaled = scaled_rows(batch, in, unit);
  }

  each_cosine_chunk(batch, unit, kept, false,
             [&](int64_t first, const Tensor& prototypes, const float* prototype_norms, const Tensor& cosines) {
    const int64_t count = cosines.size(1);
    const Tensor shares = batch.keep ? padded_rows(shares_of_kept, samples, count) : cosines;  // in place where they are ours
    const auto gradient = [&](auto from, auto to) {
      using C = std::decay_t<decltype(*from)>;
      using Share = std::decay_t<decltype(*to)>;
      const bool whole = whole_eights(cosines.stride(0));  // the shares' rows are
      const auto kernel = whole ? gradient_shares<C, Share, true> : gradient_shares<C, Share, false>;
      launch(kernel, unsigned(samples), kThreads, 0, in, rows(cosines, from), first, count, rows(shares, const_cast<Share*>(to)));
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
      using Unit = std::decay_t<decltype(*kind)>;
      const PrototypeChunk<Unit> of_chunk = {data(prototypes, kind), prototype_norms, first, count};
      const LabelOrder labels = {sorted.template const_data_ptr<int64_t>(), order.template const_data_ptr<int64_t>()};
      launch(project_prototypes<Unit, std::decay_t<decltype(*w)>>, blocks_of(count), kThreads, 0, in, of_chunk, labels,
             sums.data_ptr<float>(), data(unit, kind), data(dw, w));
    };
    with_type(batch.weight.scalar_type(), [&](auto w) { half ? project(f16, w) : project(f32, w); });
  });
  if (!want_z) return;
  with_any_types(batch, [&](auto z, auto w) {
    launch(project_features<std::decay_t<decltype(*z)>, std::decay_t<decltype(*w)>>, blocks_of(samples), kThreads, 0, in,
           data(batch.features, z), data(batch.weight, w), h.const_data_ptr<float>(), data(dz, z));
  });
}

Backward backward_cuda(const Tensor& grad, const Tensor& features, const Tensor& weight, const Tensor& labels,
                       const Tensor& statistics, const Tensor& kept, bool want_z, bool want_w) {
  check_batch(features, weight, labels);
  check_kept(statistics, kept, features.size(0), weight.size(0));
  const DeviceGuard guard(features.device());
  const CudaBatch batch(features, weight, labels, kept.size(0) > 0);
  const Tensor dz = batch.scratch(want_z ? batch.features.sizes() : at::IntArrayRef(0), batch.features.scalar_type());
  const Tensor dw = batch.scratch(want_w ? batch.weight.sizes() : at::IntArrayRef(0), batch.weight.scalar_type());
  const float* grad_at = grad.const_data_ptr<float>();
  if (batch.few_classes())
    run_few_backward(batch, samples_of(statistics), grad_at, kept, dz, dw);
  else
    run_many_backward(batch, statistics, grad_at, kept, dz, dw);
  return {dz, dw.to(weight.scalar_type())};
}

}  // namespace
}  // namespace margin

#include "one_vs_all_launch.cuh"

namespace margin {

int64_t cuda_calls() { return calls; }
void set_chunk_cosines(int64_t most) { chunk_cosines = most; }

TORCH_LIBRARY_IMPL(MARGIN_LIBRARY, MARGIN_DEVICE, library) {
  library.impl("margin_loss", &forward_cuda);
  library.impl("margin_loss_backward", &backward_cuda);
  library.impl("normal_draws", &normal_draws_cuda);
  library.impl("one_vs_all", &one_vs_all_cuda);
}

}  // namespace margin
