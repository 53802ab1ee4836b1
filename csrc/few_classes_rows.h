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

// Rows whose sums with five prototypes fit into the registers: 32 of them on AVX-512, else 16.
constexpr int kSumRows = kWidth == 16 ? 4 : 2;

// cosine[r, c] of at most kSumRows rows, v = in / |in| made on the way, and the prototypes [first, first + kClasses).
template <Type type, int kClasses>
inline void cosines_of_rows(Rows in, const Length* length, Prototypes prototypes, int64_t first, float* cosine) {
  const float* unit = prototypes.unit + first * prototypes.stride;
  Vec sums[kSumRows][kClasses] = {};
  each_block(in.size, [&](int64_t d, auto block) {
    Vec v[kSumRows];
    for (int r = 0; r < kSumRows; ++r)  // in place of a missing row, the first
      v[r] = load_typed(in.data, type, (r < in.count ? r : 0) * in.size + d, block.left) * length[r].factor;
    for (int c = 0; c < kClasses; ++c) {
      const Vec w = load(unit + c * prototypes.stride + d);
      for (int r = 0; r < kSumRows; ++r) sums[r][c] += v[r] * w;
    }
  });
  for (int r = 0; r < kSumRows; ++r)  // a bound of `in.count` would put the sums into memory
    if (r < in.count)
      for (int c = 0; c < kClasses; ++c) cosine[r * prototypes.classes + first + c] = total(sums[r][c]);
}

template <Type type>
inline void cosines_of(Rows in, Prototypes prototypes, float* norm, float* cosine) {
  Length length[kSumRows] = {};
  for (int64_t r = 0; r < in.count; ++r) {
    length[r] = length_of<type>(in.data, r, in.size);
    norm[r] = length[r].norm;
  }
  each_class_tile<5, 1>(prototypes.classes, [&](int64_t first, auto count) {
    cosines_of_rows<type, count.value>(in, length, prototypes, first, cosine);
  });
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

// A tile of rows with what their gradients are made of: 1 / norm, the factor that makes v of a row, `along` of each, and grad, the
// classes one after the other, kRowTile numbers of each; zeros for a missing row.
struct Tile {
  Rows in;
  float inverse[kRowTile], factor[kRowTile], along[kRowTile];
  float grad[kFewClasses * kRowTile];
};

template <Type type>
inline void fill(Tile& tile, int64_t classes, const float* norm, const float* along, const float* grad) {
  for (int64_t r = 0; r < kRowTile; ++r) {
    const bool present = r < tile.in.count;
    tile.inverse[r] = present ? inverse_of(norm[r]) : 0.0f;
    tile.factor[r] = present && norm[r] >= 1e15f ? length_of<type>(tile.in.data, r, tile.in.size).factor : tile.inverse[r];
    tile.along[r] = present ? along[r] : 0.0f;
    for (int64_t c = 0; c < classes; ++c) tile.grad[c * kRowTile + r] = present ? grad[r * classes + c] : 0.0f;
  }
}

// The entries [begin, end) of dz of the rows [first, first + kHalf) of a tile. A number of `grad` serves two vectors.
constexpr int kHalf = 4;
template <Type type>
inline void rows_of_tile(const Tile& tile, int first, int64_t begin, int64_t end, Prototypes prototypes, void* out) {
  each_strip<2>(end - begin, [&](int64_t at, auto strip) {
    const int64_t d = begin + at;
    Vec h[kHalf][strip.vectors] = {};
    for (int64_t c = 0; c < prototypes.classes; ++c) {
      const float *w = prototypes.unit + c * prototypes.stride + d, *grad = tile.grad + c * kRowTile + first;
      for (int r = 0; r < kHalf; ++r)
        for (int i = 0; i < strip.vectors; ++i) h[r][i] += load(w + i * kWidth) * grad[r];
    }
    for (int r = 0; r < kHalf; ++r) {
      const int row = first + r;
      if (row >= tile.in.count) continue;  // a bound would put h into memory
      for (int i = 0; i < strip.vectors; ++i) {
        const int64_t place = row * tile.in.size + d + i * kWidth;
        const Vec v = load_typed(tile.in.data, type, place, strip.left) * tile.factor[row];
        store_typed(out, type, place, strip.left, h[r][i] * tile.inverse[row] + v * tile.along[row]);
      }
    }
  });
}

// The entries [begin, end) of what a tile adds to the sums of the prototypes [first, first + kClasses), `stride` apart.
template <Type type, int kClasses>
inline void sums_of_tile(const Tile& tile, int64_t begin, int64_t end, int64_t first, int64_t stride, float* sums) {
  const float* grad = tile.grad + first * kRowTile;
  float* own = sums + first * stride;
  each_strip<2>(end - begin, [&](int64_t at, auto strip) {
    const int64_t d = begin + at;
    Vec sum[kClasses][strip.vectors];
    for (int c = 0; c < kClasses; ++c)
      for (int i = 0; i < strip.vectors; ++i) sum[c][i] = load(own + c * stride + d + i * kWidth);
    for (int64_t r = 0; r < tile.in.count; ++r) {
      Vec v[strip.vectors];
      for (int i = 0; i < strip.vectors; ++i)
        v[i] = load_typed(tile.in.data, type, r * tile.in.size + d + i * kWidth, strip.left) * tile.factor[r];
      for (int c = 0; c < kClasses; ++c)
        for (int i = 0; i < strip.vectors; ++i) sum[c][i] += v[i] * grad[c * kRowTile + r];
    }
    for (int c = 0; c < kClasses; ++c)
      for (int i = 0; i < strip.vectors; ++i) store(own + c * stride + d + i * kWidth, sum[c][i]);
  });
}

constexpr int64_t kSpan = 512;  // entries of D taken at a time, so that prototypes and sums stay in a core's own caches

void accumulate_grads(Rows in, Prototypes prototypes, const float* norm, const float* along, const float* grad, void* out,
                      float* sums) {
  with_type(in.type, [&](auto known) {
    constexpr Type type = known.type;
    Tile tile;
    for (int64_t begin = 0; begin < in.size; begin += kSpan)
      for (int64_t row = 0; row < in.count; row += kRowTile) {
        const int64_t end = begin + kSpan < in.size ? begin + kSpan : in.size;
        tile.in = rows_from(in, row, kRowTile);
        fill<type>(tile, prototypes.classes, norm + row, along + row, grad + row * prototypes.classes);
        for (int first = 0; out && first < kRowTile; first += kHalf)
          rows_of_tile<type>(tile, first, begin, end, prototypes, static_cast<char*>(out) + bytes_of(in, row));
        if (!sums) continue;
        each_class_tile<5, 1>(prototypes.classes, [&](int64_t first, auto count) {
          sums_of_tile<type, count.value>(tile, begin, end, first, prototypes.stride, sums);
        });
      }
  });
}

}  // namespace
}  // namespace margin
