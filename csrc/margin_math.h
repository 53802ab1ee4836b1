// The margins' mathematics, for the host and the device: the one place in C++ where a margin is written down.
//
// A loss is softplus(log S - s psi) with S = sum over j != y of exp(s n_j): `psi` is the target's cosine with its margin,
// `n_j` the other cosines (few losses change them) and `s` the sample's scale. S is held as its largest term and the
// rest, S = exp(s peak) rest, and cosines are subtracted before they are scaled: s (peak - psi) keeps its digits where s is
// 1e6, log S - s psi does not. The pure-torch reference, cifarnet/losses/objectives, has the papers and equations; its
// gradients come from autograd, those here are analytic.
//
// To add a loss: its struct below, and its name in `Losses` beneath them. A loss that is another's with a margin of each sample's
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
  static constexpr bool kShapesNegatives = false;  // whether shaped() may change a cosine
  static constexpr bool kMovesByNegatives = false;
  static constexpr int kPairs = -1;  // the constant that says that the smallest of the samples' margins goes to the largest c_y
  MARGIN_FN float observed(float cosine, float) { return clamp_cosine(cosine); }
  MARGIN_FN void next_state(const Options&, float, float, const float*, float*) {}
};

struct CosFace : Margin {
  static constexpr const char* kName = "cosface";
  MARGIN_FN void aim(const Options&, const Angle& angle, const float*, Target& target) {
    target.psi = angle.cosine - angle.margin;
  }
};

struct ArcFace : Margin {
  static constexpr const char* kName = "arcface";
  enum { kEasy, kConstants };
  MARGIN_FN void aim(const Options& options, const Angle& angle, const float*, Target& target) {
    const bool easy = options.constants[kEasy] != 0.0f;
    const Angular moved = angular(angle.cosine, angle.sine, angle.margin, angle.cos_margin, angle.sin_margin, easy);
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
    target.shaping.threshold = angle.cosine * angle.cos_margin - angle.sine * angle.sin_margin;
    target.shaping.square = 1.0f;
    target.shaping.linear = state[0];
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
    target.psi = cosine_of(clipped) - (push + options.margin);
    target.slope = inside ? sine_of(clipped) / angle.sine : 0.0f;
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
    const Angular moved = angular(angle.cosine, angle.sine, margin, cosine_of(margin), sine_of(margin), true);
    target.psi = moved.psi;
    target.slope = moved.slope;
    target.norm_slope = moved.margin_slope * (inside ? rise : 0.0f);
    target.penalty = kWeight * (bounded / (kHigh * kHigh) + 1.0f / bounded);
    target.penalty_slope = inside ? kWeight * (1.0f / (kHigh * kHigh) - 1.0f / (bounded * bounded)) : 0.0f;
  }
};

// s = the state, which moves by all negatives of the batch (adacos_scale() in margin_head.h).
struct AdaCos : Margin {
  static constexpr const char* kName = "adacos";
  static constexpr int kState = 1;
  static constexpr bool kMovesByNegatives = true;
  MARGIN_FN void aim(const Options&, const Angle& angle, const float* state, Target& target) {
    target.psi = angle.cosine;
    target.scale = state[0];
  }
  MARGIN_FN void next_state(const Options&, float, float, const float* state, float* next) { next[0] = state[0]; }
};

// ArcFace and CosFace with drawn margins: the state is how many steps were drawn for, and the seed.
template <typename Base>
struct Elastic : Base {
  static constexpr int kState = 2;
  enum { kEasy, kPlus, kConstants };  // kEasy is ArcFace's, and 0
  static constexpr int kPairs = kPlus;
  MARGIN_FN void next_state(const Options&, float, float, const float* state, float* next) {
    next[0] = state[0] + 1.0f;
    next[1] = state[1];
  }
};
struct ElasticArcFace : Elastic<ArcFace> {
  static constexpr const char* kName = "elastic-arcface";
};
struct ElasticCosFace : Elastic<CosFace> {
  static constexpr const char* kName = "elastic-cosface";
};

// A negative above the target with its margin counts (1+t) c + t; `easy` takes that margin off where c_y <= 0.
template <typename Base>
struct MisclassifiedVectors : Margin {
  static constexpr bool kShapesNegatives = true;
  enum { kT, kEasy, kConstants };
  MARGIN_FN void aim(const Options& options, const Angle& angle, const float*, Target& target) {
    Base::shift(angle, target);
    const float t = options.constants[kT];
    target.shaping = {target.psi, 0.0f, 1.0f + t, t, 0.0f};
    if (options.constants[kEasy] == 0.0f || angle.cosine > 0.0f) return;
    target.psi = angle.cosine;
    target.slope = 1.0f;
  }
};
struct MVArcFace : MisclassifiedVectors<MVArcFace> {
  static constexpr const char* kName = "mv-arcface";
  MARGIN_FN void shift(const Angle& angle, Target& target) {
    target.psi = angle.cosine * angle.cos_margin - angle.sine * angle.sin_margin;
    target.slope = angle.cos_margin + angle.cosine * angle.sin_margin / angle.sine;
  }
};
struct MVCosFace : MisclassifiedVectors<MVCosFace> {
  static constexpr const char* kName = "mv-cosface";
  MARGIN_FN void shift(const Angle& angle, Target& target) { target.psi = angle.cosine - angle.margin; }
};

// v0: psi = (-1)^k cos(m theta) - 2k; v1: cos(min(m theta, pi)); v2: the negatives cos(theta_j / m). All derivatives by cosines 1.
struct SphereFaceR : Margin {
  static constexpr const char* kName = "sphereface-r";
  static constexpr bool kShapesNegatives = true;
  enum { kVariant, kNorm, kWeight, kNormWeight, kConstants };
  enum { kHard, kSoft, kNone };  // kNorm: s is fixed; |z|, pulled towards s; |z|
  MARGIN_FN void aim(const Options& options, const Angle& angle, const float*, Target& target) {
    const int variant = int(options.constants[kVariant]), norm = int(options.constants[kNorm]);
    target.psi = angle.cosine;
    target.weight = options.constants[kWeight];
    const float wide = angle.margin * acosf(angle.cosine);
    if (variant == 0) {
      const int k = int(fminf(floorf(wide / kPi), angle.margin));  // of NaN a number, as an int must be
      target.psi = (k % 2 ? -1.0f : 1.0f) * cosine_of(wide) - 2.0f * k;
    } else if (variant == 1) {
      target.psi = cosine_of(clamp(wide, 0.0f, kPi));
    } else {
      target.shaping.fold = 1.0f / angle.margin;
    }
    if (norm == kHard) return;
    target.scale = clamp(angle.norm, 0.0f, SphereFace::kScaleCeiling);
    target.scale_slope = angle.norm <= SphereFace::kScaleCeiling ? 1.0f : 0.0f;
    if (norm == kNone) return;
    const float off = angle.norm - options.scale;
    target.penalty = options.constants[kNormWeight] * fabsf(off);
    target.penalty_slope = options.constants[kNormWeight] * (off > 0.0f ? 1.0f : off < 0.0f ? -1.0f : 0.0f);
  }
};

template <typename... Each>
struct List {
  static constexpr int kCount = sizeof...(Each);
};

// All losses; a loss's number is its place.
using Losses = List<CosFace, ArcFace, SphereFace, CurricularFace, AdaFace, MagFace, AdaCos, ElasticArcFace, ElasticCosFace,
                    MVArcFace, MVCosFace, SphereFaceR>;

// Calls work(loss) with the struct of the loss of this number, and not at all where there is none.
template <typename Work, typename... Each>
MARGIN_FN void with_loss(int number, List<Each...>, const Work& work) {
  int place = 0;
  ((place++ == number ? work(Each()) : void()), ...);
}

}  // namespace

// The target of sample i with cosine c_y and norm |z|; `state` is the running state as this step uses it.
MARGIN_FN Target target_of(const Options& options, float raw_cosine, float norm, const float* state, const OfSamples& own,
                           int64_t i) {
  const float cosine = clamp_cosine(raw_cosine), sine = sqrtf(fmaxf((1.0f - cosine) * (1.0f + cosine), 1.17549435e-38f));
  Angle angle = {cosine, sine, norm, options.margin, options.cos_margin, options.sin_margin};
  if (own.margins) {
    angle.margin = own.margins[i];
    angle.cos_margin = cosine_of(angle.margin);
    angle.sin_margin = sine_of(angle.margin);
  }
  Target target;
  target.scale = options.scale;
  with_loss(options.loss, Losses(), [&](auto loss) { loss.aim(options, angle, state, target); });
  if (own.weights) target.weight *= own.weights[i];
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
