// Many requests at once: the promise that company changes nothing, and what happens when something goes wrong.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <thread>

#include "base/json.h"
#include "engine/card_questions.h"
#include "engine/engine_parts.h"

namespace idefics {
namespace {

Request draw(Request request, uint64_t seed, int max_tokens) {
  request.sampling.temperature = 1.5;
  request.sampling.seed = seed;
  request.sampling.max_tokens = max_tokens;
  return request;
}

Request go_on(Request request, int max_tokens) {
  request.sampling.ignore_eos = true;
  request.sampling.max_tokens = max_tokens;
  return request;
}

// Requests of every kind: with and without pictures, the same picture twice, greedy and drawn, long and short.
std::vector<Request> all_kinds() {
  std::vector<Request> requests = {
      ask("06.png", "How many shapes are there?"),
      ask("01.png", "What colour is the circle?"),
      go_on(ask("06.png", "Describe the image."), 40),
      draw(ask("03.png", "Read the text."), 7, 20),
      draw(ask("", "Hello"), 8, 12),
      go_on(ask("", "one two three one two three one two three"), 70),
      ask("02.png", "Describe the image."),
      draw(ask("04.png", "Describe the image."), 9, 60),
  };
  requests[2].messages[0].content.push_back(requests[1].messages[0].content[0]);  // a second picture
  requests[3].n = 3;
  requests[6].prompt.images.split = false;
  requests[7].structured_output = StructuredOutput{
      .kind = StructuredOutput::Kind::kJsonSchema,
      .text = R"({"type":"object","properties":{"colour":{"enum":["red","blue","green"]},"count":{"type":"integer",
                 "minimum":0,"maximum":12}},"required":["colour","count"],"additionalProperties":false})"};
  return requests;
}

struct Outcome {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::string> texts;
  auto operator<=>(const Outcome&) const = default;
};

Outcome outcome_of(const Answer& answer) {
  Outcome out;
  for (const Choice& choice : answer.choices) {
    out.tokens.push_back(choice.token_ids);
    out.texts.push_back(choice.text);
  }
  return out;
}

// What a stream brings, to its end. Checks the order of events.
struct Ended {
  Outcome outcome;
  std::optional<Error> error;
  Usage usage;
  std::vector<FinishReason> reasons;
};

Ended read_to_end(EventStream& stream) {
  Ended out;
  int prompts = 0, ends = 0;
  while (!stream.ended()) {
    const std::optional<Event> event = stream.next(60'000);
    if (!event) {
      ADD_FAILURE() << "nothing happened for a minute";
      break;
    }
    const auto i = static_cast<size_t>(event->choice);
    if (out.outcome.tokens.size() <= i) {
      out.outcome.tokens.resize(i + 1);
      out.outcome.texts.resize(i + 1);
    }
    prompts += event->type == Event::Type::kPrompt;
    ends += event->type == Event::Type::kEnd;
    EXPECT_TRUE(prompts == 1 || event->type == Event::Type::kEnd) << "kPrompt comes first";
    for (const TokenInfo& token : event->tokens) out.outcome.tokens[i].push_back(token.id);
    out.outcome.texts[i] += event->text;
    if (event->type == Event::Type::kChoice) out.reasons.push_back(event->finish_reason);
    if (event->type == Event::Type::kEnd) {
      out.error = event->error;
      out.usage = event->usage;
    }
  }
  EXPECT_EQ(ends, 1);
  EXPECT_FALSE(stream.next(0)) << "nothing follows kEnd";
  return out;
}

// What an answer may depend on.
struct Formats {
  ComputeType dtype = ComputeType::kAuto;
  KvCacheType kv_cache = KvCacheType::kAuto;
  auto operator<=>(const Formats&) const = default;
};

// Each request alone, in an engine without any cache.
std::vector<Outcome> alone(const std::vector<Request>& requests, const Formats& formats = {}) {
  Engine engine = Engine::load(kModel, {.dtype = formats.dtype,
                                        .kv_cache_dtype = formats.kv_cache,
                                        .num_threads = 1,
                                        .max_num_seqs = 1,
                                        .enable_prefix_caching = false,
                                        .vision_cache_bytes = 0,
                                        .speculative = false});
  std::vector<Outcome> out;
  for (const Request& request : requests) out.push_back(outcome_of(engine.generate(request)));
  return out;
}

size_t page_bytes(int page_size, const Formats& formats = {}) {
  Engine engine = Engine::load(kModel, {.dtype = formats.dtype,
                                        .kv_cache_dtype = formats.kv_cache,
                                        .num_threads = 1,
                                        .page_size = page_size,
                                        .kv_cache_bytes = 1});
  return engine.memory().kv_cache;  // one page
}

// The level that is slow.
bool is_ref() {
  const char* level = std::getenv("IDEFICS_KERNELS");
  return level != nullptr && std::string_view(level) == "ref";
}

// At level ref a sixteenth of what was asked for.
int num_schedules() {
  const char* wanted = std::getenv("IDEFICS_SCHEDULES");
  const int count = wanted != nullptr ? std::atoi(wanted) : 64;
  return is_ref() ? std::max(8, count / 16) : count;
}

// Numbers are published at the end of a step, a moment after the last event of a request.
void wait_until_idle(const Engine& engine) {
  for (int i = 0; i < 1000 && engine.stats().running + engine.stats().waiting > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(engine.stats().running, 0);
  EXPECT_EQ(engine.stats().waiting, 0);
}

TEST(Serving, no_schedule_changes_a_byte) {
  constexpr ComputeType kDTypes[] = {ComputeType::kAuto, ComputeType::kF32, ComputeType::kInt8, ComputeType::kQ8,
                                     ComputeType::kQ4};
  constexpr KvCacheType kCaches[] = {KvCacheType::kBf16, KvCacheType::kQ8, KvCacheType::kF32};
  const std::vector<Request> requests = all_kinds();
  std::map<Formats, std::vector<Outcome>> wanted;
  int64_t preemptions = 0, cached = 0, accepted = 0, largest = 0;
  for (int seed = 0; seed < num_schedules(); ++seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    const auto pick = [&](int min, int max) { return std::uniform_int_distribution<int>(min, max)(random); };
    // Every cache comes with every format of weights, within 15 schedules.
    const Formats formats{kDTypes[seed % 5], kCaches[seed % 3]};
    if (!wanted.contains(formats)) wanted[formats] = alone(requests, formats);
    const std::vector<Outcome>& want = wanted[formats];
    EngineOptions options{.dtype = formats.dtype,
                          .kv_cache_dtype = formats.kv_cache,
                          .num_threads = pick(1, 2),
                          .max_num_seqs = pick(1, 16),
                          .max_num_batched_tokens = pick(1, 4) == 1 ? pick(1, 40) : pick(40, 512),
                          .page_size = 64 * pick(1, 2),
                          .enable_prefix_caching = pick(0, 3) != 0,
                          .vision_cache_bytes = static_cast<size_t>(pick(0, 1) * 100'000),
                          .pixel_cache_bytes = static_cast<size_t>(pick(0, 2) * 100'000),
                          .speculative = pick(0, 3) != 0};
    if (pick(0, 1) == 0)
      options.kv_cache_bytes = page_bytes(options.page_size, formats) * static_cast<size_t>(pick(6, 20));
    Engine engine = Engine::load(kModel, options);
    std::vector<std::pair<size_t, EventStream>> streams;
    std::vector<bool> cancelled;
    const int count = pick(1, 16);
    for (int i = 0; i < count; ++i) {
      const auto which = static_cast<size_t>(pick(0, static_cast<int>(requests.size()) - 1));
      streams.emplace_back(which, engine.submit(requests[which]));
      cancelled.push_back(pick(0, 9) == 0);
      if (cancelled.back()) engine.cancel(streams.back().second.id());
      if (pick(0, 2) == 0) std::this_thread::sleep_for(std::chrono::microseconds(pick(0, 3000)));
    }
    for (size_t i = 0; i < streams.size(); ++i) {
      const Ended ended = read_to_end(streams[i].second);
      if (cancelled[i] && ended.error) {
        EXPECT_EQ(ended.error->code(), ErrorCode::kCancelled);
        continue;
      }
      ASSERT_FALSE(ended.error) << "seed " << seed << ": " << ended.error->what();
      EXPECT_EQ(ended.outcome, want[streams[i].first]) << "seed " << seed << " request " << streams[i].first;
    }
    const EngineStats stats = engine.stats();
    preemptions += stats.preemptions;
    cached += stats.cached_tokens;
    accepted += stats.accepted_tokens;
    largest = std::max(largest, stats.pages);
  }
  EXPECT_GT(preemptions, 0);
  EXPECT_GT(cached, 0);
  EXPECT_GT(accepted, 0);
  EXPECT_GT(largest, 20);
}

TEST(Serving, keys_and_values_are_kept_as_was_asked_for) {
  const Engine f32 = Engine::load(kModel, {.dtype = ComputeType::kF32}), bf16 = Engine::load(kModel),
               q8 = Engine::load(kModel, {.dtype = ComputeType::kF32, .kv_cache_dtype = KvCacheType::kQ8}),
               wide = Engine::load(kModel, {.dtype = ComputeType::kQ4, .kv_cache_dtype = KvCacheType::kF32});
  EXPECT_EQ(f32.kv_cache_dtype(), "f32");
  EXPECT_EQ(bf16.kv_cache_dtype(), "bf16");
  EXPECT_EQ(q8.kv_cache_dtype(), "q8");
  EXPECT_EQ(wide.kv_cache_dtype(), "f32");
  EXPECT_EQ(Engine::load(kModel, {.dtype = ComputeType::kQ8}).kv_cache_dtype(), "bf16");
  EXPECT_EQ(f32.memory().kv_cache, wide.memory().kv_cache);
  const auto padded = static_cast<size_t>(kernels::padded_head(q8.config().text_config.head_dim));
  EXPECT_EQ(q8.memory().kv_cache, bf16.memory().kv_cache / (2 * padded) * (padded + 4));
}

TEST(Serving, the_level_that_was_asked_for_runs) {
  const char* level = std::getenv("IDEFICS_KERNELS");
  ASSERT_NE(level, nullptr) << "this program is run once for each level, which IDEFICS_KERNELS names";
  EXPECT_EQ(Engine::load(kModel).kernels(), level);
}

TEST(Serving, a_second_question_about_a_picture_computes_little) {
  Engine engine = Engine::load(kModel);
  const Answer first = engine.generate(ask("06.png", "How many shapes are there?"));
  EXPECT_EQ(first.usage.cached_tokens, 0);
  const int64_t tiles = engine.stats().tiles_encoded;
  EXPECT_GT(tiles, 0);
  Request second = ask("06.png", "What colour is the circle?");
  const Answer again = engine.generate(second);
  wait_until_idle(engine);
  EXPECT_EQ(engine.stats().tiles_encoded, tiles);
  EXPECT_EQ(engine.stats().tiles_cached, tiles);
  EXPECT_EQ(outcome_of(again), alone({second}).front());

  Request uncut = second;  // other tiles of the same file
  uncut.prompt.images.split = false;
  EXPECT_EQ(outcome_of(engine.generate(uncut)), alone({uncut}).front());
  Engine forgetful = Engine::load(kModel, {.enable_prefix_caching = false, .vision_cache_bytes = 0});
  for (int i = 0; i < 2; ++i)  // the second time the picture is known, and its features are gone
    EXPECT_EQ(outcome_of(forgetful.generate(second)), outcome_of(again));
  EXPECT_EQ(forgetful.stats().tiles_encoded, 2 * tiles);

  Request longer = ask("06.png", "How many shapes are there? Count well, and say the number and the colours of all.");
  longer.messages[0].content.push_back(longer.messages[0].content[0]);  // fills pages
  engine.generate(longer);
  longer.sampling.max_tokens = 1;
  EXPECT_GT(engine.generate(longer).usage.cached_tokens, 64);

  Request other_salt = longer;
  other_salt.cache_salt = "another tenant";
  EXPECT_EQ(engine.generate(other_salt).usage.cached_tokens, 0);
  EXPECT_GT(engine.stats().tiles_encoded, tiles);
}

TEST(Serving, another_picture_of_the_same_size_is_another_prefix) {
  Engine engine = Engine::load(kModel);
  Request one = ask("01.png", "Describe the image."), two = ask("02.png", "Describe the image.");
  for (Request* request : {&one, &two}) request->messages[0].content.push_back(request->messages[0].content[0]);
  const std::vector<Outcome> want = alone({one, two});
  EXPECT_EQ(outcome_of(engine.generate(one)), want[0]);
  const Answer answer = engine.generate(two);
  EXPECT_EQ(answer.usage.cached_tokens, 0);
  EXPECT_EQ(outcome_of(answer), want[1]);
}

TEST(Serving, equal_tiles_are_encoded_once) {
  Engine engine = Engine::load(kModel, {.vision_cache_bytes = 0});
  Request request = ask("06.png", "Describe the image.");
  for (int i = 0; i < 3; ++i) request.messages[0].content.push_back(request.messages[0].content[0]);
  const Answer answer = engine.generate(request);
  EXPECT_EQ(answer.usage.tiles, 20);
  EXPECT_LE(engine.stats().tiles_encoded, 5);
}

TEST(Serving, repeated_text_is_guessed_in_few_steps) {
  const Request request = go_on(ask("", "one two three one two three one two three"), 70);
  Engine plain = Engine::load(kModel, {.speculative = false}), guessing = Engine::load(kModel);
  EXPECT_EQ(outcome_of(plain.generate(request)), outcome_of(guessing.generate(request)));
  EXPECT_EQ(plain.stats().drafted_tokens, 0);
  EXPECT_GT(guessing.stats().accepted_tokens, 20);
  EXPECT_LT(guessing.stats().steps, plain.stats().steps - 20);
}

TEST(Serving, choices_share_the_prompt_and_draw_for_themselves) {
  Engine engine = Engine::load(kModel);
  Request request = draw(ask("03.png", "Read the text."), 7, 20);
  const Answer one = engine.generate(request);
  request.n = 4;
  const Answer four = engine.generate(request);
  ASSERT_EQ(four.choices.size(), 4u);
  EXPECT_EQ(four.choices[0].token_ids, one.token_ids());
  EXPECT_NE(four.choices[1].token_ids, four.choices[0].token_ids);
  EXPECT_NE(four.choices[2].token_ids, four.choices[1].token_ids);
  EXPECT_EQ(four.usage.prompt_tokens, one.usage.prompt_tokens);
  size_t tokens = 0;
  for (const Choice& choice : four.choices) tokens += choice.token_ids.size();
  EXPECT_EQ(four.usage.completion_tokens, static_cast<int>(tokens));
}

TEST(Serving, log_probabilities_are_those_of_the_model) {
  Request request = ask("06.png", "How many shapes are there?");
  request.logprobs = 3;
  request.prompt_logprobs = 2;
  Engine engine = Engine::load(kModel);
  const Answer answer = engine.generate(request);
  const std::vector<TokenInfo>& tokens = answer.choices[0].tokens;
  ASSERT_EQ(tokens.size(), answer.token_ids().size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_EQ(tokens[i].id, answer.token_ids()[i]);
    ASSERT_EQ(tokens[i].top.size(), 3u);
    EXPECT_EQ(tokens[i].top[0].id, tokens[i].id) << "greedy";
    EXPECT_EQ(tokens[i].top[0].logprob, tokens[i].logprob);
    EXPECT_LE(tokens[i].logprob, 0);
    EXPECT_GE(tokens[i].top[0].logprob, tokens[i].top[1].logprob);
  }
  ASSERT_EQ(answer.prompt_logprobs.size(), answer.prompt_token_ids.size());
  EXPECT_TRUE(answer.prompt_logprobs[0].top.empty());

  // The prompt continued by the answer, as ids: its tokens are as likely as they were when they were chosen.
  Request whole;
  whole.token_ids = std::vector<int32_t>{5, 6, 7, 8, 9, 10};
  whole.sampling.max_tokens = 4;
  whole.logprobs = 1;
  const Answer chosen = engine.generate(whole);
  whole.token_ids->insert(whole.token_ids->end(), chosen.token_ids().begin(), chosen.token_ids().end());
  whole.prompt_logprobs = 1;
  const Answer scored = engine.generate(whole);
  for (size_t i = 0; i < chosen.token_ids().size(); ++i) {
    const TokenInfo &a = chosen.choices[0].tokens[i], &b = scored.prompt_logprobs[6 + i];
    EXPECT_EQ(a.id, b.id);
    EXPECT_EQ(a.logprob, b.logprob);
    EXPECT_EQ(a.top[0].id, b.top[0].id);
  }
  Engine small = Engine::load(kModel, {.max_num_seqs = 1, .max_num_batched_tokens = 3});
  const Answer chunked = small.generate(request);
  for (size_t i = 1; i < chunked.prompt_logprobs.size(); ++i)
    EXPECT_EQ(chunked.prompt_logprobs[i].logprob, answer.prompt_logprobs[i].logprob);
}

TEST(Serving, structured_answers_are_what_was_asked_for) {
  using Kind = StructuredOutput::Kind;
  Engine engine = Engine::load(kModel), plain = Engine::load(kModel, {.speculative = false});
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Request request = draw(ask("06.png", "Describe the image."), seed, 80);
    request.structured_output = StructuredOutput{.kind = Kind::kChoice, .choices = {"red circle", "blue", "redder"}};
    const Answer choice = engine.generate(request);
    EXPECT_TRUE(std::ranges::count(request.structured_output->choices, choice.text()) == 1) << choice.text();
    EXPECT_EQ(choice.finish_reason(), FinishReason::kStop);

    request.structured_output = all_kinds()[7].structured_output;
    const Answer object = engine.generate(request);
    const json::value value = parse_json(object.text(), "the answer");
    EXPECT_TRUE(value.at("colour").is_string());
    EXPECT_LE(value.at("count").as_int64(), 12);
    EXPECT_EQ(value.as_object().size(), 2u);
    EXPECT_EQ(plain.generate(request).token_ids(), object.token_ids()) << "what is forced is what would be chosen";

    request.structured_output = StructuredOutput{.kind = Kind::kRegex, .text = "[0-9]{3}-[a-f]+"};
    request.sampling.max_tokens = 12;
    const std::string text = engine.generate(request).text();
    ASSERT_GE(text.size(), 4u);
    EXPECT_EQ(text.find_first_not_of("0123456789"), 3u) << text;
    EXPECT_EQ(text.find_first_not_of("abcdef", 4), std::string::npos) << text;
  }
  EXPECT_LT(engine.stats().steps, engine.stats().generated_tokens);

  Request request = ask("", "hello");
  request.structured_output = StructuredOutput{.kind = Kind::kJsonSchema, .text = R"({"type":"nonsense"})"};
  try {
    engine.generate(request);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kSchemaInvalid);
  }
}

TEST(Serving, plain_text_and_ids_need_no_template) {
  Engine engine = Engine::load(kModel);
  Request request;
  request.text = "The circle is <image>";
  request.sampling.max_tokens = 5;
  const Answer text = engine.generate(request);
  EXPECT_EQ(text.usage.image_tokens, 0);
  EXPECT_EQ(std::count(text.prompt_token_ids.begin(), text.prompt_token_ids.end(), engine.config().image_token_id), 0);
  Request ids;
  ids.token_ids = text.prompt_token_ids;
  ids.sampling.max_tokens = 5;
  EXPECT_EQ(engine.generate(ids).token_ids(), text.token_ids());
  ids.token_ids->push_back(engine.config().image_token_id);  // has no picture, and needs none
  ids.sampling.ignore_eos = true;
  EXPECT_EQ(engine.generate(ids).token_ids().size(), 5u);
}

// Messages are read once the engine is gone: a thread of it may still be letting go of its copy of an error, and the
// thread sanitizer does not see how libstdc++ counts copies.
TEST(Serving, bad_requests_end_with_their_reason) {
  std::vector<std::pair<Ended, std::string>> ends;  // and what the message holds
  {
    Engine engine = Engine::load(kModel, {.max_model_len = 256});
    const auto expect = [&](const Request& request, const char* message) {
      EventStream stream = engine.submit(request);
      ends.emplace_back(read_to_end(stream), message);
    };
    Request request = ask("", "hello");
    request.n = 0;
    expect(request, "n is 0, wanted 1 to 128");
    request.n = 1 << 30;
    expect(request, "n is 1073741824, wanted 1 to 128");
    request.n = 1;
    request.logprobs = 21;
    expect(request, "logprobs is 21, wanted 0 to 20");
    request.logprobs.reset();
    request.text = "and a text";
    expect(request, "exclude each other");
    request.messages.clear();
    request.text = "";
    expect(request, "no tokens");
    request.text = "bad \xff";
    expect(request, "not UTF-8");
    request.text.reset();
    request.token_ids = std::vector<int32_t>{1, -1};
    expect(request, "token id -1 is outside the vocabulary");
    request.token_ids = std::vector<int32_t>(256, 5);
    expect(request, "leave no room in the context of 256");
    EXPECT_EQ(engine.stats().refused + engine.stats().failed, 8);
  }
  for (const auto& [ended, message] : ends) {
    ASSERT_TRUE(ended.error) << message;
    EXPECT_NE(std::string(ended.error->what()).find(message), std::string::npos) << ended.error->what();
  }
}

TEST(Serving, a_prompt_that_can_never_fit_the_cache_is_refused) {
  Engine engine = Engine::load(kModel, {.page_size = 64, .kv_cache_bytes = page_bytes(64)});
  Request request = ask("06.png", "Describe the image.");
  try {
    engine.generate(request);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kContextLengthExceeded);
  }
  EXPECT_FALSE(engine.generate(ask("", "Hello")).token_ids().empty());
}

TEST(Serving, an_engine_is_full_while_as_many_are_open_as_may_be) {
  Engine engine = Engine::load(kModel, {.max_num_seqs = 1, .max_waiting = 1});
  EventStream first = engine.submit(go_on(ask("", "Hello"), 1900));
  EXPECT_FALSE(engine.is_full());
  EventStream second = engine.submit(go_on(ask("", "Hello"), 1900));
  EXPECT_TRUE(engine.is_full());
  for (EventStream* stream : {&first, &second}) {
    engine.cancel(stream->id());
    read_to_end(*stream);
  }
  EXPECT_FALSE(engine.is_full());
}

TEST(Serving, too_many_waiting_requests_are_refused_at_once) {
  Engine engine = Engine::load(kModel, {.max_num_seqs = 1, .max_waiting = 2});
  std::vector<EventStream> streams;
  for (int i = 0; i < 8; ++i) streams.push_back(engine.submit(go_on(ask("", "Hello"), 300)));
  int refused = 0;
  for (EventStream& stream : streams) {
    const Ended ended = read_to_end(stream);
    if (!ended.error) continue;
    EXPECT_EQ(ended.error->code(), ErrorCode::kOverloaded);
    ++refused;
  }
  EXPECT_GE(refused, 1);
  EXPECT_LE(refused, 5);
  EXPECT_FALSE(engine.generate(ask("", "Hello")).token_ids().empty());
}

TEST(Serving, cancelling_ends_a_request_wherever_it_is) {
  Engine engine = Engine::load(kModel, {.max_num_seqs = 2});
  for (int delay_us = 0; delay_us < 20'000; delay_us += 700) {
    EventStream stream = engine.submit(go_on(ask("06.png", "Describe the image."), 1500));
    std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
    EXPECT_TRUE(engine.cancel(stream.id()));
    const Ended ended = read_to_end(stream);
    ASSERT_TRUE(ended.error);
    EXPECT_EQ(ended.error->code(), ErrorCode::kCancelled);
    EXPECT_FALSE(engine.cancel(stream.id())) << "it is gone";
  }
  EXPECT_EQ(engine.generate(go_on(ask("", "Hello"), 30)).token_ids().size(), 30u);
  wait_until_idle(engine);
}

TEST(Serving, an_engine_that_goes_away_ends_its_requests) {
  std::vector<EventStream> streams;
  {
    Engine engine = Engine::load(kModel, {.max_num_seqs = 2});
    for (int i = 0; i < 6; ++i) streams.push_back(engine.submit(go_on(ask("06.png", "Describe the image."), 1500)));
  }
  for (EventStream& stream : streams) {
    const Ended ended = read_to_end(stream);
    ASSERT_TRUE(ended.error);
    EXPECT_EQ(ended.error->code(), ErrorCode::kCancelled);
  }
}

TEST(Serving, nan_fails_its_own_request_and_no_other) {
  const std::vector<Request> requests = all_kinds();
  const std::vector<Outcome> want = alone(requests);
  const size_t every = is_ref() ? 3 : 1;
  for (size_t victim = 0; victim < requests.size(); victim += every) {
    Engine engine = Engine::load(kModel);
    const RequestId victim_id = victim + 1;
    engine.parts().loop.hooks.after_logits = [&](RequestId id, int choice, int token, std::span<float> logits) {
      if (id == victim_id && token == 2 && choice == requests[victim].n - 1)
        logits[17] = victim % 2 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
    };
    std::vector<EventStream> streams;
    for (const Request& request : requests) streams.push_back(engine.submit(request));
    ASSERT_EQ(streams[victim].id(), victim_id);
    for (size_t i = 0; i < streams.size(); ++i) {
      const Ended ended = read_to_end(streams[i]);
      if (i == victim) {
        ASSERT_TRUE(ended.error);
        EXPECT_EQ(ended.error->code(), ErrorCode::kNumeric);
      } else {
        ASSERT_FALSE(ended.error);
        EXPECT_EQ(ended.outcome, want[i]) << "victim " << victim << ", request " << i;
      }
    }
  }
}

TEST(Serving, features_that_are_no_numbers_fail_their_request_and_are_not_kept) {
  const std::vector<Request> requests = all_kinds();
  const std::vector<Outcome> want = alone(requests);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    // libstdc++ counts the owners of a message where the thread sanitizer does not see it: the text is read when the
    // engine's threads are gone.
    std::optional<Error> error;
    Engine engine = Engine::load(kModel);
    engine.parts().loop.hooks.after_tile = [&](RequestId id, int tile, std::span<float> features) {
      if (id == 1 && tile == 2) features.back() = bad;
    };
    std::vector<EventStream> streams;
    streams.push_back(engine.submit(requests[0]));
    // Its tiles are the oldest: it encodes them, and not [2], which has the same picture.
    for (int i = 0; i < 10'000 && engine.stats().steps == 0 && engine.stats().failed == 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    for (size_t i = 1; i < requests.size(); ++i) streams.push_back(engine.submit(requests[i]));
    for (size_t i = 0; i < streams.size(); ++i) {
      const Ended ended = read_to_end(streams[i]);
      if (i == 0) {
        ASSERT_TRUE(ended.error);
        EXPECT_EQ(ended.error->code(), ErrorCode::kNumeric);
        error = ended.error;
      } else {
        ASSERT_FALSE(ended.error) << ended.error->what();
        EXPECT_EQ(ended.outcome, want[i]) << "request " << i;
      }
    }
    EXPECT_EQ(outcome_of(engine.generate(requests[0])), want[0]) << "nothing of it is left";
    { const Engine gone = std::move(engine); }
    EXPECT_STREQ(error->what(), "picture 1, tile 3: the vision tower computed NaN or Inf");
  }
}

TEST(Serving, a_step_that_fails_once_is_run_again) {
  const std::vector<Request> requests = all_kinds();
  const std::vector<Outcome> want = alone(requests);
  Engine engine = Engine::load(kModel);
  int64_t call = 0;
  engine.parts().loop.hooks.before_rows = [&](int64_t) {
    if (++call % 3 == 0) throw std::bad_alloc();
  };
  std::vector<EventStream> streams;
  for (const Request& request : requests) streams.push_back(engine.submit(request));
  for (size_t i = 0; i < streams.size(); ++i) {
    const Ended ended = read_to_end(streams[i]);
    ASSERT_FALSE(ended.error);
    EXPECT_EQ(ended.outcome, want[i]);
  }
  EXPECT_GT(call, 10);
}

TEST(Serving, a_step_that_fails_twice_ends_those_who_took_part) {
  Engine engine = Engine::load(kModel);
  bool fail = true;
  engine.parts().loop.hooks.before_rows = [&](int64_t) {
    if (fail) throw std::runtime_error("a fault");
  };
  EventStream stream = engine.submit(ask("", "Hello"));
  const Ended ended = read_to_end(stream);
  ASSERT_TRUE(ended.error);
  EXPECT_EQ(ended.error->code(), ErrorCode::kInternal);
  fail = false;
  EXPECT_FALSE(engine.generate(ask("06.png", "Describe the image.")).token_ids().empty());
}

// For the thread sanitizer, and for every check that the engine makes of itself.
TEST(Serving, a_storm_of_requests_from_many_threads_ends_in_order) {
  const bool slow = is_ref();
  Engine engine =
      Engine::load(kModel, {.max_num_seqs = 4, .max_waiting = 1000, .kv_cache_bytes = page_bytes(128) * 12});
  const std::vector<Request> requests = all_kinds();
  std::atomic<int> ended{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < (slow ? 5 : 25); ++i) {
        EventStream stream = engine.submit(requests[random() % requests.size()]);
        if (random() % 3 == 0) {
          std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
          engine.cancel(stream.id());
        }
        if (random() % 5 == 0) {
          ++ended;  // walks away
          continue;
        }
        read_to_end(stream);
        ++ended;
        engine.stats();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ended, slow ? 20 : 100);
  engine.generate(ask("", "Hello"));
  wait_until_idle(engine);
}

}  // namespace
}  // namespace idefics
