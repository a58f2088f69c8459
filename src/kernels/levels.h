// The tables of the CPU levels, as each kernel file provides them; kernels/choose.cc picks one of them.
#pragma once

#include "kernels/table.h"

namespace idefics::kernels {

extern const Table kRefTable;
extern const Table kAvx2Table;    // x86-64 only
extern const Table kAvx512Table;  // x86-64 only

// Tiles multiply bf16 only: the level "amx" is "avx512" with these slots replaced.
struct AmxKernels {
  void (*gemm_bf16)(const GemmArgs&) noexcept;
  void (*attention_bf16)(const AttentionArgs&) noexcept;
  void (*attention_q8)(const AttentionArgs&) noexcept;
};
extern const AmxKernels kAmxKernels;  // x86-64 only

// What each level does with quantised matrices; kernels/choose.cc puts them into the tables.
extern const QuantKernels kRefQuant;
extern const QuantKernels kAvx2Quant;    // x86-64 only
extern const QuantKernels kAvx512Quant;  // x86-64 only
extern const QuantKernels kAmxQuant;     // x86-64 only

}  // namespace idefics::kernels
