// Two small operators beside the loss, on the CPU: ElasticFace's draws and KappaFace's sums.
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

// sums[label] += features / norm and a 1 behind them, sample by sample, if the loss is finite; sums [C, D + 1], norm [N]. The labels
// have been checked: margin_loss has run on them.
void add_unit_cpu(at::Tensor& sums, const at::Tensor& features, const at::Tensor& labels, const at::Tensor& norm,
                  const at::Tensor& loss) {
  const at::Tensor z = features.contiguous(), y = labels.contiguous(), lengths = norm.contiguous();
  const int64_t size = z.size(1);
  TORCH_CHECK_VALUE(sums.is_contiguous() && sums.scalar_type() == at::kFloat && sums.size(1) == size + 1,
                    "sums must be float32 [C, ", size + 1, "], not ", sums.scalar_type(), " ", sums.sizes());
  if (!std::isfinite(*loss.const_data_ptr<float>())) return;
  const RowLoops& loops = chosen_loops();
  for (int64_t i = 0; i < z.size(0); ++i) {
    float* row = sums.data_ptr<float>() + y.const_data_ptr<int64_t>()[i] * (size + 1);
    const char* from = static_cast<const char*>(z.const_data_ptr()) + i * size * z.element_size();
    loops.axpby(inverse_of(lengths.const_data_ptr<float>()[i]), from, type_of(z), 1.0f, row, size);
    row[size] += 1.0f;
  }
}

TORCH_LIBRARY_IMPL(cifarnet, CPU, library) {
  library.impl("add_unit", &add_unit_cpu);
  library.impl("normal_draws", &normal_draws_cpu);
}

}  // namespace margin
