// The CPU kernels' loops (see margin_rows.h), compiled once for each instruction set with -DMARGIN_ISA=<name>, and written with
// the compiler's own vectors, as wide as a register. `flatten` where the step of a loop would become a call of its own: its sums
// would stand in memory.
#include "margin_rows.h"

#include "few_classes_rows.h"
#include "margin_loops.h"
#include "one_vs_all_rows.h"

#define MARGIN_JOIN(a, b) a##b
#define MARGIN_NAME(isa) MARGIN_JOIN(row_loops_, isa)
#define MARGIN_QUOTE(isa) #isa
#define MARGIN_STRING(isa) MARGIN_QUOTE(isa)

namespace margin {
namespace {

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

// Leaves of each class's cosines the first of the largest, clamped; a NaN stays, whichever it is. The number of prototypes is known to
// the compiler, without which it takes no classes together: nine times the time.
template <int kCentres>
void nearest_of_classes(int64_t classes, float* cosine) {
  for (int64_t j = 0; j < classes; ++j) {
    float c[kCentres], *own = cosine + j * kCentres;
    for (int k = 0; k < kCentres; ++k) c[k] = own[k];
    float most = c[0];
    for (int k = 1; k < kCentres; ++k) most = c[k] > most ? c[k] : most;
    int found = 0;  // no bool, and no branch: the loop over the classes is to become one over vectors
    for (int k = 0; k < kCentres; ++k) {
      const int nearest = (c[k] == most) & (found ^ 1), kept = nearest | (c[k] != c[k]);
      found |= nearest;
      const float below = c[k] > kCosineLimit ? kCosineLimit : c[k], within = below < -kCosineLimit ? -kCosineLimit : below;
      own[k] = kept ? within : kNoNegative;
    }
  }
}

template <int kCentres = kMostCentres>
void nearest_of(int64_t centres, int64_t classes, float* cosine) {
  if (centres == kCentres) return nearest_of_classes<kCentres>(classes, cosine);
  if constexpr (kCentres > 2) nearest_of<kCentres - 1>(centres, classes, cosine);
}

void keep_nearest(const ClassRow& row, float factor, float* product) {
  each_block(row.count, [&](int64_t at, auto block) {
    const Vec c = load_part(product + at, block.left) * factor;
    store_part(product + at, row.inverse ? c * load_part(row.inverse + at, block.left) : c, block.left);
  });
  nearest_of(row.centres, row.count / row.centres, product);
  if (row.own < 0 || row.own >= row.count) return;
  float* label = product + row.own - row.own % row.centres;
  for (int64_t k = 0; k < row.centres; ++k) label[k] = kNoNegative;
}

__attribute__((flatten)) float max_logit(const ClassRow& row, const Logits& logits, float* highest_cosine) {
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

__attribute__((flatten)) float exp_sum(const ClassRow& row, const Logits& logits, float peak, float* out, float* moment) {
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

float dot(const float* a, const float* b, int64_t size) {
  Vec sums[4] = {};
  each_strip<4>(size, [&](int64_t d, auto strip) {
    for (int i = 0; i < strip.vectors; ++i)
      sums[i] += load_part(a + d + i * kWidth, strip.left) * load_part(b + d + i * kWidth, strip.left);
  });
  return total((sums[0] + sums[1]) + (sums[2] + sums[3]));
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
      .keep_nearest = keep_nearest,
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
