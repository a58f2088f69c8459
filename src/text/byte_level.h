// The alphabet of byte-level BPE: in tokenizer.json every byte is spelled as one printable character.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace idefics {

// The character that spells a byte. 33-126, 161-172 and 174-255 stand for themselves; the other 68 bytes are, in
// increasing order, U+0100 to U+0143 (GPT-2).
char32_t spelling_of_byte(uint8_t byte);

// Appends the bytes that `spelled` stands for. Returns false and appends nothing when it holds a character outside of
// the alphabet.
bool append_spelled_bytes(std::string& out, std::string_view spelled);

// What the reference's decoder makes of a token: its bytes, or its text as it stands when that is not in the alphabet.
std::string decode_spelled(std::string_view spelled);

}  // namespace idefics
