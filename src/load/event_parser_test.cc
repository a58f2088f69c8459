#include "load/event_parser.h"

#include <gtest/gtest.h>

#include <vector>

namespace idefics::load {
namespace {

using Events = std::vector<std::string>;

Events events_of(const std::vector<std::string>& pieces, bool expected = true) {
  Events out;
  EventParser parser([&](std::string_view data) { out.emplace_back(data); });
  bool sound = true;
  for (const std::string& piece : pieces) sound = parser.push(piece);
  EXPECT_EQ(sound, expected);
  return out;
}

TEST(EventParser, events_however_they_are_cut) {
  const std::vector<std::pair<std::string, Events>> cases = {
      {"data: a\n\ndata: b\n\n", {"a", "b"}},
      {"data: a\r\n\r\ndata: b\r\n\r\n", {"a", "b"}},
      {"data: a\r\rdata: b\r\r", {"a", "b"}},
      {"data:a\n\n", {"a"}},
      {"data:  a\n\n", {" a"}},
      {"data: a\ndata: b\n\n", {"a\nb"}},
      {"data\n\n", {""}},
      {"data: \n\n", {""}},
      {": keep-alive\n\n", {}},
      {"event: x\nid: 7\nretry: 10\n\n", {}},
      {"event: x\ndata: a\n: no\nid: 7\n\n", {"a"}},
      {"datax: a\n\n", {}},
      {" data: a\n\n", {}},
      {"\n\n\n\ndata: a\n\n\n", {"a"}},
      {"data: not ended\n", {}},
      {"data: a: b\n\n", {"a: b"}},
      {std::string("data: \0\xff\n\n", 10), {std::string("\0\xff", 2)}},
      {"", {}},
      {"garbage", {}},
      {"<html>\n<body>\n\n", {}},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_EQ(events_of({text}), expected) << text;
    for (size_t cut = 0; cut <= text.size(); ++cut)
      EXPECT_EQ(events_of({text.substr(0, cut), text.substr(cut)}), expected) << text << " at " << cut;
    std::vector<std::string> bytes;
    for (const char c : text) bytes.emplace_back(1, c);
    EXPECT_EQ(events_of(bytes), expected) << text << " byte by byte";
  }
}

TEST(EventParser, what_does_not_end_is_given_up) {
  const std::string block(1 << 20, 'x');
  EXPECT_EQ(events_of({"data: a\n\ndata: ", block, block, block, block, block, "\n\ndata: b\n\n"}, false), Events{"a"});
  std::vector<std::string> lines(6, "data: " + block + "\n");
  lines.push_back("\n");
  EXPECT_EQ(events_of(lines, false), Events{});
}

}  // namespace
}  // namespace idefics::load
