// What bindings.cpp asks of the CPU backend beside its operators.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "margin_rows.h"

namespace margin {

extern std::atomic<int64_t> cpu_calls;  // forward calls that the CPU kernels have served

const RowLoops& chosen_loops();                    // the widest instruction set of this machine, unless one was chosen
std::vector<std::string> instruction_sets();  // those that this machine runs, widest first
void choose_instruction_set(const std::string& name);

}  // namespace margin
