// The loops over rows of a matrix that the CPU kernels are made of. margin_rows.cpp is compiled once for each instruction set
// and fills this table; instruction_sets.cpp chooses one at run time. Plain pointers only: nothing inline from elsewhere may
// be compiled with an instruction set that the machine might lack.
//
// Vectors end where they end: no loop reads or writes past `size`. Unit vectors of the few-classes regime stand `stride` apart,
// a multiple of kLanes with zeros behind `size`.
#pragma once

#include <stdint.h>

#include "one_vs_all.h"
#include "sample_loss.h"

namespace margin {

constexpr int64_t kLanes = 16;
constexpr int64_t kRowTile = 8;  // rows whose products with a prototype are taken together

constexpr int kMostCentres = 10;        // prototypes a class
constexpr float kNoNegative = -3e38f;  // so far below every cosine that its exponential is 0 at any scale, and yet finite

enum class Type : int { kFloat, kBFloat16, kHalf };

// `count` rows of `size` entries, one after the other.
struct Rows {
  const void* data;
  Type type;
  int64_t count, size;
};

// The unit vectors of few classes [classes, stride], fp32.
struct Prototypes {
  const float* unit;
  int64_t classes, stride;
};

// How a sample's products become logits: c = factor times the product (and each class's own), n = shaped(c, shaping), then
// scale n.
struct Logits {
  float factor, scale;
  Shaping shaping;
};

// A sample's products with `count` classes: c_j is product[j] times inverse[j] (null: 1). `times`: how many classes each drawn one
// stands for (null: 1). `own`: the label's place, outside [0, count) if elsewhere. `centres`: how many prototypes in a row are one
// class's; where there are several, keep_nearest() has to be called first.
struct ClassRow {
  const float *product, *inverse, *times;
  int64_t count, own, centres;
};

// How a sample's cosines become one-vs-all logits, f_j = scale g(c_j) + shift, and what the derivative by f_j is multiplied with.
struct OtherLogits {
  float scale, shift, pull;
  Spread spread;
};

// Sums over a sample's other classes, of sp(f_j), of its derivatives, and of c_j times what went into `out`; the largest c_j.
struct OtherClasses {
  float loss, chance, along, highest;
};

struct RowLoops {
  const char* name;

  // norm [count] = |in|, any magnitude; kNormFloor for a row that has no direction, NaN where an entry is not finite.
  void (*lengths)(Rows in, float* norm);

  // unit [count, stride] = in / |in| (0 without a direction), zeros up to the stride, and norm [count].
  void (*normalize)(Rows in, int64_t stride, float* unit, float* norm);

  // Few classes: norm [count] = |in| and cosine [count, classes] = in / |in| . unit[class], for at most kRowTile rows.
  void (*cosines)(Rows in, Prototypes prototypes, float* norm, float* cosine);

  // Few classes, the products being cosines: grad[j] = factor * d loss / d c_j of a sample. Returns the sum over the negatives of
  // c_j grad[j].
  float (*gradient)(const ClassRow& row, const SampleGradient& sample, float factor, float* grad);

  // Few classes: out = sum over c of grad[c] unit[c] + along in, of the type of `in`, and sums[c] += grad[c] in. Without out or
  // sums (null) that half is left out.
  void (*accumulate_grads)(Rows in, Prototypes prototypes, const float* along, const float* grad, void* out, float* sums);

  // In the place of the products, `factor` times these: of each class the cosine of its nearest prototype, the first of equals.
  // The class's others, and all of the label's class, are no negatives and become kNoNegative.
  void (*keep_nearest)(const ClassRow& row, float factor, float* product);

  // The largest n among the negatives, -3e38 without any, and into `highest` the largest of their cosines, c_j times the
  // factor of the logits.
  float (*max_logit)(const ClassRow& row, const Logits& logits, float* highest);

  // The sum of times[j] exp(scale (n - peak)) over the same negatives. Into `out`, if it is not null (it may be the products),
  // goes what backward multiplies with: that term times d n_j / d c_j times inverse[j], and zero at the label. Into `moment`, if
  // it is not null, the sum of the terms times n - peak.
  float (*exp_sum)(const ClassRow& row, const Logits& logits, float peak, float* out, float* moment);

  // One-vs-all, of the classes but the label's. Into `out`, if it is not null (it may be the products), goes times[j] times the
  // derivative by c_j times inverse[j], and zero at the label.
  OtherClasses (*other_classes)(const ClassRow& row, const OtherLogits& logits, float* out);

  float (*dot)(const float* a, const float* b, int64_t size);

  // y [size] = a x + b y, for x of any type; y is not read where b is 0.
  void (*axpby)(float a, const void* x, Type type, float b, float* y, int64_t size);

  // The backward of a normalisation: out = (h - (h . x) pull x) inverse + along x; out may be h.
  void (*project)(const float* h, const float* x, float pull, float inverse, float along, int64_t size, void* out, Type type);

  // sum [count] += part [count].
  void (*add)(const float* part, int64_t count, float* sum);
};

const RowLoops& row_loops_plain();
#ifdef MARGIN_X86
const RowLoops& row_loops_avx2();
const RowLoops& row_loops_avx512();
#endif

}  // namespace margin
