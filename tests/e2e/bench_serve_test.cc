// idefics bench serve against idefics serve: what is counted, not how fast it is.
#include <gtest/gtest.h>

#include "program.h"
#include "server_program.h"

namespace idefics::e2e {
namespace {

Outcome bench(const std::string& url, std::vector<std::string> more) {
  std::vector<std::string> words = {"bench", "serve", "--url", url, "--json"};
  words.insert(words.end(), more.begin(), more.end());
  return run(words);
}

void expect_spread(const json::value& out, const std::string& name) {
  double before = 0;
  for (const std::string which : {"median_", "p95_", "p99_", "max_"}) {
    const auto value = out.at(which + name).to_number<double>();
    EXPECT_GE(value, before) << which << name;
    before = value;
  }
  EXPECT_GT(before, 0) << name;
  EXPECT_LE(out.at("mean_" + name).to_number<double>(), before) << name;
}

TEST(BenchServe, counts_every_request_and_token) {
  const ServerProgram server({"--threads", "1"});
  const std::string cards = (tiny_cards() / "samples").string();
  const Outcome outcome =
      bench(server.url(), {"--concurrency", "3", "--num-requests", "8", "--image", cards + "/01.png", "--image",
                           cards + "/02.png", "--max-tokens", "12", "--ignore-eos"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const json::value out = parse_output(outcome);
  EXPECT_EQ(out.at("num_requests"), 8);
  EXPECT_EQ(out.at("completed"), 8);
  EXPECT_EQ(out.at("refused"), 0);
  EXPECT_EQ(out.at("failed"), 0);
  EXPECT_EQ(out.at("total_output_tokens"), 8 * 12);
  for (const char* name : {"ttft_ms", "tpot_ms", "itl_ms", "e2el_ms"}) expect_spread(out, name);
  EXPECT_LE(out.at("median_ttft_ms").to_number<double>(), out.at("median_e2el_ms").to_number<double>());
  EXPECT_NEAR(out.at("request_throughput").to_number<double>() * out.at("duration").to_number<double>(), 8, 1e-6);
  EXPECT_EQ(out.at("request_goodput"), out.at("request_throughput"));
  EXPECT_EQ(out.at("errors").as_object().size(), 0u);
}

TEST(BenchServe, an_open_loop_at_a_rate_with_a_seed) {
  const ServerProgram server({"--threads", "1"});
  for (const std::string arrivals : {"poisson", "constant"}) {
    const Outcome outcome = bench(server.url(), {"--rate", "40", "--arrivals", arrivals, "--seed", "5",
                                                 "--num-requests", "20", "-p", "Hi", "--max-tokens", "2"});
    const json::value out = parse_output(outcome);
    EXPECT_EQ(out.at("completed"), 20) << outcome.out;
    EXPECT_GT(out.at("duration").to_number<double>(), 0.2) << "20 at 40 a second take half a second";
  }
  const json::value out =
      parse_output(bench(server.url(), {"--rate", "40", "--num-requests", "5", "-p", "Hi", "--max-tokens", "3",
                                        "--goodput", "ttft:60000", "--goodput", "e2el:0.0001"}));
  EXPECT_EQ(out.at("completed"), 5);
  EXPECT_EQ(out.at("request_goodput"), 0.0);
}

TEST(BenchServe, refusals_are_no_failures_and_have_a_time_of_their_own) {
  const ServerProgram server({"--threads", "1", "--max-num-seqs", "1", "--max-queue", "1"});
  const Outcome outcome = bench(
      server.url(), {"--concurrency", "12", "--num-requests", "24", "-p", "Hi", "--max-tokens", "200", "--ignore-eos"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err;
  const json::value out = parse_output(outcome);
  EXPECT_GE(out.at("refused").as_int64(), 9);
  EXPECT_GE(out.at("completed").as_int64(), 1);
  EXPECT_EQ(out.at("completed").as_int64() + out.at("refused").as_int64(), 24);
  EXPECT_EQ(out.at("total_output_tokens").as_int64(), 200 * out.at("completed").as_int64());
  expect_spread(out, "refusal_ms");
}

TEST(BenchServe, keys_unix_sockets_and_a_table) {
  const ScratchFolder scratch;
  const std::string path = (scratch.path() / "idefics.sock").string();
  const ServerProgram server({"--uds", path, "--threads", "1"}, {{"IDEFICS_API_KEY", "a-key"}});
  const std::vector<std::string> words = {"bench", "serve", "--url", "unix:" + path, "--num-requests",
                                          "2",     "-p",    "Hi",    "--max-tokens", "2"};
  const Outcome refused = run(words);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("wants a key"), std::string::npos) << refused.err;
  const Outcome outcome = run(words, {.environment = {{"IDEFICS_API_KEY", "a-key"}}});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  for (const char* word : {"2 completed, 0 refused, 0 failed", "requests/s", "to the first token", "p99"})
    EXPECT_NE(outcome.out.find(word), std::string::npos) << word << "\n" << outcome.out;
}

TEST(BenchServe, what_it_cannot_do_is_said_in_one_line) {
  const std::vector<std::tuple<std::vector<std::string>, int, std::string>> cases = {
      {{"bench", "serve"}, 2, "--url"},
      {{"bench", "serve", "--url", "localhost"}, 2, "--url is \"localhost\""},
      {{"bench", "serve", "--url", "http://127.0.0.1:1"}, 5, "is the server up?"},
      {{"bench", "serve", "--url", "http://a", "--rate", "0"}, 2, "--rate is 0"},
      {{"bench", "serve", "--url", "http://a", "--rate", "5", "--concurrency", "2"}, 2, "exclude each other"},
      {{"bench", "serve", "--url", "http://a", "--goodput", "speed:5"}, 2, "--goodput is \"speed:5\""},
      {{"bench", "serve", "--url", "http://a", "--image", "/no/such.png"}, 5, "/no/such.png"},
  };
  for (const auto& [words, code, text] : cases) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.exit_code, code) << text << outcome.err;
    EXPECT_NE(outcome.err.find(text), std::string::npos) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }
}

}  // namespace
}  // namespace idefics::e2e
