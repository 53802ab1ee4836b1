// Small operators beside the loss, on the CPU: ElasticFace's draws, KappaFace's sums, the sub-centres that labels stand for.
#include <torch/library.h>

#include <cmath>

#include "margin_batch_cpu.h"
#include "normal_draws.h"

namespace margin {

// [count] draws of N(mean, std), see normal_draw().
at::Tensor normal_draws_cpu(const at::Tensor& state, int64_t ahead, int64_t count, double mean, double std) {
  check_draws(state);
  const at::Tensor drawn = at::empty({count}, state.options());
  const float* from = state.const_data_ptr<float>();
  float* to = drawn.data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) to[i] = float(mean) + float(std) * normal_draw(from, ahead, i);
  return drawn;
}

// sums[label] += features / norm and a 1 behind them, sample by sample, if the loss is finite; sums [C, D + 1], norm [N].
void add_unit_cpu(at::Tensor& sums, const at::Tensor& features, const at::Tensor& labels, const at::Tensor& norm,
                  const at::Tensor& loss) {
  const at::Tensor z = features.contiguous(), y = labels.contiguous(), lengths = norm.contiguous();
  const int64_t size = z.size(1);
  TORCH_CHECK_VALUE(sums.is_contiguous() && sums.scalar_type() == at::kFloat && sums.size(1) == size + 1,
                    "sums must be float32 [C, ", size + 1, "], not ", sums.scalar_type(), " ", sums.sizes());
  TORCH_CHECK_VALUE(y.dim() == 1 && y.size(0) == z.size(0) && lengths.sizes() == y.sizes(), "labels and norms must be [", z.size(0),
                    "], not ", y.sizes(), " and ", lengths.sizes());
  check_labels(y.const_data_ptr<int64_t>(), z.size(0), sums.size(0));
  if (!std::isfinite(*loss.const_data_ptr<float>())) return;
  const RowLoops& loops = chosen_loops();
  for (int64_t i = 0; i < z.size(0); ++i) {
    float* row = sums.data_ptr<float>() + y.const_data_ptr<int64_t>()[i] * (size + 1);
    const char* from = static_cast<const char*>(z.const_data_ptr()) + i * size * z.element_size();
    loops.axpby(inverse_of(lengths.const_data_ptr<float>()[i]), from, type_of(z), 1.0f, row, size);
    row[size] += 1.0f;
  }
}

// Which of a class's `centres` unit prototypes, one after the other, is nearest to a sample's unit features: the first of equals,
// or one whose cosine is NaN.
int64_t nearest_of(const RowLoops& loops, const float* feature, const float* unit, int64_t centres, int64_t size) {
  int64_t nearest = 0;
  float most = loops.dot(feature, unit, size);
  for (int64_t k = 1; k < centres; ++k) {
    const float cosine = loops.dot(feature, unit + k * size, size);
    if (cosine > most || cosine != cosine) most = cosine, nearest = k;
  }
  return nearest;
}

// The place [N] among all prototypes of weight [C, K, D] of that one of a sample's class which is nearest to it.
at::Tensor nearest_centres_cpu(const at::Tensor& features, const at::Tensor& weight, const at::Tensor& labels) {
  check_centres(weight);
  const at::Tensor prototypes = prototypes_of(weight), places = at::empty(labels.sizes(), labels.options());
  check_batch(features, prototypes, labels);
  const CpuBatch batch(features, prototypes, labels, false);
  const int64_t centres = centres_of(weight), classes = weight.size(0), size = batch.size;
  check_labels(batch.label, batch.samples, classes);

  const bool all = classes <= batch.samples;  // each prototype once, else those of each sample
  const int64_t count = all ? batch.classes : 0;
  const at::Tensor units = batch.scratch({count, size + 1});
  float *unit = units.data_ptr<float>(), *norms = unit + count * size;
  if (all) batch.normalize(batch.weight, 0, count, size, unit, norms);
  at::parallel_for(0, batch.samples, rows_a_task(size * centres), [&](int64_t begin, int64_t end) {
    std::vector<float> memory(size * (centres + 1)), length(centres);
    float *feature = memory.data(), *own = feature + size;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = batch.label[i] * centres;
      if (!all) batch.loops.normalize(batch.rows(batch.weight, first, centres), size, own, length.data());
      batch.loops.normalize(batch.rows(batch.features, i, 1), size, feature, length.data());
      const float* of_class = all ? unit + first * size : own;
      places.data_ptr<int64_t>()[i] = first + nearest_of(batch.loops, feature, of_class, centres, size);
    }
  });
  return places;
}

TORCH_LIBRARY_IMPL(cifarnet, CPU, library) {
  library.impl("nearest_centres", &nearest_centres_cpu);
  library.impl("add_unit", &add_unit_cpu);
  library.impl("normal_draws", &normal_draws_cpu);
}

}  // namespace margin
