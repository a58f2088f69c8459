// How long structured output takes on the processor: preparing a grammar, and the masks of a text's tokens the first
// time a grammar meets them (cold) and when it has met them before (warm).
//
//   IDEFICS_BENCH_TOKENIZER=tokenizer.json grammar_bench
//
// One line for each case: milliseconds to prepare; for the masks the mean and the worst in microseconds.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <vector>

#include "base/files.h"
#include "grammar/token_constraint.h"

namespace idefics::grammar {
namespace {

using Clock = std::chrono::steady_clock;

double micros_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

struct Case {
  const char* name;
  StructuredOutput output;
  const char* text;  // that the masks are asked for, token by token
};

constexpr const char* kInvoice = R"({"type":"object","properties":{"number":{"type":"string"},"date":{"type":"string",
  "format":"date"},"total":{"type":"number"},"currency":{"enum":["EUR","USD","GBP"]},"lines":{"type":"array","items":
  {"type":"object","properties":{"text":{"type":"string"},"count":{"type":"integer"},"price":{"type":"number"}},
  "required":["text","count","price"],"additionalProperties":false}}},"required":["number","date","total","lines"],
  "additionalProperties":false})";
constexpr const char* kLimited = R"({"type":"object","properties":{"title":{"type":"string","maxLength":500},"summary":
  {"type":"string","minLength":10,"maxLength":200}},"required":["title","summary"],"additionalProperties":false})";
// Strings with a limit in every place, as the schemas of services have them.
constexpr const char* kFourLimited = R"({"type":"object","properties":{"name":{"type":"string","maxLength":200},"city":
  {"type":"string","maxLength":200},"street":{"type":"string","maxLength":200},"note":{"type":"string","maxLength":200}
  },"required":["name","city","street","note"],"additionalProperties":false})";
constexpr const char* kFourLimitedText = R"({"name": "Zoë Łukasz-Müller", "city": "東京 Tokyo", "street":
 "Unter den Linden 77 / \"Hinterhaus\"", "note": "Please ring twice; the bell is broken \u2014 or call +49 30 1234567,
 any day before 18:00."})";
constexpr const char* kInvoiceText = R"({"number": "2024-0815 é", "date": "2024-08-15", "total": 1234.5, "currency":
 "EUR", "lines": [{"text": "Screws, galvanised \"M4\"", "count": 200, "price": 0.05}, {"text": "字幕 Cable", "count": 3,
 "price": 12.75}]})";
constexpr const char* kLimitedText =
    R"({"title": "The history of the steam engine in eleven chapters", "summary": "Engines that turn heat into motion; how they began, what they changed and why they went."})";

struct Times {
  double mean = 0, worst = 0;
};

Times ask(TokenConstraint constraint, const std::vector<int32_t>& ids, size_t words) {
  std::vector<uint32_t> bits(words);
  Times times;
  for (const int32_t id : ids) {
    const auto start = Clock::now();
    constraint.mask(bits);
    const double took = micros_since(start);
    times.mean += took / static_cast<double>(ids.size());
    times.worst = std::max(times.worst, took);
    if (!constraint.accept(id)) throw Error(ErrorCode::kInternal, "grammar_bench: the text is not of its grammar");
  }
  return times;
}

std::string on_one_line(std::string text) {
  std::erase(text, '\n');
  return text;
}

void run(const char* path) {
  const auto vocabulary = std::make_shared<const TokenVocabulary>(
      Tokenizer::parse(read_file(path, Tokenizer::kMaxFileBytes), "tokenizer.json"));
  const std::vector<Case> cases = {
      {"schema", {StructuredOutput::Kind::kJsonSchema, kInvoice, {}}, kInvoiceText},
      {"limited strings", {StructuredOutput::Kind::kJsonSchema, kLimited, {}}, kLimitedText},
      {"four limited", {StructuredOutput::Kind::kJsonSchema, kFourLimited, {}}, kFourLimitedText},
      {"any object", {StructuredOutput::Kind::kJsonObject, "", {}}, kInvoiceText},
      {"regex", {StructuredOutput::Kind::kRegex, "([A-Z][a-z]+ ){2,8}[0-9]{3,}", {}}, "The Old Steam Engine 12345"},
      {"words", {StructuredOutput::Kind::kRegex, "[a-zA-Z ,.'-]{1,300}", {}}, "The Old Engine, and what became of it."},
      {"any text", {StructuredOutput::Kind::kRegex, "(.|\\n)*END", {}}, "Fact: ice floats — it's less dense. END"},
  };
  fmt::print("{} tokens; microseconds\n", vocabulary->size());
  fmt::print("{:<16}{:>12}{:>12}{:>12}{:>12}{:>12}\n", "case", "prepare", "cold mean", "cold worst", "warm mean",
             "warm worst");
  for (const Case& c : cases) {
    double prepare = 1e9;
    Times cold{1e9, 1e9}, warm{1e9, 1e9};
    for (int round = 0; round < 5; ++round) {  // the best of five: of one machine, the least disturbed
      const auto start = Clock::now();
      const auto grammar = CompiledGrammar::compile(c.output, vocabulary);
      prepare = std::min(prepare, micros_since(start));
      const auto ids = vocabulary->tokenizer().encode(on_one_line(c.text));
      const auto better = [](Times a, Times b) { return a.mean < b.mean ? a : b; };
      cold = better(cold, ask({grammar, {0}}, ids, vocabulary->mask_words()));
      warm = better(warm, ask({grammar, {0}}, ids, vocabulary->mask_words()));
    }
    fmt::print("{:<16}{:>12.1f}{:>12.1f}{:>12.1f}{:>12.1f}{:>12.1f}\n", c.name, prepare, cold.mean, cold.worst,
               warm.mean, warm.worst);
  }
}

}  // namespace
}  // namespace idefics::grammar

int main() {
  const char* path = std::getenv("IDEFICS_BENCH_TOKENIZER");
  if (path == nullptr) {
    fmt::print(stderr, "grammar_bench: set IDEFICS_BENCH_TOKENIZER to a tokenizer.json\n");
    return 2;
  }
  try {
    idefics::grammar::run(path);
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
