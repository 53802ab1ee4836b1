// The CPU kernels' loops (see margin_rows.h), compiled once for each instruction set with -DMARGIN_ISA=<name>. Written with
// the compiler's own vector type of 16 floats, which becomes one AVX-512, two AVX2 or four SSE registers: every object
// sums in the same order.
#include "margin_rows.h"

#include "margin_loops.h"
#include "one_vs_all_rows.h"

#define MARGIN_JOIN(a, b) a##b
#define MARGIN_NAME(isa) MARGIN_JOIN(row_loops_, isa)
#define MARGIN_QUOTE(isa) #isa
#define MARGIN_STRING(isa) MARGIN_QUOTE(isa)

namespace margin {
namespace {

// Where a row begins, in bytes from the first.
inline int64_t bytes_of(Rows in, int64_t row) { return row * in.size * (in.type == Type::kFloat ? 4 : 2); }

// At most `count` rows from `row` on.
inline Rows rows_from(Rows in, int64_t row, int64_t count) {
  const int64_t left = in.count - row;
  return {static_cast<const char*>(in.data) + bytes_of(in, row), in.type, left < count ? left : count, in.size};
}

void lengths(Rows in, float* norm) {
  with_type(in.type, [&](auto known) {
    for (int64_t row = 0; row < in.count; ++row) norm[row] = length_of<known.type>(in.data, row, in.size).norm;
  });
}

void normalize(Rows in, int64_t stride, float* unit, float* norm) {
  with_type(in.type, [&](auto known) {
    for (int64_t row = 0; row < in.count; ++row, unit += stride) {
      const Length length = length_of<known.type>(in.data, row, in.size);
      norm[row] = length.norm;
      each_block(in.size, [&](int64_t d, auto block) {
        store_part(unit + d, load_typed(in.data, known.type, row * in.size + d, block.left) * length.factor, block.left);
      });
      for (int64_t d = in.size; d < stride; ++d) unit[d] = 0.0f;
    }
  });
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
  int64_t c = 0;
  for (; c + 5 <= prototypes.classes; c += 5) cosines_of_rows<type, 5>(in, length, prototypes, c, cosine);
  for (; c < prototypes.classes; ++c) cosines_of_rows<type, 1>(in, length, prototypes, c, cosine);
}

void cosines(Rows in, Prototypes prototypes, float* norm, float* cosine) {
  with_type(in.type, [&](auto known) {
    for (int64_t row = 0; row < in.count; row += kSumRows)
      cosines_of<known.type>(rows_from(in, row, kSumRows), prototypes, norm + row, cosine + row * prototypes.classes);
  });
}

float max_logit(const ClassRow& row, const Logits& logits, float* highest_cosine) {
  const Vec none = splat(-3e38f);
  Vec largest_cosine = none;
  const float top = with_negatives(row, logits, [&](const auto& negatives) {
    Vec largest = none;
    each_vector(row.count, row.own, [&](int64_t at, auto block, const Int* mask) {
      const Vec c = negatives.cosine(at, block);
      largest_cosine = larger(largest_cosine, mask ? (*mask ? c : none) : c);
      if (negatives.is_shaped) largest = larger(largest, mask ? (*mask ? negatives.logit(c) : none) : negatives.logit(c));
    });
    return highest(negatives.is_shaped ? largest : largest_cosine);
  });
  *highest_cosine = highest(largest_cosine);
  return top;
}

float exp_sum(const ClassRow& row, const Logits& logits, float peak, float* out, float* moment) {
  return with_negatives(row, logits, [&](const auto& negatives) {
    Vec sums{}, moments{};
    each_vector(row.count, row.own, [&](int64_t at, auto block, const Int* mask) {
      const Vec c = negatives.cosine(at, block);
      const Vec below = negatives.logit(c) - peak;
      Vec e = exponential(below * logits.scale);
      if (negatives.row.times) e *= load_part(negatives.row.times + at, block.left);
      if (mask) e = *mask ? e : Vec{};
      sums += e;
      if (moment) moments += e * below;
      if (out) store_part(out + at, e * negatives.slope(c) * negatives.factor(at, block), block.left);
    });
    if (moment) *moment = total(moments);
    return total(sums);
  });
}

float gradient(const float* cosine, int64_t classes, int64_t own, const SampleGradient& sample, float factor, float* grad) {
  const ClassRow row = {cosine, nullptr, nullptr, classes, own};
  const Logits logits = {1.0f, sample.scale, sample.shaping};
  const float along = with_negatives(row, logits, [&](const auto& negatives) {
    Vec sum{};
    each_vector(classes, own, [&](int64_t at, auto block, const Int* mask) {
      const Vec c = negatives.cosine(at, block);
      Vec g = exponential((negatives.logit(c) - sample.peak) * sample.scale) * (sample.strength * factor) * negatives.slope(c);
      if (mask) g = *mask ? g : Vec{};
      sum += g * c;
      store_part(grad + at, g, block.left);
    });
    return total(sum);
  });
  grad[own] = sample.target * factor;
  return along;
}

// A tile of rows with what their gradients are made of: 1 / norm, the factor that makes v of a row, and, for each row, `along`
// and grad [classes].
struct Tile {
  Rows in;
  float inverse[kRowTile], factor[kRowTile];
  const float *along, *grad;
  void* out;
};

// The entries [begin, end) of a tile (whose last rows may be missing): a prototype and its sum are loaded once for all four.
template <Type type, bool kSums>
inline void accumulate_tile(const Tile& tile, int64_t begin, int64_t end, Prototypes prototypes, float* sums) {
  const int64_t rows = tile.in.count, size = tile.in.size, classes = prototypes.classes, stride = prototypes.stride;
  const float* g[kRowTile];
  for (int r = 0; r < kRowTile; ++r) g[r] = tile.grad + (r < rows ? r : 0) * classes;
  each_block(end - begin, [&](int64_t at, auto block) {
    const int64_t d = begin + at;
    Vec v[kRowTile], h[kRowTile] = {};
    for (int r = 0; r < kRowTile; ++r) {
      const int present = r < rows ? r : 0;
      const float share = r < rows ? 1.0f : 0.0f;
      v[r] = load_typed(tile.in.data, type, present * size + d, block.left) * (tile.factor[present] * share);
    }
    for (int64_t c = 0; c < classes; ++c) {
      const Vec w = load(prototypes.unit + c * stride + d);
      Vec sum = kSums ? load(sums + c * stride + d) : Vec{};
      for (int r = 0; r < kRowTile; ++r) {
        h[r] += w * g[r][c];
        if (kSums) sum += v[r] * g[r][c];
      }
      if (kSums) store(sums + c * stride + d, sum);
    }
    if (!tile.out) return;
    for (int r = 0; r < kRowTile; ++r)
      if (r < rows) store_typed(tile.out, type, r * size + d, block.left, h[r] * tile.inverse[r] + v[r] * tile.along[r]);
  });
}

// The tile of at most kRowTile rows from `row` on.
template <Type type>
inline Tile tile_of(Rows in, int64_t row, int64_t classes, const float* norm, const float* along, const float* grad,
                    void* out) {
  Tile tile = {rows_from(in, row, kRowTile), {}, {}, along + row, grad + row * classes,
               out ? static_cast<char*>(out) + bytes_of(in, row) : nullptr};
  for (int64_t r = 0; r < tile.in.count; ++r) {
    tile.inverse[r] = inverse_of(norm[row + r]);
    tile.factor[r] = norm[row + r] < 1e15f ? tile.inverse[r] : length_of<type>(tile.in.data, r, in.size).factor;
  }
  return tile;
}

constexpr int64_t kSpan = 128;  // entries of D taken at a time, so that prototypes and sums stay in the first cache

void accumulate_grads(Rows in, Prototypes prototypes, const float* norm, const float* along, const float* grad, void* out,
                      float* sums) {
  with_type(in.type, [&](auto known) {
    for (int64_t begin = 0; begin < in.size; begin += kSpan)
      for (int64_t row = 0; row < in.count; row += kRowTile) {
        const int64_t end = begin + kSpan < in.size ? begin + kSpan : in.size;
        const Tile tile = tile_of<known.type>(in, row, prototypes.classes, norm, along, grad, out);
        if (sums)
          accumulate_tile<known.type, true>(tile, begin, end, prototypes, sums);
        else
          accumulate_tile<known.type, false>(tile, begin, end, prototypes, sums);
      }
  });
}

float dot(const float* a, const float* b, int64_t size) {
  Vec even{}, odd{};
  each_block(size, [&](int64_t d, auto block) {
    (d & kWidth ? odd : even) += load_part(a + d, block.left) * load_part(b + d, block.left);
  });
  return total(even + odd);
}

void axpby(float a, const void* x, Type type, float b, float* y, int64_t size) {
  with_type(type, [&](auto known) {
    each_block(size, [&](int64_t d, auto block) {
      const Vec own = b == 0.0f ? Vec{} : load_part(y + d, block.left) * b;
      store_part(y + d, own + load_typed(x, known.type, d, block.left) * a, block.left);
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

const RowLoops& MARGIN_NAME(MARGIN_ISA)() {
  static const RowLoops table = {
      .name = MARGIN_STRING(MARGIN_ISA),
      .lengths = lengths,
      .normalize = normalize,
      .cosines = cosines,
      .gradient = gradient,
      .accumulate_grads = accumulate_grads,
      .max_logit = max_logit,
      .exp_sum = exp_sum,
      .other_classes = other_classes,
      .dot = dot,
      .axpby = axpby,
      .project = project,
      .add = add,
  };
  return table;
}

}  // namespace margin
