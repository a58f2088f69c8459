// What users send stays between them and their answers: it is in no log, no metrics, and no error.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <thread>

#include "hostile_server.h"
#include "program.h"
#include "server_program.h"

namespace idefics::e2e {
namespace {

using http::TestClient;

// Each secret is a word with this in it, so that one search finds them all. Errors say what was found: what a client
// wrote into a schema, or as the name or the value of a field, comes back to it (kEcho), but stands in no log either.
const std::string kSecret = "zq7", kEcho = "zq8";
const std::string kKey = "zq7-api-key-4711";

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// The bytes that a picture carries, as they are and as they look inside of base64 at each of its three alignments.
const std::string kPictureBytes = "ZQ7 bytes of a picture";
std::vector<std::string> traces_of_pictures() {
  std::vector<std::string> traces;
  for (size_t before = 0; before < 3; ++before) {
    const std::string coded = HostileServer::base64(std::string(before, 'x') + kPictureBytes);
    traces.push_back(coded.substr(4, 16));
  }
  return traces;
}

void expect_no_secret(const std::string& text, const std::string& where, bool echo_allowed = false) {
  const std::string small = lower(text);
  std::vector<std::string> words = {kSecret};
  if (!echo_allowed) words.push_back(kEcho);
  for (const std::string& word : words) {
    const size_t at = small.find(word);
    EXPECT_EQ(at, std::string::npos) << where << ": ..." << text.substr(at < 200 ? 0 : at - 200, 400);
  }
  for (const std::string& trace : traces_of_pictures())
    EXPECT_EQ(text.find(trace), std::string::npos) << where << ": a picture's bytes";
  EXPECT_EQ(text.find("There are three shapes"), std::string::npos) << where << ": an answer";
}

// ---- Pictures

std::string chunk(const std::string& type, const std::string& data) {
  const auto number = [](uint32_t value) {
    std::string out;
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 255);
    return out;
  };
  uint32_t crc = ~0u;
  for (const char c : type + data) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
  }
  return number(static_cast<uint32_t>(data.size())) + type + data + number(~crc);
}

// The card with a comment in it.
std::string marked_card() {
  std::string card = read_file(kModel / "samples/06.png", 1 << 24);
  return card.insert(33, chunk("tEXt", std::string("Comment") + '\0' + kPictureBytes));  // behind IHDR
}

std::string data_url(const std::string& bytes) { return "data:image/png;base64," + HostileServer::base64(bytes); }

std::string picture_part(const std::string& url, const std::string& more = "") {
  return fmt::format(R"({{"type":"image_url","image_url":{{"url":"{}"{}}}}})", url, more);
}
std::string question_about(const std::string& url, const std::string& more = "") {
  return fmt::format(
      R"({{"messages":[{{"role":"user","content":[{},{{"type":"text","text":"zq7 prompt: how many shapes?"}}]}}]{}}})",
      picture_part(url), more);
}
std::string question(const std::string& more) {
  return R"({"messages":[{"role":"system","content":"zq7 system prompt"},{"role":"user","content":"zq7 prompt"}],)"
         R"("max_tokens":6)" +
         more + "}";
}

// ---- Requests

struct Sent {
  std::string what, bytes;
};

std::string post(const std::string& target, const std::string& body, const std::string& headers = "",
                 const std::string& key = kKey) {
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\n"
      "User-Agent: zq7 agent\r\nCookie: session=zq7\r\nX-Forwarded-For: zq7\r\nReferer: http://zq7.test/?zq7\r\n"
      "{}Content-Length: {}\r\n\r\n{}",
      target, key, headers, body.size(), body);
}

const std::string kChat = "/v1/chat/completions?zq7=query&token=zq7";

std::vector<Sent> good_requests() {
  const std::string card = data_url(marked_card());
  return {
      {"an answer", post(kChat, question_about(card))},
      {"a stream", post(kChat, question_about(card, R"(,"stream":true,"user":"zq7","cache_salt":"zq7 salt")"))},
      {"log probabilities", post(kChat, question(R"(,"logprobs":true,"top_logprobs":2,"stop":["zq7 stop"])"))},
      {"choices",
       post(kChat, question(R"(,"n":2,"seed":1,"temperature":1.5,"zq7 field":"zq7","metadata":{"a":"zq7"})"))},
      {"a schema", post(kChat, question(R"(,"response_format":{"type":"json_schema","json_schema":{"name":"zq7",)"
                                        R"("schema":{"enum":["zq7 choice"]}}})"))},
      {"an expression", post(kChat, question(R"(,"structured_outputs":{"regex":"zq7[0-9]"})"))},
      {"a completion", post("/v1/completions?zq7", R"({"prompt":"zq7 prompt","max_tokens":4})")},
      {"tokens", post("/tokenize?zq7", R"({"prompt":"zq7 prompt"})")},
      {"tokens of a chat", post("/tokenize", question_about(card))},
  };
}

// A wrong value in each field that there is.
std::vector<Sent> bad_values() {
  std::vector<Sent> out;
  for (const std::string field : {"model",
                                  "max_tokens",
                                  "max_completion_tokens",
                                  "n",
                                  "stop",
                                  "seed",
                                  "temperature",
                                  "top_p",
                                  "presence_penalty",
                                  "frequency_penalty",
                                  "logit_bias",
                                  "logprobs",
                                  "top_logprobs",
                                  "stream",
                                  "stream_options",
                                  "top_k",
                                  "min_p",
                                  "repetition_penalty",
                                  "min_tokens",
                                  "stop_token_ids",
                                  "ignore_eos",
                                  "skip_special_tokens",
                                  "include_stop_str_in_output",
                                  "add_generation_prompt",
                                  "continue_final_message",
                                  "mm_processor_kwargs",
                                  "prompt_logprobs",
                                  "cache_salt",
                                  "request_id",
                                  "priority",
                                  "no_repeat_ngram_size",
                                  "response_format",
                                  "structured_outputs",
                                  "guided_json",
                                  "guided_regex",
                                  "guided_choice",
                                  "guided_grammar",
                                  "tools",
                                  "chat_template",
                                  "bad_words",
                                  "echo",
                                  "modalities",
                                  "messages"}) {
    for (const std::string value : {R"("zq8 value")", R"(["zq8 value"])", R"({"zq8":"zq8 value"})"})
      out.push_back({field + ": " + value, post(kChat, question(",\"" + field + "\":" + value))});
  }
  const auto message = [&](const std::string& text) {
    out.push_back({text, post(kChat, R"({"messages":[)" + text + "]}")});
  };
  message(R"({"role":"zq7","content":"zq7 prompt"})");
  message(R"({"role":"user","content":7,"zq7":"zq7"})");
  message(R"({"role":"user","content":[{"type":"zq7","text":"zq7"}]})");
  message(R"({"role":"user","content":[{"type":"text","text":["zq7"]}]})");
  message(R"({"role":"tool","content":"zq7"})");
  message(R"({"role":"user","content":[)" + picture_part(data_url(marked_card()), R"(,"detail":"zq7")") + "]}");
  message(R"({"role":"user","content":"zq7 prompt"},{"role":"assistant","content":""},"zq8")");
  for (const std::string format :
       {R"({"type":"zq7"})", R"({"type":"json_schema","json_schema":{"name":"n","schema":{"zq8":1,"type":"zq8"}}})",
        R"({"type":"json_schema","json_schema":{"name":"n","schema":{"pattern":"(zq8"}}})"})
    out.push_back({format, post(kChat, question(R"(,"response_format":)" + format))});
  for (const std::string wish : {R"({"regex":"(zq8"})", R"({"grammar":"root ::= zq8"})", R"({"choice":[]})",
                                 R"({"json":{"$ref":"#/zq8"}})", R"({"json":"{\"zq8"})"})
    out.push_back({wish, post(kChat, question(R"(,"structured_outputs":)" + wish))});
  std::string words;
  for (int i = 0; i < 4000; ++i) words += "zq7 ";
  out.push_back({"a prompt beyond the context", post("/v1/completions", R"({"prompt":")" + words + "\"}")});
  return out;
}

std::vector<Sent> bad_pictures(const std::string& folder, int port) {
  const std::string marked = marked_card(), listed = fmt::format("http://localhost:{}", port);
  std::vector<std::pair<std::string, std::string>> urls = {
      {"not base64", "data:image/png;base64,zq7!"},
      {"of no type", "data:text/zq7;base64,enE3"},
      {"no picture", data_url(kPictureBytes)},
      {"cut off", data_url(marked.substr(0, marked.size() / 2))},
      {"a wrong byte", data_url(marked.substr(0, 60) + "zq7" + marked.substr(63))},
      {"no such file", "file://" + folder + "/zq7-file.png"},
      {"no picture file", "file://" + folder + "/zq7-text.png"},
      {"outside", "file:///etc/zq7/passwd"},
      {"another scheme", "ftp://zq7:zq7@zq7.test/zq7"},
      {"another host", "https://zq7.test/zq7?zq7#zq7"},
      {"a user", "https://zq7-user:zq7-password@localhost/zq7.png"},
      {"an address of this machine", listed + "/zq7.png?token=zq7"},
      {"no such host", "https://no-such-host.invalid/zq7.png?token=zq7"},
      {"no URL", "zq7"},
      {"empty", ""},
  };
  std::vector<Sent> out;
  for (const auto& [what, url] : urls) {
    for (const std::string more : {"", R"(,"stream":true)"})
      out.push_back({"a picture that is " + what, post(kChat, question_about(url, more))});
    out.push_back({"tokens of a picture that is " + what, post("/tokenize", question_about(url))});
  }
  std::string many = picture_part(data_url(marked));
  for (int i = 0; i < 20; ++i) many += "," + picture_part(data_url(marked));
  out.push_back({"too many pictures", post(kChat, R"({"messages":[{"role":"user","content":[)" + many + "]}]}")});
  return out;
}

std::vector<Sent> bad_http() {
  const std::string body = question("");
  const auto with = [&](const std::string& headers) {
    return fmt::format("POST {} HTTP/1.1\r\n{}Content-Length: {}\r\n\r\n{}", kChat, headers, body.size(), body);
  };
  const std::string json = "Content-Type: application/json\r\n", host = "Host: localhost\r\n",
                    key = "Authorization: Bearer " + kKey + "\r\n";
  std::vector<Sent> out = {
      {"a wrong key", post(kChat, body, "", "zq7-wrong-key")},
      {"no key", with(host + json)},
      {"another kind of key", with(host + json + "Authorization: Basic zq7\r\n")},
      {"a key elsewhere", with(host + json + "X-Api-Key: " + kKey + "\r\n")},
      {"a wrong key elsewhere", "GET /zq-none?api_key=" + kKey + " HTTP/1.1\r\n" + host + "\r\n"},
      {"another host", with("Host: zq7.test\r\n" + json + key)},
      {"another origin", with(host + json + key + "Origin: https://zq7.test\r\n")},
      {"another type", with(host + key + "Content-Type: text/zq7\r\n")},
      {"another encoding", with(host + json + key + "Content-Encoding: zq7\r\n")},
      {"an encoding of the way", with(host + json + key + "Transfer-Encoding: zq7\r\n")},
      {"an expectation", with(host + json + key + "Expect: zq7\r\n")},
      {"an upgrade", with(host + json + key + "Connection: upgrade\r\nUpgrade: zq7\r\n")},
      {"a name that is none", with(host + json + key + "X-Request-Id: zq7 is not plain\r\n")},
      {"no HTTP", "zq7 zq7 zq7\r\n\r\n"},
      {"a header without a colon", "GET / HTTP/1.1\r\n" + host + "zq7\r\n\r\n"},
      {"another version", "GET /?zq7 HTTP/7.7\r\n" + host + "Cookie: zq7\r\n\r\n"},
      {"a long header", "GET /?zq7 HTTP/1.1\r\n" + host + "Cookie: " + std::string(40'000, 'z') + "q7\r\n\r\n"},
      {"a long line", "GET /?" + std::string(9000, 'z') + "q7 HTTP/1.1\r\n" + host + "\r\n"},
      {"two lengths", with(host + json + key + "Content-Length: 3\r\n")},
      {"another method", "PUT " + kChat + " HTTP/1.1\r\n" + host + key + "\r\n"},
      {"a large body",
       fmt::format("POST {} HTTP/1.1\r\n{}{}{}Content-Length: 99999999\r\n\r\nzq7", kChat, host, json, key)},
      {"a bad chunk",
       fmt::format("POST {} HTTP/1.1\r\n{}{}{}Transfer-Encoding: chunked\r\n\r\nzq7\r\n", kChat, host, json, key)},
  };
  for (const std::string text : {"zq7", "{\"zq7", R"({"messages":"zq7)", R"({"zq8":1,"zq8":2})", "{\"a\":\"zq7\xff\"}",
                                 R"(["zq7"])", R"("zq8")", R"({"a":1e999,"b":"zq7"})", "{\"zq7\":\"\x01\"}"})
    out.push_back({"as JSON: " + std::string(text), post(kChat, text)});
  return out;
}

// Sends them all. What a client hears of an error, and what stands in headers, is searched too.
template <typename Send>
int send_all(const std::vector<Sent>& requests, Send send) {
  int errors = 0;
  for (const Sent& request : requests) {
    const http::Reply reply = send(request);
    std::string head;
    for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\n";
    expect_no_secret(head, request.what + ", head of the response");
    const bool failed_stream = reply.status == 200 && reply.body.find("\"error\"") != std::string::npos;
    if (reply.status < 400 && !failed_stream) continue;
    expect_no_secret(reply.body, request.what + ", body of the error", true);
    ++errors;
  }
  return errors;
}

int send_all(int port, const std::vector<Sent>& requests) {
  return send_all(requests, [&](const Sent& request) { return TestClient(port).ask(request.bytes, 30'000); });
}

// Leaves at different moments.
void send_and_leave(int port, const std::vector<Sent>& requests) {
  int number = 0;
  for (const Sent& request : requests) {
    TestClient client(port);
    const int kind = ++number % 4;
    client.send(kind == 0 ? request.bytes.substr(0, request.bytes.size() - 3) : request.bytes);
    if (kind == 1) client.receive(2000);
    if (kind == 2) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    if (kind == 3) client.reset();
  }
}

std::string metrics_of(int port) {
  const http::Reply reply =
      TestClient(port).ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + kKey + "\r\n\r\n");
  EXPECT_EQ(reply.status, 200);
  return reply.body;
}

class Secrets : public testing::TestWithParam<const char*> {};

TEST_P(Secrets, of_users_are_in_no_log_no_metrics_and_no_error) {
  const ScratchFolder scratch;
  const std::string folder = scratch.path().string();
  scratch.write("zq7-text.png", "zq7");
  write_file(scratch.path() / "zq7-card.png", marked_card());
  const std::string keys = scratch.write("keys", kKey + "\n").string();
  constexpr int kClosedPort = 9;  // nobody listens there, and nobody is asked: it is this machine
  ServerProgram server({"--log-format", GetParam(), "--api-key-file", keys, "--allowed-hosts", "localhost",
                        "--allowed-local-media-path", folder, "--allowed-media-domains",
                        fmt::format("http://localhost:{},no-such-host.invalid", kClosedPort), "--max-body-size", "1m",
                        "--max-queue", "2", "--max-num-seqs", "1"});
  ASSERT_FALSE(server.url().empty());
  std::vector<Sent> good = good_requests();
  good.push_back({"a file", post(kChat, question_about("file://" + folder + "/zq7-card.png"))});
  for (const Sent& request : good)
    EXPECT_EQ(TestClient(server.port()).ask(request.bytes, 60'000).status, 200) << request.what;
  EXPECT_EQ(send_all(server.port(), good), 0);
  int errors = 0;
  for (const auto& requests : {bad_values(), bad_pictures(folder, kClosedPort), bad_http()})
    errors += send_all(server.port(), requests);
  EXPECT_GE(errors, 150);
  send_and_leave(server.port(), good);
  send_and_leave(server.port(), good);

  // More than the queue takes.
  std::vector<std::thread> crowd;
  for (int i = 0; i < 8; ++i) crowd.emplace_back([&] { send_all(server.port(), good_requests()); });
  // And processes that die over their pictures.
  std::atomic<bool> ending = false;
  std::thread killer([&] {
    while (!ending) {
      for (const pid_t child : server.children()) ::kill(child, SIGKILL);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  for (std::thread& thread : crowd) thread.join();
  ending = true;
  killer.join();
  expect_no_secret(metrics_of(server.port()), "/metrics");

  // Those that are cut off by the end.
  TestClient last(server.port());
  last.send(post(kChat, question(R"(,"stream":true,"ignore_eos":true,"max_tokens":1900)")));
  last.receive(5000);
  server.signal(SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  server.signal(SIGTERM);
  server.wait(60'000);
  const std::string log = server.log();
  expect_no_secret(log, "the log");
  EXPECT_GE(std::ranges::count(log, '\n'), 250) << "all this was logged";
  for (const std::string level : {"info", "warning"}) EXPECT_NE(log.find(level), std::string::npos) << level;
  for (const std::string code :
       {"invalid_json", "invalid_value", "unsupported_parameter", "image_invalid", "image_url_not_allowed",
        "failed_to_download_image", "too_many_images", "context_length_exceeded", "schema_invalid", "invalid_api_key",
        "host_not_allowed", "origin_not_allowed", "unsupported_media_type", "model_not_found"})
    EXPECT_NE(log.find(code), std::string::npos) << code << " was met";
}

INSTANTIATE_TEST_SUITE_P(LogFormats, Secrets, testing::Values("text", "json"));

// In one process, where it can be said how a decoder dies.
TEST(SecretsOfDecoders, a_picture_that_takes_its_decoder_over_says_nothing_to_the_log) {
  for (const openai::LogFormat format : {openai::LogFormat::kText, openai::LogFormat::kJson}) {
    testing::internal::CaptureStderr();
    {
      openai::ServiceOptions options;
      options.log = format;
      const HostileServer server(500, options);
      for (const std::string order :
           {"crash", "abort", "exit", "sleep", "huge", "status", "message", "short", "open"}) {
        const std::string bytes = HostileServer::question("order:" + order, "zq7 salt");
        const http::Reply reply = TestClient(server.port()).ask(bytes, 60'000);
        EXPECT_EQ(reply.status, 400) << order;
        expect_no_secret(reply.body, order);
      }
      EXPECT_EQ(server.deaths, 8);
    }
    const std::string log = testing::internal::GetCapturedStderr();
    expect_no_secret(log, "the log");
    EXPECT_EQ(log.find("order"), std::string::npos) << log;
    EXPECT_NE(log.find("a decoding process failed"), std::string::npos) << log;
    EXPECT_NE(log.find("image_invalid"), std::string::npos) << log;
  }
}

}  // namespace
}  // namespace idefics::e2e
