// The one-vs-all operator, shared by the backends: its results, its losses' names and constants, and its checks.
#pragma once

#include "margin_head.h"
#include "one_vs_all.h"

namespace margin {

// loss, rows [N, kRowNumbers], and the gradients of features, weight and bias, all fp32; of features and weight empty where they
// are not asked for.
using OneVsAllResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
constexpr int64_t kRowNumbers = 3;  // |z|, c_y (not clamped), the largest other cosine

// A loss's number is its place. Every loss has the constants own and rest, sphereface2 more.
enum OneVsAllLoss { kSphereFace2, kUniFace, kOneVsAllLosses };
enum { kOwnWeight, kRestWeight, kUniFaceConstants, kT = kUniFaceConstants, kVariant, kDetach, kSphereFace2Constants };
inline std::vector<std::string> one_vs_all_names() { return {"sphereface2", "uniface"}; }

inline OneVsAll make_one_vs_all(at::ArrayRef<double> numbers) {
  const auto [loss, scale, margin, constants] = Call(numbers, kOneVsAllLosses);
  const int64_t wanted = loss == kUniFace ? kUniFaceConstants : kSphereFace2Constants;
  TORCH_CHECK_VALUE(int64_t(constants.size()) == wanted, one_vs_all_names()[loss], " has ", wanted,
                    " constants besides scale and margin, not ", constants.size());
  OneVsAll call = {float(scale), float(constants[kOwnWeight]), float(constants[kRestWeight]), float(margin), 0.0f,
                   OwnMargin::kOfCosine, -1.0f, {}};
  if (loss == kUniFace) return call;
  const double t = constants[kT], variant = constants[kVariant];
  TORCH_CHECK_VALUE(t >= 1 && t <= 100, "t must be a number from 1 to 100, not ", t);
  TORCH_CHECK_VALUE(variant == 0 || variant == 1 || variant == 2, "the variant must be 0, 1 or 2, not ", variant);
  call.kind = OwnMargin(int(variant));
  if (call.kind == OwnMargin::kOfCosine) call.other_margin = float(margin);
  call.sign = 1.0f;
  call.spread = {float(t), t == std::floor(t) ? int(t) : 0, call.kind != OwnMargin::kOfCosine || constants[kDetach] != 0};
  return call;
}

inline void check_one_vs_all(const at::Tensor& features, const at::Tensor& weight, const at::Tensor& labels,
                             const at::Tensor& bias, int64_t fewest_classes = 2) {
  check_batch(features, weight, labels, fewest_classes);
  TORCH_CHECK_VALUE(bias.numel() == 1 && at::isFloatingType(bias.scalar_type()), "bias must be one number, not ",
                    bias.scalar_type(), " ", bias.sizes());
  TORCH_CHECK_VALUE(bias.device() == features.device(), "features, weight, labels and bias must be on one device");
}

}  // namespace margin
