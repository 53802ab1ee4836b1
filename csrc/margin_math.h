// The margins' mathematics, for the host and the device: the one place in C++ where a margin is written down.
//
// A loss is softplus(log S - s psi) with S = sum over j != y of exp(s n_j): `psi` is the target's cosine with its margin,
// `n_j` the other cosines (only CurricularFace changes them) and `s` the row's scale. The pure-torch reference,
// cifarnet/losses/margins.py, has the papers and equations; its gradients come from autograd, those here are analytic.
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

constexpr float kNormFloor = 1e-12f;  // a norm below it counts as it: a zero vector has cosine 0 and a finite gradient
constexpr float kNormCeiling = 3e38f;  // likewise a norm too large for a float
constexpr float kScaleCeiling = 1e15f;  // sphereface's scale |z| grows no further, so that its gradients stay finite
constexpr float kCosineLimit = 1.0f - 1e-7f;  // beyond it value and derivative are those at the limit
constexpr float kPi = 3.14159265358979f;
constexpr float kClipEps = 1e-3f, kMaxNorm = 100.0f;                              // AdaFace
constexpr float kCurriculumRate = 0.01f;                                          // CurricularFace
constexpr float kMagLow = 10.0f, kMagHigh = 110.0f;                               // MagFace: l_a, u_a
constexpr float kMagMarginLow = 0.45f, kMagMarginHigh = 0.8f, kMagWeight = 35.0f;  // MagFace: l_m, u_m, lambda_g
constexpr float kSphereBase = 1000.0f, kSphereDecay = 0.12f, kSphereLeast = 5.0f;  // the annealing of lambda

// The loss and its constants; the margin's cosine and sine are taken once a call.
struct Options {
  int loss;
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

MARGIN_FN float clamp(float value, float low, float high) { return fminf(fmaxf(value, low), high); }

MARGIN_FN float clamp_cosine(float cosine) { return clamp(cosine, -kCosineLimit, kCosineLimit); }

// log(1 + e^x) without overflow, and its derivative.
MARGIN_FN float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }
MARGIN_FN float sigmoid(float x) {
  const float e = expf(-fabsf(x));
  return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
}

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
  const int k = int(fminf(floorf(multiple * acosf(cosine) / kPi), multiple - 1.0f));
  const float sign = k % 2 ? -1.0f : 1.0f;
  const float blend = fmaxf(kSphereBase / (1.0f + kSphereDecay * steps), kSphereLeast);
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
      target.scale = fminf(norm, kScaleCeiling);
      target.scale_slope = norm <= kScaleCeiling ? 1.0f : 0.0f;
      break;
    case kAdaface:
      adaface(target, options, cosine, sine, norm, state);
      break;
    case kMagface:
      magface(target, cosine, sine, norm);
      break;
    default:
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

// How a row's loss moves, before the division by N: everything the gradient needs beside the cosines.
struct RowGradient {
  float scale, log_total;  // exp(scale n_j - log_total) is the probability of class j
  float threshold, t;
  float target;            // d loss / d c_y
  float norm, norm_share;  // d loss / d |z| is norm + norm_share * sum over the negatives of c_j d loss / d c_j
};

MARGIN_FN RowGradient row_gradient(const Target& target, float log_others) {
  const float excess = log_others - target.scale * target.psi;
  const float missing = sigmoid(excess);  // 1 - p_y, with all its digits
  return {target.scale,
          target.scale * target.psi + softplus(excess),
          target.threshold,
          target.t,
          -target.scale * missing * target.slope,
          -missing * (target.scale * target.norm_slope + target.scale_slope * target.psi) + target.penalty_slope,
          target.scale_slope / target.scale};
}

// What forward keeps of a row; backward needs no more of the loss than this, whichever loss it is. S^- and c_y are also what
// a head sharded over classes would exchange.
struct Row {
  float norm, cosine, log_others;  // |z|, c_y (not clamped), log of S
  float shift;                     // what the kept exponentials were divided by, as a logarithm (the CPU's)
  RowGradient gradient;
};
constexpr int kRowNumbers = sizeof(Row) / sizeof(float);

MARGIN_FN float row_loss(const Target& target, float log_others) {
  return softplus(log_others - target.scale * target.psi) + target.penalty;
}

}  // namespace margin
