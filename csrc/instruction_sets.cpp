// Which of the objects built from margin_rows.cpp runs: one for each instruction set, chosen when the program starts.
#include <c10/util/Exception.h>

#include "margin_head_cpu.h"

namespace margin {
namespace {

std::vector<const RowLoops*> runnable() {
  std::vector<const RowLoops*> sets;
#ifdef MARGIN_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    sets.push_back(&row_loops_avx512());
  if (avx2) sets.push_back(&row_loops_avx2());
#endif
  sets.push_back(&row_loops_plain());
  return sets;
}

std::atomic<const RowLoops*> chosen{runnable().front()};

}  // namespace

std::atomic<int64_t> cpu_calls{0};

const RowLoops& chosen_loops() { return *chosen; }

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const RowLoops* loops : runnable()) names.emplace_back(loops->name);
  return names;
}

void choose_instruction_set(const std::string& name) {
  for (const RowLoops* loops : runnable())
    if (loops->name == name) {
      chosen = loops;
      return;
    }
  TORCH_CHECK_VALUE(false, "this machine does not run the instruction set '", name, "'");
}

}  // namespace margin
