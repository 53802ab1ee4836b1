// Everything through which margin_head_cuda.cu touches the CUDA runtime: launches, shared memory, the device guard and
// the matrix product. tests/cuda_on_host.h stands in for this file where the same kernels run on the CPU, a thread after
// the other, so that their logic is tested on machines without a GPU.
#pragma once
#ifdef MARGIN_ON_HOST
#include "cuda_on_host.h"
#else

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <type_traits>

#define MARGIN_LIBRARY cifarnet
#define MARGIN_DEVICE CUDA
#define MARGIN_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#define MARGIN_SHARED(type, name, ...) __shared__ type name __VA_ARGS__

namespace margin {

using DeviceGuard = c10::cuda::CUDAGuard;

constexpr int64_t kChunkCosines = int64_t(1) << 23;     // 16 MB in fp16: a chunk stays in the L2 cache
constexpr int64_t kChunkPrototypes = int64_t(1) << 25;  // numbers of its prototypes: 64 MB in fp16, their sums 128 MB

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, size_t shared, Arguments&&... arguments) {
  kernel<<<blocks, threads, shared, c10::cuda::getCurrentCUDAStream()>>>(static_cast<Parameters>(arguments)...);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// Bytes of shared memory that a block may have on the current device, static and dynamic together.
inline int64_t shared_limit() {
  int device = 0, bytes = 0;
  C10_CUDA_CHECK(cudaGetDevice(&device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return bytes;
}

// A kernel has 48 KB for its static and its dynamic shared memory together, unless more of the dynamic is asked for.
template <typename Kernel>
void allow_shared(Kernel* kernel, int64_t bytes) {
  C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
}

// Within it no fp16 product is summed in fp16, which cuBLAS may do where it splits K, and everywhere where the user allows it.
class Fp32Sums {
 public:
  Fp32Sums()
      : before_(at::globalContext().allowFP16ReductionCuBLAS()),
        accumulated_(at::globalContext().allowFP16AccumulationCuBLAS()) {
    set(at::globalContext(), decltype(before_){}, false);
    at::globalContext().setAllowFP16AccumulationCuBLAS(false);
  }
  ~Fp32Sums() {
    set(at::globalContext(), before_, true);
    at::globalContext().setAllowFP16AccumulationCuBLAS(accumulated_);
  }

 private:
  // torch's setting is a bool, or since 2.9 an enum of which 0 allows and 1 forbids the sums, 2 the splitting as well.
  template <typename Context, typename Setting>
  static void set(Context& context, Setting before, bool restore) {
    if constexpr (std::is_same_v<Setting, bool>)
      context.setAllowFP16ReductionCuBLAS(restore && before);
    else
      context.setAllowFP16ReductionCuBLAS(restore && int(before) == 0, !restore || int(before) != 2);
  }
  decltype(at::globalContext().allowFP16ReductionCuBLAS()) before_;
  bool accumulated_;
};

// out = a b, summed in fp32; out may be fp32 where a and b are fp16. Rows of any of them may lie further apart than they are long.
inline void product(at::Tensor out, const at::Tensor& a, const at::Tensor& b) {
  const Fp32Sums sums;
  if (out.scalar_type() != a.scalar_type()) at::mm_out(out, a, b, out.scalar_type());
  else at::mm_out(out, a, b);
}

}  // namespace margin

#endif
