// The loops over rows that the CPU kernels are made of. margin_rows.cpp is compiled once for each instruction set and
// fills this table; margin_head_cpu.cpp chooses one at run time. Plain pointers only: nothing inline from elsewhere may
// be compiled with an instruction set that the machine might lack.
//
// Vectors come padded: `padded` is D rounded up to kLanes, the rest zero, so that no loop over D has a tail.
#pragma once

#include <stdint.h>

#include "margin_math.h"

namespace margin {

constexpr int64_t kLanes = 16;
constexpr int64_t kRowTile = 4;  // rows whose products with a prototype are taken together

enum class Type : int { kFloat, kBFloat16, kHalf };

struct Rows {
  const char* name;

  // unit [rows, padded] = in [rows, size] / |in|, norm [rows]; any finite magnitude.
  void (*normalize)(const void* in, Type type, int64_t rows, int64_t size, int64_t padded, float* unit, float* norm);

  // out[r, c] = left[r] . right[c], out with `stride` between its rows; left holds a multiple of kRowTile rows.
  void (*products)(const float* left, int64_t rows, const float* right, int64_t classes, int64_t padded, float* out,
                   int64_t stride);

  // Adds the negatives among cosines of the classes [first, first + count) to log-sum-exp's running maximum and sum.
  void (*accumulate)(const float* cosine, int64_t count, int64_t own, const Target& target, float* largest, float* sum);

  // grad[j] = factor * d loss / d c_j for the same classes (own: the label's place, outside [0, count) if elsewhere).
  // Returns the sum over the negatives of c_j grad[j].
  float (*gradient)(const float* cosine, int64_t count, int64_t own, const RowGradient& row, float factor, float* grad);

  // sum [padded] = sum over c of coefficient[c] * vectors[c].
  void (*combine)(const float* coefficient, const float* vectors, int64_t count, int64_t padded, float* sum);

  // sums[c] += sum over r of coefficient[r, c] * vectors[r], r within a tile of kRowTile rows.
  void (*accumulate_outer)(const float* coefficient, const float* vectors, int64_t classes, int64_t padded, float* sums);

  float (*dot)(const float* a, const float* b, int64_t padded);

  // The backward of normalize(): out [size] = (h - (h . unit) unit) / norm + along * unit, with no projection at
  // the norm's floor; out may be h.
  void (*project)(const float* h, const float* unit, float norm, float along, int64_t size, int64_t padded, void* out,
                  Type type);

  // sum [count] += part [count].
  void (*add)(const float* part, int64_t count, float* sum);
};

const Rows& rows_plain();
#ifdef MARGIN_X86
const Rows& rows_avx2();
const Rows& rows_avx512();
#endif

}  // namespace margin
