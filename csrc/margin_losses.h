// The losses' structs, and what is asked of any of them by its number (see margin_math.h).
#pragma once

#include "margin_math.h"

namespace margin {
namespace {

struct CosFace : Margin {
  static constexpr const char* kName = "cosface";
  MARGIN_FN void aim(const Options&, const Angle& angle, const float*, Target& target) {
    target.psi = angle.cosine - angle.margin;
  }
};

struct ArcFace : Margin {
  static constexpr const char* kName = "arcface";
  static constexpr bool kTurns = true;
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
  static constexpr bool kTurns = true;
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

constexpr float kLeastScale = 0.01f;  // AdaCos's s stays positive, also where prototypes have fallen together

// s = the state, which moves by all negatives of the batch (adacos_scale()).
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
  static constexpr bool kTurns = true;
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
  if (own.margins) angle.margin = own.margins[i];
  Target target;
  target.scale = options.scale;
  with_loss(options.loss, Losses(), [&](auto loss) {
    if (loss.kTurns && own.margins) {
      angle.cos_margin = cosine_of(angle.margin);
      angle.sin_margin = sine_of(angle.margin);
    }
    loss.aim(options, angle, state, target);
  });
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
