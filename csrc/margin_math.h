// The margins' mathematics, for the host and the device: the one place in C++ where a margin is written down.
//
// A loss is softplus(log S - s psi) with S = sum over j != y of exp(s n_j): `psi` is the target's cosine with its margin,
// `n_j` the other cosines (few losses change them) and `s` the sample's scale. S is held as its largest term and the
// rest, S = exp(s peak) rest, and cosines are subtracted before they are scaled: s (peak - psi) keeps its digits where s is
// 1e6, log S - s psi does not. The pure-torch reference, cifarnet/losses/objectives, has the papers and equations; its
// gradients come from autograd, those here are analytic.
//
// To add a loss: its struct in margin_losses.h, and its name in `Losses` beneath them. A loss that is another's with a margin of each sample's
// own (LDAM, KappaFace) needs neither: see `Kernel` in objectives/base.py.
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
constexpr int kFewClasses = 64;  // up to here our own products are about as fast as the library's, or faster

// The loss's number, scale and margin, and its other constants in the order of its row; a loss's enum names their places. The
// margin's cosine and sine are taken once a call.
struct Options {
  int loss;
  float scale, margin, cos_margin, sin_margin;
  float constants[kMostConstants];
};

// What a margin sees of a sample: c_y, clamped; sin(theta_y), positive; |z|; its margin m with cosine and sine.
struct Angle {
  float cosine, sine, norm, margin, cos_margin, sin_margin;
};

// What samples may have of their own, each [N] or null: their margins, and the weights of their softmax part.
struct OfSamples {
  const float *margins, *weights;
};

// n_j of a negative with cosine c: c itself, or above the threshold c (square c + linear) + constant. Where `fold` is not 0, it is
// cos(fold theta_j), and its derivative is taken for 1.
struct Shaping {
  float threshold = 3.0f, square = 0.0f, linear = 0.0f, constant = 0.0f, fold = 0.0f;  // no cosine is above 3
};
MARGIN_FN bool shapes(const Shaping& shaping) { return shaping.threshold < 3.0f || shaping.fold != 0.0f; }

// What a margin makes of it: the target psi with its derivatives, the scale, and a penalty added to the loss.
struct Target {
  float psi = NAN, slope = 1.0f, norm_slope = 0.0f;  // psi (each loss sets it), d psi / d c_y, d psi / d |z|
  float scale = 0.0f, scale_slope = 0.0f;            // s and 0, or |z| and 1
  float weight = 1.0f;                               // of the softmax part
  float penalty = 0.0f, penalty_slope = 0.0f;        // added to the loss, and its derivative by |z|
  Shaping shaping;                                   // of the negatives
};

MARGIN_FN float clamp(float value, float low, float high) { return value < low ? low : value > high ? high : value; }

MARGIN_FN float clamp_cosine(float cosine) { return clamp(cosine, -kCosineLimit, kCosineLimit); }

// 1 / norm, and 0 for a vector without a direction.
MARGIN_FN float inverse_of(float norm) { return norm <= kNormFloor ? 0.0f : 1.0f / norm; }

// cos(x) and sin(x) of an angle of a few turns at most: a GPU's cosf has a slow path for any, which takes registers.
MARGIN_FN float cosine_of(float x) {
#ifdef __CUDA_ARCH__
  return cospif(x * 0.318309886f);
#else
  return cosf(x);
#endif
}
MARGIN_FN float sine_of(float x) {
#ifdef __CUDA_ARCH__
  return sinpif(x * 0.318309886f);
#else
  return sinf(x);
#endif
}

// n_j without `fold`, and d n_j / d c. Real is a float, or a vector of them.
template <typename Real>
MARGIN_FN Real curved(Real c, const Shaping& shaping) {
  return c > shaping.threshold ? c * (c * shaping.square + shaping.linear) + shaping.constant : c;
}
template <typename Real>
MARGIN_FN Real curved_slope(Real c, const Shaping& shaping) {
  return c > shaping.threshold ? c * (2.0f * shaping.square) + shaping.linear : Real{} + 1.0f;
}
// n_j and d n_j / d c of any shaping.
MARGIN_FN float shaped(float c, const Shaping& shaping) {
  return shaping.fold != 0.0f ? cosine_of(shaping.fold * acosf(c)) : curved(c, shaping);
}
MARGIN_FN float shaped_slope(float c, const Shaping& shaping) {
  return shaping.fold != 0.0f ? 1.0f : curved_slope(c, shaping);
}

namespace {  // objects built for different instruction sets must not share a copy

// psi = cos(theta + m); past theta + m = pi the line c - m sin(m), or with `easy` c itself where c <= 0. No theta is past it
// with m <= 0, which a drawn margin can be, and each is with m >= pi.
struct Angular {
  float psi, slope, margin_slope;  // d psi / d c_y, d psi / d m
};
MARGIN_FN Angular angular(float cosine, float sine, float margin, float cos_m, float sin_m, bool easy) {
  const float least = margin <= 0.0f ? -1.0f : margin >= kPi ? 1.0f : -cos_m;
  if (cosine > (easy ? 0.0f : least))
    return {cosine * cos_m - sine * sin_m, cos_m + cosine * sin_m / sine, -cosine * sin_m - sine * cos_m};
  return {easy ? cosine : cosine - margin * sin_m, 1.0f, 0.0f};
}

// What a loss has unless it says otherwise. A running state follows the mean and the unbiased standard deviation, over a batch,
// of what is observed of each sample.
struct Margin {
  static constexpr int kState = 0;               // numbers of running state
  static constexpr int kConstants = 0;           // constants besides scale and margin
  static constexpr bool kShapesNegatives = false;  // whether shaped() may change a cosine
  static constexpr bool kMovesByNegatives = false;
  static constexpr bool kTurns = false;  // whether it needs the margin's cosine and sine
  static constexpr int kPairs = -1;  // the constant that says that the smallest of the samples' margins goes to the largest c_y
  MARGIN_FN float observed(float cosine, float) { return clamp_cosine(cosine); }
  MARGIN_FN void next_state(const Options&, float, float, const float*, float*) {}
};

}  // namespace
}  // namespace margin
