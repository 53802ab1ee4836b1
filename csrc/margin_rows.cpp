// The CPU kernels' loops (see margin_rows.h), compiled once for each instruction set with -DMARGIN_ISA=<name>. Written with
// the compiler's own vector type of 16 floats, which becomes one AVX-512, two AVX2 or four SSE registers: every object
// sums in the same order.
#include "margin_rows.h"

#include "margin_vector.h"

#define MARGIN_JOIN(a, b) a##b
#define MARGIN_NAME(isa) MARGIN_JOIN(rows_, isa)
#define MARGIN_QUOTE(isa) #isa
#define MARGIN_STRING(isa) MARGIN_QUOTE(isa)

namespace margin {
namespace {

template <Type type>
void normalize_typed(const void* in, int64_t rows, int64_t size, int64_t padded, float* unit, float* norm) {
  for (int64_t row = 0; row < rows; ++row, unit += padded) {
    const auto entries = [&](int64_t d) { return load_typed(in, type, row * size + d, size - d); };
    Vec sums[4] = {};
    for (int64_t d = 0; d < padded; d += kLanes) {
      const Vec v = entries(d);
      sums[d / kLanes % 4] += v * v;
    }
    float square = total((sums[0] + sums[1]) + (sums[2] + sums[3])), shrink = 1.0f;
    if (!(square < 1e30f)) {  // the squares may have overflowed: again, with the largest entry scaled to 1
      Vec largest{}, sum{};
      for (int64_t d = 0; d < padded; d += kLanes) largest = larger(largest, entries(d) < 0 ? -entries(d) : entries(d));
      shrink = 1.0f / highest(largest);
      for (int64_t d = 0; d < padded; d += kLanes) sum += entries(d) * shrink * (entries(d) * shrink);
      square = total(sum);
    }
    const float length = __builtin_sqrtf(square) > kNormFloor ? __builtin_sqrtf(square) : kNormFloor;
    const float inverse = 1.0f / length;
    for (int64_t d = 0; d < padded; d += kLanes) store(unit + d, entries(d) * shrink * inverse);
    norm[row] = length / shrink < kNormCeiling ? length / shrink : kNormCeiling;
  }
}

void normalize(const void* in, Type type, int64_t rows, int64_t size, int64_t padded, float* unit, float* norm) {
  if (type == Type::kFloat) return normalize_typed<Type::kFloat>(in, rows, size, padded, unit, norm);
  if (type == Type::kHalf) return normalize_typed<Type::kHalf>(in, rows, size, padded, unit, norm);
  normalize_typed<Type::kBFloat16>(in, rows, size, padded, unit, norm);
}

template <int kClasses>
inline void product_tile(const float* left, const float* right, int64_t padded, float* out, int64_t stride, int64_t rows) {
  Vec sums[kRowTile][kClasses] = {};
  for (int64_t d = 0; d < padded; d += kLanes)
    for (int c = 0; c < kClasses; ++c) {
      const Vec w = load(right + c * padded + d);
      for (int r = 0; r < kRowTile; ++r) sums[r][c] += load(left + r * padded + d) * w;
    }
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < kClasses; ++c) out[r * stride + c] = total(sums[r][c]);
}

void products(const float* left, int64_t rows, const float* right, int64_t classes, int64_t padded, float* out,
              int64_t stride) {
  for (int64_t row = 0; row < rows; row += kRowTile) {
    const int64_t here = rows - row < kRowTile ? rows - row : kRowTile;
    const float* tile = left + row * padded;
    int64_t c = 0;
    for (; c + 5 <= classes; c += 5) product_tile<5>(tile, right + c * padded, padded, out + row * stride + c, stride, here);
    for (; c < classes; ++c) product_tile<1>(tile, right + c * padded, padded, out + row * stride + c, stride, here);
  }
}

inline Vec clamped(Vec cosine) { return smaller(larger(cosine, splat(-kCosineLimit)), splat(kCosineLimit)); }

// Calls step(place, mask or null) for the vectors of a row: a mask for those that hold the label's class or the row's end.
template <typename Step>
inline void each_vector(int64_t count, int64_t own, const Step& step) {
  for (int64_t at = 0; at < count; at += kLanes) {
    if (at + kLanes <= count && (own < at || own >= at + kLanes)) {
      step(at, static_cast<const Int*>(nullptr));
    } else {
      const int32_t left = int32_t(count - at < kLanes ? count - at : kLanes);
      const int32_t label = own >= at && own < at + kLanes ? int32_t(own - at) : -1;
      const Int mask = (kLane < left) & (kLane != label);
      step(at, &mask);
    }
  }
}

// A negative's n_j; only CurricularFace changes it.
template <bool kCurricular>
inline Vec negative(Vec c, float threshold, float t) {
  return kCurricular ? (c > threshold ? c * (c + t) : c) : c;
}

template <bool kCurricular>
void accumulate_as(const float* cosine, int64_t count, int64_t own, const Target& target, float* largest, float* sum) {
  const auto logits = [&](int64_t at) {
    return negative<kCurricular>(clamped(load_part(cosine + at, count - at)), target.threshold, target.t) * target.scale;
  };
  Vec peak = splat(*largest);
  each_vector(count, own, [&](int64_t at, const Int* mask) {
    peak = larger(peak, mask ? (*mask ? logits(at) : splat(-3e38f)) : logits(at));
  });
  const float top = highest(peak);
  if (top == -3e38f) return;  // no negative among these classes, and none before
  Vec sums{};
  each_vector(count, own, [&](int64_t at, const Int* mask) {
    const Vec e = exponential(logits(at) - top);
    sums += mask ? (*mask ? e : Vec{}) : e;
  });
  *sum = *sum * total(exponential(splat(*largest - top)) * (1.0f / kLanes)) + total(sums);
  *largest = top;
}

void accumulate(const float* cosine, int64_t count, int64_t own, const Target& target, float* largest, float* sum) {
  if (target.threshold < 1.0f) return accumulate_as<true>(cosine, count, own, target, largest, sum);
  accumulate_as<false>(cosine, count, own, target, largest, sum);
}

template <bool kCurricular>
float gradient_as(const float* cosine, int64_t count, int64_t own, const RowGradient& row, float factor, float* grad) {
  Vec along{};
  const float strength = row.scale * factor;
  each_vector(count, own, [&](int64_t at, const Int* mask) {
    const Vec c = clamped(load_part(cosine + at, count - at));
    Vec g = exponential(negative<kCurricular>(c, row.threshold, row.t) * row.scale - row.log_total) * strength;
    if (kCurricular) g *= c > row.threshold ? c * 2.0f + row.t : splat(1.0f);
    if (mask) g = *mask ? g : Vec{};
    along += g * c;
    store_part(grad + at, g, count - at);
  });
  if (own >= 0 && own < count) grad[own] = row.target * factor;
  return total(along);
}

float gradient(const float* cosine, int64_t count, int64_t own, const RowGradient& row, float factor, float* grad) {
  if (row.threshold < 1.0f) return gradient_as<true>(cosine, count, own, row, factor, grad);
  return gradient_as<false>(cosine, count, own, row, factor, grad);
}

template <int kBlock>
inline void combine_block(const float* coefficient, const float* vectors, int64_t count, int64_t padded, float* sum) {
  Vec sums[kBlock] = {};
  for (int64_t c = 0; c < count; ++c)
    for (int b = 0; b < kBlock; ++b) sums[b] += load(vectors + c * padded + b * kLanes) * coefficient[c];
  for (int b = 0; b < kBlock; ++b) store(sum + b * kLanes, sums[b]);
}

void combine(const float* coefficient, const float* vectors, int64_t count, int64_t padded, float* sum) {
  int64_t d = 0;
  for (; d + 8 * kLanes <= padded; d += 8 * kLanes) combine_block<8>(coefficient, vectors + d, count, padded, sum + d);
  for (; d < padded; d += kLanes) combine_block<1>(coefficient, vectors + d, count, padded, sum + d);
}

void accumulate_outer(const float* coefficient, const float* vectors, int64_t classes, int64_t padded, float* sums) {
  for (int64_t d = 0; d < padded; d += kLanes) {
    Vec v[kRowTile];
    for (int r = 0; r < kRowTile; ++r) v[r] = load(vectors + r * padded + d);
    for (int64_t c = 0; c < classes; ++c) {
      Vec sum = load(sums + c * padded + d);
      for (int r = 0; r < kRowTile; ++r) sum += v[r] * coefficient[r * classes + c];
      store(sums + c * padded + d, sum);
    }
  }
}

float dot(const float* a, const float* b, int64_t padded) {
  Vec sums[4] = {};
  for (int64_t d = 0; d < padded; d += kLanes) sums[d / kLanes % 4] += load(a + d) * load(b + d);
  return total((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void project(const float* h, const float* unit, float norm, float along, int64_t size, int64_t padded, void* out,
             Type type) {
  const float inverse = 1.0f / norm;
  const float across = norm > kNormFloor ? dot(h, unit, padded) : 0.0f;
  const float keep = norm > kNormFloor ? along : 0.0f;
  for (int64_t d = 0; d < padded; d += kLanes) {
    const Vec u = load(unit + d);
    store_typed(out, type, d, size - d, (load(h + d) - u * across) * inverse + u * keep);
  }
}

void add(const float* part, int64_t count, float* sum) {
  for (int64_t i = 0; i < count; i += kLanes)
    store_part(sum + i, load_part(sum + i, count - i) + load_part(part + i, count - i), count - i);
}

}  // namespace

const Rows& MARGIN_NAME(MARGIN_ISA)() {
  static const Rows table = {MARGIN_STRING(MARGIN_ISA), normalize, products, accumulate, gradient, combine,
                             accumulate_outer,          dot,       project,  add};
  return table;
}

}  // namespace margin
