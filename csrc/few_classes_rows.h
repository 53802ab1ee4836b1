// The loops of few classes, for margin_rows.cpp alone; local to the object that includes it. Rows and classes are taken in blocks
// whose sums stay in the registers, so that a number that is read serves several of them.
#pragma once

#include "margin_loops.h"

namespace margin {
namespace {

// Where a row begins, in bytes from the first.
inline int64_t bytes_of(Rows in, int64_t row) { return row * in.size * (in.type == Type::kFloat ? 4 : 2); }

// At most `count` rows from `row` on.
inline Rows rows_from(Rows in, int64_t row, int64_t count) {
  const int64_t left = in.count - row;
  return {static_cast<const char*>(in.data) + bytes_of(in, row), in.type, left < count ? left : count, in.size};
}

// Calls work(first, count) for the classes in groups of these sizes, the largest first; the last is 1.
template <int kSize>
struct Count {
  static constexpr int value = kSize;
};
template <int... kSizes, typename Work>
inline void each_class_tile(int64_t classes, const Work& work) {
  int64_t first = 0;
  const auto groups = [&](auto count) {
    for (; first + count.value <= classes; first += count.value) work(first, count);
  };
  (groups(Count<kSizes>()), ...);
}

// Rows whose sums with five prototypes, and with themselves, fit into the registers: 32 of them on AVX-512, else 16.
constexpr int kSumRows = kWidth == 16 ? 4 : 2;

// cosine[r, c] = in[r] . unit[first + c] of at most kSumRows rows and kClasses prototypes, and square[r] = in[r] . in[r] if kSquares.
template <Type type, int kClasses, bool kSquares>
inline void products_of_rows(const Rows& in, const Prototypes& prototypes, int64_t first, float* cosine, float* square) {
  const float* unit = prototypes.unit + first * prototypes.stride;
  Vec sums[kClasses][kSumRows], squares[kSumRows];
  for (int r = 0; r < kSumRows; ++r) {
    squares[r] = Vec{};
    for (int c = 0; c < kClasses; ++c) sums[c][r] = Vec{};
  }
  each_block(in.size, [&](int64_t d, auto block) {
    Vec z[kSumRows];
    for (int r = 0; r < kSumRows; ++r) {  // in place of a missing row, the first
      z[r] = load_typed(in.data, type, (r < in.count ? r : 0) * in.size + d, block.left);
      if (kSquares) squares[r] += z[r] * z[r];
    }
    for (int c = 0; c < kClasses; ++c) {
      const Vec w = load(unit + c * prototypes.stride + d);
      for (int r = 0; r < kSumRows; ++r) sums[c][r] += z[r] * w;
    }
  });
  if (kSquares) totals(squares, square);
  for (int c = 0; c < kClasses; ++c) {
    float products[kSumRows];
    totals(sums[c], products);
    for (int r = 0; r < kSumRows; ++r)
      if (r < in.count) cosine[r * prototypes.classes + first + c] = products[r];
  }
}

// The same cosines of a row whose squares may leave a float's range, of its unit vector.
template <Type type>
void cosines_of_odd_row(const Rows& in, int64_t row, const Prototypes& prototypes, float* norm, float* cosine) {
  const Length length = length_of<type>(in.data, row, in.size);
  *norm = length.norm;
  for (int64_t c = 0; c < prototypes.classes; ++c) {
    Vec sum{};
    each_block(in.size, [&](int64_t d, auto block) {
      const Vec v = load_typed(in.data, type, row * in.size + d, block.left) * length.factor;
      sum += v * load(prototypes.unit + c * prototypes.stride + d);
    });
    cosine[c] = total(sum);
  }
}

template <Type type>
inline void cosines_of(const Rows& in, const Prototypes& prototypes, float* norm, float* cosine) {
  float square[kSumRows];
  each_class_tile<5, 1>(prototypes.classes, [&](int64_t first, auto count) {
    if (first)
      products_of_rows<type, count.value, false>(in, prototypes, first, cosine, square);
    else
      products_of_rows<type, count.value, true>(in, prototypes, first, cosine, square);
  });
  for (int64_t r = 0; r < in.count; ++r, cosine += prototypes.classes) {
    if (!plain_square(square[r])) {
      cosines_of_odd_row<type>(in, r, prototypes, norm + r, cosine);
      continue;
    }
    norm[r] = __builtin_sqrtf(square[r]);
    const float inverse = 1.0f / norm[r];
    for (int64_t c = 0; c < prototypes.classes; ++c) cosine[c] *= inverse;
  }
}

void cosines(Rows in, Prototypes prototypes, float* norm, float* cosine) {
  with_type(in.type, [&](auto known) {
    for (int64_t row = 0; row < in.count; row += kSumRows)
      cosines_of<known.type>(rows_from(in, row, kSumRows), prototypes, norm + row, cosine + row * prototypes.classes);
  });
}

__attribute__((flatten)) float gradient(const ClassRow& row, const SampleGradient& sample, float factor, float* grad) {
  const Logits logits = {1.0f, sample.scale, sample.shaping};
  const float along = with_negatives(row, logits, [&](const auto& negatives) {
    Vec sum{};
    each_vector(row.count, row.own, [&](int64_t at, auto block, const Int* mask) {
      const Vec c = negatives.cosine(at, block);
      Vec g = exponential((negatives.logit(c) - sample.peak) * sample.scale) * (sample.strength * factor) * negatives.slope(c);
      if (mask) g = *mask ? g : Vec{};
      sum += g * c;
      store_part(grad + at, g, block.left);
    });
    return total(sum);
  });
  grad[row.own] = sample.target * factor;
  return along;
}

// Of how many rows and vectors of D dz is taken at once, and of how many classes the sums: as the registers hold.
constexpr int kGradRows = 4, kGradVectors = kWidth == 16 ? 4 : 2, kSumClasses = kWidth == 16 ? 10 : 5;

// The entries [begin, end) of dz of at most kGradRows rows. They are read before any is written: a store delays the loads of
// addresses that end in the same 12 bits.
template <Type type>
inline void dz_of_rows(const Rows& in, int64_t begin, int64_t end, const Prototypes& prototypes, const float* along,
                       const float* grad, void* out) {
  int64_t rows[kGradRows];  // in place of a missing one, the first
  for (int64_t r = 0; r < kGradRows; ++r) rows[r] = r < in.count ? r : 0;
  each_strip<kGradVectors>(end - begin, [&](int64_t at, auto strip) {
    const int64_t d = begin + at;
    const float* w = prototypes.unit + d;
    Vec dz[kGradRows][strip.vectors];
    for (int r = 0; r < kGradRows; ++r)
      for (int i = 0; i < strip.vectors; ++i)
        dz[r][i] = load_typed(in.data, type, rows[r] * in.size + d + i * kWidth, strip.left) * along[rows[r]];
    for (int64_t c = 0; c < prototypes.classes; ++c, w += prototypes.stride)
      for (int r = 0; r < kGradRows; ++r)
        for (int i = 0; i < strip.vectors; ++i) dz[r][i] += load(w + i * kWidth) * grad[rows[r] * prototypes.classes + c];
    for (int r = 0; r < kGradRows; ++r) {
      if (r >= in.count) continue;  // a bound would put dz into memory
      for (int i = 0; i < strip.vectors; ++i)
        store_typed(out, type, r * in.size + d + i * kWidth, strip.left, dz[r][i]);
    }
  });
}

// The entries [begin, end) of what rows add to the sums of the prototypes [first, first + kClasses), `stride` apart.
template <Type type, int kClasses>
inline void sums_of_rows(const Rows& in, int64_t begin, int64_t end, const Prototypes& prototypes, int64_t first,
                         const float* grad, float* sums) {
  const int64_t stride = prototypes.stride;
  float* own = sums + first * stride;
  each_strip<2>(end - begin, [&](int64_t at, auto strip) {
    const int64_t d = begin + at;
    Vec sum[kClasses][strip.vectors];
    for (int c = 0; c < kClasses; ++c)
      for (int i = 0; i < strip.vectors; ++i) sum[c][i] = load(own + c * stride + d + i * kWidth);
    for (int64_t r = 0; r < in.count; ++r)
      for (int i = 0; i < strip.vectors; ++i) {
        const Vec z = load_typed(in.data, type, r * in.size + d + i * kWidth, strip.left);
        for (int c = 0; c < kClasses; ++c) sum[c][i] += z * grad[r * prototypes.classes + first + c];
      }
    for (int c = 0; c < kClasses; ++c)
      for (int i = 0; i < strip.vectors; ++i) store(own + c * stride + d + i * kWidth, sum[c][i]);
  });
}

// Entries of D and rows that are taken at a time, so that those of ten classes, their sums and the rows stay in a core's first cache.
constexpr int64_t kSpan = 256, kGradTile = 16;

void accumulate_grads(Rows in, Prototypes prototypes, const float* along, const float* grad, void* out, float* sums) {
  with_type(in.type, [&](auto known) {
    constexpr Type type = known.type;
    for (int64_t begin = 0; begin < in.size; begin += kSpan)
      for (int64_t row = 0; row < in.count; row += kGradTile) {
        const int64_t end = begin + kSpan < in.size ? begin + kSpan : in.size;
        const Rows tile = rows_from(in, row, kGradTile);
        const float* pull = grad + row * prototypes.classes;
        for (int64_t r = 0; out && r < tile.count; r += kGradRows)
          dz_of_rows<type>(rows_from(tile, r, kGradRows), begin, end, prototypes, along + row + r, pull + r * prototypes.classes,
                           static_cast<char*>(out) + bytes_of(in, row + r));
        if (!sums) continue;
        each_class_tile<kSumClasses, 5, 1>(prototypes.classes, [&](int64_t first, auto count) {
          sums_of_rows<type, count.value>(tile, begin, end, prototypes, first, pull, sums);
        });
      }
  });
}

}  // namespace
}  // namespace margin
