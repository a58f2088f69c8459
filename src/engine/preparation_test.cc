// Pictures that are slow to decode, decoded twice, and cut in several ways.
#include "engine/preparation.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "engine/card_questions.h"
#include "image/codec.h"

namespace idefics {
namespace {

std::vector<Request> some_requests() {
  std::vector<Request> requests = {ask("06.png", "How many shapes are there?"),
                                   ask("01.png", "What colour is the circle?"), ask("02.png", "Describe the image."),
                                   ask("", "Hello"), ask("03.png", "Read the text.")};
  requests[2].messages[0].content.push_back(requests[1].messages[0].content[0]);  // a second picture
  requests[4].n = 3;
  requests[4].sampling.temperature = 1.5;
  requests[4].sampling.seed = 7;
  for (Request& request : requests) request.sampling.max_tokens = 12;
  return requests;
}

using Tokens = std::vector<std::vector<int32_t>>;

Tokens tokens_of(const Answer& answer) {
  Tokens out;
  for (const Choice& choice : answer.choices) out.push_back(choice.token_ids);
  return out;
}

// The tokens of each choice, or the error.
struct Ended {
  Tokens tokens;
  std::optional<Error> error;
};

Ended read_to_end(EventStream& stream) {
  Ended out;
  while (!stream.ended()) {
    const std::optional<Event> event = stream.next(120'000);
    if (!event) {
      ADD_FAILURE() << "nothing happened for two minutes";
      break;
    }
    if (std::ssize(out.tokens) <= event->choice) out.tokens.resize(static_cast<size_t>(event->choice) + 1);
    for (const TokenInfo& token : event->tokens) out.tokens[static_cast<size_t>(event->choice)].push_back(token.id);
    if (event->type == Event::Type::kEnd) out.error = event->error;
  }
  return out;
}

// Each request alone.
std::vector<Tokens> alone(const std::vector<Request>& requests) {
  Engine engine = Engine::load(kModel, {.max_num_seqs = 1});
  std::vector<Tokens> out;
  for (const Request& request : requests) out.push_back(tokens_of(engine.generate(request)));
  return out;
}

TEST(Preparation, each_picture_is_cut_as_it_asks_for) {
  Engine engine = Engine::load(kModel);
  const auto image_tokens = [&](const Request& request) { return engine.generate(request).usage.image_tokens; };
  const std::string question = "Describe the image.";
  Request split = ask("06.png", question), whole = split, few = split, mixed = split, turned = split;
  whole.messages[0].content[0].options.split = false;
  few.messages[0].content[0].options.max_tiles = 3;
  EXPECT_EQ(image_tokens(split), 80);
  EXPECT_EQ(image_tokens(whole), 16);
  EXPECT_EQ(image_tokens(few), 16) << "no grid has so few tiles";
  const auto picture = [](const Request& request) { return request.messages[0].content[0]; };
  mixed.messages[0].content = {picture(whole), picture(split), picture(few), picture(whole),
                               ContentPart::of_text(question)};
  const Answer answer = engine.generate(mixed);
  EXPECT_EQ(answer.usage.image_tokens, 16 + 80 + 16 + 16);
  EXPECT_EQ(answer.usage.tiles, 1 + 5 + 1 + 1);
  // What a picture says about itself goes before what the prompt says about all.
  turned.messages[0].content = {picture(split), picture(split), ContentPart::of_text(question)};
  turned.messages[0].content[1].options.split = true;
  turned.prompt.images.split = false;
  EXPECT_EQ(image_tokens(turned), 16 + 80);
  // Without memory for pixels each is cut again when its turn comes, in its own way.
  Engine poor = Engine::load(kModel, {.vision_cache_bytes = 0, .pixel_cache_bytes = 0});
  for (const Request& request : {mixed, turned})
    EXPECT_EQ(tokens_of(poor.generate(request)), tokens_of(engine.generate(request)));
}

// Decodes like the engine itself, but for the files in its hands.
class SlowDecoder {
 public:
  // From now on the decoding of this file, or of files that are none, takes until release().
  void hold(std::string file) {
    const std::lock_guard lock(mutex_);
    held_ = std::move(file);
  }
  void release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }
  void wait_until_held(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return holding_ >= count; });
  }
  DecodedPicture decode(std::string_view file) {
    {
      std::unique_lock lock(mutex_);
      if (file == held_) {
        ++holding_;
        changed_.notify_all();
        changed_.wait(lock, [&] { return released_; });
        --holding_;
      }
    }
    Image image = decode_image(std::as_bytes(std::span(file)));
    return {image.width, image.height, std::move(image.rgb)};
  }
  PictureDecoder function() {
    return [this](std::string_view file) { return decode(file); };
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string held_;
  int holding_ = 0;
  bool released_ = false;
};

Request ask_about(const std::string& file) {
  Request request = ask("01.png", "What colour is the circle?");
  request.messages[0].content[0].image = file;
  return request;
}

// The answers of other requests, which must come while the decoder holds on to some.
void expect_answers(Engine& engine, const std::vector<Request>& requests, const std::vector<Tokens>& want) {
  std::vector<EventStream> streams;
  for (const Request& request : requests) streams.push_back(engine.submit(request));
  for (size_t i = 0; i < streams.size(); ++i) {
    const Ended ended = read_to_end(streams[i]);
    ASSERT_FALSE(ended.error) << ended.error->what();
    EXPECT_EQ(ended.tokens, want[i]) << "request " << i;
  }
}

TEST(Preparation, a_picture_that_hangs_its_decoder_delays_nobody_else) {
  const std::vector<Request> requests = some_requests();
  const std::vector<Tokens> want = alone(requests);
  SlowDecoder decoder;
  Engine engine = Engine::load(kModel, {.picture_decoder = decoder.function()});
  decoder.hold("a file that takes over");
  std::vector<EventStream> hanging;
  for (int i = 1; i < Preparation::kPictureThreads; ++i) {
    hanging.push_back(engine.submit(ask_about("a file that takes over")));
    decoder.wait_until_held(i);
  }
  expect_answers(engine, requests, want);
  for (EventStream& stream : hanging) EXPECT_FALSE(stream.next(0));
  // As many as are decoded at a time: other pictures wait, texts do not.
  hanging.push_back(engine.submit(ask_about("a file that takes over")));
  decoder.wait_until_held(Preparation::kPictureThreads);
  Request picture = requests[0];
  picture.cache_salt = "unknown";
  EventStream waiting = engine.submit(picture);
  expect_answers(engine, {requests[3]}, {want[3]});
  EXPECT_FALSE(waiting.next(50));
  engine.cancel(hanging[0].id());
  decoder.release();
  EXPECT_EQ(read_to_end(waiting).tokens, want[0]);
  for (size_t i = 0; i < hanging.size(); ++i) {
    const Ended ended = read_to_end(hanging[i]);
    ASSERT_TRUE(ended.error);
    EXPECT_EQ(ended.error->code(), ErrorCode::kImageInvalid);
  }
}

TEST(Preparation, a_picture_that_hangs_when_it_is_decoded_again_delays_nobody_else) {
  const std::vector<Request> requests = some_requests();
  const std::vector<Tokens> want = alone(requests);
  SlowDecoder decoder;
  Engine engine = Engine::load(kModel, {.enable_prefix_caching = false,
                                        .vision_cache_bytes = 0,
                                        .pixel_cache_bytes = 0,
                                        .picture_decoder = decoder.function()});
  const Request known = ask("05.png", "Describe the image.");
  const Tokens known_want = tokens_of(engine.generate(known));  // its grid is known: it is not decoded for the prompt
  decoder.hold(known.messages[0].content[0].image);
  EventStream hanging = engine.submit(known), cancelled = engine.submit(known);
  decoder.wait_until_held(1);
  expect_answers(engine, requests, want);
  // Only the decoder is awaited: a cancelled request ends all the same.
  EXPECT_TRUE(engine.cancel(cancelled.id()));
  const Ended end = read_to_end(cancelled);
  ASSERT_TRUE(end.error);
  EXPECT_EQ(end.error->code(), ErrorCode::kCancelled);
  decoder.release();
  const Ended late = read_to_end(hanging);
  ASSERT_FALSE(late.error) << late.error->what();
  EXPECT_EQ(late.tokens, known_want);
}

TEST(Preparation, a_picture_that_cannot_be_decoded_again_fails_its_request) {
  const Request request = ask("06.png", "Describe the image.");
  std::atomic<int> calls = 0;
  Engine engine = Engine::load(kModel, {.pixel_cache_bytes = 0, .picture_decoder = [&](std::string_view file) {
                                          if (++calls == 2) throw Error(ErrorCode::kImageInvalid, "image: died");
                                          Image image = decode_image(std::as_bytes(std::span(file)));
                                          return DecodedPicture{image.width, image.height, std::move(image.rgb)};
                                        }});
  EventStream stream = engine.submit(request);
  const Ended ended = read_to_end(stream);
  ASSERT_TRUE(ended.error);
  EXPECT_EQ(ended.error->code(), ErrorCode::kImageInvalid);
  EXPECT_EQ(tokens_of(engine.generate(request)), alone({request}).front());
}

TEST(Preparation, an_engine_goes_away_while_pictures_are_decoded) {
  SlowDecoder decoder;
  std::vector<EventStream> streams;
  std::thread release;
  {
    Engine engine = Engine::load(kModel, {.enable_prefix_caching = false,
                                          .vision_cache_bytes = 0,
                                          .pixel_cache_bytes = 0,
                                          .picture_decoder = decoder.function()});
    const Request known = ask("05.png", "Describe the image.");
    engine.generate(known);
    decoder.hold(known.messages[0].content[0].image);
    for (const std::string salt : {"", "1", "2", "3", "4"}) {  // one is decoded again, others for the first time
      Request request = known;
      request.cache_salt = salt;
      streams.push_back(engine.submit(request));
    }
    decoder.wait_until_held(Preparation::kPictureThreads);
    release = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      decoder.release();
    });
  }
  release.join();
  for (EventStream& stream : streams) {
    const Ended ended = read_to_end(stream);
    EXPECT_TRUE(!ended.error || ended.error->code() == ErrorCode::kCancelled);
  }
}

}  // namespace
}  // namespace idefics
