// The margins' mathematics, for the host and the device: the one place in C++ where a margin is written down.
//
// A loss is softplus(log S - s psi) with S = sum over j != y of exp(s n_j): `psi` is the target's cosine with its margin,
// `n_j` the other cosines (only CurricularFace changes them) and `s` the row's scale. S is held as its largest term and the
// rest, S = exp(s peak) rest, and cosines are subtracted before they are scaled: s (peak - psi) keeps its digits where s is
// 1e6, log S - s psi does not. The pure-torch reference, cifarnet/losses/margins.py, has the papers and equations; its
// gradients come from autograd, those here are analytic.
//
// NaN in is NaN out: no minimum or maximum here drops one (fminf and fmaxf do).
#pragma once

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define MARGIN_FN static __host__ __device__ __forceinline__
#else
#define MARGIN_FN static inline  // static: objects built for different instruction sets must not share a copy
#endif

namespace margin {

enum Loss : int { kCosface, kArcface, kSphereface, kCurricularface, kAdaface, kMagface };

constexpr float kNormFloor = 1e-31f;  // a vector as short has no direction: its cosines and its gradient are 0
constexpr float kNormCeiling = 3e38f;  // a norm too large for a float counts as it
constexpr float kScaleCeiling = 1e31f;  // sphereface's scale |z| grows no further, so that its gradients stay finite
constexpr float kCosineLimit = 1.0f - 1e-7f;  // beyond it value and derivative are those at the limit
constexpr float kPi = 3.14159265358979f;
constexpr float kClipEps = 1e-3f, kMaxNorm = 100.0f;                              // AdaFace
constexpr float kCurriculumRate = 0.01f;                                          // CurricularFace
constexpr float kMagLow = 10.0f, kMagHigh = 110.0f;                               // MagFace: l_a, u_a
constexpr float kMagMarginLow = 0.45f, kMagMarginHigh = 0.8f, kMagWeight = 35.0f;  // MagFace: l_m, u_m, lambda_g
constexpr float kSphereBase = 1000.0f, kSphereDecay = 0.12f, kSphereLeast = 5.0f;  // the annealing of lambda

// The loss and its constants; the margin's cosine and sine are taken once a call.
struct Options {
  Loss loss;
  float scale, margin, cos_margin, sin_margin, h, t_alpha;
  bool easy;
};

// What the margin makes of one row: the target psi with its derivatives, the scale, and a penalty added to the loss.
struct Target {
  float psi, slope, norm_slope;  // psi, d psi / d c_y, d psi / d |z|
  float scale, scale_slope;      // s and 0, or for sphereface |z| and 1
  float penalty, penalty_slope;  // MagFace's regulariser and its derivative by |z|
  float threshold, t;            // CurricularFace: the negatives above `threshold` become c (t + c)
};

MARGIN_FN float clamp(float value, float low, float high) { return value < low ? low : value > high ? high : value; }

MARGIN_FN float clamp_cosine(float cosine) { return clamp(cosine, -kCosineLimit, kCosineLimit); }

// log(1 + e^x) without overflow.
MARGIN_FN float softplus(float x) { return (x < 0.0f ? 0.0f : x) + log1pf(expf(-fabsf(x))); }

// scale / (1 + e^-x), also where the sigmoid alone is too small for a float and the scale makes up for it.
MARGIN_FN float scaled_sigmoid(float scale, float x) {
  if (x < -80.0f) return float(double(scale) * exp(double(x)));
  const float e = expf(-fabsf(x));
  return scale * ((x >= 0.0f ? 1.0f : e) / (1.0f + e));
}

// 1 / norm, and 0 for a vector without a direction.
MARGIN_FN float inverse_of(float norm) { return norm <= kNormFloor ? 0.0f : 1.0f / norm; }

// psi = cos(theta + m); past theta + m = pi the line c - m sin(m), or with `easy` c itself where c <= 0.
MARGIN_FN void angular(Target& target, float cosine, float sine, float margin, float cos_m, float sin_m, bool easy) {
  if (easy ? cosine > 0.0f : cosine > -cos_m) {
    target.psi = cosine * cos_m - sine * sin_m;
    target.slope = cos_m + cosine * sin_m / sine;
    target.norm_slope = -cosine * sin_m - sine * cos_m;  // d psi / d m; magface turns it into d psi / d |z|
  } else {
    target.psi = easy ? cosine : cosine - margin * sin_m;
    target.slope = 1.0f;
  }
}

// psi = (lambda c + (-1)^k cos(m theta) - 2k) / (1 + lambda); cos(m theta) and its derivative by Chebyshev's recurrence.
MARGIN_FN void sphereface(Target& target, float cosine, int multiple, float steps) {
  float lower = 1.0f, current = cosine, lower_slope = 0.0f, slope = 1.0f;
  for (int i = 1; i < multiple; ++i) {
    const float next = 2.0f * cosine * current - lower;
    const float next_slope = 2.0f * current + 2.0f * cosine * slope - lower_slope;
    lower = current, current = next, lower_slope = slope, slope = next_slope;
  }
  const int k = int(fminf(floorf(multiple * acosf(cosine) / kPi), multiple - 1.0f));  // of NaN a number, which an int needs
  const float sign = k % 2 ? -1.0f : 1.0f;
  const float blend = clamp(kSphereBase / (1.0f + kSphereDecay * steps), kSphereLeast, kSphereBase);
  target.psi = (blend * cosine + sign * current - 2.0f * k) / (1.0f + blend);
  target.slope = (blend + sign * slope) / (1.0f + blend);
}

// psi = cos(clip(theta - m q)) - (m q + m), q the norm's distance from its running mean, in h / std, within [-1, 1].
MARGIN_FN void adaface(Target& target, const Options& options, float cosine, float sine, float norm, const float* state) {
  const float bounded = clamp(norm, kClipEps, kMaxNorm);
  const float push = options.margin * clamp(options.h * (bounded - state[0]) / (state[1] + kClipEps), -1.0f, 1.0f);
  const float theta = acosf(cosine) - push;
  const bool inside = theta >= kClipEps && theta <= kPi - kClipEps;
  const float clipped = clamp(theta, kClipEps, kPi - kClipEps);
  target.psi = cosf(clipped) - (push + options.margin);
  target.slope = inside ? sinf(clipped) / sine : 0.0f;
}

MARGIN_FN void magface(Target& target, float cosine, float sine, float norm) {
  const float bounded = clamp(norm, kMagLow, kMagHigh);
  const float rise = (kMagMarginHigh - kMagMarginLow) / (kMagHigh - kMagLow);
  const float margin = kMagMarginLow + rise * (bounded - kMagLow);
  const bool inside = norm >= kMagLow && norm <= kMagHigh;
  angular(target, cosine, sine, margin, cosf(margin), sinf(margin), true);
  target.norm_slope *= inside ? rise : 0.0f;
  target.penalty = kMagWeight * (bounded / (kMagHigh * kMagHigh) + 1.0f / bounded);
  target.penalty_slope = inside ? kMagWeight * (1.0f / (kMagHigh * kMagHigh) - 1.0f / (bounded * bounded)) : 0.0f;
}

// The target of a row with cosine c_y and norm |z|; `state` is the running state as this step uses it.
MARGIN_FN Target target_of(const Options& options, float raw_cosine, float norm, const float* state) {
  const float cosine = clamp_cosine(raw_cosine);
  const float sine = sqrtf(fmaxf((1.0f - cosine) * (1.0f + cosine), 1.17549435e-38f));
  Target target = {cosine, 1.0f, 0.0f, options.scale, 0.0f, 0.0f, 0.0f, 3.0f, 0.0f};  // no cosine is above 3
  switch (options.loss) {
    case kCosface:
      target.psi = cosine - options.margin;
      break;
    case kSphereface:
      sphereface(target, cosine, int(options.margin), state[0]);
      target.scale = clamp(norm, 0.0f, kScaleCeiling);
      target.scale_slope = norm <= kScaleCeiling ? 1.0f : 0.0f;
      break;
    case kAdaface:
      adaface(target, options, cosine, sine, norm, state);
      break;
    case kMagface:
      magface(target, cosine, sine, norm);
      break;
    case kArcface:
    case kCurricularface:
      angular(target, cosine, sine, options.margin, options.cos_margin, options.sin_margin, options.easy);
      target.norm_slope = 0.0f;
      if (options.loss == kCurricularface) {
        target.threshold = cosine * options.cos_margin - sine * options.sin_margin;
        target.t = state[0];
      }
  }
  return target;
}

// The state after a training step: from the batch's mean c_y, or mean and unbiased std of the clipped norms.
MARGIN_FN void next_state(const Options& options, float mean, float std, const float* state, float* next) {
  if (options.loss == kSphereface) next[0] = state[0] + 1.0f;
  if (options.loss == kCurricularface) next[0] = kCurriculumRate * mean + (1.0f - kCurriculumRate) * state[0];
  if (options.loss == kAdaface) {
    next[0] = options.t_alpha * mean + (1.0f - options.t_alpha) * state[0];
    next[1] = options.t_alpha * std + (1.0f - options.t_alpha) * state[1];
  }
}

// What next_state() takes the mean of: a row's clipped cosine, or its clipped norm.
MARGIN_FN float observed(const Options& options, float cosine, float norm) {
  return options.loss == kAdaface ? clamp(norm, kClipEps, kMaxNorm) : clamp_cosine(cosine);
}

// The largest of a row's negatives n_j, and the sum of exp(s (n_j - peak)) over them: S = exp(s peak) rest. `highest` is the
// largest of their cosines: c_y above it is a hit.
struct Others {
  float peak, rest, highest;
};

// How a row's loss moves, before the division by N: everything the gradient needs beside the cosines.
struct RowGradient {
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

MARGIN_FN RowGradient row_gradient(const Target& target, const Others& others) {
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

// What forward keeps of a row; backward needs no more of the loss than this, whichever loss it is. log S and c_y are also
// what a head sharded over classes would exchange.
struct Row {
  float norm, cosine, highest, log_others;  // |z|, c_y (not clamped), the largest other cosine, log of S
  RowGradient gradient;
};
constexpr int kRowNumbers = sizeof(Row) / sizeof(float);

// Completes a row once the sum over its negatives is known; returns its loss.
MARGIN_FN float finish_row(const Target& target, const Others& others, Row& row) {
  row.highest = others.highest;
  row.log_others = target.scale * others.peak + logf(others.rest);
  row.gradient = row_gradient(target, others);
  return softplus(excess_of(target, others)) + target.penalty;
}

}  // namespace margin
