#include "text/split_regex.h"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "base/check.h"
#include "idefics/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace idefics {

namespace {

constexpr size_t kMaxPattern = 8192;
// Matching the released patterns needs a few steps a character; this stops an expression that backtracks without end
// within about a second.
constexpr uint32_t kMatchLimit = 1u << 25;
constexpr uint32_t kHeapLimitKib = 256 * 1024;

bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Rewrites an expression for PCRE2 with PCRE2_UTF and without PCRE2_UCP, in which \s and its like are ASCII.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& name) : pattern_(pattern), name_(name) {}

  std::string run() {
    while (!done()) item();
    return std::move(out_);
  }

 private:
  bool done() const { return at_ >= pattern_.size(); }
  char peek() const { return done() ? '\0' : pattern_[at_]; }
  bool skip(std::string_view text) {
    if (pattern_.substr(at_).substr(0, text.size()) != text) return false;
    at_ += text.size();
    return true;
  }
  [[noreturn]] void fail(std::string_view what) const {
    throw Error(ErrorCode::kBadModel, fmt::format("{} uses {} at byte {}, which is not supported", name_, what, at_));
  }

  void item() {
    const char c = peek();
    switch (c) {
      case '(': return group();
      case ')': return close();
      case '[': return set();
      case '\\': return escape(false);
      case '.': return put(1, "[^\\n]");
      case '*':
      case '+':
      case '?': return quantifier();
      case '{': return counted();
      case '^':
      case '$': fail("an anchor of lines");
      default: return literal();
    }
  }

  void put(size_t consumed, std::string_view text) {
    at_ += consumed;
    out_ += text;
  }
  void copy() { put(1, pattern_.substr(at_, 1)); }

  void literal() {
    if (ignores_case()) refuse_folding();
    copy();
  }

  // Without regard to case, Oniguruma also takes one character for several: (?i:ss) finds "ß", (?i:fi) the ligature.
  void refuse_folding() const {
    if (static_cast<unsigned char>(peek()) >= 0x80) fail("(?i:) with characters outside of ASCII");
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
    const char before = at_ > 0 ? lower(pattern_[at_ - 1]) : '\0', now = lower(peek());
    if ((before == 's' && (now == 's' || now == 't')) || (before == 'f' && (now == 'f' || now == 'i' || now == 'l'))) {
      fail(fmt::format("(?i:) with \"{}{}\"", before, now));
    }
  }

  bool ignores_case() const { return !groups_.empty() && groups_.back(); }

  void close() {
    if (groups_.empty()) fail("an unpaired )");
    groups_.pop_back();
    copy();
  }

  void group() {
    groups_.push_back(ignores_case() || pattern_.substr(at_, 4) == "(?i:");
    if (pattern_.substr(at_, 2) != "(?") {
      if (pattern_.substr(at_, 2) == "(*") fail("(*");
      return put(1, "(?:");  // nobody refers to captures
    }
    for (const std::string_view start : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (skip(start)) {
        out_ += start;
        return;
      }
    }
    fail(fmt::format("the group {}", pattern_.substr(at_, 4)));
  }

  void quantifier() {
    copy();
    if (peek() == '?' || peek() == '+') copy();
  }

  // In Ruby {n}? and {n}+ are quantifiers of quantifiers, and {,m} is one; in PCRE2 they are not.
  void counted() {
    const size_t end = pattern_.find('}', at_);
    if (end == std::string_view::npos) fail("an unpaired {");
    const std::string_view inner = pattern_.substr(at_ + 1, end - at_ - 1);
    if (inner.empty() || !is_digit(inner[0]) || inner.find_first_not_of("0123456789,") != std::string_view::npos) {
      fail(fmt::format("{{{}}}", inner));
    }
    put(end + 1 - at_, pattern_.substr(at_, end + 1 - at_));
    if (peek() == '?' || peek() == '+') fail(fmt::format("{{{}}}{}", inner, peek()));
  }

  void set() {
    copy();
    if (peek() == '^') copy();
    if (peek() == ']') fail("an empty [ ]");
    while (peek() != ']') {
      if (done()) fail("an unpaired [");
      if (peek() == '[') fail("a [ inside of [ ]");
      if (pattern_.substr(at_, 2) == "&&") fail("&& inside of [ ]");
      if (peek() == '\\') {
        escape(true);
      } else {
        literal();
      }
    }
    copy();
  }

  void escape(bool in_set) {
    const std::string_view rest = pattern_.substr(at_);
    if (rest.size() < 2) fail("a \\ at its end");
    const char c = rest[1];
    if (c == 'r' || c == 'n' || c == 't' || c == 'f') return put(2, rest.substr(0, 2));
    if (c == 's') return put(2, "\\p{wspace}");
    if (c == 'S') return put(2, "\\P{wspace}");
    if (c == 'd') return put(2, "\\p{Nd}");
    if (c == 'w') return put(2, in_set ? std::string(kWord) : fmt::format("[{}{}]", kWord, kLatin1Word));
    if (c == 'p' || c == 'P') return property();
    if (is_alpha(c) || is_digit(c) || static_cast<unsigned char>(c) >= 0x80) {
      fail(fmt::format("\\{}", is_alpha(c) || is_digit(c) ? std::string(1, c) : "before a letter"));
    }
    put(2, rest.substr(0, 2));
  }

  void property() {
    const std::string_view rest = pattern_.substr(at_);
    const size_t end = rest.find('}');
    if (rest.size() < 3 || rest[2] != '{' || end == std::string_view::npos) fail("\\p without {}");
    std::string_view name = rest.substr(3, end - 3);
    bool negated = rest[1] == 'P';
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.remove_prefix(1);
    }
    for (const char c : name) {
      if (!is_alpha(c) && c != '_') fail(fmt::format("\\p{{{}}}", name));
    }
    // Without sc: PCRE2 would take a script's extensions, too.
    const bool category = name.size() <= 2;
    put(end + 1, fmt::format("\\{}{{{}{}}}", negated ? 'P' : 'p', category ? "" : "sc:", name));
  }

  static constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
  // Outside of [ ] Oniguruma's \w also has the superscripts and fractions of Latin-1.
  static constexpr std::string_view kLatin1Word = "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

  std::string_view pattern_;
  const std::string& name_;
  size_t at_ = 0;
  std::vector<bool> groups_;  // the open ones: whether they ignore case
  std::string out_;
};

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 128> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

// Limits of a match, the same for all.
pcre2_match_context* limits() {
  static pcre2_match_context* const context = [] {
    pcre2_match_context* c = pcre2_match_context_create(nullptr);
    IDEFICS_CHECK(c != nullptr);
    pcre2_set_match_limit(c, kMatchLimit);
    pcre2_set_heap_limit(c, kHeapLimitKib);
    return c;
  }();
  return context;
}

}  // namespace

RegexScratch::RegexScratch() : match_data_(pcre2_match_data_create(1, nullptr)) {
  IDEFICS_CHECK(match_data_ != nullptr);
}

void RegexScratch::Free::operator()(void* match_data) const {
  pcre2_match_data_free(static_cast<pcre2_match_data*>(match_data));
}

SplitRegex SplitRegex::compile(std::string_view pattern, const std::string& name) {
  if (pattern.size() > kMaxPattern) {
    throw Error(ErrorCode::kBadModel,
                fmt::format("{} has {} bytes, at most {} are supported", name, pattern.size(), kMaxPattern));
  }
  return compile_native(Translator(pattern, name).run(), name);
}

SplitRegex SplitRegex::word_character() {
  return compile_native("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]", "\\w");
}

SplitRegex SplitRegex::compile_native(std::string_view translated, const std::string& name) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(units(translated), translated.size(), PCRE2_UTF, &error, &offset, nullptr);
  if (code == nullptr) {
    throw Error(ErrorCode::kBadModel,
                fmt::format("{}: PCRE2 refuses {} at byte {}: {}", name, translated, offset, error_text(error)));
  }
  std::shared_ptr<const void> owner(code, [](pcre2_code* c) { pcre2_code_free(c); });
  // Without a JIT for this CPU, pcre2_match interprets: slower, but the same.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return SplitRegex(std::move(owner));
}

std::optional<TextRange> SplitRegex::find(std::string_view text, size_t from, const RegexScratch& scratch) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  auto* data = static_cast<pcre2_match_data*>(scratch.match_data());
  // The text was checked once; a check here would read all the rest of it for every match.
  int found = pcre2_match(code, units(text), text.size(), from, PCRE2_NO_UTF_CHECK, data, limits());
  if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
    found = pcre2_match(code, units(text), text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, limits());
  }
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0) {
    throw Error(ErrorCode::kInvalidValue,
                fmt::format("text: the tokenizer's split expression gave up at byte {} of {} ({})", from, text.size(),
                            error_text(found)));
  }
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
  return TextRange{ends[0], ends[1]};
}

}  // namespace idefics
