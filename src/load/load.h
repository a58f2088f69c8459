// Load on a server that speaks OpenAI's interface, ours or another one.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "load/report.h"

namespace idefics::load {

struct LoadOptions {
  std::string url;      // "http://127.0.0.1:8000", with or without "/v1"; "unix:/run/idefics.sock"
  std::string model;    // empty: the first that the server lists
  std::string api_key;  // empty: none
  std::string prompt = "Describe the image.";
  std::vector<std::string> images;  // encoded pictures; each request has the next one, and after the last the first
  int max_tokens = 128;
  bool ignore_eos = false;

  // Open loop: `rate` requests a second, whether answers come or not. Else a closed one: `concurrency` requests at a
  // time, each begun when another one ends.
  std::optional<double> rate;
  bool even = false;  // at even distances instead of a Poisson process
  int concurrency = 1;
  uint64_t seed = 0;
  int64_t num_requests = 100;
  double duration_s = 0;  // no request begins later; 0: no such end
  int timeout_ms = 600'000;
  Goal goal;
};

// Sends the requests and waits for all answers. `stop` is asked now and then: true ends it early, with what there is.
// A server that refuses, sends rubbish or nothing is part of the report.
// Errors: kUsage (a URL that is none), kIo (there is no such server).
LoadReport run_load(const LoadOptions& options, const std::function<bool()>& stop = {});

// What each request asks, of which one picture.
std::string request_body(const LoadOptions& options, const std::string& model, const std::string* image);

}  // namespace idefics::load
