// cifarnet::one_vs_all: its schema and its autograd. The operator computes the gradients with the loss, for an upstream gradient
// of 1; backward multiplies them by the real one. They are fp32 until then: a gradient scaler's factor comes before the cast.
// Compiled with bindings.cpp alone: reading torch's headers takes most of the time of either.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>

#include "one_vs_all_head.h"

namespace margin {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

TORCH_LIBRARY_FRAGMENT(cifarnet, library) {
  library.def(
      "one_vs_all(Tensor features, Tensor weight, Tensor labels, Tensor bias, float[] call, bool want_features, "
      "bool want_weight) "
      "-> (Tensor loss, Tensor rows, Tensor features, Tensor weight, Tensor bias)");
}

namespace {

OneVsAllResult call_one_vs_all(const Tensor& features, const Tensor& weight, const Tensor& labels, const Tensor& bias,
                               at::ArrayRef<double> call, bool want_features, bool want_weight) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("cifarnet::one_vs_all", "")
          .typed<OneVsAllResult(const Tensor&, const Tensor&, const Tensor&, const Tensor&, at::ArrayRef<double>, bool, bool)>();
  return op.call(features, weight, labels, bias, call, want_features, want_weight);
}

// Is the number 1, as far as that is known here? Reading a GPU would wait for it, and a tensor that is being traced has none.
bool is_one(const Tensor& number) {
  const bool plain = number.is_cpu() && number.has_storage() && !number.unsafeGetTensorImpl()->is_python_dispatch();
  return plain && number.scalar_type() == at::kFloat && *number.const_data_ptr<float>() == 1.0f;
}

struct OneVsAllFunction : torch::autograd::Function<OneVsAllFunction> {
  static tensor_list forward(AutogradContext* context, const Tensor& features, const Tensor& weight, const Tensor& labels,
                             const Tensor& bias, at::ArrayRef<double> call, bool want_features, bool want_weight) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [value, rows, dz, dw, by_bias] =
        call_one_vs_all(features, weight, labels, bias, call, want_features, want_weight);
    context->save_for_backward({dz, dw, by_bias});
    context->saved_data["wanted"] = int64_t(want_features) + 2 * int64_t(want_weight);
    context->set_materialize_grads(false);
    return {value, rows, dz, dw, by_bias};
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& grads) {
    tensor_list result(7);
    if (!grads[0].defined()) return result;
    TORCH_CHECK_NOT_IMPLEMENTED(!at::GradMode::is_enabled(), "the margin kernels have no second derivative; ",
                                "use backend='torch' for it");
    const auto saved = context->get_saved_variables();
    const int64_t wanted = context->saved_data["wanted"].toInt();
    // The engine casts to the input's type. Where the graph is kept, another backward needs what is saved here: its owner may
    // change the gradient.
    const bool as_it_is = is_one(grads[0]) && !torch::autograd::get_current_graph_task_keep_graph();
    const auto scaled = [&](const Tensor& gradient) { return as_it_is ? gradient.detach() : at::mul(gradient, grads[0]); };
    if ((wanted & 1) && context->needs_input_grad(0)) result[0] = scaled(saved[0]);
    if ((wanted & 2) && context->needs_input_grad(1)) result[1] = scaled(saved[1]);
    if (context->needs_input_grad(3)) result[3] = scaled(saved[2]);
    return result;
  }
};

OneVsAllResult one_vs_all_autograd(const Tensor& features, const Tensor& weight, const Tensor& labels, const Tensor& bias,
                                   at::ArrayRef<double> call, bool want_features, bool want_weight) {
  const auto dual = [](const Tensor& tensor) { return tensor._fw_grad(/*level=*/0).defined(); };
  TORCH_CHECK_NOT_IMPLEMENTED(!dual(features) && !dual(weight) && !dual(bias),
                              "the margin kernels have no forward-mode derivative; ", "use backend='torch' for it");
  auto out = OneVsAllFunction::apply(features, weight, labels, bias, call, want_features, want_weight);
  // Only the loss has a derivative. (mark_non_differentiable would say so too, and compiled autograd does not know it.)
  return {out[0], out[1].detach(), out[2].detach(), out[3].detach(), out[4].detach()};
}

}  // namespace

TORCH_LIBRARY_IMPL(cifarnet, Autograd, library) { library.impl("one_vs_all", &one_vs_all_autograd); }

}  // namespace margin
