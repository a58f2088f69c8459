// From a picture and a question to the ids of the answer, through the trained checkpoint that comes with the project.
#include <gtest/gtest.h>

#include "golden.h"
#include "idefics/engine.h"

namespace idefics {
namespace {

const std::filesystem::path kModel = std::filesystem::path(IDEFICS_SOURCE_DIR) / "models/tiny-cards";

TEST(AnswersGolden, float32_gives_the_tokens_of_the_reference) {
  golden::Family family("answers/float32");
  Engine engine = Engine::load(kModel, {.dtype = ComputeType::kF32});
  EXPECT_EQ(engine.dtype(), "f32");
  EXPECT_EQ(engine.kernels(), std::getenv("IDEFICS_KERNELS")) << "the level that was asked for runs";
  const json::value rows = parse_json(read_file(kModel / "samples/expected.json", 1 << 24), "expected.json");
  for (const json::value& row : rows.as_array()) {
    const std::string image(row.at("image").as_string()), question(row.at("prompt").as_string());
    Request request;
    request.messages = {
        {"user",
         {ContentPart::of_image(read_file(kModel / "samples" / image, 1 << 24)), ContentPart::of_text(question)}}};
    std::string streamed;
    const Answer answer = engine.generate(request, {.text = [&](std::string_view delta) { streamed += delta; }});
    family.check(answer.prompt_token_ids == json::value_to<std::vector<int32_t>>(row.at("prompt_token_ids")) &&
                     answer.token_ids() == json::value_to<std::vector<int32_t>>(row.at("token_ids")) &&
                     answer.text() == row.at("text").as_string() && streamed == answer.text() &&
                     answer.finish_reason() == FinishReason::kStop,
                 image + " \"" + question + "\": \"" + answer.text() + "\"");
  }
}

}  // namespace
}  // namespace idefics
