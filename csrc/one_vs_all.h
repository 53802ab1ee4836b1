// One-vs-all logistic losses, for the host and the device: each class is a yes or no of its own, so there is no normaliser, and
// one look at a cosine gives its part of the loss and of the gradient.
//
//   loss_i = own sp(-f_y) + rest * sum over j != y of sp(f_j),  sp(x) = log(1 + e^x),  f = scale tau(c) + b or - b
//   uniface      tau_y = c_y - m, tau_j = c_j, and - b
//   sphereface2  g(c) = 2 ((c+1)/2)^t - 1, and + b; C: tau_y = g(c_y) - m, tau_j = g(c_j) + m;
//                A: tau_y = g(cos(min(theta_y + m, pi))), M: g(cos(min(m theta_y, pi))), both tau_j = g(c_j)
//
// In A and M, and in C where it is asked for, the derivative of tau by c is taken for 1. Real is a float, or a vector of them; Math
// has its exp and log. NaN in is NaN out.
#pragma once

#include "margin_math.h"

namespace margin {

// Of sphereface2's g. whole: t where it is a whole number, else 0; detached: g' is taken for 1.
struct Spread {
  float t = 1.0f;
  int whole = 1;
  bool detached = false;
};

enum class OwnMargin : int { kOfCosine, kAdded, kMultiplied };  // C and uniface, A, M

// A call: its loss and all its constants.
struct OneVsAll {
  float scale, own, rest;  // own and rest: the weights of the two terms
  float margin, other_margin;
  OwnMargin kind;
  float sign;  // of b
  Spread spread;
};

// exp and log of a float, for the host and the device.
struct Scalar {
  MARGIN_FN float exp(float x) { return expf(x); }
  MARGIN_FN float log(float x) { return logf(x); }
};

namespace {  // objects built for different instruction sets must not share a copy

template <typename Real>
struct Tau {
  Real value, slope;  // g(c), and its derivative
};

template <typename Math, typename Real>
MARGIN_FN Tau<Real> spread(Real c, const Spread& g) {
  const Real one = Real{} + 1.0f;
  if (g.whole == 1) return {c, one};
  const Real x = c * 0.5f + 0.5f;
  Real power = one;  // x^(t-1)
  if (g.whole) {
    Real square = x;
    for (int n = g.whole - 1; n > 0; n >>= 1, square *= square)
      if (n & 1) power *= square;
  } else {
    power = Math::exp(Math::log(x) * (g.t - 1.0f));
  }
  return {power * x * 2.0f - 1.0f, g.detached ? one : power * g.t};
}

// log(1 + e^f) and its derivative 1 / (1 + e^-f), both with all their digits wherever f is; no f overflows.
template <typename Real>
struct Logistic {
  Real loss, chance;
};

template <typename Math, typename Real>
MARGIN_FN Logistic<Real> logistic(Real f) {
  const Real e = Math::exp(f < 0.0f ? f : -f);
  const Real both = 1.0f / ((e + 1.0f) * (e + 2.0f));  // one division for the two that are needed
  const Real u = e * (e + 1.0f) * both, v = u * u;      // log(1 + e) is 2 atanh(u) with u = e / (2 + e), at most 1/3
  Real series = v * (2.0f / 15.0f) + 2.0f / 13.0f;
  series = series * v + 2.0f / 11.0f;
  series = series * v + 2.0f / 9.0f;
  series = series * v + 2.0f / 7.0f;
  series = series * v + 2.0f / 5.0f;
  series = series * v + 2.0f / 3.0f;
  series = series * v + 2.0f;
  return {(f < 0.0f ? Real{} : f) + u * series, (f < 0.0f ? e : Real{} + 1.0f) * (e + 2.0f) * both};
}

}  // namespace

// The own class's term, and its derivatives by c_y and by f_y.
struct OwnClass {
  float loss, by_cosine, by_logit;
};

MARGIN_FN OwnClass own_class(const OneVsAll& call, float raw_cosine, float bias) {
  float c = clamp_cosine(raw_cosine);
  if (call.kind != OwnMargin::kOfCosine) {
    const float theta = acosf(c), wide = call.kind == OwnMargin::kAdded ? theta + call.margin : theta * call.margin;
    c = cosf(wide > kPi ? kPi : wide);
  }
  const Tau<float> tau = spread<Scalar>(c, call.spread);
  const float margin = call.kind == OwnMargin::kOfCosine ? call.margin : 0.0f;
  const Logistic<float> no = logistic<Scalar>(-(call.scale * (tau.value - margin) + call.sign * bias));
  const float by_logit = -call.own * no.chance;
  return {call.own * no.loss, by_logit * call.scale * tau.slope, by_logit};
}

// What is added to scale g(c_j) in another class's logit.
MARGIN_FN float shift_of(const OneVsAll& call, float bias) { return call.scale * call.other_margin + call.sign * bias; }

}  // namespace margin
