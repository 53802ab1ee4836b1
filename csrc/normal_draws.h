// Draws of a normal distribution that follow from a head's state alone, for the host and the device: ElasticFace's margins.
// The pure-torch twin is `standard_normal` in cifarnet/losses/objectives/elastic.py.
#pragma once

#include "margin_math.h"

namespace margin {

// splitmix64's output function (Steele, Lea and Flood, 2014).
MARGIN_FN uint64_t hashed(uint64_t number) {
  number = number * 0x9E3779B97F4A7C15ull + 0x9E3779B97F4A7C15ull;
  number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9ull;
  number = (number ^ (number >> 27)) * 0x94D049BB133111EBull;
  return number ^ (number >> 31);
}

// The inverse of erf, |x| < 1 (Giles, "Approximating the erfinv function", 2011, single precision).
MARGIN_FN float inverse_erf(float x) {
  float w = -logf((1.0f - x) * (1.0f + x)), p;
  if (w < 5.0f) {
    w -= 2.5f;
    p = 2.81022636e-08f * w + 3.43273939e-07f;
    p = p * w - 3.5233877e-06f;
    p = p * w - 4.39150654e-06f;
    p = p * w + 0.00021858087f;
    p = p * w - 0.00125372503f;
    p = p * w - 0.00417768164f;
    p = p * w + 0.246640727f;
    p = p * w + 1.50140941f;
  } else {
    w = sqrtf(w) - 3.0f;
    p = -0.000200214257f * w + 0.000100950558f;
    p = p * w + 0.00134934322f;
    p = p * w - 0.00367342844f;
    p = p * w + 0.00573950773f;
    p = p * w - 0.0076224613f;
    p = p * w + 0.00943887047f;
    p = p * w + 1.00167406f;
    p = p * w + 2.83297682f;
  }
  return p * x;
}

// Draw i of N(0, 1) after `ahead` more steps than the state (steps, seed) has; 24 bits of it, so |x| < 5.5.
MARGIN_FN float normal_draw(const float* state, int64_t ahead, int64_t i) {
  const uint64_t step = uint64_t(int64_t(state[0]) + ahead) << 20;
  const uint64_t bits = hashed(uint64_t(i) + step + hashed(uint64_t(int64_t(state[1])))) >> 40;
  return 1.41421356f * inverse_erf((2.0f * float(bits) - 16777215.0f) / 16777216.0f);
}

}  // namespace margin
