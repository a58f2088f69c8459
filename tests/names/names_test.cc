// Every name of the reference's interface is there, and docs/api.md says what became of it.
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "idefics/config.h"
#include "idefics/context.h"
#include "idefics/inputs.h"
#include "idefics/model.h"

namespace idefics {
namespace {

template <typename T>
constexpr bool used(T) {
  return true;
}

TEST(Names, each_of_the_reference_has_ours_and_stands_in_the_documentation) {
  const std::string page = read_file(std::filesystem::path(IDEFICS_SOURCE_DIR) / "docs/api.md", 1 << 20);
  int count = 0;
  // A row "A.b" is found in the table as `b` in the section of `A`.
  const auto documented = [&](const std::string& name) {
    ++count;
    const size_t dot = name.find('.'), section = page.find("`" + name.substr(0, dot) + "`");
    if (section == std::string::npos) return false;
    return dot == std::string::npos || page.find("`" + name.substr(dot + 1), section) != std::string::npos;
  };
#define NAME(reference, python, ...) \
  static_assert(used(__VA_ARGS__));  \
  EXPECT_TRUE(documented(reference)) << "docs/api.md lacks " << reference;
#include "reference_names.def"
#undef NAME
  EXPECT_GT(count, 100);
}

}  // namespace
}  // namespace idefics
