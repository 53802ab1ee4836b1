// How margin_rows.cpp goes through a row: the type and the block's width known to the compiler, a row's norm, the label's class
// masked.
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

// Calls step(place, block) for each vector of a row; block.left is how many entries it has, known to the compiler but for the
// last, shorter one.
struct Whole {
  static constexpr int64_t left = kWidth;
  static constexpr int vectors = 1;
};
struct Part {
  int64_t left;
  static constexpr int vectors = 1;
};
template <typename Step>
inline void each_block(int64_t size, const Step& step) {
  int64_t d = 0;
  for (; d + kWidth <= size; d += kWidth) step(d, Whole());
  if (d < size) step(d, Part{size - d});
}

// The same, but kVectors at a time where they are whole.
template <int kVectors>
struct Strip {
  static constexpr int64_t left = kWidth;  // of each
  static constexpr int vectors = kVectors;
};
template <int kVectors, typename Step>
inline void each_strip(int64_t size, const Step& step) {
  int64_t d = 0;
  for (; d + kVectors * kWidth <= size; d += kVectors * kWidth) step(d, Strip<kVectors>());
  each_block(size - d, [&](int64_t at, auto block) { step(d + at, block); });
}

// The norm of a row and the factor that makes a unit vector of it.
struct Length {
  float norm, factor;
};

// Is a sum of squares far from the ends of a float's range?
inline bool plain_square(float square) { return square < 1e30f && square > 1e-30f; }

template <Type type>
Length length_of(const void* in, int64_t row, int64_t size) {
  const auto entries = [&](int64_t d, auto block) { return load_typed(in, type, row * size + d, block.left); };
  Vec squares[4] = {};  // as many chains, so that one addition need not wait for the last
  each_strip<4>(size, [&](int64_t d, auto strip) {
    for (int i = 0; i < strip.vectors; ++i) {
      const Vec v = entries(d + i * kWidth, strip);
      squares[i] += v * v;
    }
  });
  float square = total((squares[0] + squares[1]) + (squares[2] + squares[3])), largest_entry = 1.0f;
  if (!plain_square(square)) {  // again, the largest entry scaled to 1
    Vec largest{}, sum{};
    each_block(size, [&](int64_t d, auto block) {
      const Vec v = entries(d, block);
      largest = larger(largest, v < 0 ? -v : v);
    });
    largest_entry = highest(largest);
    if (square == square && largest_entry < 1e-36f) return {kNormFloor, 0.0f};
    each_block(size, [&](int64_t d, auto block) {
      const Vec v = entries(d, block) * (1.0f / largest_entry);
      sum += v * v;
    });
    square = total(sum);
  }
  const float length = __builtin_sqrtf(square), norm = length * largest_entry;
  if (norm <= kNormFloor) return {kNormFloor, 0.0f};
  return {norm > kNormCeiling ? kNormCeiling : norm, (1.0f / largest_entry) * (1.0f / length)};
}

// NaN stays NaN.
inline Vec clamped(Vec cosine) { return smaller(larger(cosine, splat(-kCosineLimit)), splat(kCosineLimit)); }

// Calls step(place, block, mask or null) for the vectors of a row: a mask for those that hold the label's class or the row's
// end.
template <typename Step>
inline void each_vector(int64_t count, int64_t own, const Step& step) {
  each_block(count, [&](int64_t at, auto block) {
    if (block.left == kWidth && (own < at || own >= at + kWidth)) return step(at, block, static_cast<const Int*>(nullptr));
    const int32_t label = own >= at && own < at + kWidth ? int32_t(own - at) : -1;
    const Int mask = (lanes() < int32_t(block.left)) & (lanes() != label);
    step(at, block, &mask);
  });
}

enum class Shape { kPlain, kCurved, kFolded, kNearest };  // of the negatives; nearest: keep_nearest() has left cosines

// A sample's cosines with a row of products, and its logits without the scale.
template <bool kScaled, Shape kShape>
struct Negatives {
  static constexpr bool is_shaped = kShape == Shape::kCurved || kShape == Shape::kFolded;
  ClassRow row;
  Logits logits;

  template <typename Block>
  Vec factor(int64_t at, Block block) const {
    return kScaled ? load_part(row.inverse + at, block.left) : splat(1.0f);
  }
  template <typename Block>
  Vec cosine(int64_t at, Block block) const {
    const Vec c = load_part(row.product + at, block.left);
    if (kShape == Shape::kNearest) return c;
    return clamped(kScaled ? c * logits.factor * factor(at, block) : c);
  }
  Vec logit(Vec c) const {
    if (kShape == Shape::kFolded) return folded(c, logits.shaping.fold);
    return kShape == Shape::kCurved ? curved(c, logits.shaping) : c;
  }
  Vec slope(Vec c) const { return kShape == Shape::kCurved ? curved_slope(c, logits.shaping) : splat(1.0f); }
};

template <bool kValue>
struct Truth {
  static constexpr bool value = kValue;
};

// Calls work(Negatives) of the sample's kind.
template <typename Work>
inline float with_negatives(const ClassRow& row, const Logits& logits, const Work& work) {
  const auto with_shape = [&](auto scaled) {
    constexpr bool kScaled = decltype(scaled)::value;
    if (row.centres > 1) return work(Negatives<kScaled, Shape::kNearest>{row, logits});
    if (logits.shaping.fold != 0.0f) return work(Negatives<kScaled, Shape::kFolded>{row, logits});
    if (logits.shaping.threshold < 1.0f) return work(Negatives<kScaled, Shape::kCurved>{row, logits});
    return work(Negatives<kScaled, Shape::kPlain>{row, logits});
  };
  return row.inverse ? with_shape(Truth<true>()) : with_shape(Truth<false>());
}

}  // namespace
}  // namespace margin
