// The operators' schemas, their autograd, and a small module with what Python asks of the build, among it the losses' names
// in the order of their numbers, and how many statistics a sample has.
//
// cifarnet::margin_loss is functional: the new state comes back, nothing is mutated. Its autograd is here and not in
// Python because dispatch is half the time at ten classes; the fake kernels that torch.compile needs are in kernels.py.
#include <ATen/core/dispatch/Dispatcher.h>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "build_stamp.h"
#include "margin_head.h"
#include "margin_head_cpu.h"
#include "one_vs_all_autograd.h"
#include "one_vs_all_head.h"

namespace margin {

using at::Tensor;
using Maybe = std::optional<at::Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

TORCH_LIBRARY(cifarnet, library) {
  library.def(
      "margin_loss(Tensor features, Tensor weight, Tensor labels, Tensor state, float[] call, bool training, "
      "Tensor? margins=None, Tensor? weights=None) "
      "-> (Tensor loss, Tensor state, Tensor statistics, Tensor cosines)");
  library.def(
      "margin_loss_backward(Tensor grad, Tensor features, Tensor weight, Tensor labels, Tensor statistics, Tensor cosines, "
      "bool want_features, bool want_weight) -> (Tensor features, Tensor weight)");
  library.def("add_unit(Tensor(a!) sums, Tensor features, Tensor labels, Tensor norm, Tensor loss) -> ()");
  library.def("nearest_centres(Tensor features, Tensor weight, Tensor labels) -> Tensor");
  library.def("normal_draws(Tensor state, int ahead, int count, float mean, float std) -> Tensor");
}

namespace {

Forward call_forward(const Tensor& features, const Tensor& weight, const Tensor& labels, const Tensor& state,
                     at::ArrayRef<double> call, bool training, const Maybe& margins, const Maybe& weights) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("cifarnet::margin_loss", "")
          .typed<Forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, at::ArrayRef<double>, bool, const Maybe&,
                         const Maybe&)>();
  return op.call(features, weight, labels, state, call, training, margins, weights);
}

Backward call_backward(const Tensor& grad, const Tensor& features, const Tensor& weight, const Tensor& labels,
                       const Tensor& statistics, const Tensor& cosines, bool want_features, bool want_weight) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("cifarnet::margin_loss_backward", "")
                             .typed<Backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                             const Tensor&, bool, bool)>();
  return op.call(grad, features, weight, labels, statistics, cosines, want_features, want_weight);
}

struct MarginLoss : torch::autograd::Function<MarginLoss> {
  static tensor_list forward(AutogradContext* context, const Tensor& features, const Tensor& weight,
                             const Tensor& labels, const Tensor& state, at::ArrayRef<double> call, bool training,
                             const Maybe& margins, const Maybe& weights) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [value, next, statistics, cosines] =
        call_forward(features, weight, labels, state, call, training, margins, weights);
    context->save_for_backward({features, weight, labels, statistics, cosines});
    context->set_materialize_grads(false);
    return {value, next, statistics, cosines};
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& grads) {
    tensor_list result(8);
    if (!grads[0].defined()) return result;
    TORCH_CHECK_NOT_IMPLEMENTED(!at::GradMode::is_enabled(), "the margin kernels have no second derivative; ",
                                "use backend='torch' for it");
    const auto saved = context->get_saved_variables();
    const bool want_features = context->needs_input_grad(0), want_weight = context->needs_input_grad(1);
    const auto [features, weight] = call_backward(grads[0], saved[0], saved[1], saved[2], saved[3], saved[4],
                                                  want_features, want_weight);
    if (want_features) result[0] = features;
    if (want_weight) result[1] = weight;
    return result;
  }
};

Forward margin_loss_autograd(const Tensor& features, const Tensor& weight, const Tensor& labels, const Tensor& state,
                             at::ArrayRef<double> call, bool training, const Maybe& margins, const Maybe& weights) {
  const auto dual = [](const Tensor& tensor) { return tensor._fw_grad(/*level=*/0).defined(); };
  TORCH_CHECK_NOT_IMPLEMENTED(!dual(features) && !dual(weight), "the margin kernels have no forward-mode derivative; ",
                              "use backend='torch' for it");
  auto out = MarginLoss::apply(features, weight, labels, state, call, training, margins, weights);
  // Only the loss has a derivative. (mark_non_differentiable would say so too, and compiled autograd does not know it.)
  return {out[0], out[1].detach(), out[2].detach(), out[3].detach()};
}

}  // namespace

TORCH_LIBRARY_IMPL(cifarnet, Autograd, library) { library.impl("margin_loss", &margin_loss_autograd); }

#ifdef MARGIN_CUDA
int64_t cuda_calls();
void set_chunk_cosines(int64_t most);
#else
static int64_t cuda_calls() { return 0; }
#endif

}  // namespace margin

// Read from the file before it is loaded, so that a build for another torch is never loaded (kernels.py).
extern "C" __attribute__((used, visibility("default"))) const char cifarnet_build_stamp[] =
    "cifarnet-build:" MARGIN_BUILD_STAMP ":end";

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.doc() = "The compiled margin head: operators cifarnet::margin_loss and its backward, cifarnet::one_vs_all.";
  module.def("build_stamp", [] { return std::string(cifarnet_build_stamp); });
  module.attr("interface") = 3;  // another number where an operator's arguments change: kernels.INTERFACE
  module.def("losses", &margin::loss_names);
  module.def("one_vs_all_losses", &margin::one_vs_all_names);
  module.def("statistics", [] { return margin::kStatistics; });
  module.def("kept_cosines", [] { return margin::kept_cosines.load(); });
  module.def("keep_cosines", [](int64_t most) { margin::kept_cosines = most; });
#ifdef MARGIN_CUDA
  module.def("chunk_cosines", &margin::set_chunk_cosines);
#endif
  module.def("calls", [] { return std::pair(margin::cpu_calls.load(), margin::cuda_calls()); });
  module.def("instruction_set", [] { return std::string(margin::chosen_loops().name); });
  module.def("instruction_sets", &margin::instruction_sets);
  module.def("choose_instruction_set", &margin::choose_instruction_set);
}
