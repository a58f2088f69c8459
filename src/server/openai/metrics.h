// Counters for Prometheus, under vLLM's names where vLLM has them.
#pragma once

#include <memory>
#include <string>

#include "server/openai/backend.h"
#include "server/openai/generation.h"

namespace idefics::openai {

// Threads: any.
class Metrics {
 public:
  Metrics(const std::string& model_name, const std::string& version);
  ~Metrics();

  void observe(const GenerationEnd& end, double seconds);
  // An HTTP response with this status; 0: the client went away.
  void count_response(int status);
  // The text format 0.0.4. `stats` may be null: no engine yet.
  std::string text(const EngineStats* stats, int connections);

 private:
  struct Families;
  const std::unique_ptr<Families> families_;
};

}  // namespace idefics::openai
