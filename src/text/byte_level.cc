#include "text/byte_level.h"

#include <array>

#include "base/utf8.h"

namespace idefics {

namespace {

constexpr char32_t kAlphabetEnd = 0x144;

constexpr bool spells_itself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
}

struct Alphabet {
  std::array<char32_t, 256> char_of_byte{};
  std::array<int16_t, kAlphabetEnd> byte_of_char{};  // -1: spells nothing
};

constexpr Alphabet make_alphabet() {
  Alphabet a;
  for (int16_t& byte : a.byte_of_char) byte = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t c = spells_itself(byte) ? static_cast<char32_t>(byte) : next++;
    a.char_of_byte[static_cast<size_t>(byte)] = c;
    a.byte_of_char[c] = static_cast<int16_t>(byte);
  }
  return a;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

char32_t spelling_of_byte(uint8_t byte) { return kAlphabet.char_of_byte[byte]; }

bool append_spelled_bytes(std::string& out, std::string_view spelled) {
  const size_t before = out.size();
  for (size_t at = 0; at < spelled.size();) {
    const CodePoint c = decode_utf8(spelled, at);
    const int byte = c.valid && c.value < kAlphabetEnd ? kAlphabet.byte_of_char[c.value] : -1;
    if (byte < 0) {
      out.resize(before);
      return false;
    }
    out.push_back(static_cast<char>(byte));
    at += static_cast<size_t>(c.length);
  }
  return true;
}

std::string decode_spelled(std::string_view spelled) {
  std::string bytes;
  if (!append_spelled_bytes(bytes, spelled)) bytes = spelled;
  return bytes;
}

}  // namespace idefics
