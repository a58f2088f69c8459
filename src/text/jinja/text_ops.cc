#include "text/jinja/text_ops.h"

#include <string.h>

#include <algorithm>
#include <string>

#include "base/utf8.h"
#include "text/jinja/unicode.h"

namespace idefics::jinja {
namespace {

// Where the character before `at` starts. REQUIRES: at > 0.
size_t previous(std::string_view text, size_t at) {
  --at;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return at;
}

bool in_set(const std::optional<std::string_view>& chars, char32_t c) {
  if (!chars.has_value()) return is_space(c);
  for (size_t at = 0; at < chars->size();) {
    const CodePoint candidate = decode_utf8(*chars, at);
    if (candidate.value == c) return true;
    at += static_cast<size_t>(candidate.length);
  }
  return false;
}

// A sigma at the end of a word has a lower case of its own: a cased letter before it, none behind it, not counting
// characters that case ignores.
bool is_final_sigma(Budget& budget, std::string_view text, size_t at) {
  size_t before = at;
  while (before > 0) {
    before = previous(text, before);
    budget.work(4);
    const char32_t c = decode_utf8(text, before).value;
    if (is_case_ignorable(c)) {
      if (before == 0) return false;
      continue;
    }
    if (!is_cased(c)) return false;
    break;
  }
  if (before == at) return false;
  for (size_t after = at + 2; after < text.size();) {
    budget.work(4);
    const CodePoint c = decode_utf8(text, after);
    if (!is_case_ignorable(c.value)) return !is_cased(c.value);
    after += static_cast<size_t>(c.length);
  }
  return true;
}

std::string lower_at(Budget& budget, std::string_view text, size_t at, char32_t c) {
  if (c == U'\u03a3') return is_final_sigma(budget, text, at) ? "ς" : "σ";
  return to_lower(c);
}

// Replaces each character by what `map` makes of it: map(text, position, character). Its taint goes with it.
template <typename Map>
Value map_characters(Budget& budget, const Text& text, Map map) {
  TextBuilder out(budget);
  Taint::Cursor taint(text.taint);
  budget.work(8 * text.view.size());
  for (size_t at = 0; at < text.view.size();) {
    const CodePoint c = decode_utf8(text.view, at);
    out.append(map(text.view, at, c.value), taint.at(at));
    at += static_cast<size_t>(c.length);
  }
  return out.finish(text.markup);
}

std::string reversed(std::string_view text) { return std::string(text.rbegin(), text.rend()); }

}  // namespace

size_t find(Budget& budget, std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  budget.work(needle.size() + 16);
  // memmem is linear however the two repeat themselves; std::string_view::find is not.
  const void* found = needle.empty() ? text.data() + from
                                     : ::memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  const size_t at =
      found == nullptr ? std::string_view::npos : static_cast<size_t>(static_cast<const char*>(found) - text.data());
  budget.work((found == nullptr ? text.size() : at) - from);
  return at;
}

size_t find_last(Budget& budget, std::string_view text, std::string_view needle) {
  if (needle.size() > text.size()) return std::string_view::npos;
  budget.expect_memory(text.size() + needle.size());
  const size_t at = find(budget, reversed(text), reversed(needle));
  return at == std::string_view::npos ? at : text.size() - at - needle.size();
}

Value add_texts(Budget& budget, const Value& a, const Value& b) {
  const bool markup = a.text().markup || b.text().markup;
  TextBuilder out(budget);
  out.append((markup && !a.text().markup ? escape_markup(budget, a) : a).text());
  out.append((markup && !b.text().markup ? escape_markup(budget, b) : b).text());
  return out.finish(markup);
}

Value escape_markup(Budget& budget, const Value& value) {
  const Value plain = to_text(budget, value);
  const Text& text = plain.text();
  if (text.markup) return plain;
  TextBuilder out(budget);
  Taint::Cursor taint(text.taint);
  for (size_t at = 0; at < text.view.size(); ++at) {
    const char c = text.view[at];
    const std::string_view entity = c == '&'    ? "&amp;"
                                    : c == '<'  ? "&lt;"
                                    : c == '>'  ? "&gt;"
                                    : c == '\'' ? "&#39;"
                                    : c == '"'  ? "&#34;"
                                                : text.view.substr(at, 1);
    out.append(entity, taint.at(at));
  }
  return out.finish(true);
}

Value text_for(Budget& budget, const Text& into, const Value& value) {
  return into.markup ? escape_markup(budget, value) : value;
}

Value strip(Budget& budget, const Text& text, const std::optional<std::string_view>& chars, bool left, bool right) {
  const std::string_view view = text.view;
  const size_t cost = chars.has_value() ? chars->size() + 4 : 4;
  size_t begin = 0, end = view.size();
  while (left && begin < end) {
    budget.work(cost);
    const CodePoint c = decode_utf8(view, begin);
    if (!in_set(chars, c.value)) break;
    begin += static_cast<size_t>(c.length);
  }
  while (right && end > begin) {
    budget.work(cost);
    const size_t last = previous(view, end);
    if (!in_set(chars, decode_utf8(view, last).value)) break;
    end = last;
  }
  return make_part(budget, text, begin, end);
}

Value upper(Budget& budget, const Text& text) {
  return map_characters(budget, text, [](std::string_view, size_t, char32_t c) { return to_upper(c); });
}

Value lower(Budget& budget, const Text& text) {
  return map_characters(budget, text,
                        [&](std::string_view view, size_t at, char32_t c) { return lower_at(budget, view, at, c); });
}

Value capitalize(Budget& budget, const Text& text) {
  return map_characters(budget, text, [&](std::string_view view, size_t at, char32_t c) {
    return at == 0 ? to_title(c) : lower_at(budget, view, at, c);
  });
}

Value title(Budget& budget, const Text& text) {
  bool in_word = false;
  return map_characters(budget, text, [&](std::string_view view, size_t at, char32_t c) {
    std::string out = in_word ? lower_at(budget, view, at, c) : to_title(c);
    in_word = is_cased(c);
    return out;
  });
}

Value swap_case(Budget& budget, const Text& text) {
  return map_characters(budget, text, [&](std::string_view view, size_t at, char32_t c) {
    if (is_upper(c)) return lower_at(budget, view, at, c);
    return is_lower(c) ? to_upper(c) : std::string(view.substr(at, static_cast<size_t>(decode_utf8(view, at).length)));
  });
}

Value replace(Budget& budget, const Text& text, const Text& old, const Text& with, int64_t count) {
  const std::string_view view = text.view;
  TextBuilder out(budget);
  size_t at = 0;
  for (int64_t done = 0; count < 0 || done < count; ++done) {
    size_t found = 0;
    if (old.view.empty()) {
      // Between all characters: before the first, after each.
      if (done > 0 && at >= view.size()) break;
      found = done == 0 ? 0 : at + static_cast<size_t>(decode_utf8(view, at).length);
      budget.work(16);
    } else {
      found = find(budget, view, old.view, at);
      if (found == std::string_view::npos) break;
    }
    out.append(text, at, found);
    out.append(with);
    at = found + old.view.size();
  }
  out.append(text, at, view.size());
  return out.finish(text.markup);
}

std::vector<Value> split(Budget& budget, const Text& text, const std::optional<std::string_view>& separator,
                         int64_t most) {
  const std::string_view view = text.view;
  ListBuilder out(budget);
  const auto done = [&] { return most >= 0 && out.size() >= static_cast<size_t>(most); };
  size_t at = 0;
  if (separator.has_value()) {
    if (separator->empty()) fail("cannot split a text at nothing");
    while (!done()) {
      const size_t found = find(budget, view, *separator, at);
      if (found == std::string_view::npos) break;
      out.push(make_part(budget, text, at, found));
      at = found + separator->size();
    }
    out.push(make_part(budget, text, at, view.size()));
    return std::move(out.items());
  }
  const auto skip = [&](bool blanks) {
    while (at < view.size()) {
      budget.work(2);
      const CodePoint c = decode_utf8(view, at);
      if (is_space(c.value) != blanks) break;
      at += static_cast<size_t>(c.length);
    }
  };
  for (skip(true); at < view.size(); skip(true)) {
    const size_t begin = at;
    if (done()) {
      out.push(make_part(budget, text, begin, view.size()));
      break;
    }
    skip(false);
    out.push(make_part(budget, text, begin, at));
  }
  return std::move(out.items());
}

std::vector<Value> split_from_right(Budget& budget, const Text& text, const std::optional<std::string_view>& separator,
                                    int64_t most) {
  std::string_view view = text.view;
  ListBuilder out(budget);
  const auto done = [&] { return most >= 0 && out.size() >= static_cast<size_t>(most); };
  if (separator.has_value()) {
    if (separator->empty()) fail("cannot split a text at nothing");
    // Searching from the right is searching the reversed text from the left.
    budget.expect_memory(2 * view.size());
    const std::string backwards = reversed(view), needle = reversed(*separator);
    size_t at = 0;
    while (!done()) {
      const size_t found = find(budget, backwards, needle, at);
      if (found == std::string_view::npos) break;
      out.push(make_part(budget, text, view.size() - found, view.size() - at));
      at = found + needle.size();
    }
    out.push(make_part(budget, text, 0, view.size() - at));
  } else {
    size_t end = view.size();
    const auto skip = [&](bool blanks) {
      while (end > 0) {
        budget.work(2);
        const size_t last = previous(view, end);
        if (is_space(decode_utf8(view, last).value) != blanks) break;
        end = last;
      }
    };
    for (skip(true); end > 0; skip(true)) {
      const size_t piece_end = end;
      if (done()) {
        out.push(make_part(budget, text, 0, piece_end));
        break;
      }
      skip(false);
      out.push(make_part(budget, text, end, piece_end));
    }
  }
  std::reverse(out.items().begin(), out.items().end());
  return std::move(out.items());
}

std::vector<Value> split_lines(Budget& budget, const Text& text, bool keep_ends) {
  const std::string_view view = text.view;
  ListBuilder out(budget);
  size_t begin = 0;
  for (size_t at = 0; at < view.size();) {
    budget.work(2);
    const CodePoint c = decode_utf8(view, at);
    const size_t end = at;
    at += static_cast<size_t>(c.length);
    if (!is_line_end(c.value)) continue;
    if (c.value == '\r' && at < view.size() && view[at] == '\n') ++at;
    out.push(make_part(budget, text, begin, keep_ends ? at : end));
    begin = at;
  }
  if (begin < view.size()) out.push(make_part(budget, text, begin, view.size()));
  return std::move(out.items());
}

Value slice_text(Budget& budget, const Text& text, int64_t from, int64_t to) {
  const int64_t length = static_cast<int64_t>(text.length);
  const auto clamp = [length](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + length : i, 0, length); };
  from = clamp(from);
  to = std::max(from, clamp(to));
  const size_t begin = text.offset_of(budget, static_cast<size_t>(from)),
               end = text.offset_of(budget, static_cast<size_t>(to));
  return make_part(budget, text, begin, end);
}

Value pad(Budget& budget, const Text& text, int64_t left, int64_t right, const Fill& fill) {
  TextBuilder out(budget);
  if (left > 0) out.append_repeated(fill.text, static_cast<size_t>(left), fill.tainted);
  out.append(text);
  if (right > 0) out.append_repeated(fill.text, static_cast<size_t>(right), fill.tainted);
  return out.finish(text.markup);
}

Value center(Budget& budget, const Text& text, int64_t width, const Fill& fill) {
  const int64_t room = width - static_cast<int64_t>(text.length);
  if (room <= 0) return pad(budget, text, 0, 0);
  const int64_t left = room / 2 + (room & width & 1);  // where CPython puts the odd one
  return pad(budget, text, left, room - left, fill);
}

}  // namespace idefics::jinja
