// As many floats at a time as a register holds, for margin_rows.cpp alone: the compiler's own vector type, typed loads and stores,
// e^x. Everything has internal linkage, since objects built for different instruction sets must not share a copy.
//
// A vector wider than a register would stand in memory between any two operations (gcc takes it apart and leaves the parts
// there): on AVX2 that was six times the time. So sums have another order on each instruction set.
//
// Why not a library: at::vec's e^x is another on each instruction set (Sleef's, or the C library's), and its headers bring c10's
// inline functions into objects that the machine may be unable to run. Highway is not among torch's headers.
#pragma once

#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "margin_rows.h"

namespace margin {
namespace {

#if defined(__AVX512F__)
constexpr int64_t kWidth = 16;
#elif defined(__AVX2__)
constexpr int64_t kWidth = 8;
#else
constexpr int64_t kWidth = 4;
#endif
static_assert(kLanes % kWidth == 0);

constexpr int kVecBytes = int(kWidth * sizeof(float));
typedef float Vec __attribute__((vector_size(kVecBytes)));
typedef float LooseVec __attribute__((vector_size(kVecBytes), aligned(4)));
typedef int32_t Int __attribute__((vector_size(kVecBytes)));
typedef uint32_t Bits __attribute__((vector_size(kVecBytes)));
typedef uint16_t Short __attribute__((vector_size(kVecBytes / 2)));

// The numbers 0, 1, ... of a vector's entries.
inline Int lanes() {
  Int lane{};
  for (int i = 0; i < kWidth; ++i) lane[i] = i;
  return lane;
}

inline Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<LooseVec*>(p) = v; }
inline Vec splat(float x) { return Vec{} + x; }

// Where one of them is NaN, a. It is one instruction, but gcc makes a comparison and a choice of `b > a ? b : a`; the forms with a
// mask do not read the undefined register of which it warns.
#if defined(__AVX512F__)
inline Vec larger(Vec a, Vec b) { return Vec(_mm512_maskz_max_ps(0xFFFF, __m512(b), __m512(a))); }
inline Vec smaller(Vec a, Vec b) { return Vec(_mm512_maskz_min_ps(0xFFFF, __m512(b), __m512(a))); }
#elif defined(__AVX2__)
inline Vec larger(Vec a, Vec b) { return Vec(_mm256_max_ps(__m256(b), __m256(a))); }
inline Vec smaller(Vec a, Vec b) { return Vec(_mm256_min_ps(__m256(b), __m256(a))); }
#else
inline Vec larger(Vec a, Vec b) { return b > a ? b : a; }
inline Vec smaller(Vec a, Vec b) { return b < a ? b : a; }
#endif

// The first `count` floats of p; the other lanes are zero and not read.
inline Vec load_part(const float* p, int64_t count) {
  if (count >= kWidth) return load(p);
#if defined(__AVX512F__)
  return Vec(_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1u), p));
#elif defined(__AVX2__)
  return Vec(_mm256_maskload_ps(p, __m256i(lanes() < int32_t(count))));
#else
  Vec v{};
  memcpy(&v, p, count * sizeof(float));
  return v;
#endif
}
inline void store_part(float* p, Vec v, int64_t count) {
  if (count >= kWidth) return store(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, __mmask16((1u << count) - 1u), __m512(v));
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, __m256i(lanes() < int32_t(count)), __m256(v));
#else
  memcpy(p, &v, count * sizeof(float));
#endif
}

// The halves of a vector joined until one number is left. By shuffles, not copies: gcc would take these through memory. Its version
// 11, that of Ubuntu 22.04, has no __builtin_shufflevector.
typedef float Four __attribute__((vector_size(16)));
template <typename Join>
inline float joined(const Four& v, const Join& join) {
  return join(join(v[0], v[2]), join(v[1], v[3]));
}
#ifdef __AVX2__
typedef float Eight __attribute__((vector_size(32)));
template <typename Join>
inline float joined(const Eight& v, const Join& join) {
  return joined(join(Four(_mm256_castps256_ps128(__m256(v))), Four(_mm256_extractf128_ps(__m256(v), 1))), join);
}
#endif
#ifdef __AVX512F__
template <typename Join>
inline float joined(const Vec& v, const Join& join) {
  const Eight low = Eight(_mm512_maskz_extractf32x8_ps(0xFF, __m512(v), 0));
  const Eight high = Eight(_mm512_maskz_extractf32x8_ps(0xFF, __m512(v), 1));
  return joined(join(low, high), join);
}
#endif
inline float total(Vec v) {
  return joined(v, [](auto a, auto b) { return a + b; });
}
#ifdef __AVX512F__
// Four totals at a time take less than half as many instructions. kBlocks chooses two blocks of four floats of a, then two of b,
// kFloats the floats of each block.
template <int kBlocks>
inline Vec blocks_of(Vec a, Vec b) {
  return Vec(_mm512_maskz_shuffle_f32x4(0xFFFF, __m512(a), __m512(b), kBlocks));
}
template <int kFloats>
inline Vec within_blocks(Vec v) {
  return Vec(_mm512_maskz_permute_ps(0xFFFF, __m512(v), kFloats));
}
inline void totals(const Vec (&v)[4], float* out) {
  const Vec ab = blocks_of<0x44>(v[0], v[1]) + blocks_of<0xEE>(v[0], v[1]);  // the lower halves and the upper ones
  const Vec cd = blocks_of<0x44>(v[2], v[3]) + blocks_of<0xEE>(v[2], v[3]);
  const Vec fours = blocks_of<0x88>(ab, cd) + blocks_of<0xDD>(ab, cd);
  const Vec twos = fours + within_blocks<0x4E>(fours), ones = twos + within_blocks<0xB1>(twos);
  for (int i = 0; i < 4; ++i) out[i] = ones[4 * i];
}
#endif
// out[i] = total(v[i]), with the same bits.
template <int kCount>
inline void totals(const Vec (&v)[kCount], float* out) {
  for (int i = 0; i < kCount; ++i) out[i] = total(v[i]);
}
inline float highest(Vec v) {
  return joined(v, [](auto a, auto b) { return a > b ? a : b; });
}

// e^x of x <= 0 to 1 unit in the last place or so; Cody-Waite and a polynomial. Above 0, where rounding can bring an exponent
// if the scale is huge, it is 1; below -87.3, where it is under 1e-38, it is 0; of NaN it is NaN.
__attribute__((always_inline)) inline Vec exponential(Vec power) {
  const Vec x = smaller(larger(power, splat(-87.3f)), Vec{});
  const float magic = 12582912.0f;  // adding it rounds to an integer, which stands in the low bits
  const Vec shifted = x * 1.44269504f + magic;
  const Vec n = shifted - magic;
  const Vec r = x - n * 0.693145752f - n * 1.42860677e-6f;
  Vec p = r * 1.98756915e-4f + 1.39819995e-3f;
  p = p * r + 8.33345190e-3f;
  p = p * r + 4.16657958e-2f;
  p = p * r + 1.66666655e-1f;
  p = p * r + 5.00000012e-1f;
  p = p * r * r + r + 1.0f;
  const Vec two_to_n = Vec((Bits(shifted) - (0x4B400000u - 127u)) << 23);
  return power < -87.3f ? Vec{} : p * two_to_n;
}

// cos(fold acos(c)) of |c| < 1 and fold in (0, 1], to 1e-7. acos by Abramowitz and Stegun 4.4.46; the cosine as the sine of
// pi/2 less the angle, which is within pi/2 of zero. Of NaN it is NaN.
inline Vec folded(Vec c, float fold) {
  const Vec x = c < 0.0f ? -c : c;
  Vec p = x * -0.0012624911f + 0.0066700901f;
  p = p * x - 0.0170881256f;
  p = p * x + 0.0308918810f;
  p = p * x - 0.0501743046f;
  p = p * x + 0.0889789874f;
  p = p * x - 0.2145988016f;
  p = p * x + 1.5707963050f;
  Vec root;
  for (int i = 0; i < kWidth; ++i) root[i] = __builtin_sqrtf(1.0f - x[i]);
  const Vec acute = p * root, half_pi = splat(1.57079633f);
  const Vec a = half_pi - (c < 0.0f ? 3.14159265f - acute : acute) * fold, square = a * a;
  Vec s = square * -2.3889859e-8f + 2.7525562e-6f;
  s = s * square - 1.9840874e-4f;
  s = s * square + 8.3333310e-3f;
  s = s * square - 1.6666667e-1f;
  return a + a * square * s;
}

inline float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16, magnitude = h & 0x7FFFu;
  float value;
  if (magnitude < 0x400u) {
    value = magnitude * 5.9604644775390625e-8f;  // subnormal: times 2^-24
  } else {
    const uint32_t bits = magnitude >= 0x7C00u ? 0x7F800000u | (magnitude << 13) : (magnitude << 13) + (112u << 23);
    memcpy(&value, &bits, sizeof(value));
  }
  return sign ? -value : value;
}

// Rounds to nearest even; from 65520 on it is infinite, so that a gradient's overflow is seen.
inline uint16_t float_to_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  const uint16_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7FFFFFFFu;
  if (bits > 0x7F800000u) return sign | 0x7E00u;  // NaN
  if (bits >= 0x47800000u) return sign | 0x7C00u;  // from 2^16 on
  if (bits < (113u << 23)) {  // subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits
    float shifted;
    memcpy(&shifted, &bits, sizeof(shifted));
    shifted += 0.5f;
    memcpy(&bits, &shifted, sizeof(bits));
    return sign | uint16_t(bits - (126u << 23));
  }
  bits += 0xFFFu + ((bits >> 13) & 1u);
  return sign | uint16_t((bits - (112u << 23)) >> 13);
}

inline Vec widen(Short bits, Type type) {
  if (type == Type::kBFloat16) {
    return Vec(__builtin_convertvector(bits, Bits) << 16);
  }
  Vec v;
#ifdef __F16C__
  for (int i = 0; i < kWidth; i += 8) {
    const __m256 eight = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(&bits) + i / 8));
    memcpy(reinterpret_cast<float*>(&v) + i, &eight, sizeof(eight));
  }
#else
  for (int i = 0; i < kWidth; ++i) v[i] = half_to_float(bits[i]);
#endif
  return v;
}

inline Short narrow(Vec v, Type type) {
  if (type == Type::kBFloat16) {
    const Bits bits = Bits(v);
    const Bits rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    const Bits quiet = (bits >> 16) | 0x40u;
    return __builtin_convertvector(v == v ? rounded : quiet, Short);
  }
  Short bits;
#ifdef __F16C__
  for (int i = 0; i < kWidth; i += 8) {
    const __m128i eight = _mm256_cvtps_ph(_mm256_loadu_ps(reinterpret_cast<const float*>(&v) + i), _MM_FROUND_TO_NEAREST_INT);
    memcpy(reinterpret_cast<uint16_t*>(&bits) + i, &eight, sizeof(eight));
  }
#else
  for (int i = 0; i < kWidth; ++i) bits[i] = float_to_half(v[i]);
#endif
  return bits;
}

inline Vec load_typed(const void* base, Type type, int64_t at, int64_t count) {
  if (type == Type::kFloat) return load_part(static_cast<const float*>(base) + at, count);
  const uint16_t* from = static_cast<const uint16_t*>(base) + at;
  Short bits{};
  if (count >= kWidth)
    memcpy(&bits, from, sizeof(bits));
  else
    memcpy(&bits, from, count * sizeof(uint16_t));
  return widen(bits, type);
}

inline void store_typed(void* base, Type type, int64_t at, int64_t count, Vec v) {
  if (type == Type::kFloat) return store_part(static_cast<float*>(base) + at, v, count);
  const Short bits = narrow(v, type);
  memcpy(static_cast<uint16_t*>(base) + at, &bits, (count < kWidth ? count : kWidth) * sizeof(uint16_t));
}

}  // namespace
}  // namespace margin
