// Where a text in UTF-8 stands within a character, byte by byte.
#pragma once

#include <cstddef>
#include <cstdint>

namespace idefics::grammar {

class Utf8Position {
 public:
  static constexpr size_t kCount = 9;

  constexpr size_t index() const { return at_; }
  static constexpr Utf8Position of_index(size_t index) { return Utf8Position(static_cast<At>(index)); }
  constexpr bool at_boundary() const { return at_ == kBoundary; }
  constexpr bool is_valid() const { return at_ != kInvalid; }

  // After one more byte. What is invalid stays so.
  constexpr Utf8Position next(uint8_t byte) const {
    const auto within = [byte](uint8_t low, uint8_t high) { return low <= byte && byte <= high; };
    switch (at_) {
      case kBoundary:
        if (byte < 0x80) return Utf8Position(kBoundary);
        if (within(0xc2, 0xdf)) return Utf8Position(kOneLeft);
        if (byte == 0xe0) return Utf8Position(kAfterE0);
        if (byte == 0xed) return Utf8Position(kAfterEd);
        if (within(0xe1, 0xef)) return Utf8Position(kTwoLeft);
        if (byte == 0xf0) return Utf8Position(kAfterF0);
        if (within(0xf1, 0xf3)) return Utf8Position(kThreeLeft);
        return Utf8Position(byte == 0xf4 ? kAfterF4 : kInvalid);
      case kOneLeft: return Utf8Position(within(0x80, 0xbf) ? kBoundary : kInvalid);
      case kTwoLeft: return Utf8Position(within(0x80, 0xbf) ? kOneLeft : kInvalid);
      case kThreeLeft: return Utf8Position(within(0x80, 0xbf) ? kTwoLeft : kInvalid);
      case kAfterE0: return Utf8Position(within(0xa0, 0xbf) ? kOneLeft : kInvalid);
      case kAfterEd: return Utf8Position(within(0x80, 0x9f) ? kOneLeft : kInvalid);
      case kAfterF0: return Utf8Position(within(0x90, 0xbf) ? kTwoLeft : kInvalid);
      case kAfterF4: return Utf8Position(within(0x80, 0x8f) ? kTwoLeft : kInvalid);
      case kInvalid: break;
    }
    return Utf8Position(kInvalid);
  }

  constexpr Utf8Position() = default;

 private:
  enum At : uint8_t {
    kBoundary,
    kOneLeft,
    kTwoLeft,
    kThreeLeft,
    kAfterE0,
    kAfterEd,
    kAfterF0,
    kAfterF4,
    kInvalid,
  };
  explicit constexpr Utf8Position(At at) : at_(at) {}

  At at_ = kBoundary;
};

// A set of characters below 0x80.
class AsciiSet {
 public:
  constexpr void add(uint8_t byte) { words_[byte / 64] |= uint64_t{1} << (byte % 64); }
  constexpr void add(const AsciiSet& other) {
    words_[0] |= other.words_[0];
    words_[1] |= other.words_[1];
  }
  constexpr bool is_subset_of(const AsciiSet& other) const {
    return ((words_[0] & ~other.words_[0]) | (words_[1] & ~other.words_[1])) == 0;
  }
  constexpr bool intersects(const AsciiSet& other) const {
    return ((words_[0] & other.words_[0]) | (words_[1] & other.words_[1])) != 0;
  }
  int size() const { return __builtin_popcountll(words_[0]) + __builtin_popcountll(words_[1]); }

 private:
  uint64_t words_[2] = {0, 0};
};

}  // namespace idefics::grammar
