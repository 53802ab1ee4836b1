// Rows of cosines on CUDA, eight neighbours at a time: fp16 comes in loads of 16 bytes, and one look at the largest of eight
// says whether a sum's peak rises.
#pragma once

#include "cuda_rows.cuh"

namespace margin {

constexpr int kEight = 8;

template <typename T>
struct alignas(16) Eight {
  T value[kEight];
};

// The rows of a matrix, `pitch` numbers apart.
template <typename T>
struct Rows {
  T* first;
  int64_t pitch;

  __device__ T* at(int64_t row) const { return first + row * pitch; }
};

// Rows so far apart begin at a multiple of 16 bytes, and hold whole eights, the last of them past the row's end maybe.
inline bool whole_eights(int64_t pitch) { return pitch % kEight == 0; }

// The entries of a row from `column` on; past its end 0, or of whole eights anything.
template <bool kWhole, typename T>
__device__ __forceinline__ Eight<T> load_eight(const T* row, int column, int columns) {
  if constexpr (kWhole) return *reinterpret_cast<const Eight<T>*>(row + column);
  Eight<T> eight;
#pragma unroll
  for (int k = 0; k < kEight; ++k) eight.value[k] = column + k < columns ? row[column + k] : T(0.0f);
  return eight;
}

template <bool kWhole, typename T>
__device__ __forceinline__ void store_eight(T* row, int column, int columns, const Eight<T>& eight) {
  if constexpr (kWhole) {
    *reinterpret_cast<Eight<T>*>(row + column) = eight;
    return;
  }
#pragma unroll
  for (int k = 0; k < kEight; ++k)
    if (column + k < columns) row[column + k] = eight.value[k];
}

// The columns of a row that are the other classes', where the row's chunk of classes is `columns` long and the label's column
// is `own`, inside it or not.
struct OtherColumns {
  int own, columns;

  __device__ OtherColumns(int64_t label_column, int64_t columns)
      : own(label_column >= 0 && label_column < columns ? int(label_column) : -1), columns(int(columns)) {}
  __device__ __forceinline__ bool operator()(int column) const { return column != own && column < columns; }
};

// Eight cosines from `column` on join the sum of exp(s (n - peak)); NaN shows in `rest`. Without kShapes the highest cosine is the peak.
template <bool kShapes, typename C, typename IsOther>
__device__ __forceinline__ void add_eight(Others& others, const Target& target, const Eight<C>& cosines, int column,
                                          const IsOther& is_other) {
  float n[kEight], most = kNoLogit;
#pragma unroll
  for (int k = 0; k < kEight; ++k) {
    const float c = clamp_cosine(static_cast<float>(cosines.value[k]));
    n[k] = kShapes ? shaped(c, target.shaping) : c;
    if (!is_other(column + k)) continue;
    if (n[k] > most) most = n[k];
    if (kShapes && c > others.highest) others.highest = c;
  }
  if (most > others.peak) raise_peak(others, target.scale, most);
  const float power = target.scale * kLog2E;
#pragma unroll
  for (int k = 0; k < kEight; ++k) {
    const float below = n[k] - others.peak, e = is_other(column + k) ? power_of_two(power * below) : 0.0f;
    others.rest += e;
    others.moment += is_other(column + k) ? e * below : 0.0f;
  }
}

// The shares of eight cosines, times `boost`: 0 for the label. Of an unshaped cosine a share is at most 1.
template <bool kShapes, typename Share, typename C, typename IsOther>
__device__ __forceinline__ Eight<Share> shares_of_eight(const SampleGradient& sample, float boost, const Eight<C>& cosines, int column,
                                                        const IsOther& is_other) {
  Eight<Share> shares;
  const float steepness = sample.scale * kLog2E;
#pragma unroll
  for (int k = 0; k < kEight; ++k) {
    const float c = clamp_cosine(static_cast<float>(cosines.value[k]));
    const float all = boost * negative_share<kShapes>(sample, steepness, c), share = is_other(column + k) ? all : 0.0f;
    if constexpr (kShapes) store_bounded(shares.value, k, share);
    else store(shares.value, k, share);
  }
  return shares;
}

}  // namespace margin
