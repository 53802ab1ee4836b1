// Everything through which margin_head_cuda.cu touches the CUDA runtime: launches, shared memory, the device guard and
// the matrix product. tests/cuda_on_host.h stands in for this file where the same kernels run on the CPU, a thread after
// the other, so that their logic is tested on machines without a GPU.
#pragma once
#ifdef MARGIN_ON_HOST
#include "cuda_on_host.h"
#else

#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#define MARGIN_LIBRARY cifarnet
#define MARGIN_DEVICE CUDA
#define MARGIN_DYNAMIC_SHARED(type, name) extern __shared__ type name[]

namespace margin {

using DeviceGuard = c10::cuda::CUDAGuard;

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, size_t shared, Arguments&&... arguments) {
  kernel<<<blocks, threads, shared, c10::cuda::getCurrentCUDAStream()>>>(static_cast<Parameters>(arguments)...);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// More than 48 KB of dynamic shared memory must be asked for.
template <typename Kernel>
void allow_shared(Kernel* kernel, int64_t bytes) {
  if (bytes > (48 << 10))
    C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
}

// out = a b, summed in fp32; out may be fp32 where a and b are fp16.
inline void product(at::Tensor out, const at::Tensor& a, const at::Tensor& b) {
  if (out.scalar_type() == a.scalar_type())
    at::mm_out(out, a, b);
  else
    at::mm_out(out, a, b, out.scalar_type());
}

}  // namespace margin

#endif
