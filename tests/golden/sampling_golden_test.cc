// The distribution that a token is drawn from, case by case.
#include <cmath>

#include "engine/sampler.h"
#include "golden.h"

namespace idefics {
namespace {

template <typename T>
std::vector<T> numbers(const json::value& array) {
  std::vector<T> out;
  for (const json::value& v : array.as_array()) out.push_back(static_cast<T>(v.to_number<double>()));
  return out;
}

SamplingParams params_of(const JsonObject& o) {
  SamplingParams p;
  p.temperature = o.find_number("temperature").value_or(1);
  p.top_k = static_cast<int>(o.find_number("top_k").value_or(0));
  p.top_p = o.find_number("top_p").value_or(1);
  p.min_p = o.find_number("min_p").value_or(0);
  p.repetition_penalty = o.find_number("repetition_penalty").value_or(1);
  p.presence_penalty = o.find_number("presence_penalty").value_or(0);
  p.frequency_penalty = o.find_number("frequency_penalty").value_or(0);
  p.no_repeat_ngram_size = static_cast<int>(o.find_number("no_repeat_ngram_size").value_or(0));
  p.min_tokens = static_cast<int>(o.find_number("min_tokens").value_or(0));
  if (const auto bias = o.find_object("logit_bias")) {
    for (const auto& [id, value] : bias->raw())
      p.logit_bias.emplace_back(std::stoi(std::string(id)), value.to_number<double>());
  }
  return p;
}

// Empty when the case holds, else what differs.
std::string verdict(const json::object& row) {
  const auto logits = numbers<float>(row.at("logits"));
  const auto prompt = numbers<int32_t>(row.at("prompt")), generated = numbers<int32_t>(row.at("generated"));
  const JsonObject params(row.at("params").as_object(), "params");
  std::vector<int32_t> eos;
  if (const json::array* ids = params.find_array("eos")) eos = numbers<int32_t>(*ids);
  const bool refused_wanted = row.contains("error");
  try {
    SamplerScratch scratch(static_cast<int>(logits.size()));
    Sampler sampler(params_of(params), eos, 1, scratch);
    std::vector<float> scores = logits;
    sampler.penalize(prompt, generated, scores);
    const auto greedy = std::max_element(scores.begin(), scores.end()) - scores.begin();
    if (row.contains("greedy") && greedy != row.at("greedy").to_number<int64_t>())
      return "greedy id is " + std::to_string(greedy);
    sampler.warp(scores);
    if (refused_wanted) return "accepted, the reference refuses";
    double total = 0;
    const float most = *std::max_element(scores.begin(), scores.end());
    for (const float x : scores) total += std::exp(static_cast<double>(x) - most);
    const auto kept = numbers<size_t>(row.at("kept"));
    const auto probs = numbers<double>(row.at("probs"));
    size_t next = 0;
    for (size_t i = 0; i < scores.size(); ++i) {
      if (std::isinf(scores[i])) continue;
      if (next == kept.size() || kept[next] != i) return "keeps id " + std::to_string(i);
      const double p = std::exp(static_cast<double>(scores[i]) - most) / total;
      if (std::abs(p - probs[next]) > 1e-5 * probs[next] + 1e-7)
        return "probability of " + std::to_string(i) + " is " + std::to_string(p);
      ++next;
    }
    return next == kept.size() ? "" : "drops id " + std::to_string(kept[next]);
  } catch (const Error& e) {
    return refused_wanted ? "" : std::string("refused: ") + e.what();
  }
}

TEST(SamplingGolden, distributions_are_those_of_the_reference) {
  golden::Family family("sampling");
  for (const json::value& row : golden::read_lines("sampling.jsonl")) {
    const std::string problem = verdict(row.as_object());
    family.check(problem.empty(), json::serialize(row.as_object().at("params")) + ": " + problem);
  }
}

}  // namespace
}  // namespace idefics
