// idefics serve with the model that comes with the project, asked by curl and by sockets.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "program.h"
#include "server/http/test_client.h"
#include "server_program.h"

namespace idefics::e2e {
namespace {

const std::string kQuestion = "How many shapes are there?";

void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

std::string base64_of(const std::filesystem::path& file) {
  return run_command("base64 -w0 '" + file.string() + "'").out;
}

std::string chat_body(const std::string& more = "") {
  return R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,)" +
         base64_of(tiny_cards() / "samples/06.png") + R"("}},{"type":"text","text":")" + kQuestion + "\"}]}]" +
         (more.empty() ? "" : "," + more) + "}";
}

std::string post(const std::string& path, const std::string& body) {
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}", path,
      body.size(), body);
}

Outcome curl(const std::string& arguments) { return run_command("curl -sS --max-time 60 " + arguments); }

std::string text_of(const http::Reply& reply) {
  EXPECT_EQ(reply.status, 200) << reply.body;
  const json::value body = parse_json(reply.body, "answer");
  return std::string(body.at("choices").at(0).at("message").at("content").as_string());
}

TEST(Serve, an_answer_is_the_same_bytes_as_the_command_lines_streamed_or_not) {
  const ServerProgram server({});
  const ScratchFolder scratch;
  const json::value direct = parse_output(run({"generate", tiny_cards().string(), "--image",
                                               (tiny_cards() / "samples/06.png").string(), "-p", kQuestion, "--json"}));
  const std::string expected(direct.at("text").as_string());
  ASSERT_EQ(expected, " There are three shapes.");
  const std::string file = scratch.write("body.json", chat_body()).string();
  const Outcome whole = curl(
      server.url() + "/v1/chat/completions -H 'Content-Type: application/json' -H 'Expect: 100-continue' -d @" + file);
  const json::value answer = parse_output(whole);
  EXPECT_EQ(answer.at("choices").at(0).at("message").at("content"), json::string(expected));
  EXPECT_EQ(answer.at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_EQ(answer.at("usage").at("prompt_tokens"), direct.at("prompt_tokens"));
  EXPECT_EQ(answer.at("usage").at("prompt_tokens_details").at("image_tokens"), direct.at("image_tokens"));
  EXPECT_EQ(answer.at("model"), "tiny-cards");

  http::TestClient client(server.port());
  const http::Reply stream = client.ask(post("/v1/chat/completions", chat_body(R"("stream":true)")), 30'000);
  std::string streamed;
  for (size_t at = 0; (at = stream.body.find("data: {", at)) != std::string::npos;) {
    const size_t end = stream.body.find("\n\n", at);
    const json::value chunk = parse_json(stream.body.substr(at + 6, end - at - 6), "chunk");
    const json::object& delta = chunk.at("choices").at(0).at("delta").as_object();
    if (const json::value* content = delta.if_contains("content")) streamed += content->as_string();
    at = end;
  }
  EXPECT_EQ(streamed, expected);
  EXPECT_TRUE(stream.body.ends_with("data: [DONE]\n\n"));
}

TEST(Serve, many_clients_at_once_and_bad_ones_beside_them_change_no_byte) {
  const ServerProgram server({});
  const std::string good = post("/v1/chat/completions", chat_body());
  const std::string broken = chat_body();
  std::vector<std::string> bad = {
      post("/v1/chat/completions", "{\"messages\":"),
      post("/v1/chat/completions", R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":)"
                                   R"({"url":"data:image/png;base64,iVBORw0KGgoAAAA="}}]}]})"),
      post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}],"n":99})"),
      post("/v1/completions", R"({"prompt":"a","max_tokens":5,"temperature":1.5})"),
      "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
      "NONSENSE\r\n\r\n"};
  std::vector<std::string> answers(24);
  std::vector<int> worst(4, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < answers.size(); i += 4) {
        http::TestClient canary(server.port()), other(server.port());
        canary.send(good);
        const http::Reply refused = other.ask(bad[i % bad.size()], 30'000);
        worst[t] = std::max(worst[t], refused.status);
        const http::Reply reply = canary.read(30'000);
        answers[i] = reply.body.substr(0, reply.body.find("\"usage\""));
        answers[i].erase(0, answers[i].find("\"choices\""));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& answer : answers) EXPECT_EQ(answer, answers.front());
  EXPECT_NE(answers.front().find("There are three shapes."), std::string::npos) << answers.front();
  for (const int status : worst) {
    EXPECT_LT(status, 500);
    EXPECT_GT(status, 0);
  }
}

TEST(Serve, a_damaged_picture_is_a_bad_request_that_names_its_field) {
  const ServerProgram server({});
  http::TestClient client(server.port());
  const http::Reply reply = client.ask(
      post("/v1/chat/completions",
           R"({"messages":[{"role":"user","content":[{"type":"text","text":"?"},)"
           R"({"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgoAAAA="}}]}],"stream":true})"));
  EXPECT_EQ(reply.status, 400);
  const json::value error = parse_json(reply.body, "error").at("error");
  EXPECT_EQ(error.at("code"), "image_invalid");
  EXPECT_EQ(error.at("param"), "messages[0].content[1].image_url");
  const http::Reply large = client.ask(
      post("/v1/chat/completions", R"({"messages":[{"role":"user","content":")" + std::string(60'000, 'x') + "\"}]}"),
      30'000);
  EXPECT_EQ(large.status, 400);
  EXPECT_EQ(parse_json(large.body, "error").at("error").at("code"), "context_length_exceeded");
}

TEST(Serve, each_picture_of_a_request_has_its_own_detail) {
  const ServerProgram server({});
  const std::string picture = base64_of(tiny_cards() / "samples/06.png");
  const auto tokens_of = [&](const std::vector<std::string>& details, const std::string& more = "") {
    std::string parts;
    for (const std::string& detail : details)
      parts += R"({"type":"image_url","image_url":{"url":"data:image/png;base64,)" + picture + "\"" + detail + "}},";
    const std::string body = R"({"messages":[{"role":"user","content":[)" + parts + R"({"type":"text","text":")" +
                             kQuestion + R"("}]}],"max_tokens":4)" + more + "}";
    const http::Reply reply = http::TestClient(server.port()).ask(post("/v1/chat/completions", body), 60'000);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return parse_json(reply.body, "answer").at("usage").at("prompt_tokens_details").at("image_tokens").as_int64();
  };
  const std::string low = R"(,"detail":"low")", high = R"(,"detail":"high")", automatic = R"(,"detail":"auto")";
  constexpr int kLow = 16, kHigh = 80;
  EXPECT_EQ(tokens_of({low}), kLow);
  EXPECT_EQ(tokens_of({high}), kHigh);
  EXPECT_EQ(tokens_of({low, high}), kLow + kHigh);
  EXPECT_EQ(tokens_of({high, low, automatic, "", low}), 3 * kHigh + 2 * kLow);
  EXPECT_EQ(tokens_of({low, high}, R"(,"mm_processor_kwargs":{"do_image_splitting":true})"), 2 * kHigh);
  EXPECT_EQ(tokens_of({low, high}, R"(,"mm_processor_kwargs":{"do_image_splitting":false})"), 2 * kLow);
}

TEST(Serve, its_decoding_process_has_no_keys_is_replaced_and_ends_with_it) {
  ServerProgram server({"--allowed-media-domains", "pics.example,http://other.example:8080"},
                       {{"IDEFICS_API_KEY", "planted-secret"}});
  // One, and a spare one.
  const auto processes = [&] {
    for (int i = 0; i < 1000 && server.children().size() != 2; ++i) sleep_ms(10);
    return server.children();
  };
  const std::vector<pid_t> first = processes();
  ASSERT_EQ(first.size(), 2u);
  const std::string folder = "/proc/" + std::to_string(first.front());
  EXPECT_EQ(run_command("tr '\\0' ' ' < " + folder + "/cmdline").out, "idefics decode-worker ");
  EXPECT_EQ(run_command("cat " + folder + "/environ 2>/dev/null").out.find("planted-secret"), std::string::npos);
  const std::string limits = run_command("cat " + folder + "/limits " + folder + "/status").out;
  for (const char* line : {"Max file size             0 ", "Max processes             0 ",
                           "Max core file size        0 ", "NoNewPrivs:\t1", "Seccomp:\t2"})
    EXPECT_NE(limits.find(line), std::string::npos) << line << limits;
#ifndef __SANITIZE_ADDRESS__  // sanitizers want pipes
  EXPECT_NE(limits.find("Max open files            0 "), std::string::npos) << limits;
#endif
  for (const pid_t process : first) ::kill(process, SIGKILL);
  const std::string body = chat_body();
  const auto ask = [&] {
    http::TestClient client(server.port());
    return client.ask(fmt::format("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
                                  "planted-secret\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
                                  body.size(), body),
                      30'000);
  };
  EXPECT_NE(text_of(ask()).find("There are three shapes."), std::string::npos);
  const std::vector<pid_t> second = processes();
  ASSERT_EQ(second.size(), 2u);
  for (const pid_t process : second) EXPECT_EQ(std::ranges::count(first, process), 0);
  // Those of its group who hear a signal leave the pictures of what still runs decodable.
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) {
    for (const pid_t process : second) ::kill(process, number);
  }
  sleep_ms(50);
  EXPECT_EQ(server.children(), second);
  server.signal(SIGKILL);
  server.wait(10'000);
  const auto lives = [&] {
    return std::ranges::any_of(second, [](pid_t process) {
      const std::string state = run_command("cat /proc/" + std::to_string(process) + "/status 2>/dev/null").out;
      return !state.empty() && state.find("State:\tZ") == std::string::npos;
    });
  };
  for (int i = 0; i < 500 && lives(); ++i) sleep_ms(10);
  EXPECT_FALSE(lives()) << "it outlives its server";
}

TEST(Serve, a_client_that_goes_away_frees_what_it_held) {
  const ServerProgram server({"--threads", "1"});
  const std::string endless =
      post("/v1/completions", R"({"prompt":"The","max_tokens":1900,"ignore_eos":true,"stream":true})");
  // One that has just come waits before it runs: only both numbers together say that nothing is left.
  const auto open_requests = [&] {
    http::TestClient client(server.port());
    const std::string text = client.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").body;
    int sum = 0;
    for (const char* name : {"\nvllm:num_requests_running{", "\nvllm:num_requests_waiting{"}) {
      const size_t at = text.find(name);
      sum += at == std::string::npos ? 1000 : std::stoi(text.substr(text.find("} ", at) + 2));
    }
    return sum;
  };
  const int before = server.descriptors();
  for (int i = 0; i < 5; ++i) {
    http::TestClient client(server.port());
    client.send(endless);
    ASSERT_TRUE(client.receive(10'000));
    client.close();
  }
  const auto start = std::chrono::steady_clock::now();
  while (open_requests() != 0 && std::chrono::steady_clock::now() - start < std::chrono::seconds(10)) sleep_ms(5);
  EXPECT_EQ(open_requests(), 0);
  sleep_ms(100);
  EXPECT_LE(server.descriptors(), before + 3) << "the loop of a second thread, at most";
}

TEST(Serve, sigterm_lets_answers_end_and_a_second_one_does_not) {
  const std::string body = R"({"prompt":"The","max_tokens":300,"ignore_eos":true,"stream":true})";
  {
    ServerProgram server({"--threads", "1"});
    http::TestClient client(server.port());
    client.send(post("/v1/completions", body));
    ASSERT_TRUE(client.receive(10'000));
    server.signal(SIGTERM);
    const http::Reply reply = client.read(30'000);
    EXPECT_TRUE(reply.body.ends_with("data: [DONE]\n\n"))
        << reply.body.substr(reply.body.size() - std::min<size_t>(300, reply.body.size()));
    EXPECT_EQ(server.wait(10'000), 0);
  }
  {
    ServerProgram server({"--threads", "1", "--drain-timeout", "0"});
    http::TestClient client(server.port());
    client.send(post("/v1/completions", R"({"prompt":"The","max_tokens":1900,"ignore_eos":true,"stream":true})"));
    ASSERT_TRUE(client.receive(10'000));
    server.signal(SIGTERM);
    const http::Reply reply = client.read(30'000);
    EXPECT_TRUE(reply.complete);
    const bool ended = reply.body.ends_with("data: [DONE]\n\n");
    EXPECT_TRUE(ended || reply.body.find(R"("code":"shutting_down")") != std::string::npos) << reply.body;
    EXPECT_EQ(server.wait(10'000), 0);
  }
  ServerProgram server({"--threads", "1"});
  std::vector<std::unique_ptr<http::TestClient>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<http::TestClient>(server.port()));
    clients.back()->send(
        post("/v1/completions", R"({"prompt":"The","max_tokens":1900,"ignore_eos":true,"stream":true})"));
    ASSERT_TRUE(clients.back()->receive(10'000));
  }
  server.signal(SIGTERM);
  sleep_ms(150);
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(10'000), 130);
}

// An answer that was cut off says so, at whatever moment the signal comes.
TEST(Serve, no_drain_cuts_an_answer_without_a_word) {
  const char* wish = std::getenv("IDEFICS_DRAINS");
  const int drains = wish != nullptr ? std::atoi(wish) : 8;
  for (int i = 0; i < drains; ++i) {
    ServerProgram server({"--threads", "1", "--drain-timeout", i % 4 == 0 ? "0" : "30"});
    http::TestClient idle(server.port()), stream(server.port()), whole(server.port()), second(server.port());
    ASSERT_EQ(idle.ask("GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
    const std::string body = R"({"prompt":"The","max_tokens":150,"ignore_eos":true)";
    stream.send(post("/v1/completions", body + R"(,"stream":true})"));
    second.send(post("/v1/completions", body + R"(,"stream":true})"));
    whole.send(post("/v1/completions", body + "}"));
    std::this_thread::sleep_for(std::chrono::microseconds(static_cast<unsigned>(i) * 2654435761U % 60'000));
    const auto start = std::chrono::steady_clock::now();
    server.signal(i % 2 == 0 ? SIGTERM : SIGINT);
    for (http::TestClient* client : {&stream, &second}) {
      const http::Reply reply = client->read(40'000);
      EXPECT_TRUE(reply.complete) << i;
      if (reply.status == 200) {
        EXPECT_TRUE(reply.body.ends_with("data: [DONE]\n\n") ||
                    reply.body.find(R"("code":"shutting_down")") != std::string::npos)
            << i << reply.body;
      } else {
        EXPECT_EQ(reply.status, 503) << i << reply.body;
      }
    }
    const http::Reply reply = whole.read(40'000);
    EXPECT_TRUE(reply.complete && (reply.status == 200 || reply.status == 503)) << i << reply.body;
    EXPECT_TRUE(idle.closes_within(40'000)) << i;
    EXPECT_EQ(server.wait(40'000), 0) << i;
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(36)) << i;
  }
}

TEST(Serve, a_drain_waits_for_requests_that_are_still_coming) {
  ServerProgram server({"--threads", "1"});
  const std::string bytes = post("/v1/completions", R"({"prompt":"The","max_tokens":4})");
  http::TestClient body(server.port()), head(server.port());
  body.send(bytes.substr(0, bytes.size() - 7));
  head.send(bytes.substr(0, 30));
  sleep_ms(100);
  server.signal(SIGTERM);
  ASSERT_TRUE(server.logs(" draining"));
  sleep_ms(100);
  EXPECT_EQ(head.ask(bytes.substr(30)).status, 503) << "it was not let in yet";
  EXPECT_EQ(body.ask(bytes.substr(bytes.size() - 7)).status, 200) << "it was";
  EXPECT_EQ(server.wait(10'000), 0);
}

TEST(Serve, a_log_that_cannot_be_written_stops_nothing) {
  const ScratchFolder scratch;
  const std::string socket = (scratch.path() / "socket").string();
  const Outcome outcome = run_command(fmt::format(
      "'{}' serve '{}' --uds {} 2>/dev/full & pid=$!; for i in $(seq 1000); do curl -sf --unix-socket {} "
      "http://localhost/ready && break; sleep 0.05; done; for i in 1 2 3; do curl -s -o /dev/null -w ' "
      "%{{http_code}}' --unix-socket {} http://localhost/v1/models; done; kill $pid; wait $pid; echo \" $?\"",
      IDEFICS_PROGRAM, tiny_cards().string(), socket, socket, socket));
  EXPECT_EQ(outcome.out, "{\"status\":\"ok\"} 200 200 200 0\n") << outcome.err;
}

TEST(Serve, signals_and_a_lack_of_descriptors_stop_nothing) {
  const ServerProgram server({"--threads", "1"});
  const std::string canary = post("/v1/chat/completions", chat_body());
  const auto expect_canary = [&] {
    EXPECT_EQ(text_of(http::TestClient(server.port()).ask(canary, 60'000)), " There are three shapes.");
  };
  server.signal(SIGPIPE);
  expect_canary();
  // Each stop and continuation interrupts what the threads wait in.
  http::TestClient interrupted(server.port());
  interrupted.send(canary);
  for (int i = 0; i < 30; ++i) {
    server.signal(SIGSTOP);
    sleep_ms(1);
    server.signal(SIGCONT);
    sleep_ms(1);
  }
  EXPECT_EQ(text_of(interrupted.read(60'000)), " There are three shapes.");
  http::TestClient before(server.port());
  ASSERT_EQ(before.ask("GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
  // What runs the tests may have left descriptors of high numbers open; the limit is one of numbers.
  const int inherited = server.descriptors() - server.descriptors_below(64);
  ASSERT_EQ(run_command(fmt::format("prlimit --pid {} --nofile=64:1024", server.pid())).exit_code, 0);
  {
    std::vector<std::unique_ptr<http::TestClient>> many;
    for (int i = 0; i < 100; ++i) many.push_back(std::make_unique<http::TestClient>(server.port()));
    int most = 0;
    for (int i = 0; i < 100; ++i) {
      most = std::max(most, server.descriptors() - inherited);
      sleep_ms(2);
    }
    EXPECT_LE(most, 64) << run_command(fmt::format("ls -l /proc/{}/fd", server.pid())).out;
    EXPECT_GE(most, 60) << "the crowd takes what there is";
    EXPECT_EQ(text_of(before.ask(canary, 60'000)), " There are three shapes.") << "who is in is served";
    EXPECT_EQ(many.back()->ask("GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n", 200).status, 0)
        << "who is not, waits";
  }
  expect_canary();
}

TEST(Serve, what_curl_can_do_to_a_request_is_answered_or_refused_cleanly) {
  const ServerProgram server({});
  const ScratchFolder scratch;
  const std::string file = scratch.write("body.json", chat_body()).string();
  const std::string ask = server.url() + "/v1/chat/completions -H 'Content-Type: application/json' ";
  const std::string code = "-o /dev/null -w '%{http_code}' ";
  const std::vector<std::pair<std::string, std::string>> answered = {
      {"sized", ask + "-d @" + file},
      {"asks before it sends", ask + "-H 'Expect: 100-continue' -d @" + file},
      {"does not ask", ask + "-H 'Expect:' -d @" + file},
      {"chunked", ask + "-H 'Transfer-Encoding: chunked' -d @" + file},
      {"chunked and asks", ask + "-H 'Transfer-Encoding: chunked' -H 'Expect: 100-continue' -d @" + file},
      {"slow", ask + "--limit-rate 20k -d @" + file},
      {"HTTP/1.0", "--http1.0 " + ask + "-d @" + file},
      {"wants to upgrade", "--http2 " + ask + "-d @" + file},
      {"no connection is kept", ask + "-H 'Connection: close' -d @" + file},
      {"twice on one connection", ask + "-d @" + file + " --next -sS " + ask + "-d @" + file},
  };
  for (const auto& [what, words] : answered) {
    const Outcome outcome = curl(words);
    EXPECT_EQ(outcome.exit_code, 0) << what << outcome.err;
    EXPECT_NE(outcome.out.find("There are three shapes."), std::string::npos) << what << outcome.out << outcome.err;
  }
  EXPECT_NE(curl("--http2-prior-knowledge " + code + server.url() + "/health").exit_code, 0);
  EXPECT_EQ(curl("--http1.0 " + code + "-H 'Transfer-Encoding: chunked' " + ask + "-d @" + file).out, "400");
  EXPECT_EQ(curl(code + "-H 'Expect: nonsense' " + ask + "-d @" + file).out, "200");
  EXPECT_EQ(curl(code + ask + "--compressed -d @" + file).out, "200") << "a client that could read gzip";
  EXPECT_EQ(curl(code + "-X TRACE " + server.url() + "/health").out, "405");
  EXPECT_EQ(curl(code + "-x " + server.url() + " http://elsewhere.example/").out, "400") << "no proxy";
  EXPECT_EQ(curl(code + server.url() + "/health").out, "200");
}

TEST(Serve, keys_come_from_the_environment_or_a_file_and_stay_out_of_the_log) {
  const ScratchFolder scratch;
  const std::string keys = scratch.write("keys", "file-secret-1\n\n file-secret-2 \n").string();
  const ServerProgram server({"--api-key-file", keys, "--log-format", "text"},
                             {{"IDEFICS_API_KEY", "environment-secret"}});
  for (const std::string key : {"file-secret-1", "file-secret-2", "environment-secret"})
    EXPECT_EQ(
        curl("-o /dev/null -w '%{http_code}' -H 'Authorization: Bearer " + key + "' " + server.url() + "/v1/models")
            .out,
        "200");
  EXPECT_EQ(curl("-o /dev/null -w '%{http_code}' " + server.url() + "/v1/models").out, "401");
  EXPECT_EQ(
      curl("-o /dev/null -w '%{http_code}' -H 'Authorization: Bearer wrong-secret' " + server.url() + "/v1/models").out,
      "401");
  EXPECT_EQ(curl("-o /dev/null -w '%{http_code}' " + server.url() + "/health").out, "200");
  curl("-o /dev/null -H 'Authorization: Bearer file-secret-1' -H 'Content-Type: application/json' " + server.url() +
       R"(/v1/completions -d '{"prompt":"planted-prompt-secret","max_tokens":2}')");
  curl("-o /dev/null -H 'Authorization: Bearer file-secret-1' -H 'Content-Type: application/json' " + server.url() +
       R"(/v1/completions -d '{"prompt":"planted-prompt-secret","stop":{"planted-stop-secret":1}}')");
  EXPECT_TRUE(server.logs("code=invalid_value param=stop")) << server.log();
  EXPECT_EQ(server.log().find("secret"), std::string::npos) << server.log();
}

TEST(Serve, no_request_can_write_a_line_of_the_log) {
  const ServerProgram server({});
  curl("-o /dev/null -H 'x-request-id: a b' '" + server.url() + "/x%0aevil%1b[31m\"quote'");
  http::TestClient(server.port()).ask("GET /\x1b[31m\xff\x80 HTTP/1.1\r\nHost: localhost\r\n\r\n");
  http::TestClient(server.port()).ask("GET /a;b%0a HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(server.logs(R"(path="/a;b%0a")")) << server.log();
  const std::string log = server.log();
  EXPECT_EQ(log.find('\x1b'), std::string::npos);
  EXPECT_EQ(log.find("\nevil"), std::string::npos);
}

// The fields that docs/server.md has for an event, in their order; those behind "?" may be absent.
const std::map<std::string, std::vector<std::string>> kFields = {
    {"listening", {"url"}},
    {"memory", {"weights_mib", "kv_cache_mib", "scratch_mib", "vision_cache_mib", "pixel_cache_mib", "total_mib"}},
    {"ready", {"model"}},
    {"request",
     {"id", "peer", "method", "path", "status", "ms", "?prompt_tokens", "?completion_tokens", "?code", "?param",
      "?detail"}},
    {"draining", {"delay_s", "timeout_s"}},
    {"stopped", {}}};

void expect_fields(const json::object& line, const std::string& event) {
  std::vector<std::string> wanted = {"time", "level", "event"};
  for (const std::string& field : kFields.at(event)) {
    if (!field.starts_with('?')) {
      wanted.push_back(field);
    } else if (line.contains(field.substr(1))) {
      wanted.push_back(field.substr(1));
    }
  }
  std::vector<std::string> found;
  for (const auto& [key, value] : line) {
    found.emplace_back(key);
    const bool number =
        key == "status" || key == "ms" || key.ends_with("_tokens") || key.ends_with("_mib") || key.ends_with("_s");
    EXPECT_EQ(value.is_number(), number) << event << " " << key;
  }
  EXPECT_EQ(found, wanted) << event;
}

void expect_sum(const json::object& memory) {
  int64_t sum = 0;
  for (const std::string& field : kFields.at("memory")) sum += field == "total_mib" ? 0 : memory.at(field).as_int64();
  EXPECT_GT(memory.at("weights_mib").as_int64(), 0);
  EXPECT_NEAR(memory.at("total_mib").as_int64(), sum, 5) << "each is rounded down";
}

TEST(Serve, each_line_of_a_json_log_is_an_object_with_the_documented_fields) {
  ServerProgram server({"--log-format", "json"});
  http::TestClient(server.port()).ask(post("/v1/chat/completions", chat_body()), 30'000);
  http::TestClient(server.port()).ask(post("/v1/completions", R"({"prompt":"a","max_tokens":"\"\n"})"));
  http::TestClient(server.port()).ask("GET /\x1b[31m\xff\"\\ HTTP/1.1\r\nHost: localhost\r\nx-request-id: 12\r\n\r\n");
  http::TestClient(server.port()).ask("NONSENSE\r\n\r\n");
  const auto requests = [&server] {
    const std::string log = server.log();
    int count = 0;
    for (size_t at = 0; (at = log.find(R"("event":"request")", at)) != std::string::npos; ++at) ++count;
    return count;
  };
  for (int i = 0; i < 500 && requests() < 4; ++i) sleep_ms(10);  // a line is written behind its response
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(10'000), 0);
  std::map<std::string, int> events;
  const std::string log = server.log();
  for (size_t start = 0, end = 0; (end = log.find('\n', start)) != std::string::npos; start = end + 1) {
    const json::value line = parse_json(log.substr(start, end - start), "line of the log");
    const std::string event(line.at("event").as_string());
    ASSERT_TRUE(kFields.contains(event)) << event;
    expect_fields(line.as_object(), event);
    if (event == "memory") expect_sum(line.as_object());
    ++events[event];
  }
  EXPECT_TRUE(log.ends_with('\n'));
  EXPECT_EQ(events["request"], 4);
  EXPECT_EQ(events.size(), kFields.size());
}

// A service manager's socket.
class Supervisor {
 public:
  Supervisor() : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path().copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;
  ~Supervisor() { ::close(fd_); }
  std::string path() const { return (scratch_.path() / "notify").string(); }
  // The next word, "" when none comes.
  std::string word() const {
    const timeval patience{5, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    char text[256];
    const ssize_t n = ::recv(fd_, text, sizeof(text), 0);
    return n < 0 ? "" : std::string(text, static_cast<size_t>(n));
  }

 private:
  ScratchFolder scratch_;
  int fd_;
};

TEST(Serve, a_service_manager_is_told_of_the_start_and_of_the_end) {
  const Supervisor supervisor;
  ServerProgram server({}, {{"NOTIFY_SOCKET", supervisor.path()}});
  EXPECT_EQ(supervisor.word(), "READY=1");
  server.signal(SIGTERM);
  EXPECT_EQ(supervisor.word(), "STOPPING=1");
  EXPECT_EQ(server.wait(10'000), 0);
}

TEST(Serve, in_the_delay_of_a_drain_routers_are_told_and_requests_are_still_answered) {
  ServerProgram server({"--drain-delay", "2"});
  http::TestClient kept(server.port());
  const std::string question = post("/v1/completions", R"({"prompt":"The","max_tokens":3})");
  EXPECT_EQ(kept.ask(question, 30'000).status, 200);
  server.signal(SIGTERM);
  EXPECT_TRUE(server.logs("draining delay_s=2"));
  for (const char* path : {"/health", "/ready"}) {
    http::TestClient router(server.port());
    const http::Reply reply = router.ask(fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path));
    EXPECT_EQ(reply.status, 503) << path;
    EXPECT_EQ(reply.header("connection"), "close") << path;
  }
  const http::Reply last = kept.ask(question, 30'000);
  EXPECT_EQ(last.status, 200);
  EXPECT_EQ(last.header("connection"), "close") << "the next one is to go elsewhere";
  EXPECT_EQ(http::TestClient(server.port()).ask(question, 30'000).status, 200);
  EXPECT_EQ(server.wait(10'000), 0);
}

TEST(Serve, settings_come_from_a_file) {
  const ScratchFolder scratch;
  const std::string file =
      scratch
          .write("serve.toml", "served-model-name = ['first', 'second']\nlog-format = 'json'\nmax-body-size = '1k'\n")
          .string();
  const ServerProgram server({"--config", file, "--log-format", "text"});
  EXPECT_TRUE(server.logs("ready model=first"));
  EXPECT_EQ(http::TestClient(server.port()).ask(post("/v1/completions", std::string(1025, ' '))).status, 413);
}

TEST(Serve, a_unix_socket_is_for_this_user_alone_and_goes_with_the_program) {
  const ScratchFolder scratch;
  const std::string path = (scratch.path() / "idefics.sock").string();
  ServerProgram server({"--uds", path});
  EXPECT_EQ(server.url(), "unix:" + path);
  EXPECT_EQ(curl("--unix-socket " + path + " http://localhost/health").out, R"({"status":"ok"})");
  EXPECT_EQ(run_command("stat -c %a " + path).out, "600\n");
  const Outcome second = run({"serve", tiny_cards().string(), "--uds", path});
  EXPECT_EQ(second.exit_code, 5) << "one that answers is not taken away: " << second.err;
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(10'000), 0);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(Serve, tls_by_certificate_files) {
  const ScratchFolder scratch;
  const std::string folder = scratch.path().string();
  const Outcome made = run_command("cd " + folder +
                                   " && openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem "
                                   "-days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>&1");
  ASSERT_EQ(made.exit_code, 0) << made.out;
  const ServerProgram server({"--ssl-certfile", folder + "/cert.pem", "--ssl-keyfile", folder + "/key.pem"});
  const std::string url = "https://localhost:" + std::to_string(server.port());
  EXPECT_EQ(curl("--cacert " + folder + "/cert.pem " + url + "/health").out, R"({"status":"ok"})");
  const std::string file = scratch.write("body.json", chat_body()).string();
  const Outcome answer = curl("--cacert " + folder + "/cert.pem " + url +
                              "/v1/chat/completions -H 'Content-Type: application/json' -d @" + file);
  EXPECT_NE(answer.out.find("There are three shapes."), std::string::npos) << answer.out << answer.err;
  EXPECT_NE(curl("--tls-max 1.1 -k " + url + "/health").exit_code, 0);
  EXPECT_NE(curl("http://localhost:" + std::to_string(server.port()) + "/health").exit_code, 0);
  EXPECT_EQ(curl("--cacert " + folder + "/cert.pem " + url + "/health").out, R"({"status":"ok"})");
}

TEST(Serve, a_start_that_fails_says_why_in_one_line) {
  const ServerProgram server({});
  const ScratchFolder scratch;
  const std::string empty = scratch.write("empty", "\n\n").string();
  const std::string model = tiny_cards().string();
  const std::string bad_settings = scratch.write("bad.toml", "\nprot = 1\n").string();
  const std::string open_keys = scratch.write("keys", "key\n").string();
  std::filesystem::permissions(open_keys, std::filesystem::perms(0666));
  const auto no_weights = scratch.copy_model(tiny_cards(), "no_weights");
  std::filesystem::remove(no_weights / "model.safetensors");
  const auto other_shape = scratch.copy_model(tiny_cards(), "other_shape");
  scratch.write("other_shape/config.json",
                replaced(read(other_shape / "config.json"), "\"vocab_size\": 1920", "\"vocab_size\": 1900"));
  const std::vector<std::tuple<std::vector<std::string>, int, std::string>> cases = {
      {{"serve", model, "--port", std::to_string(server.port())}, 5, "cannot listen on 127.0.0.1:"},
      {{"serve", "/no/such/model"}, 4, "no such model folder"},
      {{"serve", model, "--host", "0.0.0.0"}, 2, "--api-key-file"},
      {{"serve", model, "--host", "::"}, 2, "--api-key-file"},
      {{"serve", model, "--host", "192.0.2.1", "--api-key", "k"}, 5, "cannot listen on 192.0.2.1"},
      {{"serve", model, "--host", "no-such-host.invalid", "--api-key", "k"}, 2, "--host is"},
      {{"serve", model, "--port", "70000"}, 2, "--port is"},
      {{"serve", model, "--port", "http"}, 2, "--port is"},
      {{"serve", model, "--max-queue", "0"}, 2, "--max-queue is"},
      {{"serve", model, "--api-key-file", "/no/such/file"}, 5, "/no/such/file"},
      {{"serve", model, "--api-key-file", empty}, 2, "holds no key"},
      {{"serve", model, "--api-key", ""}, 2, "--api-key is empty"},
      {{"serve", model, "--ssl-certfile", empty}, 2, "give both"},
      {{"serve", model, "--ssl-certfile", empty, "--ssl-keyfile", empty, "--port", "0"}, 5, "wanted a PEM file"},
      {{"serve", model, "--allowed-local-media-path", "/no/such/folder"}, 2, "wanted a folder"},
      {{"serve", model, "--log-format", "xml"}, 2, "--log-format is"},
      {{"serve", model, "--config", "/no/such/file"}, 2, "/no/such/file"},
      {{"serve", model, "--config", empty, "--port", "x"}, 2, "--port is"},
      {{"serve", model, "--config", bad_settings}, 2, "bad.toml:2: there is no setting \"prot\": did you mean port?"},
      {{"serve", model, "--api-key-file", open_keys}, 2, "others may change it"},
      {{"serve", model, "--uds", "/no/such/folder/socket"}, 5, "cannot listen on /no/such/folder"},
      {{"serve", model, "--uds", std::string(300, 'x')}, 2, "--uds is"},
      {{"serve", model, "--prot", "1"}, 2, "--port"},
      {{"serve"}, 2, "MODEL"},
      {{"serve", empty}, 4, ""},
      // Nobody is told of a port before it is known that there is a model.
      {{"serve", scratch.path().string(), "--port", "0"}, 4, "config.json: cannot open"},
      {{"serve", no_weights.string(), "--port", "0"}, 4, "model.safetensors"},
      {{"serve", other_shape.string(), "--port", "0"}, 4, "embed_tokens"},
      {{"serve", model, "--kv-memory", "much"}, 2, "--kv-memory is"},
      {{"serve", model, "--max-body-size", "-1"}, 2, "--max-body-size is"},
      {{"serve", model, "--stall-timeout", "0"}, 2, "--stall-timeout is"},
      {{"serve", model, "--threads", "0"}, 2, "--threads is"},
      {{"serve", model, "--api-key-file", scratch.path().string()}, 5, ""},
  };
  EXPECT_GE(cases.size(), 25u);
  for (const auto& [arguments, code, text] : cases) {
    Outcome outcome;
    auto quickest = std::chrono::steady_clock::duration::max();
    // The quickest of some tries, since others may need the machine at the same time.
    for (int i = 0; i < 5 && quickest > std::chrono::seconds(1); ++i) {
      const auto start = std::chrono::steady_clock::now();
      outcome = run(arguments);
      quickest = std::min(quickest, std::chrono::steady_clock::now() - start);
    }
    EXPECT_LT(quickest, std::chrono::seconds(1)) << outcome.err;
    EXPECT_EQ(outcome.exit_code, code) << outcome.err;
    EXPECT_NE(outcome.err.find(text), std::string::npos) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_TRUE(outcome.err.starts_with("idefics: error: ")) << outcome.err;
  }
}

TEST(Serve, no_url_of_a_picture_makes_it_connect_or_open) {
  const ServerProgram server({});
  for (const std::string url :
       {"http://127.0.0.1:1/x.png", "https://localhost/x.png", "file:///etc/passwd", "ftp://127.0.0.1/x"}) {
    http::TestClient client(server.port());
    const http::Reply reply = client.ask(
        post("/v1/chat/completions",
             R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":")" + url + "\"}}]}]}"));
    EXPECT_EQ(reply.status, 400);
    EXPECT_NE(reply.body.find("image_url_not_allowed"), std::string::npos) << reply.body;
  }
  const std::string folder = (tiny_cards() / "samples").string();
  const ServerProgram open({"--allowed-local-media-path", folder});
  http::TestClient client(open.port());
  const http::Reply reply =
      client.ask(post("/v1/chat/completions",
                      R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"file://)" +
                          folder + R"(/06.png"}},{"type":"text","text":")" + kQuestion + "\"}]}]}"),
                 30'000);
  EXPECT_EQ(text_of(reply), " There are three shapes.");
}

}  // namespace
}  // namespace idefics::e2e
