#include "text/pre_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/utf8.h"

namespace idefics {

namespace {

constexpr size_t kMaxSteps = 32;

// GPT-2's expression, which ByteLevel brings along.
constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Calls found(begin, end) for the matches of an expression, in order. An empty match right behind a match does not
// count.
template <typename Found>
void each_match(const SplitRegex& regex, std::string_view text, const RegexScratch& scratch, Found found) {
  size_t last_end = std::string_view::npos;
  for (size_t from = 0; from <= text.size();) {
    const auto match = regex.find(text, from, scratch);
    if (!match) return;
    if (match->begin == match->end && match->end == last_end) {
      from += from < text.size() ? static_cast<size_t>(decode_utf8(text, from).length) : 1;
      continue;
    }
    found(match->begin, match->end);
    from = last_end = match->end;
  }
}

template <typename Found>
void each_match(const std::string& literal, std::string_view text, const RegexScratch&, Found found) {
  for (size_t at = text.find(literal); at != std::string_view::npos; at = text.find(literal, at + literal.size())) {
    found(at, at + literal.size());
  }
}

}  // namespace

PreTokenizer PreTokenizer::parse(const json::value& value, const std::string& name) {
  PreTokenizer result;
  result.add(value, name);
  if (!result.has_byte_level_) {
    throw Error(ErrorCode::kBadModel,
                fmt::format("{}: does not end in ByteLevel, only byte-level BPE is supported", name));
  }
  return result;
}

void PreTokenizer::add(const json::value& value, const std::string& name) {
  const JsonObject object = JsonObject::of(value, name);
  const std::string type = object.find_string("type").value_or("");
  if (type == "Sequence") {
    const json::array* parts = object.find_array("pretokenizers");
    if (parts == nullptr) object.fail("pretokenizers", "is missing");
    for (size_t i = 0; i < parts->size(); ++i) add((*parts)[i], fmt::format("{}: pretokenizers[{}]", name, i));
    return;
  }
  if (has_byte_level_) object.fail("type", fmt::format("is \"{}\" after ByteLevel, which must be the last", type));
  if (steps_.size() >= kMaxSteps)
    object.fail("type", fmt::format("is step {}, at most {} are supported", steps_.size(), kMaxSteps));
  if (type == "Digits") {
    const bool each = object.find_bool("individual_digits").value_or(false);
    steps_.emplace_back(Cut{SplitRegex::compile("\\p{N}", name), each ? Behavior::kIsolated : Behavior::kContiguous});
  } else if (type == "Split") {
    add_split(object);
  } else if (type == "ByteLevel") {
    add_byte_level(object);
  } else {
    object.fail("type",
                fmt::format("is {}, supported are Sequence, Digits, Split and ByteLevel", describe(json::value(type))));
  }
}

void PreTokenizer::add_split(const JsonObject& object) {
  const auto pattern = object.find_object("pattern");
  if (!pattern) object.fail("pattern", "is missing");
  const Behavior behavior = behavior_of(object);
  const bool invert = object.find_bool("invert").value_or(false);
  if (const auto regex = pattern->find_string("Regex")) {
    steps_.emplace_back(Cut{SplitRegex::compile(*regex, pattern->name() + ": Regex"), behavior, invert});
  } else if (const auto literal = pattern->find_string("String"); literal && !literal->empty()) {
    steps_.emplace_back(Cut{*literal, behavior, invert});
  } else {
    object.fail("pattern", "has neither \"Regex\" nor a \"String\" that is not empty");
  }
}

void PreTokenizer::add_byte_level(const JsonObject& object) {
  if (object.find_bool("add_prefix_space").value_or(true)) steps_.emplace_back(PrefixBlank{});
  if (object.find_bool("use_regex").value_or(true)) steps_.emplace_back(Cut{SplitRegex::compile(kGpt2, object.name())});
  has_byte_level_ = true;
}

PreTokenizer::Behavior PreTokenizer::behavior_of(const JsonObject& object) {
  const std::string name = object.find_string("behavior").value_or("");
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  object.fail("behavior",
              fmt::format("is {}, wanted Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous",
                          describe(json::value(name))));
}

const std::vector<std::string_view>& PreTokenizer::split(std::string_view text, Scratch& scratch) const {
  scratch.pieces.assign(text.empty() ? 0 : 1, text);
  for (const Step& step : steps_) {
    std::visit([&](const auto& s) { apply(s, scratch); }, step);
  }
  return scratch.pieces;
}

void PreTokenizer::apply(const Cut& cut, Scratch& scratch) {
  scratch.next.clear();
  for (const std::string_view piece : scratch.pieces) {
    find_spans(cut, piece, scratch);
    for (const Span& span : scratch.spans) {
      if (span.begin < span.end) scratch.next.push_back(piece.substr(span.begin, span.end - span.begin));
    }
  }
  std::swap(scratch.pieces, scratch.next);
}

void PreTokenizer::apply(const PrefixBlank&, Scratch& scratch) {
  scratch.prefixed.clear();
  scratch.prefixed.reserve(scratch.pieces.size());  // the pieces point into its strings
  for (std::string_view& piece : scratch.pieces) {
    if (piece.starts_with(' ')) continue;
    piece = scratch.prefixed.emplace_back(" ").append(piece);
  }
}

// All of the piece as spans, matches and what is between them.
void PreTokenizer::find_spans(const Cut& cut, std::string_view piece, Scratch& scratch) {
  std::vector<Span>& spans = scratch.spans;
  spans.clear();
  size_t done = 0;
  const auto found = [&](size_t begin, size_t end) {
    if (done != begin) spans.push_back({done, begin, cut.invert});
    spans.push_back({begin, end, !cut.invert});
    done = end;
  };
  std::visit([&](const auto& pattern) { each_match(pattern, piece, scratch.regex, found); }, cut.pattern);
  if (done != piece.size()) spans.push_back({done, piece.size(), cut.invert});
  join_spans(cut.behavior, spans);
}

void PreTokenizer::join_spans(Behavior behavior, std::vector<Span>& spans) {
  if (behavior == Behavior::kIsolated) return;
  if (behavior == Behavior::kRemoved) {
    std::erase_if(spans, [](const Span& s) { return s.is_match; });
    return;
  }
  if (behavior == Behavior::kMergedWithNext) std::reverse(spans.begin(), spans.end());
  // Each span either joins the one that was kept last or is kept itself.
  size_t kept = 0;
  bool after_match = false;
  for (size_t i = 0; i < spans.size(); ++i) {
    const Span span = spans[i];
    const bool joins = behavior == Behavior::kContiguous ? span.is_match == after_match : span.is_match && !after_match;
    if (joins && kept > 0) {
      spans[kept - 1].begin = std::min(spans[kept - 1].begin, span.begin);
      spans[kept - 1].end = std::max(spans[kept - 1].end, span.end);
    } else {
      spans[kept++] = span;
    }
    after_match = span.is_match;
  }
  spans.resize(kept);
  if (behavior == Behavior::kMergedWithNext) std::reverse(spans.begin(), spans.end());
}

}  // namespace idefics
