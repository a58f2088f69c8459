#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "idefics/error.h"
#include "kernels/table.h"

namespace idefics::kernels {
namespace {

// Sets IDEFICS_KERNELS while it lives.
class Forced {
 public:
  explicit Forced(const char* level) {
    if (const char* old = std::getenv("IDEFICS_KERNELS")) old_ = old;
    level == nullptr ? unsetenv("IDEFICS_KERNELS") : setenv("IDEFICS_KERNELS", level, 1);
  }
  ~Forced() { old_ ? setenv("IDEFICS_KERNELS", old_->c_str(), 1) : unsetenv("IDEFICS_KERNELS"); }

 private:
  std::optional<std::string> old_;
};

TEST(ChooseTable, a_level_is_forced_by_its_name_or_refused) {
  for (const char* level : {"ref", "avx2", "avx512", "amx"}) {
    const Forced forced(level);
    if (find_table(level) != nullptr) {
      EXPECT_STREQ(choose_table().name, level);
    } else {
      EXPECT_THROW(choose_table(), Error);
    }
  }
}

TEST(ChooseTable, an_unknown_level_is_a_usage_error_that_names_the_known_ones) {
  for (const char* level : {"sse", "AVX2", "avx512 ", "best"}) {
    const Forced forced(level);
    EXPECT_EQ(find_table(level), nullptr);
    try {
      choose_table();
      FAIL() << level;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_NE(std::strstr(error.what(), level), nullptr);
      EXPECT_NE(std::strstr(error.what(), "ref, avx2, avx512 or amx"), nullptr);
    }
  }
}

TEST(ChooseTable, without_a_wish_the_best_level_of_this_cpu_is_taken) {
  for (const char* none : {static_cast<const char*>(nullptr), ""}) {
    const Forced forced(none);
    const char* best = "ref";
    for (const char* level : {"avx2", "avx512", "amx"}) {
      if (find_table(level) != nullptr) best = level;
    }
    EXPECT_STREQ(choose_table().name, best);
  }
}

TEST(ChooseTable, every_table_is_complete) {
  for (const char* level : {"ref", "avx2", "avx512", "amx"}) {
    const Table* table = find_table(level);
    if (table == nullptr) continue;
    EXPECT_STREQ(table->name, level);
    EXPECT_TRUE(table->gemm_f32 && table->gemm_bf16 && table->layer_norm && table->rms_norm && table->rope);
    EXPECT_TRUE(table->swiglu && table->to_bf16 && table->kv_store && table->attention_f32 && table->attention_bf16);
  }
}

}  // namespace
}  // namespace idefics::kernels
