// The loss of a sample and its gradient, for the host and the device, once the margin is known (margin_math.h): softmax
// cross-entropy as softplus(log S - s psi), S the sum over the negatives.
#pragma once

#include "margin_math.h"

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
// largest of their cosines: c_y above it is a hit.
struct Others {
  float peak, rest, highest;
};

// How a sample's loss moves, before the division by N: everything the gradient needs beside the cosines.
struct SampleGradient {
  float strength;          // d loss / d n_j of a negative is strength exp(scale (n_j - peak))
  float scale, peak;
  float threshold, t;
  float target;            // d loss / d c_y
  float norm, norm_share;  // d loss / d |z| is norm + norm_share * sum over the negatives of c_j d loss / d c_j
};

// log S - s psi.
MARGIN_FN float excess_of(const Target& target, const Others& others) {
  return target.scale * (others.peak - target.psi) + logf(others.rest);
}

MARGIN_FN SampleGradient gradient_of(const Target& target, const Others& others) {
  const float pull = scaled_sigmoid(target.scale, excess_of(target, others));  // s (1 - p_y), with all its digits
  const float by_scale = target.scale_slope / target.scale;
  return {pull / others.rest,
          target.scale,
          others.peak,
          target.threshold,
          target.t,
          -pull * target.slope,
          -pull * (target.norm_slope + by_scale * target.psi) + target.penalty_slope,
          by_scale};
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
  return softplus(excess_of(target, others)) + target.penalty;
}

}  // namespace margin
