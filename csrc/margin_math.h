// The margins' mathematics, for the host and the device: the one place in C++ where a margin is written down.
//
// A loss is softplus(log S - s psi) with S = sum over j != y of exp(s n_j): `psi` is the target's cosine with its margin,
// `n_j` the other cosines (only CurricularFace changes them) and `s` the sample's scale. S is held as its largest term and the
// rest, S = exp(s peak) rest, and cosines are subtracted before they are scaled: s (peak - psi) keeps its digits where s is
// 1e6, log S - s psi does not. The pure-torch reference, cifarnet/losses/margins.py, has the papers and equations; its
// gradients come from autograd, those here are analytic.
//
// To add a loss: its struct below, and its name in `Losses` beneath them.
//
// NaN in is NaN out: no minimum or maximum here drops one (fminf and fmaxf do).
#pragma once

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define MARGIN_FN static __host__ __device__ __forceinline__
#else
#define MARGIN_FN static inline
#endif

namespace margin {

constexpr float kNormFloor = 1e-31f;  // a vector as short has no direction: its cosines and its gradient are 0
constexpr float kNormCeiling = 3e38f;  // a norm too large for a float counts as it
constexpr float kCosineLimit = 1.0f - 1e-7f;  // beyond it value and derivative are those at the limit
constexpr float kPi = 3.14159265358979f;

constexpr int kMostConstants = 4;

// The loss's number, scale and margin, and its other constants in the order of its row; a loss's enum names their places. The
// margin's cosine and sine are taken once a call.
struct Options {
  int loss;
  float scale, margin, cos_margin, sin_margin;
  float constants[kMostConstants];
};

// What a margin sees of a sample: c_y, clamped; sin(theta_y), positive; |z|.
struct Angle {
  float cosine, sine, norm;
};

// What a margin makes of it: the target psi with its derivatives, the scale, and a penalty added to the loss.
struct Target {
  float psi = NAN, slope = 1.0f, norm_slope = 0.0f;  // psi (each loss sets it), d psi / d c_y, d psi / d |z|
  float scale = 0.0f, scale_slope = 0.0f;            // s and 0, or for SphereFace |z| and 1
  float penalty = 0.0f, penalty_slope = 0.0f;        // MagFace's regulariser and its derivative by |z|
  float threshold = 3.0f, t = 0.0f;                  // of the negatives, see shaped(); no cosine is above 3
};

MARGIN_FN float clamp(float value, float low, float high) { return value < low ? low : value > high ? high : value; }

MARGIN_FN float clamp_cosine(float cosine) { return clamp(cosine, -kCosineLimit, kCosineLimit); }

// 1 / norm, and 0 for a vector without a direction.
MARGIN_FN float inverse_of(float norm) { return norm <= kNormFloor ? 0.0f : 1.0f / norm; }

// n_j of a negative with cosine c: c itself, or c (t + c) above the threshold (CurricularFace, eq. 9). Real is a float, or a
// vector of them.
template <typename Real>
MARGIN_FN Real shaped(Real c, float threshold, float t) {
  return c > threshold ? c * (c + t) : c;
}
// d n_j / d c.
template <typename Real>
MARGIN_FN Real shaped_slope(Real c, float threshold, float t) {
  return c > threshold ? c * 2.0f + t : Real{} + 1.0f;
}

namespace {  // objects built for different instruction sets must not share a copy

// psi = cos(theta + m); past theta + m = pi the line c - m sin(m), or with `easy` c itself where c <= 0.
struct Angular {
  float psi, slope, margin_slope;  // d psi / d c_y, d psi / d m
};
MARGIN_FN Angular angular(float cosine, float sine, float margin, float cos_m, float sin_m, bool easy) {
  if (easy ? cosine > 0.0f : cosine > -cos_m)
    return {cosine * cos_m - sine * sin_m, cos_m + cosine * sin_m / sine, -cosine * sin_m - sine * cos_m};
  return {easy ? cosine : cosine - margin * sin_m, 1.0f, 0.0f};
}

// What a loss has unless it says otherwise. A running state follows the mean and the unbiased standard deviation, over a batch,
// of what is observed of each sample.
struct Margin {
  static constexpr int kState = 0;               // numbers of running state
  static constexpr int kConstants = 0;           // constants besides scale and margin
  static constexpr bool kShapesNegatives = false;  // whether shaped() changes a cosine
  MARGIN_FN float observed(float cosine, float) { return clamp_cosine(cosine); }
  MARGIN_FN void next_state(const Options&, float, float, const float*, float*) {}
};

struct CosFace : Margin {
  static constexpr const char* kName = "cosface";
  MARGIN_FN void aim(const Options& options, const Angle& angle, const float*, Target& target) {
    target.psi = angle.cosine - options.margin;
  }
};

struct ArcFace : Margin {
  static constexpr const char* kName = "arcface";
  enum { kEasy, kConstants };
  MARGIN_FN void aim(const Options& options, const Angle& angle, const float*, Target& target) {
    const Angular moved =
        angular(angle.cosine, angle.sine, options.margin, options.cos_margin, options.sin_margin,
                options.constants[kEasy] != 0.0f);
    target.psi = moved.psi;
    target.slope = moved.slope;
  }
};

// psi = (lambda c + (-1)^k cos(m theta) - 2k) / (1 + lambda); cos(m theta) and its derivative by Chebyshev's recurrence.
struct SphereFace : Margin {
  static constexpr const char* kName = "sphereface";
  static constexpr int kState = 1;  // the steps so far
  static constexpr float kBase = 1000.0f, kDecay = 0.12f, kLeast = 5.0f;  // the annealing of lambda
  static constexpr float kScaleCeiling = 1e31f;  // the scale |z| grows no further, so that its gradients stay finite
  MARGIN_FN void aim(const Options& options, const Angle& angle, const float* state, Target& target) {
    const int multiple = int(options.margin);
    const float cosine = angle.cosine;
    float lower = 1.0f, current = cosine, lower_slope = 0.0f, slope = 1.0f;
    for (int i = 1; i < multiple; ++i) {
      const float next = 2.0f * cosine * current - lower;
      const float next_slope = 2.0f * current + 2.0f * cosine * slope - lower_slope;
      lower = current;
      current = next;
      lower_slope = slope;
      slope = next_slope;
    }
    const int k = int(fminf(floorf(multiple * acosf(cosine) / kPi), multiple - 1.0f));  // of NaN a number, as an int must be
    const float sign = k % 2 ? -1.0f : 1.0f;
    const float lambda = clamp(kBase / (1.0f + kDecay * state[0]), kLeast, kBase);
    target.psi = (lambda * cosine + sign * current - 2.0f * k) / (1.0f + lambda);
    target.slope = (lambda + sign * slope) / (1.0f + lambda);
    target.scale = clamp(angle.norm, 0.0f, kScaleCeiling);
    target.scale_slope = angle.norm <= kScaleCeiling ? 1.0f : 0.0f;
  }
  MARGIN_FN void next_state(const Options&, float, float, const float* state, float* next) { next[0] = state[0] + 1.0f; }
};

struct CurricularFace : Margin {
  static constexpr const char* kName = "curricularface";
  static constexpr int kState = 1;  // t, the running mean of c_y
  static constexpr bool kShapesNegatives = true;
  static constexpr float kRate = 0.01f;
  MARGIN_FN void aim(const Options& options, const Angle& angle, const float* state, Target& target) {
    ArcFace::aim(options, angle, state, target);
    target.threshold = angle.cosine * options.cos_margin - angle.sine * options.sin_margin;
    target.t = state[0];
  }
  MARGIN_FN void next_state(const Options&, float mean, float, const float* state, float* next) {
    next[0] = kRate * mean + (1.0f - kRate) * state[0];
  }
};

// psi = cos(clip(theta - m q)) - (m q + m), q the norm's distance from its running mean, in h / std, within [-1, 1].
struct AdaFace : Margin {
  static constexpr const char* kName = "adaface";
  static constexpr int kState = 2;  // the running mean and standard deviation of the norms
  static constexpr float kClipEps = 1e-3f, kMaxNorm = 100.0f;
  enum { kH, kRate, kConstants };  // h, t_alpha
  MARGIN_FN void aim(const Options& options, const Angle& angle, const float* state, Target& target) {
    const float bounded = observed(angle.cosine, angle.norm);
    const float quality = options.constants[kH] * (bounded - state[0]) / (state[1] + kClipEps);
    const float push = options.margin * clamp(quality, -1.0f, 1.0f);
    const float theta = acosf(angle.cosine) - push;
    const bool inside = theta >= kClipEps && theta <= kPi - kClipEps;
    const float clipped = clamp(theta, kClipEps, kPi - kClipEps);
    target.psi = cosf(clipped) - (push + options.margin);
    target.slope = inside ? sinf(clipped) / angle.sine : 0.0f;
  }
  MARGIN_FN float observed(float, float norm) { return clamp(norm, kClipEps, kMaxNorm); }
  MARGIN_FN void next_state(const Options& options, float mean, float std, const float* state, float* next) {
    const float rate = options.constants[kRate];
    next[0] = rate * mean + (1.0f - rate) * state[0];
    next[1] = rate * std + (1.0f - rate) * state[1];
  }
};

struct MagFace : Margin {
  static constexpr const char* kName = "magface";
  static constexpr float kLow = 10.0f, kHigh = 110.0f;                          // l_a, u_a
  static constexpr float kMarginLow = 0.45f, kMarginHigh = 0.8f, kWeight = 35.0f;  // l_m, u_m, lambda_g
  MARGIN_FN void aim(const Options&, const Angle& angle, const float*, Target& target) {
    const float bounded = clamp(angle.norm, kLow, kHigh);
    const float rise = (kMarginHigh - kMarginLow) / (kHigh - kLow);
    const float margin = kMarginLow + rise * (bounded - kLow);
    const bool inside = angle.norm >= kLow && angle.norm <= kHigh;
    const Angular moved = angular(angle.cosine, angle.sine, margin, cosf(margin), sinf(margin), true);
    target.psi = moved.psi;
    target.slope = moved.slope;
    target.norm_slope = moved.margin_slope * (inside ? rise : 0.0f);
    target.penalty = kWeight * (bounded / (kHigh * kHigh) + 1.0f / bounded);
    target.penalty_slope = inside ? kWeight * (1.0f / (kHigh * kHigh) - 1.0f / (bounded * bounded)) : 0.0f;
  }
};

template <typename... Each>
struct List {
  static constexpr int kCount = sizeof...(Each);
};

// All losses; a loss's number is its place.
using Losses = List<CosFace, ArcFace, SphereFace, CurricularFace, AdaFace, MagFace>;

// Calls work(loss) with the struct of the loss of this number, and not at all where there is none.
template <typename Work, typename... Each>
MARGIN_FN void with_loss(int number, List<Each...>, const Work& work) {
  int place = 0;
  ((place++ == number ? work(Each()) : void()), ...);
}

}  // namespace

// The target of a sample with cosine c_y and norm |z|; `state` is the running state as this step uses it.
MARGIN_FN Target target_of(const Options& options, float raw_cosine, float norm, const float* state) {
  const float cosine = clamp_cosine(raw_cosine);
  const Angle angle = {cosine, sqrtf(fmaxf((1.0f - cosine) * (1.0f + cosine), 1.17549435e-38f)), norm};
  Target target;
  target.scale = options.scale;
  with_loss(options.loss, Losses(), [&](auto loss) { loss.aim(options, angle, state, target); });
  return target;
}

// The state after a training step, from the batch's mean and standard deviation of what is observed.
MARGIN_FN void next_state(const Options& options, float mean, float std, const float* state, float* next) {
  with_loss(options.loss, Losses(), [&](auto loss) { loss.next_state(options, mean, std, state, next); });
}

// What the state follows of a sample.
MARGIN_FN float observed(const Options& options, float cosine, float norm) {
  float value = NAN;
  with_loss(options.loss, Losses(), [&](auto loss) { value = loss.observed(cosine, norm); });
  return value;
}

}  // namespace margin
