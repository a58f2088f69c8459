#include "text/chat_template.h"

#include <gtest/gtest.h>

namespace idefics {
namespace {

TEST(ChatTemplate, renders) { EXPECT_EQ(ChatTemplate::parse("a{{ 1 + 1 }}", "t").render({}).text, "a2"); }

}  // namespace
}  // namespace idefics
