// idefics chat, driven through standard input.
#include <gtest/gtest.h>

#include "program.h"

namespace idefics::e2e {
namespace {

const std::string kModel = tiny_cards().string();
std::string sample(const std::string& name) { return (tiny_cards() / "samples" / name).string(); }

Outcome chat(const std::string& input, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"chat", kModel};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run(arguments, {.input = input});
}

TEST(Chat, questions_about_one_picture_follow_each_other) {
  const Outcome outcome = chat("/image " + sample("01.png") + "\nWhat colour is the circle?\n\nWhere is the circle?\n");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.out, "The circle is gray.\nThe circle is at the bottom centre.\n");
}

TEST(Chat, a_saved_conversation_is_a_messages_file_with_all_turns) {
  const ScratchFolder scratch;
  const std::string file = (scratch.path() / "saved.json").string();
  ASSERT_EQ(chat("/image '" + sample("06.png") +
                     "'\nHow many shapes are there?\n\"\"\"Where is\nthe star?\"\"\"\n/save " + file + "\n",
                 {"--system", "Look well."})
                .exit_code,
            0);
  const json::array saved = parse_json(read(file), file).as_array();
  ASSERT_EQ(saved.size(), 5u);
  EXPECT_EQ(saved[0].at("role"), "system");
  EXPECT_EQ(saved[1].at("content").at(0).at("path").as_string(), std::filesystem::absolute(sample("06.png")).string());
  EXPECT_EQ(saved[2].at("content").at(0).at("text"), "There are three shapes.");
  EXPECT_EQ(saved[3].at("content").at(0).at("text"), "Where is\nthe star?");
  const json::value rendered = parse_output(run({"render", kModel, "--messages", file, "--json"}));
  EXPECT_NE(rendered.at("text").as_string().find("There are three shapes."), json::string::npos);
}

TEST(Chat, history_is_sent_and_clear_forgets_it) {
  const std::string first = "/image " + sample("01.png") + "\nWhere is the circle?\n";
  const auto prompt_tokens = [](const Outcome& outcome) {
    const size_t at = outcome.out.rfind("prompt   ");
    return at == std::string::npos ? 0 : std::stoi(outcome.out.substr(at + 9));
  };
  const int one = prompt_tokens(chat(first + "/stats\n"));
  EXPECT_EQ(one, 110);
  EXPECT_GT(prompt_tokens(chat(first + "Why?\n/stats\n")), one + 10);
  EXPECT_LT(prompt_tokens(chat(first + "/clear\nWhy?\n/stats\n")), 30);
  EXPECT_EQ(chat("/stats\n").out, "there is no answer yet\n");
}

TEST(Chat, a_failed_line_is_reported_and_taken_back_and_the_talk_goes_on) {
  const ScratchFolder scratch;
  const std::string cut = scratch.write("cut.png", read(sample("01.png")).substr(0, 2000)).string();
  const Outcome outcome = chat("/image /no/such.png\n/image " + cut + "\nWhat is it?\n/image " + sample("01.png") +
                               "\nWhat colour is the circle?\n/sav x\n/image\n/clear now\n");
  EXPECT_EQ(outcome.exit_code, 5) << "that of the first failure";
  EXPECT_EQ(outcome.out, "The circle is gray.\n");
  EXPECT_NE(outcome.err.find("idefics: error: /no/such.png: cannot open"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("idefics: error: " + cut + ": "), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("there is no command /sav: did you mean /save?"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("/image wants PATH behind it"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("/clear stands alone, found \"now\" behind it"), std::string::npos) << outcome.err;
}

TEST(Chat, help_lists_the_commands_and_exit_ends) {
  const Outcome outcome = chat("/help\n/exit\n/stats\n");
  EXPECT_EQ(outcome.exit_code, 0);
  for (const char* name : {"/image PATH", "/clear", "/stats", "/save FILE", "/help", "/exit", "\"\"\""})
    EXPECT_NE(outcome.out.find(name), std::string::npos) << name;
  EXPECT_EQ(outcome.out.find("there is no answer"), std::string::npos);
}

TEST(Chat, sigint_stops_the_answer_and_not_the_program) {
  const Outcome outcome = run({"chat", kModel, "--ignore-eos", "--max-tokens", "1900", "--threads", "1"},
                              {.input = "Hello\n/stats\n", .interrupt_after = ">"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_NE(outcome.out.find("ended by cancelled"), std::string::npos) << outcome.out;
}

}  // namespace
}  // namespace idefics::e2e
