#include "base/utf8.h"

namespace idefics {

namespace {

// What may follow a lead byte: the number of continuation bytes and the range of the first of them (Unicode table 3-7).
struct Lead {
  int more;
  uint8_t low, high;
};

Lead lead_of(uint8_t byte) {
  if (byte >= 0xc2 && byte <= 0xdf) return {1, 0x80, 0xbf};
  if (byte == 0xe0) return {2, 0xa0, 0xbf};
  if (byte == 0xed) return {2, 0x80, 0x9f};
  if (byte >= 0xe1 && byte <= 0xef) return {2, 0x80, 0xbf};
  if (byte == 0xf0) return {3, 0x90, 0xbf};
  if (byte >= 0xf1 && byte <= 0xf3) return {3, 0x80, 0xbf};
  if (byte == 0xf4) return {3, 0x80, 0x8f};
  return {0, 0, 0};
}

// Length of the well-formed prefix of a character at `at`, and whether more bytes were wanted at the end of the text.
struct Scan {
  int length;
  bool complete, cut;
};

Scan scan(std::string_view text, size_t at) {
  const auto byte = static_cast<uint8_t>(text[at]);
  if (byte < 0x80) return {1, true, false};
  const Lead lead = lead_of(byte);
  if (lead.more == 0) return {1, false, false};
  for (int i = 1; i <= lead.more; ++i) {
    const size_t j = at + static_cast<size_t>(i);
    if (j >= text.size()) return {i, false, true};
    const auto next = static_cast<uint8_t>(text[j]);
    const uint8_t low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xbf;
    if (next < low || next > high) return {i, false, false};
  }
  return {lead.more + 1, true, false};
}

}  // namespace

CodePoint decode_utf8(std::string_view text, size_t at) {
  const Scan s = scan(text, at);
  if (!s.complete) return {0xfffd, s.length, false};
  const auto first = static_cast<uint8_t>(text[at]);
  if (s.length == 1) return {first, 1, true};
  char32_t value = first & (0xffu >> (s.length + 1));
  for (int i = 1; i < s.length; ++i)
    value = (value << 6) | (static_cast<uint8_t>(text[at + static_cast<size_t>(i)]) & 0x3fu);
  return {value, s.length, true};
}

void append_utf8(std::string& out, char32_t value) {
  const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(static_cast<uint8_t>(byte))); };
  if (value < 0x80) {
    put(value);
  } else if (value < 0x800) {
    put(0xc0 | (value >> 6));
    put(0x80 | (value & 0x3f));
  } else if (value < 0x10000) {
    put(0xe0 | (value >> 12));
    put(0x80 | ((value >> 6) & 0x3f));
    put(0x80 | (value & 0x3f));
  } else {
    put(0xf0 | (value >> 18));
    put(0x80 | ((value >> 12) & 0x3f));
    put(0x80 | ((value >> 6) & 0x3f));
    put(0x80 | (value & 0x3f));
  }
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Scan s = scan(text, i);
    if (!s.complete) return false;
    i += static_cast<size_t>(s.length);
  }
  return true;
}

std::string repair_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) {
    const Scan s = scan(bytes, i);
    if (s.complete) {
      out.append(bytes, i, static_cast<size_t>(s.length));
    } else {
      append_utf8(out, 0xfffd);
    }
    i += static_cast<size_t>(s.length);
  }
  return out;
}

size_t incomplete_utf8_tail(std::string_view bytes) {
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const auto byte = static_cast<uint8_t>(bytes[bytes.size() - back]);
    if (byte >= 0x80 && byte < 0xc0) continue;  // a continuation byte: look further back
    return scan(bytes, bytes.size() - back).cut ? back : 0;
  }
  return 0;
}

}  // namespace idefics
