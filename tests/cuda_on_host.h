// Runs the CUDA kernels on the CPU, for tests on machines without a GPU: stands in for csrc/cuda_platform.cuh. A block's
// threads are fibers that take turns; a barrier or a shuffle waits for the block's or the warp's other threads. It shows
// errors of logic, indices and barriers, not of memory ordering or speed.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>
#include <setjmp.h>
#include <ucontext.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#define MARGIN_LIBRARY cifarnet_on_host
#define MARGIN_DEVICE CPU
#define MARGIN_DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(host::shared.data())
#define MARGIN_SHARED(type, name, ...) \
  static type name __VA_ARGS__;        \
  host::fixed[&name] = sizeof(name)
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __syncthreads() host::wait(host::block)
#define __syncwarp() host::wait(host::warps[threadIdx.x / 32])
#undef CUDA_KERNEL_ASSERT
#define CUDA_KERNEL_ASSERT(condition) \
  if (!(condition)) host::fail(#condition)

struct Index {
  unsigned x;
};
inline Index threadIdx, blockIdx, blockDim, gridDim;

namespace host {

struct Group {  // the threads that a barrier waits for
  int live = 0, arrived = 0, generation = 0;
  void pass() {
    if (live > 0 && arrived == live) arrived = 0, ++generation;
  }
};
struct Fiber {  // of a thread number: it runs that thread of one block after the other
  std::vector<char> stack = std::vector<char>(64 << 10);
  jmp_buf turn;  // where it goes on. A jump makes no system call, as swapcontext does: that took most of the time
  bool begun = false, done = false;
};

inline std::vector<std::unique_ptr<Fiber>> fibers;
inline std::vector<Group> warps;
inline Group block;
inline jmp_buf scheduler;
inline std::vector<char> shared;
inline std::map<void*, size_t> fixed;    // of the kernel that runs: its static shared memory, as it is met
inline std::map<void*, int64_t> asked;   // of each kernel: the most dynamic shared memory that was asked for
inline int64_t launches = 0;
inline int64_t limit = 227 << 10;        // of a block: Hopper's
inline std::vector<double> slots;
inline std::string failure;
inline void (*body)(void*);
inline void* body_data;

inline void enter();
inline void yield() {  // back to the scheduler, until the next turn
  if (!_setjmp(fibers[threadIdx.x]->turn)) _longjmp(scheduler, 1);
}
inline void take_turn(Fiber& fiber) {  // of the scheduler
  if (_setjmp(scheduler)) return;
  if (fiber.begun) _longjmp(fiber.turn, 1);
  fiber.begun = true;
  ucontext_t start;
  getcontext(&start);
  start.uc_stack.ss_sp = fiber.stack.data();
  start.uc_stack.ss_size = fiber.stack.size();
  start.uc_link = nullptr;
  makecontext(&start, enter, 0);
  setcontext(&start);
}
inline void leave() {
  fibers[threadIdx.x]->done = true;
  Group& warp = warps[threadIdx.x / 32];
  --warp.live, --block.live;
  warp.pass(), block.pass();
  yield();
}
inline void wait(Group& group) {
  const int generation = group.generation;
  ++group.arrived;
  group.pass();
  while (group.generation == generation) yield();
}
inline void fail(const char* condition) {
  failure = condition;
  fibers[threadIdx.x]->begun = false;  // in the middle of a kernel: the next block's thread begins anew
  leave();
}
inline void enter() {
  for (;;) body(body_data), leave();
}

inline void run_block(unsigned threads) {
  while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
  block = Group{int(threads)};
  warps.assign((threads + 31) / 32, Group{});
  slots.assign(threads, 0.0);
  for (unsigned i = 0; i < threads; ++i) ++warps[i / 32].live, fibers[i]->done = false;
  while (block.live > 0)
    for (unsigned i = 0; i < threads; ++i)
      if (!fibers[i]->done) {
        threadIdx.x = i;
        take_turn(*fibers[i]);
      }
}

}  // namespace host

template <typename V>
V __shfl_xor_sync(unsigned, V value, int step) {
  const unsigned me = threadIdx.x;
  host::slots[me] = double(value);
  host::wait(host::warps[me / 32]);
  const V other = V(host::slots[me ^ unsigned(step)]);
  host::wait(host::warps[me / 32]);
  return other;
}

inline unsigned atomicAdd(unsigned* at, unsigned value) {
  const unsigned old = *at;
  *at += value;
  return old;
}
inline void __threadfence() {}

namespace margin {

struct DeviceGuard {
  explicit DeviceGuard(at::Device) {}
};

constexpr int64_t kChunkCosines = 1 << 12, kChunkPrototypes = 1 << 14;  // so that few classes are several chunks

inline int64_t shared_limit() { return host::limit; }

template <typename Kernel>
void allow_shared(Kernel* kernel, int64_t bytes) {
  host::asked[reinterpret_cast<void*>(kernel)] = bytes;
}

// As the driver: without asking, static and dynamic shared memory are 48 KB together; whatever is asked, the device's limit.
inline void check_shared(void* kernel, int64_t dynamic) {
  int64_t fixed = 0;
  for (const auto& [at, size] : host::fixed) fixed += size;
  const int64_t allowed = host::asked.count(kernel) ? host::asked[kernel] : (48 << 10) - fixed;
  if (dynamic > allowed || dynamic + fixed > host::limit)
    throw std::runtime_error("invalid argument: " + std::to_string(dynamic) + " + " + std::to_string(fixed) +
                             " bytes of shared memory, " + std::to_string(allowed) + " asked for");
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, size_t bytes, Arguments&&... arguments) {
  auto call = [&] { kernel(static_cast<Parameters>(arguments)...); };
  ++host::launches;
  host::shared.assign(bytes, 0);
  host::fixed.clear();
  host::failure.clear();
  host::body = [](void* data) { (*static_cast<decltype(call)*>(data))(); };
  host::body_data = &call;
  blockDim.x = threads, gridDim.x = blocks;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) host::run_block(threads);
  if (!host::failure.empty()) throw std::runtime_error("device-side assertion: " + host::failure);
  check_shared(reinterpret_cast<void*>(kernel), int64_t(bytes));
}

inline void product(at::Tensor out, const at::Tensor& a, const at::Tensor& b) {
  out.copy_(at::mm(a.to(at::kFloat), b.to(at::kFloat)));
}

}  // namespace margin
