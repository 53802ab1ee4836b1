// The CUDA backend, compiled for the CPU with tests/cuda_on_host.h as its platform: operators cifarnet_on_host::*.
#define MARGIN_ON_HOST
#include <torch/library.h>

#include <cmath>

TORCH_LIBRARY(cifarnet_on_host, library) {
  library.def(
      "margin_loss(Tensor features, Tensor weight, Tensor labels, Tensor state, float[] call, bool training, "
      "Tensor? margins=None, Tensor? weights=None) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "margin_loss_backward(Tensor grad, Tensor features, Tensor weight, Tensor labels, Tensor statistics, Tensor cosines, "
      "bool want_features, bool want_weight) -> (Tensor, Tensor)");
  library.def("normal_draws(Tensor state, int ahead, int count, float mean, float std) -> Tensor");
  library.def(
      "one_vs_all(Tensor features, Tensor weight, Tensor labels, Tensor bias, float[] call, bool want_features, "
      "bool want_weight) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def("losses() -> str[]");
  library.def("keep_cosines(int most) -> ()");
  library.def("limit_shared(int bytes) -> ()");
  library.def("launches() -> int");
}

#include "../csrc/margin_head_cuda.cu"

TORCH_LIBRARY_IMPL(cifarnet_on_host, CompositeExplicitAutograd, library) {
  library.impl("losses", []() { return margin::loss_names(); });
  library.impl("keep_cosines", [](int64_t most) { margin::kept_cosines = most; });
  library.impl("launches", []() -> int64_t { return host::launches; });
  library.impl("limit_shared", [](int64_t bytes) { host::limit = bytes; });
}
