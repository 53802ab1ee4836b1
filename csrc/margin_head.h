// Shared by the backends: the operators' shape and checks, a batch, and the limits that choose a regime.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "sample_loss.h"

namespace margin {

// Cosines are kept for backward up to this many (at first 2^23, 32 MB in fp32); beyond, they are computed again, chunk by
// chunk. A setting, so that memory can be traded for time, and tests reach the chunks with small sizes.
inline std::atomic<int64_t> kept_cosines{int64_t(1) << 23};

inline bool keeps_cosines(const at::Tensor& features, const at::Tensor& weight) {
  return features.size(0) * weight.size(0) <= kept_cosines;
}

// loss, state, statistics [N, kStatistics], and the cosines [N, C] for backward: themselves, or what it needs of them (the
// CPU's exponentials beyond few classes); empty where they are computed again.
using Forward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Backward = std::tuple<at::Tensor, at::Tensor>;  // of features, of weight; empty if not asked

inline Statistics* samples_of(const at::Tensor& statistics) {
  return reinterpret_cast<Statistics*>(statistics.data_ptr<float>());
}

// The losses' names; a loss's number is its place.
template <typename... Each>
std::vector<std::string> names_of(List<Each...>) {
  return {Each::kName...};
}
inline std::vector<std::string> loss_names() { return names_of(Losses()); }

template <typename... Each>
std::vector<int64_t> constants_of(List<Each...>) {
  return {int64_t(Each::kConstants)...};
}

// A call as the operators take it: a loss's number, scale and margin, then its other constants in the order of its enum.
struct Call {
  int64_t loss;
  double scale, margin;
  at::ArrayRef<double> constants;

  Call(at::ArrayRef<double> numbers, int64_t losses) {
    TORCH_CHECK_VALUE(numbers.size() >= 3, "a call has a loss's number, scale and margin, not ", numbers.size(), " numbers");
    TORCH_CHECK_VALUE(numbers[0] >= 0 && numbers[0] < losses, "there is no loss number ", int64_t(numbers[0]), ": there are ", losses);
    loss = int64_t(numbers[0]);
    scale = numbers[1];
    margin = numbers[2];
    constants = numbers.slice(3);
  }
};

inline Options make_options(at::ArrayRef<double> numbers) {
  const auto [loss, scale, margin, constants] = Call(numbers, Losses::kCount);
  const int64_t wanted = constants_of(Losses())[loss], given = int64_t(constants.size());
  TORCH_CHECK_VALUE(given == wanted && wanted <= kMostConstants, loss_names()[loss], " has ", wanted,
                    " constants besides scale and margin, not ", given);
  Options options{int(loss), float(scale), float(margin), float(std::cos(margin)), float(std::sin(margin)), {}};
  std::copy(constants.begin(), constants.end(), options.constants);
  return options;
}

// What is asked of a loss before anything is computed.
struct Traits {
  bool shapes_negatives, moves_by_negatives;
  int pairs;
};
template <typename... Each>
Traits traits_of(int number, List<Each...>) {
  const Traits all[] = {{Each::kShapesNegatives, Each::kMovesByNegatives, Each::kPairs}...};
  return all[number];
}
inline Traits traits_of(const Options& options) { return traits_of(options.loss, Losses()); }

// What samples have of their own, checked and contiguous.
struct OwnTensors {
  at::Tensor margins, weights;
  OfSamples pointers{};

  OwnTensors(const at::Tensor& features, const std::optional<at::Tensor>& m, const std::optional<at::Tensor>& w) {
    const auto take = [&](const std::optional<at::Tensor>& given, const char* name, at::Tensor& tensor) -> const float* {
      if (!given) return nullptr;
      TORCH_CHECK_VALUE(given->dim() == 1 && given->size(0) == features.size(0) && given->scalar_type() == at::kFloat &&
                            given->device() == features.device(),
                        name, " must be float32 [", features.size(0), "] on the features' device, not ", given->scalar_type(),
                        " ", given->sizes());
      tensor = given->contiguous();
      return tensor.const_data_ptr<float>();
    };
    pointers = {take(m, "margins", margins), take(w, "weights", weights)};
  }

  // Are the margins to be paired with the samples, once the cosines are known?
  bool pairs(const Options& options) const {
    const int constant = traits_of(options).pairs;
    return constant >= 0 && options.constants[constant] != 0.0f && margins.defined();
  }
};

// A batch and its prototypes, contiguous.
struct Batch {
  at::Tensor features, weight, labels;
  int64_t samples, classes, size;
  bool keep;  // whether the cosines of all classes are there at once
  const int64_t* label;

  Batch(const at::Tensor& z, const at::Tensor& w, const at::Tensor& y, bool keep)
      : features(z.contiguous()), weight(w.contiguous()), labels(y.contiguous()), samples(z.size(0)), classes(w.size(0)),
        size(z.size(1)), keep(keep), label(labels.const_data_ptr<int64_t>()) {}

  at::Tensor scratch(at::IntArrayRef shape, at::ScalarType type = at::kFloat) const {
    return at::empty(shape, features.options().dtype(type));
  }
};

// Calls work(first class, count) for chunks of at most `step` classes in turn.
template <typename Work>
void each_chunk(int64_t classes, int64_t step, const Work& work) {
  for (int64_t first = 0; first < classes; first += step) work(first, std::min(step, classes - first));
}

// Shapes and types that every backend asks for; the labels' range is the backends' own check.
inline void check_batch(const at::Tensor& features, const at::Tensor& weight, const at::Tensor& labels,
                        int64_t fewest_classes = 2) {
  const auto known = [](const at::Tensor& tensor) {
    return tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kHalf ||
           tensor.scalar_type() == at::kBFloat16;
  };
  TORCH_CHECK_VALUE(features.dim() == 2 && weight.dim() == 2 && features.size(1) == weight.size(1),
                    "features must be [N, D] and weight [C, D], not ", features.sizes(), " and ", weight.sizes());
  TORCH_CHECK_VALUE(features.size(0) >= 1 && features.size(1) >= 1, "the batch is empty: features are ", features.sizes());
  TORCH_CHECK_VALUE(weight.size(0) >= fewest_classes, "a margin needs at least ", fewest_classes, " classes, not ",
                    weight.size(0));
  TORCH_CHECK_VALUE(labels.dim() == 1 && labels.size(0) == features.size(0) && labels.scalar_type() == at::kLong,
                    "labels must be int64 [", features.size(0), "], not ", labels.scalar_type(), " ", labels.sizes());
  TORCH_CHECK_TYPE(known(features) && known(weight), "features and weight must be float32, bfloat16 or float16, not ",
                   features.scalar_type(), " and ", weight.scalar_type());
  TORCH_CHECK_VALUE(features.device() == weight.device() && features.device() == labels.device(),
                    "features, weight and labels must be on one device");
}

// What forward gave out for backward.
inline void check_kept(const at::Tensor& statistics, const at::Tensor& kept, int64_t samples, int64_t classes) {
  const auto is = [](const at::Tensor& rows, int64_t count, int64_t size) {
    return rows.scalar_type() == at::kFloat && rows.dim() == 2 && rows.size(0) == count && rows.size(1) == size &&
           rows.is_contiguous();
  };
  TORCH_CHECK_VALUE(is(statistics, samples, kStatistics) && (is(kept, samples, classes) || is(kept, 0, classes)),
                    "expected forward's statistics and cosines of ", samples, " samples and ", classes, " classes, not ",
                    statistics.sizes(), " and ", kept.sizes());
}

inline void check_state(const at::Tensor& state, const Options& options) {
  int64_t held = 0;
  with_loss(options.loss, Losses(), [&](auto loss) { held = loss.kState; });
  TORCH_CHECK_VALUE(state.scalar_type() == at::kFloat && state.numel() == held, "this loss has ", held,
                    " numbers of float32 state, not ", state.numel(), " of ", state.scalar_type());
}

inline void check_inputs(const at::Tensor& features, const at::Tensor& weight, const at::Tensor& labels,
                         const at::Tensor& state, const Options& options) {
  check_batch(features, weight, labels);
  check_state(state, options);
  TORCH_CHECK_VALUE(features.device() == state.device(), "features, weight, labels and state must be on one device");
}

inline void check_draws(const at::Tensor& state) {
  TORCH_CHECK_VALUE(state.scalar_type() == at::kFloat && state.numel() == 2 && state.is_contiguous(),
                    "draws follow from a state of two float32 numbers, not ", state.numel(), " of ", state.scalar_type());
}

}  // namespace margin
