// What the backends share: the shape of the operators and the limits that choose a regime.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cmath>
#include <tuple>

#include "margin_math.h"

namespace margin {

// Cosines are kept for backward up to this many (at first 2^23, 32 MB in fp32); beyond, they are computed again, chunk by
// chunk. A setting, so that memory can be traded for time, and tests reach the chunks with small sizes.
inline std::atomic<int64_t> kept_cosines{int64_t(1) << 23};

inline bool keeps_cosines(const at::Tensor& features, const at::Tensor& weight) {
  return features.size(0) * weight.size(0) <= kept_cosines;
}

// loss, state, rows [N, kRowNumbers], and the cosines [N, C] for backward: themselves, or what it needs of them (the CPU's
// exponentials beyond few classes); empty where they are computed again.
using Forward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Backward = std::tuple<at::Tensor, at::Tensor>;                         // of features, of weight; empty if not asked

inline Row* rows_of(const at::Tensor& rows) { return reinterpret_cast<Row*>(rows.data_ptr<float>()); }

inline Options make_options(int64_t loss, double scale, double margin, double h, double t_alpha, bool easy) {
  TORCH_CHECK_VALUE(loss >= kCosface && loss <= kMagface, "there is no loss number ", loss);
  return {Loss(loss), float(scale),   float(margin), float(std::cos(margin)), float(std::sin(margin)),
          float(h),  float(t_alpha), easy};
}

// Shapes and types that every backend asks for; the labels' range is the backends' own check.
inline void check_inputs(const at::Tensor& features, const at::Tensor& weight, const at::Tensor& labels,
                         const at::Tensor& state, const Options& options) {
  const auto known = [](const at::Tensor& tensor) {
    return tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kHalf ||
           tensor.scalar_type() == at::kBFloat16;
  };
  TORCH_CHECK_VALUE(features.dim() == 2 && weight.dim() == 2 && features.size(1) == weight.size(1),
                    "features must be [N, D] and weight [C, D], not ", features.sizes(), " and ", weight.sizes());
  TORCH_CHECK_VALUE(features.size(0) >= 1 && features.size(1) >= 1, "the batch is empty: features are ", features.sizes());
  TORCH_CHECK_VALUE(weight.size(0) >= 2, "a margin needs at least 2 classes, not ", weight.size(0));
  TORCH_CHECK_VALUE(labels.dim() == 1 && labels.size(0) == features.size(0) && labels.scalar_type() == at::kLong,
                    "labels must be int64 [", features.size(0), "], not ", labels.scalar_type(), " ", labels.sizes());
  TORCH_CHECK_TYPE(known(features) && known(weight), "features and weight must be float32, bfloat16 or float16, not ",
                   features.scalar_type(), " and ", weight.scalar_type());
  const int64_t held = options.loss == kAdaface ? 2 : options.loss == kSphereface || options.loss == kCurricularface;
  TORCH_CHECK_VALUE(state.scalar_type() == at::kFloat && state.numel() == held, "this loss has ", held,
                    " numbers of float32 state, not ", state.numel(), " of ", state.scalar_type());
  TORCH_CHECK_VALUE(features.device() == weight.device() && features.device() == labels.device() &&
                        features.device() == state.device(),
                    "features, weight, labels and state must be on one device");
}

}  // namespace margin
