// The CPU kernels' loops (see margin_rows.h), compiled once for each instruction set with -DMARGIN_ISA=<name>. Written with
// the compiler's own vector type of 16 floats, which becomes one AVX-512, two AVX2 or four SSE registers: every object
// sums in the same order.
#include "margin_rows.h"

#include "margin_loops.h"

#define MARGIN_JOIN(a, b) a##b
#define MARGIN_NAME(isa) MARGIN_JOIN(rows_, isa)
#define MARGIN_QUOTE(isa) #isa
#define MARGIN_STRING(isa) MARGIN_QUOTE(isa)

namespace margin {
namespace {

// The norm of a row and the factor that makes a unit vector of it.
struct Length {
  float norm, factor;
};

template <Type type>
Length length_of(const void* in, int64_t row, int64_t size) {
  const auto entries = [&](int64_t d, auto block) { return load_typed(in, type, row * size + d, block.left); };
  Vec even{}, odd{};  // two chains, so that one addition need not wait for the last
  each_block(size, [&](int64_t d, auto block) {
    const Vec v = entries(d, block);
    (d & kLanes ? odd : even) += v * v;
  });
  float square = total(even + odd), largest_entry = 1.0f;
  if (!(square < 1e30f && square > 1e-30f)) {  // the squares may leave a float's range: again, the largest entry scaled to 1
    Vec largest{}, sum{};
    each_block(size, [&](int64_t d, auto block) {
      const Vec v = entries(d, block);
      largest = larger(largest, v < 0 ? -v : v);
    });
    largest_entry = highest(largest);
    if (square == square && largest_entry < 1e-36f) return {kNormFloor, 0.0f};
    each_block(size, [&](int64_t d, auto block) {
      const Vec v = entries(d, block) * (1.0f / largest_entry);
      sum += v * v;
    });
    square = total(sum);
  }
  const float length = __builtin_sqrtf(square), norm = length * largest_entry;
  if (norm <= kNormFloor) return {kNormFloor, 0.0f};
  return {norm > kNormCeiling ? kNormCeiling : norm, (1.0f / largest_entry) * (1.0f / length)};
}

void lengths(const void* in, Type type, int64_t rows, int64_t size, float* norm) {
  with_type(type, [&](auto known) {
    for (int64_t row = 0; row < rows; ++row) norm[row] = length_of<known.type>(in, row, size).norm;
  });
}

void normalize(const void* in, Type type, int64_t rows, int64_t size, int64_t stride, float* unit, float* norm) {
  with_type(type, [&](auto known) {
    for (int64_t row = 0; row < rows; ++row, unit += stride) {
      const Length length = length_of<known.type>(in, row, size);
      norm[row] = length.norm;
      each_block(size, [&](int64_t d, auto block) {
        store_part(unit + d, load_typed(in, known.type, row * size + d, block.left) * length.factor, block.left);
      });
      for (int64_t d = size; d < stride; ++d) unit[d] = 0.0f;
    }
  });
}

// cosine[r, c] of a tile of rows, v = in / |in| made on the way, and kClasses prototypes.
template <Type type, int kClasses>
inline void measure_tile(const void* in, int64_t rows, int64_t size, const Length* length, const float* unit,
                         int64_t stride, float* cosine, int64_t classes) {
  Vec sums[kRowTile][kClasses] = {};
  each_block(size, [&](int64_t d, auto block) {
    Vec v[kRowTile];
    for (int r = 0; r < kRowTile; ++r)  // in place of a missing row, the first
      v[r] = load_typed(in, type, (r < rows ? r : 0) * size + d, block.left) * length[r].factor;
    for (int c = 0; c < kClasses; ++c) {
      const Vec w = load(unit + c * stride + d);
      for (int r = 0; r < kRowTile; ++r) sums[r][c] += v[r] * w;
    }
  });
  for (int r = 0; r < kRowTile; ++r)  // a bound of `rows` would put the sums into memory
    if (r < rows)
      for (int c = 0; c < kClasses; ++c) cosine[r * classes + c] = total(sums[r][c]);
}

void measure(const void* in, Type type, int64_t rows, int64_t size, const float* unit, int64_t classes, int64_t stride,
             float* norm, float* cosine) {
  with_type(type, [&](auto known) {
    Length length[kRowTile] = {};
    for (int64_t r = 0; r < rows; ++r) {
      length[r] = length_of<known.type>(in, r, size);
      norm[r] = length[r].norm;
    }
    int64_t c = 0;
    for (; c + 5 <= classes; c += 5)
      measure_tile<known.type, 5>(in, rows, size, length, unit + c * stride, stride, cosine + c, classes);
    for (; c < classes; ++c)
      measure_tile<known.type, 1>(in, rows, size, length, unit + c * stride, stride, cosine + c, classes);
  });
}

float peak(const float* product, const float* inverse, int64_t count, int64_t own, const Logits& logits, float* highest_cosine) {
  const Vec none = splat(-3e38f);
  Vec cosines = none;
  const float top = with_negatives(product, inverse, logits, [&](const auto& row) {
    Vec shaped = none;
    each_vector(count, own, [&](int64_t at, auto block, const Int* mask) {
      const Vec c = row.cosine(at, block);
      cosines = larger(cosines, mask ? (*mask ? c : none) : c);
      if (row.curricular) shaped = larger(shaped, mask ? (*mask ? row.shaped(c) : none) : row.shaped(c));
    });
    return highest(row.curricular ? shaped : cosines);
  });
  *highest_cosine = highest(cosines);
  return top;
}

float weigh(const float* product, const float* inverse, int64_t count, int64_t own, const Logits& logits, float peak,
            float* out) {
  return with_negatives(product, inverse, logits, [&](const auto& row) {
    Vec sums{};
    each_vector(count, own, [&](int64_t at, auto block, const Int* mask) {
      const Vec c = row.cosine(at, block);
      Vec e = exponential((row.shaped(c) - peak) * logits.scale);
      if (mask) e = *mask ? e : Vec{};
      sums += e;
      if (out) store_part(out + at, e * row.slope(c) * row.factor(at, block), block.left);
    });
    return total(sums);
  });
}

float gradient(const float* cosine, int64_t classes, int64_t own, const RowGradient& row, float factor, float* grad) {
  const float along = with_negatives(cosine, nullptr, {1.0f, row.scale, row.threshold, row.t}, [&](const auto& negatives) {
    Vec sum{};
    each_vector(classes, own, [&](int64_t at, auto block, const Int* mask) {
      const Vec c = negatives.cosine(at, block);
      Vec g = exponential((negatives.shaped(c) - row.peak) * row.scale) * (row.strength * factor) * negatives.slope(c);
      if (mask) g = *mask ? g : Vec{};
      sum += g * c;
      store_part(grad + at, g, block.left);
    });
    return total(sum);
  });
  grad[own] = row.target * factor;
  return along;
}

// A tile of rows (the last ones of which may be missing) within the entries [begin, end): a prototype and its sum are loaded
// once for all four. `inverse` is 1 / norm, `factor` makes v of a row.
template <Type type, bool kSums>
inline void spread_tile(const void* in, int64_t rows, int64_t size, int64_t begin, int64_t end, const float* inverse,
                        const float* factor, const float* along, const float* grad, const float* unit, int64_t classes,
                        int64_t stride, void* out, float* sums) {
  each_block(end - begin, [&](int64_t at, auto block) {
    const int64_t d = begin + at;
    Vec v[kRowTile], h[kRowTile] = {};
    float share[kRowTile];
    for (int r = 0; r < kRowTile; ++r) {
      share[r] = r < rows ? 1.0f : 0.0f;
      v[r] = load_typed(in, type, (r < rows ? r : 0) * size + d, block.left) * (factor[r < rows ? r : 0] * share[r]);
    }
    const float* g[kRowTile];
    for (int r = 0; r < kRowTile; ++r) g[r] = grad + (r < rows ? r : 0) * classes;
    for (int64_t c = 0; c < classes; ++c) {
      const Vec w = load(unit + c * stride + d);
      Vec sum = kSums ? load(sums + c * stride + d) : Vec{};
      for (int r = 0; r < kRowTile; ++r) {
        h[r] += w * g[r][c];
        if (kSums) sum += v[r] * g[r][c];
      }
      if (kSums) store(sums + c * stride + d, sum);
    }
    if (!out) return;
    for (int r = 0; r < kRowTile; ++r)
      if (r < rows) store_typed(out, type, r * size + d, block.left, h[r] * inverse[r] + v[r] * along[r]);
  });
}

constexpr int64_t kSpan = 128;  // entries of D taken at a time, so that prototypes and sums stay in the first cache

void spread(const void* in, Type type, int64_t rows, int64_t size, const float* norm, const float* along,
            const float* grad, const float* unit, int64_t classes, int64_t stride, void* out, float* sums) {
  const auto tiles = [&](auto known, auto with_sums) {
    const int64_t bytes = size * (known.type == Type::kFloat ? 4 : 2);
    for (int64_t begin = 0; begin < size; begin += kSpan)
      for (int64_t row = 0; row < rows; row += kRowTile) {
        const int64_t end = begin + kSpan < size ? begin + kSpan : size, count = rows - row < kRowTile ? rows - row : kRowTile;
        const void* from = static_cast<const char*>(in) + row * bytes;
        float inverse[kRowTile], factor[kRowTile];
        for (int64_t r = 0; r < count; ++r) {
          inverse[r] = inverse_of(norm[row + r]);
          factor[r] = norm[row + r] < 1e15f ? inverse[r] : length_of<known.type>(from, r, size).factor;
        }
        spread_tile<known.type, with_sums.value>(from, count, size, begin, end, inverse, factor, along + row,
                                                 grad + row * classes, unit, classes, stride,
                                                 out ? static_cast<char*>(out) + row * bytes : nullptr, sums);
      }
  };
  with_type(type, [&](auto known) { sums ? tiles(known, Flag<true>()) : tiles(known, Flag<false>()); });
}

float dot(const float* a, const float* b, int64_t size) {
  Vec even{}, odd{};
  each_block(size, [&](int64_t d, auto block) {
    (d & kLanes ? odd : even) += load_part(a + d, block.left) * load_part(b + d, block.left);
  });
  return total(even + odd);
}

void blend(float* h, float a, const void* x, Type type, float b, int64_t size) {
  with_type(type, [&](auto known) {
    each_block(size, [&](int64_t d, auto block) {
      const Vec own = a == 0.0f ? Vec{} : load_part(h + d, block.left) * a;
      store_part(h + d, own + load_typed(x, known.type, d, block.left) * b, block.left);
    });
  });
}

void project(const float* h, const float* x, float pull, float inverse, float along, int64_t size, void* out, Type type) {
  const float across = pull == 0.0f ? 0.0f : dot(h, x, size) * pull;
  with_type(type, [&](auto known) {
    each_block(size, [&](int64_t d, auto block) {
      const Vec v = load_part(x + d, block.left);
      store_typed(out, known.type, d, block.left, (load_part(h + d, block.left) - v * across) * inverse + v * along);
    });
  });
}

void add(const float* part, int64_t count, float* sum) {
  each_block(count, [&](int64_t i, auto block) {
    store_part(sum + i, load_part(sum + i, block.left) + load_part(part + i, block.left), block.left);
  });
}

}  // namespace

const Rows& MARGIN_NAME(MARGIN_ISA)() {
  static const Rows table = {MARGIN_STRING(MARGIN_ISA), lengths, normalize, measure, gradient, spread, peak,
                             weigh,                     dot,     blend,     project, add};
  return table;
}

}  // namespace margin
