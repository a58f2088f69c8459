#include "grammar/token_constraint.h"

#include <algorithm>

#include "base/check.h"
#include "base/utf8.h"

namespace idefics::grammar {

TokenConstraint::TokenConstraint(std::shared_ptr<const CompiledGrammar> grammar, std::vector<int32_t> stop_ids)
    : grammar_(std::move(grammar)),
      stop_ids_(std::move(stop_ids)),
      recognizer_(grammar_->program(), grammar_->max_depth()) {
  Config config;
  recognizer_.start(stacks_, config);
  remember(config, false);
}

void TokenConstraint::mask(std::span<uint32_t> bits) {
  std::fill(bits.begin(), bits.end(), 0u);
  if (here().stopped) return;
  grammar_->masks().add(stacks_, config(), bits);
  for (const int32_t id : stop_ids_) {
    IDEFICS_CHECK(id >= 0 && static_cast<size_t>(id) / 32 < bits.size());
    const uint32_t bit = 1u << (id % 32);
    uint32_t& word = bits[static_cast<size_t>(id) / 32];
    word = is_complete() ? word | bit : word & ~bit;
  }
  if (std::all_of(bits.begin(), bits.end(), [](uint32_t word) { return word == 0; }) && !is_complete()) {
    fail(
        "grammar: no token of this model can continue the text (nesting at its limit, or a byte that the tokenizer "
        "lacks)");
  }
}

bool TokenConstraint::accept(int32_t id) {
  if (here().stopped) return false;
  if (is_stop(id)) {
    if (!is_complete()) return false;
    remember({{}, true, false}, true);
    return true;
  }
  const std::string_view bytes = grammar_->vocabulary().bytes(id);
  Config next = config();
  if (bytes.empty() || !advance(bytes, next)) {
    stacks_.truncate(here().stacks);
    return false;
  }
  remember(next, false);
  return true;
}

void TokenConstraint::rollback(size_t count) {
  IDEFICS_CHECK(count <= num_accepted());
  history_.resize(history_.size() - count);
  places_.resize(here().first_place + here().num_places);
  stacks_.truncate(here().stacks);
}

bool TokenConstraint::is_stop(int32_t id) const {
  return std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end();
}

Config TokenConstraint::config() const {
  const auto begin = places_.begin() + static_cast<ptrdiff_t>(here().first_place);
  return {{begin, begin + static_cast<ptrdiff_t>(here().num_places)}, here().complete, false};
}

void TokenConstraint::remember(const Config& config, bool stopped) {
  history_.push_back({places_.size(), config.places.size(), stacks_.size(), config.complete, stopped});
  places_.insert(places_.end(), config.places.begin(), config.places.end());
}

bool TokenConstraint::advance(std::string_view bytes, Config& config) {
  Config next;
  for (const char c : bytes) {
    recognizer_.step(stacks_, config, static_cast<uint8_t>(c), next);
    if (next.dead()) return false;
    std::swap(config, next);
  }
  return true;
}

// `ends`: after these bytes nothing else can come.
std::string TokenConstraint::forced_from(Config config, bool& ends) {
  const Program& program = grammar_->program();
  std::string forced;
  Config next;
  while (!config.complete && !config.places.empty() && forced.size() < kMaxForced) {
    int only = -1, ways = 0;
    for (int byte = 0; byte < 256 && ways < 2; ++byte) {
      const bool fits = std::any_of(config.places.begin(), config.places.end(), [&](const Config::Place& place) {
        return program.step(place.state, static_cast<uint8_t>(byte)) != Program::kNone;
      });
      if (fits) only = byte;
      ways += fits;
    }
    if (ways != 1) break;
    recognizer_.step(stacks_, config, static_cast<uint8_t>(only), next);
    if (next.dead()) break;  // nesting at its limit
    forced.push_back(static_cast<char>(static_cast<uint8_t>(only)));
    std::swap(config, next);
  }
  ends = config.complete && config.places.empty();
  stacks_.truncate(here().stacks);
  return forced;
}

std::string TokenConstraint::forced_bytes() {
  bool ends = false;
  return here().stopped ? std::string() : forced_from(config(), ends);
}

std::vector<int32_t> TokenConstraint::forced_tokens() {
  if (here().stopped) return {};
  bool ends = false;
  std::string forced = forced_from(config(), ends);
  if (const size_t tail = incomplete_utf8_tail(forced); tail > 0) {
    forced.resize(forced.size() - tail);
    ends = false;
  }
  if (forced.empty() || !is_utf8(forced)) return {};  // not UTF-8: the last token ended within a character
  const TokenVocabulary& vocabulary = grammar_->vocabulary();
  // Tokens are certain up to the first byte from which a token could reach across the end.
  size_t certain = forced.size();
  if (!ends) {
    const size_t first = forced.size() - std::min<size_t>(forced.size(), vocabulary.longest());
    for (size_t i = forced.size(); i-- > first;) {
      if (vocabulary.has_longer(std::string_view(forced).substr(i))) certain = i;
    }
  }
  std::vector<int32_t> result;
  size_t end = 0;
  for (const int32_t id : vocabulary.tokenizer().encode(forced, {.untrusted = true})) {
    const std::string_view token = vocabulary.bytes(id);
    if (token.empty() || is_stop(id) || forced.compare(end, token.size(), token) != 0) break;
    end += token.size();
    if (end > certain) break;
    result.push_back(id);
  }
  return result;
}

}  // namespace idefics::grammar
