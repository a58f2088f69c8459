#include "tensor/ops.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace idefics::ops {

namespace {

using kernels::kBlock;
using kernels::kPanel;

int32_t narrow(int64_t value) {
  IDEFICS_CHECK(value >= 0 && value <= INT32_MAX);
  return static_cast<int32_t>(value);
}

// Rows of a matrix product in one piece of work. The panels of a piece follow each other, so that the rows of `a` stay
// in L2, of which they may take this much, while the weights pass by once for each piece. With many inputs so few rows
// would fit that the weights, which come from L3 or memory, pass too often: then rows come from there as well (256 rows
// of 8192 inputs are 1.35 times as fast as 64). But there should be a few items of work for each thread, and more than
// 512 rows gain nothing.
constexpr int64_t kBytesPerPiece = 1088 << 10;
// Multiples of 16, the rows of a tile of AMX.
constexpr int64_t kMostRows = 512, kManyRows = 256, kFewRows = 160, kFewestRows = 64;

int64_t rows_per_piece(const Exec& exec, const Activation& a, int64_t panels) {
  const int64_t in_cache = kBytesPerPiece / std::max<int64_t>(a.cols() * dtype_bytes(a.dtype()), 1);
  const int64_t for_threads = a.rows() * panels / (4 * exec.pool.num_threads());
  return std::clamp(std::min(in_cache < kFewRows ? kManyRows : in_cache, for_threads) / 16 * 16, kFewestRows,
                    kMostRows);
}

// Splits rows between threads: at least 8 a piece, so that tiny matrices stay on one thread.
template <typename Body>
void for_rows(const Exec& exec, int64_t rows, Body&& body) {
  const int64_t grain = std::max<int64_t>(8, rows / (4 * exec.pool.num_threads()));
  exec.pool.parallel_for(rows, grain, [&](int64_t begin, int64_t end) { body(narrow(begin), narrow(end)); });
}

// What q4 and int8 want to know of their left operand.
void prepare(const Exec& exec, const Activation& a, Format format) {
  const PreparedOperand& p = a.prepared();
  const auto k = narrow(a.cols());
  const uint16_t* x = static_cast<const uint16_t*>(a.data());
  if (format == Format::kQ4) {
    IDEFICS_CHECK(p.groups != nullptr && p.num_groups == kernels::num_groups(k, kernels::kGroup));
    for_rows(exec, a.rows(), [&](int32_t t0, int32_t t1) {
      exec.kernels.quant.group_sums({.x = x, .y = p.groups, .x_stride = a.stride(), .t0 = t0, .t1 = t1, .k = k});
    });
  } else if (format == Format::kInt8) {
    IDEFICS_CHECK(p.values != nullptr && p.num_groups == kernels::num_groups(k, kernels::kGroupInt8));
    for_rows(exec, a.rows(), [&](int32_t t0, int32_t t1) {
      exec.kernels.quant.quantize({.x = x,
                                   .y = p.values,
                                   .scale = p.groups,
                                   .sum = p.integers,
                                   .x_stride = a.stride(),
                                   .t0 = t0,
                                   .t1 = t1,
                                   .k = k});
    });
  }
}

void run_kernel(const kernels::Table& table, const kernels::GemmArgs& args, const Activation& a, Format format) {
  const PreparedOperand& p = a.prepared();
  switch (format) {
    case Format::kF32: return table.gemm_f32(args);
    case Format::kBf16: return table.gemm_bf16(args);
    case Format::kQ8: return table.quant.gemm_q8({.gemm = args, .a_groups = nullptr, .a_integers = nullptr});
    case Format::kQ4: return table.quant.gemm_q4({.gemm = args, .a_groups = p.groups, .a_integers = nullptr});
    case Format::kInt8: return table.quant.gemm_int8({.gemm = args, .a_groups = p.groups, .a_integers = p.integers});
  }
}

// GemmArgs wants a zero behind an odd number of bf16 columns; kernels write only their own columns.
void zero_odd_column(const Activation& y) {
  if (y.dtype() != Element::kBf16 || y.cols() % 2 == 0) return;
  for (int64_t t = 0; t < y.rows(); ++t) static_cast<uint16_t*>(y.row(t))[y.cols()] = 0;
}

void gemm(const Exec& exec, const Activation& a, const PackedMatrix& w, const Activation& y,
          kernels::Epilogue epilogue) {
  IDEFICS_CHECK(a.cols() == w.k() && a.dtype() == w.dtype() && y.rows() == a.rows() && y.cols() == w.n());
  const bool int8 = w.format() == Format::kInt8;
  prepare(exec, a, w.format());
  const int64_t rows = rows_per_piece(exec, a, w.num_panels());
  const int64_t pieces = (a.rows() + rows - 1) / rows;
  exec.pool.parallel_for(w.num_panels() * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end;) {
      const int64_t panel0 = item % w.num_panels(), m0 = item / w.num_panels() * rows;
      const int64_t panel1 = std::min<int64_t>(panel0 + end - item, w.num_panels());
      const int64_t m1 = std::min(m0 + rows, a.rows());
      item += panel1 - panel0;
      run_kernel(exec.kernels,
                 {.a = int8 ? a.prepared().values : a.data(),
                  .b = w.data(),
                  .bias = w.bias(),
                  .y = y.data(),
                  .a_stride = int8 ? a.prepared().num_groups * kernels::kGroupInt8 : a.stride(),
                  .y_stride = y.stride(),
                  .m0 = narrow(m0),
                  .m1 = narrow(m1),
                  .panel0 = narrow(panel0),
                  .panel1 = narrow(panel1),
                  .n = w.n(),
                  .k = w.k(),
                  .y_dtype = y.dtype(),
                  .epilogue = epilogue},
                 a, w.format());
    }
  });
  zero_odd_column(y);
}

// Splits work on the rows of several sequences between threads: `pieces_of(sequence)` pieces each, in one region.
template <typename PiecesOf, typename Body>
void for_pieces(const Exec& exec, std::span<const KvRows> sequences, int64_t grain, PiecesOf&& pieces_of, Body&& body) {
  int64_t total = 0;
  for (const KvRows& s : sequences) total += pieces_of(s);
  exec.pool.parallel_for(total, grain, [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // piece of the sequence
    for (const KvRows& s : sequences) {
      const int64_t count = pieces_of(s);
      for (int64_t i = std::max(begin, first); i < std::min(end, first + count); ++i) body(s, i - first);
      first += count;
    }
  });
}

auto attention_kernel(const kernels::Table& table, KvType dtype) {
  switch (dtype) {
    case KvType::kF32: return table.attention_f32;
    case KvType::kBf16: return table.attention_bf16;
    case KvType::kQ8: break;
  }
  return table.attention_q8;
}

}  // namespace

void matmul(const Exec& exec, const Activation& a, const PackedMatrix& w, const Activation& y) {
  gemm(exec, a, w, y, kernels::Epilogue::kStore);
}

void matmul_add(const Exec& exec, const Activation& a, const PackedMatrix& w, Matrix<float> y) {
  gemm(exec, a, w, y, kernels::Epilogue::kAdd);
}

void matmul_gelu(const Exec& exec, const Activation& a, const PackedMatrix& w, const Activation& y) {
  gemm(exec, a, w, y, kernels::Epilogue::kGeluTanh);
}

void expect(const Exec& exec, const PackedMatrix& next) {
  exec.pool.expect(next.data(), next.num_panels(), next.panel_bytes());
}

void layer_norm(const Exec& exec, Matrix<const float> x, std::span<const float> w, std::span<const float> b, float eps,
                const Activation& y) {
  IDEFICS_CHECK(y.rows() == x.rows() && y.cols() == x.cols() && std::ssize(w) == x.cols() && std::ssize(b) == x.cols());
  for_rows(exec, x.rows(), [&](int32_t t0, int32_t t1) {
    exec.kernels.layer_norm({.x = x.data(),
                             .w = w.data(),
                             .b = b.data(),
                             .y = y.data(),
                             .x_stride = x.stride(),
                             .y_stride = y.stride(),
                             .t0 = t0,
                             .t1 = t1,
                             .e = narrow(x.cols()),
                             .eps = eps,
                             .y_dtype = y.dtype()});
  });
  zero_odd_column(y);
}

void rms_norm(const Exec& exec, Matrix<const float> x, std::span<const float> w, float eps, const Activation& y) {
  IDEFICS_CHECK(y.rows() == x.rows() && y.cols() == x.cols() && std::ssize(w) == x.cols());
  for_rows(exec, x.rows(), [&](int32_t t0, int32_t t1) {
    exec.kernels.rms_norm({.x = x.data(),
                           .w = w.data(),
                           .y = y.data(),
                           .x_stride = x.stride(),
                           .y_stride = y.stride(),
                           .t0 = t0,
                           .t1 = t1,
                           .e = narrow(x.cols()),
                           .eps = eps,
                           .y_dtype = y.dtype()});
  });
  zero_odd_column(y);
}

void rope(const Exec& exec, Matrix<float> x, int heads, Matrix<const float> cos, Matrix<const float> sin,
          std::span<const int32_t> pos) {
  IDEFICS_CHECK(std::ssize(pos) == x.rows() && x.cols() == heads * cos.cols() * 2 && cos.cols() == cos.stride() &&
                sin.cols() == cos.cols());
  for_rows(exec, x.rows(), [&](int32_t t0, int32_t t1) {
    exec.kernels.rope({.x = x.data(),
                       .cos = cos.data(),
                       .sin = sin.data(),
                       .pos = pos.data(),
                       .x_stride = x.stride(),
                       .t0 = t0,
                       .t1 = t1,
                       .heads = heads,
                       .d = narrow(cos.cols() * 2)});
  });
}

void swiglu(const Exec& exec, Matrix<const float> x, const Activation& y) {
  IDEFICS_CHECK(y.rows() == x.rows() && y.cols() * 2 == x.cols());
  for_rows(exec, x.rows(), [&](int32_t t0, int32_t t1) {
    exec.kernels.swiglu({.x = x.data(),
                         .y = y.data(),
                         .x_stride = x.stride(),
                         .y_stride = y.stride(),
                         .t0 = t0,
                         .t1 = t1,
                         .i = narrow(y.cols()),
                         .y_dtype = y.dtype()});
  });
  zero_odd_column(y);
}

void convert(const Exec& exec, Matrix<const float> x, const Activation& y) {
  IDEFICS_CHECK(y.rows() == x.rows() && y.cols() == x.cols());
  for_rows(exec, x.rows(), [&](int32_t t0, int32_t t1) {
    if (y.dtype() == Element::kF32) {
      for (int32_t t = t0; t < t1; ++t) std::memcpy(y.row(t), x.row(t), static_cast<size_t>(x.cols()) * sizeof(float));
      return;
    }
    exec.kernels.to_bf16({.x = x.data(),
                          .y = static_cast<uint16_t*>(y.data()),
                          .x_stride = x.stride(),
                          .y_stride = y.stride(),
                          .t0 = t0,
                          .t1 = t1,
                          .n = narrow(x.cols())});
  });
}

int64_t k_block_bytes(KvType dtype, int head_dim) {
  return dtype == KvType::kF32 ? int64_t{head_dim} * kBlock * 4 : v_block_bytes(dtype, head_dim);
}

int64_t v_block_bytes(KvType dtype, int head_dim) {
  if (dtype == KvType::kQ8) return kernels::q8_block_bytes(head_dim);
  return int64_t{kernels::padded_head(head_dim)} * kBlock * (dtype == KvType::kF32 ? 4 : 2);
}

void kv_store(const Exec& exec, const Activation& k, const Activation& v, std::span<const KvRows> sequences) {
  IDEFICS_CHECK(k.rows() == v.rows() && k.cols() == v.cols() && k.dtype() == v.dtype());
  for (const KvRows& s : sequences) {
    IDEFICS_CHECK(k.cols() == int64_t{s.blocks.kv_heads} * s.blocks.head_dim && s.first_row >= 0 &&
                  s.first_row + s.num_rows <= k.rows());
    IDEFICS_CHECK(s.first_token >= 0 && s.first_token + s.num_rows <= s.blocks.num_blocks * kBlock);
  }
  const auto blocks_of = [](const KvRows& s) {
    return (s.first_token + s.num_rows + kBlock - 1) / kBlock - s.first_token / kBlock;
  };
  const auto pieces_of = [&](const KvRows& s) { return s.blocks.kv_heads * blocks_of(s); };
  for_pieces(exec, sequences, 1, pieces_of, [&](const KvRows& s, int64_t piece) {
    const int64_t count = blocks_of(s), head = piece / count, d = s.blocks.head_dim;
    const int64_t block = s.first_token / kBlock + piece % count, start = block * kBlock;
    const int64_t token0 = std::max(start, s.first_token);
    const int64_t token1 = std::min(start + kBlock, s.first_token + s.num_rows);
    const int64_t row = s.first_row + token0 - s.first_token;
    exec.kernels.kv_store({.k = k.col_range(head * d, d).row(row),
                           .v = v.col_range(head * d, d).row(row),
                           .k_block = s.blocks.k[head * s.blocks.num_blocks + block],
                           .v_block = s.blocks.v[head * s.blocks.num_blocks + block],
                           .k_stride = k.stride(),
                           .v_stride = v.stride(),
                           .slot0 = narrow(token0 - start),
                           .slot1 = narrow(token1 - start),
                           .d = s.blocks.head_dim,
                           .dtype = s.blocks.dtype,
                           .x_dtype = k.dtype()});
  });
}

void attention(const Exec& exec, const Activation& q, int heads, std::span<const KvRows> sequences,
               std::span<const int32_t> limit, float scale, const Activation& y) {
  IDEFICS_CHECK(y.cols() == q.cols() && y.rows() == q.rows() && std::ssize(limit) == q.rows());
  for (const KvRows& s : sequences) {
    IDEFICS_CHECK(q.cols() == int64_t{heads} * s.blocks.head_dim && s.first_row >= 0 &&
                  s.first_row + s.num_rows <= q.rows());
  }
  // A piece is one kv head and about 96 query rows: enough rows to reuse the blocks, enough pieces for all threads.
  const auto rows_of_piece = [&](const KvRows& s) {
    const int64_t group = heads / s.blocks.kv_heads;
    return std::max<int64_t>(group, 96 / group * group);
  };
  const auto pieces_of_head = [&](const KvRows& s) {
    const int64_t rows = s.num_rows * (heads / s.blocks.kv_heads), most = rows_of_piece(s);
    return (rows + most - 1) / most;
  };
  const auto pieces_of = [&](const KvRows& s) { return s.blocks.kv_heads * pieces_of_head(s); };
  for_pieces(exec, sequences, 1, pieces_of, [&](const KvRows& s, int64_t piece) {
    const int32_t group = heads / s.blocks.kv_heads;
    const int64_t count = pieces_of_head(s), head = piece / count, r0 = piece % count * rows_of_piece(s);
    const int64_t width = int64_t{group} * s.blocks.head_dim, column = head * width;
    attention_kernel(exec.kernels, s.blocks.dtype)({.q = q.col_range(column, width).row(s.first_row),
                                                    .y = y.col_range(column, width).row(s.first_row),
                                                    .k_blocks = s.blocks.k + head * s.blocks.num_blocks,
                                                    .v_blocks = s.blocks.v + head * s.blocks.num_blocks,
                                                    .limit = limit.data() + s.first_row,
                                                    .q_stride = q.stride(),
                                                    .y_stride = y.stride(),
                                                    .r0 = narrow(r0),
                                                    .r1 = narrow(std::min(r0 + rows_of_piece(s), s.num_rows * group)),
                                                    .group = group,
                                                    .d = s.blocks.head_dim,
                                                    .scale = scale,
                                                    .y_dtype = y.dtype(),
                                                    .q_dtype = q.dtype()});
  });
  zero_odd_column(y);
}

}  // namespace idefics::ops
