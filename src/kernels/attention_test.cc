#include <algorithm>
#include <cstring>

#include "kernels/kernel_test.h"

namespace idefics::kernels {
namespace {

constexpr KvType kTypes[] = {KvType::kF32, KvType::kBf16, KvType::kQ8};

const char* name_of(KvType dtype) { return dtype == KvType::kF32 ? "f32" : dtype == KvType::kBf16 ? "bf16" : "q8"; }

constexpr uint32_t kGarbage = 0xffffffffu;  // NaN in either type: what a block may hold where nothing was stored

// Keys and values in blocks, as the engine keeps them, and queries of one kv head.
struct Problem {
  KvType dtype;
  int32_t tokens, keys, group, d;
  Rows<float> q;
  std::vector<float> k, v;  // [keys, D]
  std::vector<int32_t> limit;
  std::vector<std::vector<uint32_t>> blocks;
  std::vector<const void*> k_blocks, v_blocks;
  float scale;

  Problem(KvType dtype_, int32_t tokens_, int32_t keys_, int32_t group_, int32_t d_, uint32_t seed)
      : dtype(dtype_), tokens(tokens_), keys(keys_), group(group_), d(d_), q(tokens_, group_ * d_, 3, NAN) {
    Random random(seed);
    scale = 1 / std::sqrt(static_cast<float>(d));
    k = random.normals(size(int64_t{keys} * d), 2);
    v = random.normals(size(int64_t{keys} * d));
    for (int32_t t = 0; t < tokens; ++t) {
      for (int32_t i = 0; i < group * d; ++i) q.row(t)[i] = random.normal();
      limit.push_back(random.integer(1, keys));
    }
    store_keys(keys);
  }

  // Fresh blocks in which only the first `count` keys are stored.
  void store_keys(int32_t count) {
    blocks.clear(), k_blocks.clear(), v_blocks.clear();
    const size_t words = size(int64_t{kBlock} * (padded_head(d) + 4));
    for (int32_t first = 0; first < keys; first += kBlock) {
      for (auto* list : {&k_blocks, &v_blocks}) {
        blocks.emplace_back(words, kGarbage);
        list->push_back(blocks.back().data());
      }
    }
    for (int32_t j = 0; j < count; ++j) store_key(j);
  }
  void store_key(int32_t j) {
    const size_t block = size(j / kBlock) * 2;
    table().kv_store({k.data() + int64_t{j} * d, v.data() + int64_t{j} * d, blocks[block].data(),
                      blocks[block + 1].data(), d, d, j % kBlock, j % kBlock + 1, d, dtype});
  }

  Output output(DType y_dtype = DType::kF32) const { return Output(y_dtype, tokens, group * d, 2); }
  int32_t rows() const { return tokens * group; }
  void run(Output& y, int32_t r0, int32_t r1, const Table& with = table()) const {
    run_on(q.data.data(), DType::kF32, y, r0, r1, with);
  }
  void run_on(const void* queries, DType q_dtype, Output& y, int32_t r0, int32_t r1,
              const Table& with = table()) const {
    const auto attention = dtype == KvType::kF32    ? with.attention_f32
                           : dtype == KvType::kBf16 ? with.attention_bf16
                                                    : with.attention_q8;
    attention({queries, y.data(), k_blocks.data(), v_blocks.data(), limit.data(), q.stride, y.stride(), r0, r1, group,
               d, scale, y.dtype, q_dtype});
  }
  Output run() const {
    Output y = output();
    run(y, 0, rows());
    return y;
  }

  float query(float x) const { return dtype == KvType::kF32 ? x : bf16_to_f32(f32_to_bf16(x)); }
  // Element i of key (or value) j as it is stored.
  float value(const std::vector<float>& x, int64_t j, int32_t i) const {
    if (dtype != KvType::kQ8) return query(x[size(j * d + i)]);
    float most = 0;
    for (int32_t c = 0; c < d; ++c) most = std::fmax(most, std::fabs(x[size(j * d + c)]));
    return most == 0 ? 0 : std::nearbyint(x[size(j * d + i)] * (127 / most)) * (most / 127);
  }
  // softmax(scale q k) v of one row, in double and in one go.
  std::vector<double> wanted(int32_t token, int32_t head) const {
    std::vector<double> p, out(size(d), 0.0);
    for (int32_t j = 0; j < limit[size(token)]; ++j) {
      double dot = 0;
      for (int32_t i = 0; i < d; ++i) dot += double{query(q.row(token)[head * d + i])} * double{value(k, j, i)};
      p.push_back(dot * double{scale});
    }
    const double max = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& x : p) sum += x = std::exp(x - max);
    for (size_t j = 0; j < p.size(); ++j) {
      for (int32_t i = 0; i < d; ++i) out[size(i)] += p[j] / sum * double{value(v, static_cast<int64_t>(j), i)};
    }
    return out;
  }
  // Largest difference from `wanted`.
  double error(const Output& y) const {
    double worst = 0;
    for (int32_t t = 0; t < tokens; ++t) {
      for (int32_t head = 0; head < group; ++head) {
        const std::vector<double> row = wanted(t, head);
        for (int32_t i = 0; i < d; ++i) {
          const double difference = std::fabs(y.at(t, head * d + i) - row[size(i)]);
          worst = difference <= worst ? worst : std::isnan(difference) ? INFINITY : difference;
        }
      }
    }
    return worst;
  }
};

// f32: scores of size 10 have errors of some 1e-6, and so have their exponentials; bf16 rounds each probability by up
// to 2^-9 of itself, but for the largest, which is 1; q8 rounds the largest too, with its scale, so that the error may
// be 2^-9 of the largest value, which is 4.5.
double tolerance(KvType dtype) { return dtype == KvType::kF32 ? 5e-6 : dtype == KvType::kBf16 ? 6e-3 : 9e-3; }

TEST(Attention, agrees_with_softmax_in_double_at_awkward_sizes) {
  uint32_t seed = 1;
  for (const KvType dtype : kTypes) {
    for (const int32_t d : {1, 2, 12, 16, 18, 20, 33, 64, 72, 80, 128, 256}) {
      for (const int32_t keys : {1, 2, 63, 64, 65, 200}) {
        const Problem problem(dtype, 7, keys, static_cast<int32_t>(seed % 5) + 1, d, seed);
        const Output y = problem.run();
        ASSERT_LE(problem.error(y), tolerance(dtype)) << name_of(dtype) << " D " << d << " keys " << keys;
        ASSERT_TRUE(y.gaps_hold());
        ++seed;
      }
    }
  }
}

TEST(Attention, a_causal_prompt_and_a_whole_picture_agree_with_softmax_in_double) {
  for (const KvType dtype : kTypes) {
    Problem prompt(dtype, 150, 150, 2, 20, 1), picture(dtype, 100, 577, 1, 72, 2);
    for (int32_t t = 0; t < 150; ++t) prompt.limit[size(t)] = t + 1;
    for (int32_t& limit : picture.limit) limit = 577;
    EXPECT_LE(prompt.error(prompt.run()), tolerance(dtype));
    EXPECT_LE(picture.error(picture.run()), tolerance(dtype));
  }
}

TEST(Attention, bf16_and_q8_stay_close_to_the_reference_level) {
  for (const KvType dtype : {KvType::kBf16, KvType::kQ8}) {
    for (const int32_t tokens : {1, 7, 20}) {
      const Problem problem(dtype, tokens, 300, 3, 64, 3);
      const Output y = problem.run();
      Output ref = problem.output();
      problem.run(ref, 0, problem.rows(), *find_table("ref"));
      for (int32_t t = 0; t < tokens; ++t) {
        for (int32_t i = 0; i < 3 * 64; ++i)
          ASSERT_NEAR(y.at(t, i), ref.at(t, i), 5e-4) << name_of(dtype);  // a probability rounded the other way
      }
    }
  }
}

TEST(Attention, writes_bf16_as_the_rounded_f32) {
  for (const KvType dtype : kTypes) {
    const Problem problem(dtype, 9, 100, 3, 18, 4);
    const Output f32 = problem.run();
    Output bf16 = problem.output(DType::kBf16);
    problem.run(bf16, 0, problem.rows());
    for (int32_t t = 0; t < 9; ++t) {
      for (int32_t i = 0; i < 3 * 18; ++i) ASSERT_EQ(bf16.bf16.row(t)[i], f32_to_bf16(f32.at(t, i)));
    }
    EXPECT_TRUE(bf16.gaps_hold());
  }
}

TEST(Attention, any_split_of_rows_gives_the_same_bytes) {
  Random random(5);
  for (const KvType dtype : kTypes) {
    for (int round = 0; round < 60; ++round) {
      const int32_t keys = random.integer(1, 400), group = random.integer(1, 5), d = random.integer(1, 8) * 10;
      Problem problem(dtype, random.integer(1, 60), keys, group, d, static_cast<uint32_t>(round));
      if (round % 2 == 0) {  // a chunk of a prompt
        for (int32_t t = 0; t < problem.tokens; ++t) problem.limit[size(t)] = std::min(keys, keys / 2 + t + 1);
      }
      const Output whole = problem.run();
      Output parts = problem.output();
      for (int32_t r0 = 0; r0 < problem.rows();) {
        const int32_t r1 = std::min(problem.rows(), r0 + random.integer(1, round % 3 == 0 ? 3 : 40));
        problem.run(parts, r0, r1);
        r0 = r1;
      }
      ASSERT_TRUE(whole.same_bytes(parts)) << name_of(dtype) << " round " << round;
    }
  }
}

TEST(Attention, a_row_does_not_depend_on_the_other_rows) {
  Random random(6);
  for (const KvType dtype : kTypes) {
    for (int round = 0; round < 30; ++round) {
      Problem problem(dtype, random.integer(2, 30), 300, random.integer(1, 5), 2 * random.integer(1, 40),
                      static_cast<uint32_t>(round));
      const Output before = problem.run();
      const int32_t kept = random.integer(0, problem.tokens - 1);
      for (int32_t t = 0; t < problem.tokens; ++t) {
        if (t == kept) continue;
        problem.limit[size(t)] = random.integer(1, 300);
        for (int32_t i = 0; i < problem.q.width; ++i) problem.q.row(t)[i] = 5 * random.normal();
      }
      const Output after = problem.run();
      ASSERT_EQ(std::memcmp(before.f32.row(kept), after.f32.row(kept), size(problem.q.width) * 4), 0) << round;
    }
  }
}

TEST(Attention, hidden_keys_have_no_influence_whatever_lies_in_their_slots) {
  Random random(7);
  for (const KvType dtype : kTypes) {
    for (int round = 0; round < 40; ++round) {
      Problem problem(dtype, random.integer(1, 9), random.integer(2, 200), random.integer(1, 4), random.integer(1, 80),
                      static_cast<uint32_t>(round));
      const int32_t most = random.integer(1, problem.keys - 1);
      for (int32_t& limit : problem.limit) limit = random.integer(std::max(1, most - 3), most);
      const Output full = problem.run();
      problem.store_keys(most);  // the rest is NaN
      const Output fresh = problem.run();
      for (int32_t j = most; j < problem.keys; ++j) {
        for (int32_t i = 0; i < problem.d; ++i)
          problem.k[size(int64_t{j} * problem.d + i)] = problem.v[size(int64_t{j} * problem.d + i)] = INFINITY;
        problem.store_key(j);
      }
      const Output poisoned = problem.run();
      ASSERT_TRUE(full.same_bytes(fresh) && full.same_bytes(poisoned)) << name_of(dtype) << " round " << round;
    }
  }
}

TEST(Attention, a_nan_reaches_the_rows_that_see_it_and_no_others) {
  for (const KvType dtype : kTypes) {
    for (const bool in_value : {false, true}) {
      Problem problem(dtype, 12, 100, 2, 20, 8);
      for (int32_t t = 0; t < 12; ++t) problem.limit[size(t)] = 64 + t;
      (in_value ? problem.v : problem.k)[70 * 20 + 3] = NAN;
      problem.store_keys(100);
      const Output y = problem.run();
      for (int32_t t = 0; t < 12; ++t) {
        for (int32_t i = 0; i < 2 * 20; ++i) {
          // A value of q8 is NaN as a whole: the scale is.
          const bool sees = problem.limit[size(t)] > 70 && (!in_value || i % 20 == 3 || dtype == KvType::kQ8);
          ASSERT_EQ(std::isnan(y.at(t, i)), sees) << t << " " << i;
        }
      }
    }
    Problem problem(dtype, 3, 100, 2, 20, 8);
    problem.q.row(1)[20] = NAN;
    const Output y = problem.run();
    for (int32_t t = 0; t < 3; ++t) {
      for (int32_t i = 0; i < 2 * 20; ++i) ASSERT_EQ(std::isnan(y.at(t, i)), t == 1 && i >= 20);
    }
  }
}

TEST(Attention, extreme_scores_pick_one_key_and_equal_scores_take_the_mean) {
  for (const KvType dtype : kTypes) {
    Problem problem(dtype, 4, 150, 1, 16, 9);
    for (int32_t& limit : problem.limit) limit = 150;
    for (float& x : problem.k) x = 0;
    for (float& x : problem.v) x = 1;
    for (int32_t i = 0; i < 16; ++i) {
      problem.q.row(0)[i] = problem.q.row(1)[i] = 100;
      problem.q.row(2)[i] = -100;
      problem.k[size(100 * 16 + i)] = 100;
      problem.v[size(100 * 16 + i)] = 3;
    }
    problem.store_keys(150);
    const Output y = problem.run();
    for (int32_t i = 0; i < 16; ++i) {
      // 2^-57000 of everything else is nothing. q8: the scale 3 / 127 is rounded to bf16 with the probability.
      const float allowed = dtype == KvType::kQ8 ? 0x1p-8f : 0;
      EXPECT_NEAR(y.at(0, i), 3.0f, 3 * allowed);
      EXPECT_NEAR(y.at(2, i), 1.0f, allowed);
    }
    for (float& x : problem.k) x = 0;
    problem.store_keys(150);
    EXPECT_LE(problem.error(problem.run()), dtype == KvType::kQ8 ? 3e-5 : 1e-6);  // q8: 127 (3 / 127) is not 3
  }
}

TEST(Attention, a_scale_of_zero_takes_the_mean_and_a_negative_one_turns_the_order) {
  for (const KvType dtype : kTypes) {
    for (const float scale : {0.0f, -0.3f}) {
      Problem problem(dtype, 20, 130, 1, 20, 11);
      problem.scale = scale;
      EXPECT_LE(problem.error(problem.run()), tolerance(dtype)) << name_of(dtype) << " " << scale;
    }
  }
}

TEST(Attention, a_row_keeps_its_bytes_when_others_see_infinite_values) {
  for (const KvType dtype : kTypes) {
    Problem problem(dtype, 12, 100, 2, 20, 8);
    for (int32_t t = 0; t < 12; ++t) problem.limit[size(t)] = 64 + t;
    const Output before = problem.run();
    problem.v[70 * 20 + 3] = INFINITY;
    problem.store_key(70);
    const Output after = problem.run();
    for (int32_t t = 0; t < 12; ++t) {
      if (problem.limit[size(t)] > 70) continue;
      ASSERT_EQ(std::memcmp(before.f32.row(t), after.f32.row(t), 40 * sizeof(float)), 0) << t;
    }
  }
}

TEST(KvStore, writes_its_slot_and_zeros_beyond_the_head_and_nothing_else) {
  for (const KvType dtype : {KvType::kF32, KvType::kBf16}) {
    for (const int32_t d : {1, 2, 12, 16, 18, 64, 72}) {
      Random random(10);
      const std::vector<float> k = random.normals(size(d)), v = random.normals(size(d));
      const int32_t dp = padded_head(d);
      for (const int32_t slot : {0, 1, 17, 62, 63}) {
        const bool f32 = dtype == KvType::kF32;
        std::vector<uint32_t> k_block(size(kBlock * (f32 ? d : dp / 2)), kGarbage);
        std::vector<uint32_t> v_block(size(kBlock * (f32 ? dp : dp / 2)), kGarbage);
        std::vector<uint32_t> k_wanted = k_block, v_wanted = v_block;
        for (int32_t i = 0; i < dp; ++i) {
          const float key = i < d ? k[size(i)] : 0, value = i < d ? v[size(i)] : 0;
          if (f32) {
            if (i < d) k_wanted[size(i * kBlock + slot)] = std::bit_cast<uint32_t>(key);
            v_wanted[size(slot * dp + i)] = std::bit_cast<uint32_t>(value);
          } else {
            reinterpret_cast<uint16_t*>(k_wanted.data())[(i / 2 * kBlock + slot) * 2 + i % 2] = f32_to_bf16(key);
            reinterpret_cast<uint16_t*>(v_wanted.data())[(slot / 2 * dp + i) * 2 + slot % 2] = f32_to_bf16(value);
          }
        }
        table().kv_store({k.data(), v.data(), k_block.data(), v_block.data(), d, d, slot, slot + 1, d, dtype});
        ASSERT_EQ(k_block, k_wanted) << name_of(dtype) << " D " << d << " slot " << slot;
        ASSERT_EQ(v_block, v_wanted) << name_of(dtype) << " D " << d << " slot " << slot;
      }
    }
  }
}

// What q8 means, in the words of table.h. A slot at a time, beside garbage.
TEST(KvStore, q8_is_the_nearest_integer_of_127_steps_and_a_scale) {
  Random random(13);
  for (const int32_t d : {1, 2, 16, 18, 33, 64, 72, 80, 256}) {
    for (const float size_of_it : {1.0f, 1e30f, 1e-25f, 0x1p-101f, 0.0f, NAN, INFINITY}) {
      std::vector<float> k = random.normals(size(d)), v = random.normals(size(d));
      const bool finite = std::isfinite(size_of_it);
      for (float& x : k) x *= finite ? size_of_it / 8 : 1;  // no normal is above 8
      if (!finite) k[size(d / 2)] = d % 3 == 0 ? -size_of_it : size_of_it;
      const int32_t dp = padded_head(d), slot = random.integer(0, 63);
      std::vector<int8_t> k_block(size(q8_block_bytes(d)), 0x55), v_block = k_block;
      std::vector<int8_t> k_wanted = k_block, v_wanted = v_block;
      for (const bool of_value : {false, true}) {
        const std::vector<float>& x = of_value ? v : k;
        std::vector<int8_t>& wanted = of_value ? v_wanted : k_wanted;
        float most = 0;
        bool whole = true;
        for (const float e : x) most = std::fmax(most, std::fabs(e)), whole = whole && std::isfinite(e);
        const bool zero = !whole || most < 0x1p-100f;
        for (int32_t i = 0; i < dp; ++i) {
          const double n = zero || i >= d ? 0 : std::nearbyint(double{x[size(i)]} * double{127 / most});
          wanted[size(of_value ? (slot / 2 * dp + i) * 2 + slot % 2 : (i / 2 * kBlock + slot) * 2 + i % 2)] =
              static_cast<int8_t>(n);
        }
        const float scale = !whole ? NAN : zero ? 0 : most / 127;
        std::memcpy(wanted.data() + kBlock * dp + 4 * slot, &scale, 4);
      }
      table().kv_store({k.data(), v.data(), k_block.data(), v_block.data(), d, d, slot, slot + 1, d, KvType::kQ8});
      ASSERT_EQ(k_block, k_wanted) << "D " << d << " size " << size_of_it;
      ASSERT_EQ(v_block, v_wanted) << "D " << d << " size " << size_of_it;
    }
  }
}

TEST(KvStore, many_tokens_at_once_give_the_same_bytes_as_one_by_one) {
  Random random(12);
  for (const KvType dtype : kTypes) {
    for (const int32_t d : {1, 16, 18, 33, 64, 72, 96, 256}) {
      const int64_t k_stride = d + 5, v_stride = d + 3;
      const std::vector<float> k = random.normals(size(kBlock * k_stride)), v = random.normals(size(kBlock * v_stride));
      for (int round = 0; round < 12; ++round) {
        const int32_t slot0 = round == 0 ? 0 : random.integer(0, kBlock);
        const int32_t slot1 = round == 0 ? kBlock : random.integer(slot0, kBlock);
        const std::vector<uint32_t> fresh(size(int64_t{kBlock} * (padded_head(d) + 4)), kGarbage);
        std::vector<uint32_t> k_block = fresh, v_block = fresh, k_wanted = fresh, v_wanted = fresh;
        table().kv_store(
            {k.data(), v.data(), k_block.data(), v_block.data(), k_stride, v_stride, slot0, slot1, d, dtype});
        for (int32_t slot = slot0; slot < slot1; ++slot) {
          const int64_t row = slot - slot0;
          table().kv_store({k.data() + row * k_stride, v.data() + row * v_stride, k_wanted.data(), v_wanted.data(), 0,
                            0, slot, slot + 1, d, dtype});
        }
        ASSERT_EQ(k_block, k_wanted) << name_of(dtype) << " D " << d << " slots " << slot0 << " to " << slot1;
        ASSERT_EQ(v_block, v_wanted) << name_of(dtype) << " D " << d << " slots " << slot0 << " to " << slot1;
      }
    }
  }
}

std::vector<uint16_t> to_bf16(const std::vector<float>& x) {
  std::vector<uint16_t> y;
  for (const float e : x) y.push_back(f32_to_bf16(e));
  return y;
}

TEST(KvStore, keys_and_values_in_bf16_are_stored_like_the_floats_that_they_are) {
  Random random(14);
  for (const KvType dtype : kTypes) {
    for (const int32_t d : {1, 15, 16, 18, 33, 64, 72, 96, 256}) {
      const int64_t k_stride = d + 5, v_stride = d + 3;
      std::vector<float> k = random.normals(size(kBlock * k_stride)), v = random.normals(size(kBlock * v_stride));
      const std::vector<uint16_t> k_bf16 = to_bf16(k), v_bf16 = to_bf16(v);
      for (size_t i = 0; i < k.size(); ++i) k[i] = bf16_to_f32(k_bf16[i]);
      for (size_t i = 0; i < v.size(); ++i) v[i] = bf16_to_f32(v_bf16[i]);
      for (int round = 0; round < 12; ++round) {
        const int32_t slot0 = round == 0 ? 0 : random.integer(0, kBlock);
        const int32_t slot1 = round == 0 ? kBlock : random.integer(slot0, kBlock);
        const std::vector<uint32_t> fresh(size(int64_t{kBlock} * (padded_head(d) + 4)), kGarbage);
        std::vector<uint32_t> k_block = fresh, v_block = fresh, k_wanted = fresh, v_wanted = fresh;
        table().kv_store({k_bf16.data(), v_bf16.data(), k_block.data(), v_block.data(), k_stride, v_stride, slot0,
                          slot1, d, dtype, DType::kBf16});
        table().kv_store(
            {k.data(), v.data(), k_wanted.data(), v_wanted.data(), k_stride, v_stride, slot0, slot1, d, dtype});
        ASSERT_EQ(k_block, k_wanted) << name_of(dtype) << " D " << d << " slots " << slot0 << " to " << slot1;
        ASSERT_EQ(v_block, v_wanted) << name_of(dtype) << " D " << d << " slots " << slot0 << " to " << slot1;
      }
    }
  }
}

TEST(Attention, queries_in_bf16_give_the_same_bytes_as_the_floats_that_they_are) {
  uint32_t seed = 1;
  for (const KvType dtype : kTypes) {
    for (const int32_t d : {1, 15, 16, 18, 33, 64, 72, 80, 256}) {
      Problem problem(dtype, 37, 130, static_cast<int32_t>(seed % 3) + 1, d, seed);
      const std::vector<uint16_t> q = to_bf16(problem.q.data);
      for (size_t i = 0; i < q.size(); ++i) problem.q.data[i] = bf16_to_f32(q[i]);
      Output y = problem.output();
      problem.run_on(q.data(), DType::kBf16, y, 0, problem.rows());
      ASSERT_TRUE(y.same_bytes(problem.run())) << name_of(dtype) << " D " << d;
      ++seed;
    }
  }
}

}  // namespace
}  // namespace idefics::kernels
