// The loss of a sample and its gradient, for the host and the device, once the margin is known (margin_math.h): softmax
// cross-entropy as softplus(log S - s psi), S the sum over the negatives.
#pragma once

#include "margin_losses.h"

namespace margin {

// log(1 + e^x) without overflow.
MARGIN_FN float softplus(float x) { return (x < 0.0f ? 0.0f : x) + log1pf(expf(-fabsf(x))); }

// scale / (1 + e^-x), also where the sigmoid alone is too small for a float and the scale makes up for it.
MARGIN_FN float scaled_sigmoid(float scale, float x) {
  if (x < -80.0f) return float(double(scale) * exp(double(x)));
  const float e = expf(-fabsf(x));
  return scale * ((x >= 0.0f ? 1.0f : e) / (1.0f + e));
}

// The largest of a sample's negatives n_j, and the sum of exp(s (n_j - peak)) over them: S = exp(s peak) rest. `highest` is the
// largest of their cosines: c_y above it is a hit. `moment`, where s follows the norm: the sum of exp(s (n_j - peak)) (n_j - peak).
struct Others {
  float peak, rest, highest, moment;
};
MARGIN_FN Others no_others() { return {-3e38f, 0.0f, -3e38f, 0.0f}; }

// What `others` are over a peak that has risen.
MARGIN_FN void raise_peak(Others& others, float scale, float peak) {
  const float part = expf(scale * (others.peak - peak));
  others.moment = part * (others.moment + others.rest * (others.peak - peak));
  others.rest *= part;
  others.peak = peak;
}

// How a sample's loss moves, before the division by N: everything the gradient needs beside the cosines.
struct SampleGradient {
  float strength;  // d loss / d n_j of a negative is strength exp(scale (n_j - peak))
  float scale, peak;
  Shaping shaping;
  float target;  // d loss / d c_y
  float norm;    // d loss / d |z|
};

// log S - s psi.
MARGIN_FN float excess_of(const Target& target, const Others& others) {
  return target.scale * (others.peak - target.psi) + logf(others.rest);
}

MARGIN_FN SampleGradient gradient_of(const Target& target, const Others& others) {
  const float pull = target.weight * scaled_sigmoid(target.scale, excess_of(target, others));  // s (1 - p_y), with all its digits
  float by_norm = -pull * target.norm_slope + target.penalty_slope;
  if (target.scale_slope != 0.0f)  // d/ds of log S - s psi
    by_norm += pull * (target.scale_slope / target.scale) * ((others.peak - target.psi) + others.moment / others.rest);
  return {pull / others.rest, target.scale, others.peak, target.shaping, -pull * target.slope, by_norm};
}

// What forward keeps of a sample, a row of the operator's `statistics`; backward needs no more of the loss than this, whichever
// loss it is. log S and c_y are also what a head sharded over classes would exchange.
struct Statistics {
  float norm, cosine, highest, log_others;  // |z|, c_y (not clamped), the largest other cosine, log of S
  SampleGradient gradient;
};
constexpr int kStatistics = sizeof(Statistics) / sizeof(float);

// Completes a sample's statistics once the sum over its negatives is known; returns its loss.
MARGIN_FN float finish_sample(const Target& target, const Others& others, Statistics& sample) {
  sample.highest = others.highest;
  sample.log_others = target.scale * others.peak + logf(others.rest);
  sample.gradient = gradient_of(target, others);
  return target.weight * softplus(excess_of(target, others)) + target.penalty;
}

}  // namespace margin
