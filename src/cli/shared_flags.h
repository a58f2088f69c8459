// Options that several verbs share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "cli/messages_file.h"
#include "idefics/engine.h"

namespace idefics::cli {

// MODEL, the folder of a checkpoint.
struct ModelArgument {
  std::string folder;

  void describe(Verb& verb);
  // Error{kBadModel} when there is no such folder.
  void require() const;
};

// How a model is loaded.
struct EngineFlags {
  std::optional<std::string> dtype, kv_cache_dtype;
  std::optional<int> threads, max_model_len;
  bool allow_nonfinite = false;

  void describe(Verb& verb);
  EngineOptions options() const;
};

// How pictures are cut.
struct ImageFlags {
  bool no_splitting = false;
  std::optional<int> longest_edge, max_tiles;

  void describe(Verb& verb);
  ImageOptions options() const;
};

// How tokens are chosen, and how they become text.
struct SamplingFlags {
  std::optional<int> max_tokens, min_tokens, top_k, no_repeat_ngram_size;
  std::optional<double> temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> logit_bias, stop, stop_token_ids;
  bool ignore_eos = false, keep_special_tokens = false, skip_special_tokens = false;

  void describe(Verb& verb);
  // `defaults` with what was given. Errors: kUsage.
  SamplingParams apply(SamplingParams defaults) const;
  std::optional<bool> skip_special() const;
};

// What the answer must look like.
struct StructureFlags {
  std::optional<std::string> json_schema, regex, grammar;
  std::vector<std::string> choices;
  bool json_object = false;

  void describe(Verb& verb);
  // Reads the files that the options name. Errors: kUsage, kIo.
  std::optional<StructuredOutput> read() const;
};

// What is asked: a prompt with pictures, or a file of messages.
struct InputFlags {
  std::optional<std::string> prompt, system, messages;
  std::vector<std::string> images;

  void describe(Verb& verb);
  // Reads everything that the options name. Errors: kUsage, kIo, and those of pictures and messages files.
  Conversation read() const;
};

}  // namespace idefics::cli
