// The tables of the CPU levels, one for each kernel file; kernels/choose.cc picks one of them.
#pragma once

#include "kernels/table.h"

namespace idefics::kernels {

extern const Table kRefTable;
extern const Table kAvx2Table;    // x86-64 only
extern const Table kAvx512Table;  // x86-64 only

}  // namespace idefics::kernels
