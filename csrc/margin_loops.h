// How margin_rows.cpp goes through a row: the type and the block's width known to the compiler, the label's class masked.
// Everything here is local to the object that includes it (see margin_rows.h).
#pragma once

#include "margin_rows.h"
#include "margin_vector.h"

namespace margin {
namespace {

// Calls work(a type known to the compiler).
template <Type kType>
struct Known {
  static constexpr Type type = kType;
};
template <typename Work>
inline void with_type(Type type, const Work& work) {
  if (type == Type::kFloat) return work(Known<Type::kFloat>());
  if (type == Type::kHalf) return work(Known<Type::kHalf>());
  work(Known<Type::kBFloat16>());
}

template <bool kValue>
struct Flag {
  static constexpr bool value = kValue;
};

// Calls step(place, block) for each vector of a row; block.left is how many entries it has, known to the compiler but for the
// last, shorter one.
struct Whole {
  static constexpr int64_t left = kLanes;
};
struct Part {
  int64_t left;
};
template <typename Step>
inline void each_block(int64_t size, const Step& step) {
  int64_t d = 0;
  for (; d + kLanes <= size; d += kLanes) step(d, Whole());
  if (d < size) step(d, Part{size - d});
}

// NaN stays NaN.
inline Vec clamped(Vec cosine) { return smaller(larger(cosine, splat(-kCosineLimit)), splat(kCosineLimit)); }

// Calls step(place, block, mask or null) for the vectors of a row: a mask for those that hold the label's class or the row's end.
template <typename Step>
inline void each_vector(int64_t count, int64_t own, const Step& step) {
  each_block(count, [&](int64_t at, auto block) {
    if (block.left == kLanes && (own < at || own >= at + kLanes)) return step(at, block, static_cast<const Int*>(nullptr));
    const int32_t label = own >= at && own < at + kLanes ? int32_t(own - at) : -1;
    const Int mask = (kLane < int32_t(block.left)) & (kLane != label);
    step(at, block, &mask);
  });
}

// A row of cosines, and its logits without the scale; only CurricularFace's are not the cosines themselves.
template <bool kScaled, bool kCurricular>
struct Negatives {
  static constexpr bool curricular = kCurricular;
  const float *product, *inverse;
  Logits logits;

  template <typename Block>
  Vec factor(int64_t at, Block block) const {
    return kScaled ? load_part(inverse + at, block.left) : splat(1.0f);
  }
  template <typename Block>
  Vec cosine(int64_t at, Block block) const {
    const Vec c = load_part(product + at, block.left);
    return clamped(kScaled ? c * logits.factor * factor(at, block) : c);
  }
  Vec shaped(Vec c) const { return kCurricular ? (c > logits.threshold ? c * (c + logits.t) : c) : c; }
  Vec slope(Vec c) const { return kCurricular ? (c > logits.threshold ? c * 2.0f + logits.t : splat(1.0f)) : splat(1.0f); }
};

// Calls work(Negatives) of the kind that a row is of.
template <typename Work>
inline float with_negatives(const float* product, const float* inverse, const Logits& logits, const Work& work) {
  const bool curricular = logits.threshold < 1.0f;
  if (inverse && curricular) return work(Negatives<true, true>{product, inverse, logits});
  if (inverse) return work(Negatives<true, false>{product, inverse, logits});
  if (curricular) return work(Negatives<false, true>{product, inverse, logits});
  return work(Negatives<false, false>{product, inverse, logits});
}

}  // namespace
}  // namespace margin
