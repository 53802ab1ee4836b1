// The loop over a row's cosines of the one-vs-all losses, for margin_rows.cpp alone; local to the object that includes it.
#pragma once

#include "margin_loops.h"

namespace margin {
namespace {

// The natural logarithm of a positive, normal x, to 1 unit in the last place or so (Cephes); of NaN it is NaN.
inline Vec logarithm(Vec x) {
  const Int exponent = Int(Bits(x) - 0x3F3504F3u) >> 23;  // so that what is left lies between sqrt(1/2) and sqrt(2)
  const Vec n = __builtin_convertvector(exponent, Vec);
  const Vec f = Vec(Bits(x) - (Bits(exponent) << 23)) - 1.0f, square = f * f;
  Vec p = f * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  p = p * f * square - n * 2.12194440e-4f - square * 0.5f;
  return x == x ? n * 0.693359375f + (f + p) : x;
}

struct Wide {
  static Vec exp(Vec x) { return exponential(x); }
  static Vec log(Vec x) { return logarithm(x); }
};

// kScaled: each class has its own factor; kSpread: g is not the cosine itself; kOut: the gradient is wanted.
template <bool kScaled, bool kSpread, bool kOut>
OtherClasses other_classes_of(ClassRow row, const OtherLogits& logits, float* out) {
  const Vec none = splat(-3e38f);
  Vec loss{}, chance{}, along{}, most = none;
  each_vector(row.count, row.own, [&](int64_t at, auto block, const Int* mask) {
    const Vec factor = kScaled ? load_part(row.inverse + at, block.left) : splat(1.0f);
    const Vec raw = load_part(row.product + at, block.left), c = clamped(kScaled ? raw * factor : raw);
    const Tau<Vec> tau = kSpread ? spread<Wide>(c, logits.spread) : Tau<Vec>{c, splat(1.0f)};
    Logistic<Vec> yes = logistic<Wide>(tau.value * logits.scale + logits.shift);
    if (row.times) {
      const Vec times = load_part(row.times + at, block.left);
      yes = {yes.loss * times, yes.chance * times};
    }
    if (mask) yes = {*mask ? yes.loss : Vec{}, *mask ? yes.chance : Vec{}};
    most = larger(most, mask ? (*mask ? c : none) : c);
    loss += yes.loss;
    chance += yes.chance;
    if (!kOut) return;
    const Vec pull = yes.chance * tau.slope * logits.pull;
    along += pull * c;
    store_part(out + at, kScaled ? pull * factor : pull, block.left);
  });
  return {total(loss), total(chance), total(along), highest(most)};
}

template <bool kScaled, bool kSpread>
OtherClasses other_classes_into(const ClassRow& row, const OtherLogits& logits, float* out) {
  return out ? other_classes_of<kScaled, kSpread, true>(row, logits, out)
             : other_classes_of<kScaled, kSpread, false>(row, logits, out);
}

__attribute__((flatten)) OtherClasses other_classes(const ClassRow& row, const OtherLogits& logits, float* out) {
  if (logits.spread.whole != 1)
    return row.inverse ? other_classes_into<true, true>(row, logits, out) : other_classes_into<false, true>(row, logits, out);
  return row.inverse ? other_classes_into<true, false>(row, logits, out) : other_classes_into<false, false>(row, logits, out);
}

}  // namespace
}  // namespace margin
