// The one-vs-all operator on CUDA: which kernels of one_vs_all_cuda.cuh run, in what order. The last part of margin_head_cuda.cu.
#pragma once

#include "one_vs_all_cuda.cuh"

namespace margin {
namespace {

// A call on its way through the classes. dz and dw are empty where they are not wanted.
struct YesNoPass {
  const CudaBatch& batch;
  YesNoBatch in;
  Tensor dz, dw, unit, part, shares, sorted, order;

  YesNoPass(const CudaBatch& batch, const YesNoBatch& in, bool want_z, bool want_w)
      : batch(batch), in(in), dz(batch.scratch(want_z ? batch.features.sizes() : at::IntArrayRef(0))),
        dw(batch.scratch(want_w ? batch.weight.sizes() : at::IntArrayRef(0))),
        unit(batch.scratch({batch.samples, batch.size}, batch.product_type())), part(batch.scratch(dz.sizes())),
        // In place of cosines that are kept in fp32, where the products are fp16, there is no room for them.
        shares(batch.scratch({batch.keep && half() ? batch.samples * pitch_of(batch.chunk()) : 0}, batch.product_type())) {
    if (want_w) std::tie(sorted, order) = ordered_labels(batch);
  }

  bool half() const { return batch.product_type() == at::kHalf; }
  bool want_z() const { return dz.numel() > 0; }
  bool want_w() const { return dw.numel() > 0; }

  // The chunk's classes join the sums; what its products take of the gradient.
  Tensor take(int64_t first, const Tensor& cosines) const {
    const Tensor out = shares.numel() ? padded_rows(shares, batch.samples, cosines.size(1)) : cosines;
    const auto run = [&](auto from, auto to) {
      using Share = std::decay_t<decltype(*to)>;
      Rows<Share> filled = rows(out, const_cast<Share*>(to));
      if (!want_z() && !want_w()) filled.first = nullptr;
      launch(other_classes<std::decay_t<decltype(*from)>, Share>, unsigned(batch.samples), kThreads, 0, in,
             rows(cosines, from), first, cosines.size(1), filled);
    };
    const float* f32 = nullptr;
    const c10::Half* f16 = nullptr;
    if (!half()) run(f32, f32);
    else if (batch.keep) run(f32, f16);
    else run(f16, f16);
    return out;
  }

  void chunk(int64_t first, const Tensor& prototypes, const float* norms, const Tensor& cosines) const {
    const int64_t count = cosines.size(1);
    const Tensor shares = take(first, cosines);
    if (want_z()) {
      product(first ? part : dz, shares, prototypes);
      if (first) dz.add_(part);
    }
    if (!want_w()) return;
    const Tensor sums = dw.narrow(0, first, count);
    product(sums, shares.t(), unit);
    const auto finish = [&](auto kind) {
      using Unit = std::decay_t<decltype(*kind)>;
      const PrototypeChunk<Unit> of_chunk = {data(prototypes, kind), norms, first, count};
      const LabelOrder labels = {sorted.const_data_ptr<int64_t>(), order.const_data_ptr<int64_t>()};
      launch(yes_no_prototypes<Unit>, blocks_of(count), kThreads, 0, in, of_chunk, labels, data(unit, kind),
             sums.data_ptr<float>());
    };
    half() ? finish(static_cast<const c10::Half*>(nullptr)) : finish(static_cast<const float*>(nullptr));
  }

  void finish_features() const {
    with_any_types(batch, [&](auto z, auto w) {
      launch(yes_no_features<std::decay_t<decltype(*z)>, std::decay_t<decltype(*w)>>, blocks_of(batch.samples), kThreads, 0, in,
             data(batch.features, z), data(batch.weight, w), dz.data_ptr<float>());
    });
  }
};

OneVsAllResult one_vs_all_cuda(const Tensor& features, const Tensor& weight, const Tensor& labels, const Tensor& bias,
                               at::ArrayRef<double> numbers, bool want_z, bool want_w) {
  const OneVsAll call = make_one_vs_all(numbers);
  check_one_vs_all(features, weight, labels, bias);
  const DeviceGuard guard(features.device());
  const CudaBatch batch(features, weight, labels, keeps_cosines(features, weight));
  ++calls;
  const Tensor loss = batch.scratch({}), by_bias = batch.scratch(bias.sizes()), rows = batch.scratch({batch.samples, kRowNumbers});
  const Tensor bias_used = bias.to(at::kFloat), norms = batch.scratch({batch.samples});
  const Tensor kept = batch.scratch({batch.keep ? batch.samples : 0, batch.classes});
  const int64_t blocks = blocks_of_threads(batch.samples), width = sizeof(YesNoSample) / sizeof(double);
  const Tensor memory = batch.scratch({width * batch.samples + 2 * blocks + 1}, at::kDouble);
  double* parts = memory.data_ptr<double>() + width * batch.samples;
  unsigned* arrived = reinterpret_cast<unsigned*>(parts + 2 * blocks);
  const float steepest = call.spread.detached ? 1.0f : call.spread.t, boost = batch.product_type() == at::kHalf ? 8192.0f : 1.0f;
  const YesNoBatch in = {call, batch.label, batch.samples, batch.classes, batch.size, bias_used.const_data_ptr<float>(),
                         rows.data_ptr<float>(), reinterpret_cast<YesNoSample*>(memory.data_ptr<double>()), boost / steepest};
  const YesNoPass pass(batch, in, want_z, want_w);
  normalize(batch, batch.features, 0, batch.samples, pass.unit, norms.data_ptr<float>());
  with_any_types(batch, [&](auto z, auto w) {
    launch(own_classes<std::decay_t<decltype(*z)>, std::decay_t<decltype(*w)>>, blocks_of(batch.samples), kThreads, 0, in,
           data(batch.features, z), data(batch.weight, w), arrived);
  });
  each_cosine_chunk(batch, pass.unit, kept, true,
                    [&](int64_t first, const Tensor& prototypes, const float* prototype_norms, const Tensor& cosines) {
                      pass.chunk(first, prototypes, prototype_norms, cosines);
                    });
  if (want_z) pass.finish_features();
  launch(one_vs_all_means, unsigned(blocks), kThreads, 0, in, parts, arrived, loss.data_ptr<float>(), by_bias.data_ptr<float>());
  return {loss, rows, pass.dz, pass.dw, by_bias};
}

}  // namespace
}  // namespace margin
