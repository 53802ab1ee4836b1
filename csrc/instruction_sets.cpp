// Which of the objects built from margin_rows.cpp runs: one for each instruction set, chosen when the program starts.
#include <c10/util/Exception.h>

#include "margin_head_cpu.h"

namespace margin {
namespace {

std::vector<const Rows*> runnable() {
  std::vector<const Rows*> sets;
#ifdef MARGIN_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    sets.push_back(&rows_avx512());
  if (avx2) sets.push_back(&rows_avx2());
#endif
  sets.push_back(&rows_plain());
  return sets;
}

std::atomic<const Rows*> chosen{runnable().front()};

}  // namespace

std::atomic<int64_t> cpu_calls{0};

const Rows& chosen_rows() { return *chosen; }

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Rows* rows : runnable()) names.emplace_back(rows->name);
  return names;
}

void choose_instruction_set(const std::string& name) {
  for (const Rows* rows : runnable())
    if (rows->name == name) {
      chosen = rows;
      return;
    }
  TORCH_CHECK_VALUE(false, "this machine does not run the instruction set '", name, "'");
}

}  // namespace margin
