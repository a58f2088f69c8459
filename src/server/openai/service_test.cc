// Routes, answers and refusals over loopback, with an engine that says what it is told.
#include "server/openai/service.h"

#include <gtest/gtest.h>

#include "server/openai/service_fixture.h"

namespace idefics::openai {
namespace {

std::vector<std::string> events_of(const std::string& body) {
  std::vector<std::string> events;
  for (size_t at = 0; at < body.size();) {
    const size_t end = body.find("\n\n", at);
    if (end == std::string::npos) {
      ADD_FAILURE() << "half an event: " << body.substr(at);
      break;
    }
    events.push_back(body.substr(at, end - at));
    at = end + 2;
  }
  return events;
}

std::vector<json::value> chunks_of(const std::string& body) {
  std::vector<json::value> chunks;
  for (const std::string& event : events_of(body)) {
    if (event.starts_with("data: {")) chunks.push_back(json::parse(event.substr(6)));
  }
  return chunks;
}

TEST(Service, a_chat_has_an_answer_with_usage_and_timings) {
  const Served served;
  const http::Reply reply = ask(served, post("/v1/chat/completions", kChat, "X-Request-Id: abc.1\r\n"));
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.header("x-request-id"), "abc.1");
  EXPECT_EQ(reply.header("content-type"), "application/json");
  const json::object body = json::parse(reply.body).as_object();
  EXPECT_EQ(body.at("id"), "chatcmpl-abc.1");
  EXPECT_EQ(body.at("object"), "chat.completion");
  EXPECT_EQ(body.at("model"), "model");
  const json::object choice = body.at("choices").at(0).as_object();
  EXPECT_EQ(choice.at("message"), (json::object{{"role", "assistant"}, {"content", "Hello world"}}));
  EXPECT_EQ(choice.at("finish_reason"), "stop");
  EXPECT_EQ(choice.at("index"), 0);
  EXPECT_TRUE(choice.at("logprobs").is_null());
  EXPECT_EQ(body.at("usage"),
            (json::object{{"prompt_tokens", 10},
                          {"completion_tokens", 3},
                          {"total_tokens", 13},
                          {"prompt_tokens_details", json::object{{"cached_tokens", 4}, {"image_tokens", 0}}}}));
  EXPECT_EQ(body.at("timings").at("prompt_n"), 6);
  EXPECT_EQ(body.at("timings").at("predicted_n"), 3);
}

TEST(Service, a_stream_is_role_text_finish_usage_and_done) {
  const Served served;
  const http::Reply reply = ask(
      served,
      post("/v1/chat/completions",
           R"({"messages":[{"role":"user","content":"Hi"}],"stream":true,"stream_options":{"include_usage":true}})"));
  ASSERT_EQ(reply.status, 200);
  EXPECT_EQ(reply.header("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(reply.header("cache-control"), "no-cache");
  EXPECT_EQ(reply.header("x-accel-buffering"), "no");
  EXPECT_EQ(events_of(reply.body).back(), "data: [DONE]");
  const std::vector<json::value> chunks = chunks_of(reply.body);
  ASSERT_EQ(chunks.size(), 6u);
  const auto delta = [&](size_t i) { return chunks[i].at("choices").at(0).at("delta"); };
  EXPECT_EQ(delta(0), (json::object{{"role", "assistant"}, {"content", ""}}));
  EXPECT_EQ(delta(1).at("content"), "Hello");
  EXPECT_EQ(delta(3).at("content"), "world");
  EXPECT_EQ(delta(4), json::object());
  EXPECT_EQ(chunks[4].at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_TRUE(chunks[5].at("choices").as_array().empty());
  EXPECT_EQ(chunks[5].at("usage").at("total_tokens"), 13);
  for (const json::value& chunk : chunks) {
    EXPECT_EQ(chunk.at("object"), "chat.completion.chunk");
    EXPECT_EQ(chunk.at("id"), chunks[0].at("id"));
  }
}

TEST(Service, a_stream_without_the_option_has_no_usage) {
  const Served served;
  EXPECT_EQ(chunks_of(ask(served, post("/v1/chat/completions", kStream)).body).size(), 5u);
}

TEST(Service, several_choices_and_log_probabilities) {
  const Served served;
  const http::Reply reply =
      ask(served, post("/v1/chat/completions",
                       R"({"messages":[{"role":"user","content":"Hi"}],"n":2,"logprobs":true,"top_logprobs":1})"));
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(served.backend->last_request().n, 2);
  EXPECT_EQ(served.backend->last_request().logprobs, 1);
  const json::value body = json::parse(reply.body);
  ASSERT_EQ(body.at("choices").as_array().size(), 2u);
  EXPECT_EQ(body.at("choices").at(1).at("message").at("content"), "Hello world");
  const json::value first = body.at("choices").at(1).at("logprobs").at("content").at(0);
  EXPECT_EQ(first.at("token"), "t0");
  EXPECT_EQ(first.at("logprob"), -0.5);
  EXPECT_EQ(first.at("bytes"), (json::array{'t', '0'}));
  EXPECT_EQ(first.at("top_logprobs").at(0).at("token"), "t0");
}

TEST(Service, completions_have_their_own_form) {
  const Served served;
  const http::Reply reply = ask(served, post("/v1/completions", R"({"prompt":"Once","logprobs":1})"));
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(served.backend->last_request().text, "Once");
  EXPECT_EQ(served.backend->last_request().sampling.max_tokens, 16);
  const json::value body = json::parse(reply.body);
  EXPECT_EQ(body.at("object"), "text_completion");
  EXPECT_EQ(body.at("choices").at(0).at("text"), "Hello world");
  EXPECT_EQ(body.at("choices").at(0).at("logprobs").at("tokens"), (json::array{"t0", "t1", "t2"}));
  EXPECT_EQ(body.at("choices").at(0).at("logprobs").at("text_offset"), (json::array{0, 2, 4}));
  const http::Reply ids = ask(served, post("/v1/completions", R"({"prompt":[1,2,3],"stream":true})"));
  EXPECT_EQ(served.backend->last_request().token_ids, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(chunks_of(ids.body).at(0).at("choices").at(0).at("text"), "Hello");
  EXPECT_EQ(events_of(ids.body).back(), "data: [DONE]");
}

TEST(Service, progress_is_told_to_those_who_ask) {
  const Served served;
  served.backend->set_script({.tiles = 5});
  const auto chunks = chunks_of(
      ask(served,
          post(
              "/v1/chat/completions",
              R"({"messages":[{"role":"user","content":"Hi"}],"stream":true,"stream_options":{"include_progress":true}})"))
          .body);
  EXPECT_EQ(chunks.at(1).at("progress"), (json::object{{"tiles_done", 0}, {"tiles", 5}}));
  EXPECT_EQ(chunks.at(2).at("progress"), (json::object{{"tiles_done", 5}, {"tiles", 5}}));
}

TEST(Service, what_there_is_to_get) {
  const Served served;
  const auto value = [&](const std::string& path) { return json::parse(ask(served, get(path)).body); };
  EXPECT_EQ(value("/health"), (json::object{{"status", "ok"}}));
  EXPECT_EQ(value("/ready"), (json::object{{"status", "ok"}}));
  EXPECT_EQ(value("/version"), (json::object{{"version", "1.2.3"}}));
  EXPECT_EQ(value("/v1/models").at("data").at(0).at("id"), "model");
  EXPECT_EQ(value("/v1/models/model").at("max_model_len"), 4096);
  EXPECT_TRUE(value("/openapi.json").at("paths").is_object());
  EXPECT_NE(ask(served, get("/metrics")).body.find("vllm:num_requests_running{"), std::string::npos);
  EXPECT_EQ(json::parse(ask(served, post("/tokenize", R"({"prompt":"ab"})")).body),
            (json::object{{"count", 2}, {"max_model_len", 4096}, {"tokens", {97, 98}}}));
  EXPECT_EQ(json::parse(ask(served, post("/tokenize", kChat)).body).at("count"), 3);
  EXPECT_EQ(json::parse(ask(served, post("/detokenize", R"({"tokens":[97,98]})")).body),
            (json::object{{"prompt", "ab"}}));
  http::TestClient client(served.port());
  client.send("HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const http::Reply head = client.read(5000, true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.header("content-length"), "15");
  EXPECT_EQ(client.ask(get("/version")).status, 200) << "the connection is still in step";
}

TEST(Service, the_page_comes_with_the_program_and_fetches_from_nowhere_else) {
  const Served served;
  for (const std::string path : {"/", "/page/style.css", "/page/app.js", "/page/stream.js"}) {
    const http::Reply reply = ask(served, get(path));
    EXPECT_EQ(reply.status, 200) << path;
    EXPECT_GT(reply.body.size(), 500u) << path;
    EXPECT_EQ(reply.body.find("//"), reply.body.find("// ")) << "an address of elsewhere in " << path;
    EXPECT_EQ(reply.body.find("innerHTML"), std::string::npos) << path;
    EXPECT_EQ(reply.header("x-content-type-options"), "nosniff");
    const std::string policy = reply.header("content-security-policy");
    EXPECT_NE(policy.find("default-src 'none'; script-src 'self';"), std::string::npos) << policy;
    EXPECT_EQ(policy.find("unsafe"), std::string::npos) << policy;
  }
  EXPECT_EQ(ask(served, get("/")).body.find("<script>"), std::string::npos) << "no script stands in the page itself";
  EXPECT_EQ(ask(served, get("/page/../page.cc")).status, 404);
  ServiceOptions without;
  without.web_page = false;
  EXPECT_EQ(ask(Served(without), get("/")).status, 404);
}

TEST(Service, the_engines_refusals_become_statuses) {
  const Served served;
  const std::vector<std::tuple<ErrorCode, int, std::string, std::string>> cases = {
      {ErrorCode::kInvalidValue, 400, "invalid_request_error", "invalid_value"},
      {ErrorCode::kPromptEmpty, 400, "invalid_request_error", "prompt_empty"},
      {ErrorCode::kContextLengthExceeded, 400, "invalid_request_error", "context_length_exceeded"},
      {ErrorCode::kImageInvalid, 400, "invalid_request_error", "image_invalid"},
      {ErrorCode::kImageTooLarge, 400, "invalid_request_error", "image_too_large"},
      {ErrorCode::kTooManyImages, 400, "invalid_request_error", "too_many_images"},
      {ErrorCode::kTemplateError, 400, "invalid_request_error", "template_error"},
      {ErrorCode::kInternal, 500, "server_error", "internal"},
      {ErrorCode::kBadModel, 500, "server_error", "internal"},
      {ErrorCode::kIo, 500, "server_error", "internal"},
      {ErrorCode::kNumeric, 500, "server_error", "model_numeric_error"},
      {ErrorCode::kOutOfMemory, 503, "server_error", "out_of_memory"},
      {ErrorCode::kOverloaded, 503, "server_error", "overloaded"},
  };
  for (const auto& [code, status, type, name] : cases) {
    served.backend->set_script({.refusal = Error(code, "/secret/path: 0xdeadbeef01 " + std::string(9000, '\x01'))});
    for (const std::string& body : {kChat, kStream}) {
      const http::Reply reply = ask(served, post("/v1/chat/completions", body));
      expect_error(reply, status, type, name, name);
      if (status >= 500) {
        EXPECT_EQ(reply.body.find("secret"), std::string::npos) << reply.body;
      }
      EXPECT_EQ(reply.header("retry-after").empty(), status != 503) << name;
    }
  }
  served.backend->set_script({});
  expect_canary(served);
}

TEST(Service, a_full_engine_refuses_before_anything_is_parsed) {
  const Served served;
  served.backend->full = true;
  http::TestClient client(served.port());
  for (const std::string& body : {kChat, kStream, std::string("{\"messages\": no JSON")}) {
    for (const std::string path : {"/v1/chat/completions", "/v1/completions"}) {
      const http::Reply reply = client.ask(post(path, body));
      expect_error(reply, 503, "server_error", "overloaded", path + body);
      EXPECT_EQ(reply.header("retry-after"), "1");
    }
  }
  EXPECT_EQ(served.backend->submitted(), 0);
  EXPECT_EQ(client.ask(post("/tokenize", R"({"prompt":"ab"})")).status, 200) << "it is the engine that is full";
  EXPECT_EQ(client.ask(post("/v1/chat/completions", kChat, "Content-Encoding: gzip\r\n")).status, 415);
  served.backend->full = false;
  expect_canary(served);
}

TEST(Service, an_error_about_a_picture_names_its_field) {
  const Served served;
  served.backend->set_script({.refusal = Error(ErrorCode::kImageInvalid, "image 2: cut off")});
  const std::string picture = R"({"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}})";
  const http::Reply reply =
      ask(served,
          post("/v1/chat/completions", R"({"messages":[{"role":"system","content":"S"},{"role":"user","content":[)" +
                                           picture + R"(,{"type":"text","text":"?"},)" + picture + "]}]}"));
  EXPECT_EQ(json::parse(reply.body).at("error").at("param"), "messages[1].content[2].image_url");
}

TEST(Service, an_error_behind_the_start_of_a_stream_is_an_event_and_no_done) {
  const Served served;
  served.backend->set_script({.failure = Error(ErrorCode::kNumeric, "NaN")});
  http::TestClient client(served.port());
  const http::Reply reply = client.ask(post("/v1/chat/completions", kStream));
  EXPECT_EQ(reply.status, 200);
  const std::vector<std::string> events = events_of(reply.body);
  EXPECT_EQ(json::parse(events.back().substr(6)).at("error").at("code"), "model_numeric_error");
  EXPECT_EQ(reply.body.find("[DONE]"), std::string::npos);
  EXPECT_TRUE(client.closes_within(3000));
}

TEST(Service, connections_are_kept_and_pipelined_requests_answered_in_order) {
  const Served served;
  http::TestClient client(served.port());
  EXPECT_EQ(client.ask(post("/v1/chat/completions", kChat)).status, 200);
  EXPECT_EQ(client.ask(post("/v1/chat/completions", kStream)).status, 200);
  client.send(get("/version") + post("/v1/chat/completions", kStream) + get("/health") + get("/nowhere"));
  EXPECT_EQ(client.read().body, R"({"version":"1.2.3"})");
  EXPECT_EQ(events_of(client.read().body).back(), "data: [DONE]");
  EXPECT_EQ(client.read().body, R"({"status":"ok"})");
  EXPECT_EQ(client.read().status, 404);
  EXPECT_EQ(client.ask(get("/version", "Connection: close\r\n")).header("connection"), "close");
  EXPECT_TRUE(client.closes_within(3000));
}

TEST(Service, every_route_but_the_open_ones_wants_the_key) {
  ServiceOptions options;
  options.access.api_keys = {"first-key", "second-key"};
  const Served served(options);
  const auto send = [&](std::string_view method, std::string_view path, std::string_view header) {
    return ask(served, fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{}"
                                   "Content-Length: 2\r\n\r\n{{}}",
                                   method, path, header));
  };
  std::vector<std::pair<std::string, std::string>> closed = {
      {"GET", "/nowhere"}, {"POST", "/v1/models/x"}, {"PUT", "/"}};
  for (const Service::Route& route : Service::routes()) {
    if (route.open) {
      EXPECT_NE(send(route.method, route.path, "").status, 401) << route.path;
    } else {
      closed.emplace_back(route.method, route.path);
    }
  }
  for (const auto& [method, path] : closed) {
    if (method == "PUT") continue;
    for (const std::string header : {"", "Authorization: Bearer \r\n", "Authorization: Bearer wrong\r\n",
                                     "Authorization: first-key\r\n", "Authorization: Basic first-key\r\n",
                                     "Authorization: Bearer first-ke\r\n", "Authorization: Bearer first-keyx\r\n",
                                     "Authorization: Bearer first-key second-key\r\n", "X-Api-Key: first-key\r\n"}) {
      const http::Reply reply = send(method, path, header);
      expect_error(reply, 401, "authentication_error", "invalid_api_key", path + header);
      EXPECT_EQ(reply.header("www-authenticate"), "Bearer");
      EXPECT_EQ(reply.body.find("first"), std::string::npos);
    }
    for (const std::string key : {"first-key", "second-key"})
      EXPECT_NE(send(method, path, "Authorization: bearer " + key + "\r\n").status, 401) << path;
  }
}

TEST(Service, wrong_methods_routes_and_kinds_of_body) {
  const Served served;
  expect_error(ask(served, get("/v1/nothing")), 404, "invalid_request_error", "route_not_found", "");
  expect_error(ask(served, get("/v1/models/")), 404, "invalid_request_error", "route_not_found", "");
  expect_error(ask(served, get("/v1/models/other")), 404, "invalid_request_error", "model_not_found", "");
  expect_error(ask(served, get("//v1/models")), 404, "invalid_request_error", "route_not_found", "");
  const http::Reply reply = ask(served, get("/v1/chat/completions"));
  expect_error(reply, 405, "invalid_request_error", "method_not_allowed", "");
  EXPECT_EQ(reply.header("allow"), "POST");
  expect_error(ask(served, post("/health", "{}")), 405, "invalid_request_error", "method_not_allowed", "");
  const auto with_type = [&](const std::string& header) {
    return ask(served, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + header +
                           fmt::format("Content-Length: {}\r\n\r\n{}", kChat.size(), kChat));
  };
  for (const std::string header :
       {"", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n", "Content-Type: \r\n",
        "Content-Type: multipart/form-data; boundary=application/json\r\n", "Content-Type: application/jsonx\r\n",
        "Content-Type: application/json; charset=latin1\r\n",
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
        "Content-Type: application/json\r\nContent-Encoding: br\r\n"})
    expect_error(with_type(header), 415, "invalid_request_error", "unsupported_media_type", header);
  for (const std::string header :
       {"Content-Type: application/json\r\n", "Content-Type: Application/JSON; charset=\"UTF-8\"\r\n",
        "Content-Type: application/json\r\nContent-Encoding: identity\r\n"})
    EXPECT_EQ(with_type(header).status, 200) << header;
}

TEST(Service, foreign_hosts_and_origins_are_refused) {
  ServiceOptions options;
  options.access.hosts = {"localhost", "127.0.0.1", "[::1]"};
  options.access.origins = {"https://listed.example"};
  const Served served(options);
  const auto send = [&](const std::string& host, const std::string& origin) {
    return ask(served,
               fmt::format("POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\n{}Content-Type: application/json\r\n"
                           "Content-Length: {}\r\n\r\n{}",
                           host, origin.empty() ? "" : "Origin: " + origin + "\r\n", kChat.size(), kChat));
  };
  for (const std::string host :
       {"localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "[::1]"}) {
    EXPECT_EQ(send(host, "").status, 200) << host;
    EXPECT_EQ(send(host, "http://" + host).status, 200) << "its own page";
  }
  for (const std::string host : {"evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io",
                                 "127.0.0.2", "", "[::2]", "localhost@evil.example", "xlocalhost"})
    expect_error(send(host, ""), 403, "permission_error", "host_not_allowed", host);
  for (const std::string origin :
       {"http://evil.example", "null", "http://localhost:9999", "https://listed.example.evil", "file://",
        "http://localhost.evil", "https://listed.example:444"})
    expect_error(send("localhost:8000", origin), 403, "permission_error", "origin_not_allowed", origin);
  const http::Reply listed = send("localhost", "https://listed.example");
  EXPECT_EQ(listed.status, 200);
  EXPECT_EQ(listed.header("access-control-allow-origin"), "https://listed.example");
  EXPECT_EQ(send("localhost", "").header("access-control-allow-origin"), "");
  const auto preflight = [&](const std::string& origin) {
    return ask(served, "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: " + origin +
                           "\r\nAccess-Control-Request-Method: POST\r\n\r\n");
  };
  EXPECT_EQ(preflight("https://listed.example").status, 204);
  EXPECT_EQ(preflight("https://listed.example").header("access-control-allow-origin"), "https://listed.example");
  expect_error(preflight("https://evil.example"), 403, "permission_error", "origin_not_allowed", "");
}

TEST(Service, the_place_is_judged_before_the_kind_of_body_in_every_mix) {
  ServiceOptions options;
  options.access.hosts = {"localhost", "127.0.0.1", "[::1]"};
  options.access.origins = {"https://listed.example"};
  const Served served(options);
  for (const std::string host : {"localhost:80", "127.0.0.1", "[::1]:9", "evil.example", "127.0.0.1.evil.example"}) {
    for (const std::string origin : {"", "own", "https://listed.example", "http://evil.example", "null"}) {
      for (const std::string type : {"application/json", "text/plain", "application/x-www-form-urlencoded"}) {
        const std::string from = origin == "own" ? "http://" + host : origin;
        const http::Reply reply =
            ask(served, fmt::format("POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\n{}Content-Type: {}\r\n"
                                    "Content-Length: {}\r\n\r\n{}",
                                    host, from.empty() ? "" : "Origin: " + from + "\r\n", type, kChat.size(), kChat));
        const std::string mix = host + " " + origin + " " + type;
        const bool listed = origin == "https://listed.example";
        if (host.ends_with("example")) {
          expect_error(reply, 403, "permission_error", "host_not_allowed", mix);
        } else if (!listed && !origin.empty() && origin != "own") {
          expect_error(reply, 403, "permission_error", "origin_not_allowed", mix);
        } else if (type != "application/json") {
          expect_error(reply, 415, "invalid_request_error", "unsupported_media_type", mix);
        } else {
          EXPECT_EQ(reply.status, 200) << mix;
        }
        const std::string shared = reply.header("access-control-allow-origin");
        EXPECT_TRUE(shared.empty() || (listed && shared == origin)) << mix;
        EXPECT_TRUE(reply.status != 200 || shared.empty() != listed) << mix;
      }
    }
  }
  expect_canary(served);
}

TEST(Service, before_a_model_and_while_draining_it_says_so) {
  ServiceOptions options;
  options.log = LogFormat::kNone;
  Service service(options);
  http::ServerOptions where;
  where.port = 0;
  http::Server server(where, service);
  server.start();
  const auto ask_it = [&](const std::string& bytes) { return http::TestClient(server.port()).ask(bytes); };
  EXPECT_EQ(ask_it(get("/health")).status, 503);
  EXPECT_EQ(json::parse(ask_it(get("/health")).body),
            (json::object{{"error", {{"code", 503}, {"message", "Loading model"}, {"type", "unavailable_error"}}}}));
  EXPECT_EQ(ask_it(get("/health/live")).status, 200);
  const http::Reply early = ask_it(post("/v1/chat/completions", kChat));
  expect_error(early, 503, "server_error", "model_loading", "");
  EXPECT_FALSE(early.header("retry-after").empty());
  FakeBackend backend;
  service.set_backend(backend);
  EXPECT_EQ(ask_it(post("/v1/chat/completions", kChat)).status, 200);
  service.begin_drain();
  EXPECT_EQ(ask_it(get("/ready")).status, 503);
  const http::Reply late = ask_it(post("/v1/chat/completions", kChat));
  expect_error(late, 503, "server_error", "shutting_down", "");
  EXPECT_EQ(late.header("connection"), "close");
  server.stop();
  service.close();
}

TEST(Service, an_engine_that_stalls_is_not_ready) {
  const Served served;
  served.backend->since_step_ms = 9000;
  EXPECT_EQ(ask(served, get("/ready")).status, 200);
  served.backend->since_step_ms = 10'001;
  EXPECT_EQ(ask(served, get("/ready")).status, 503);
  EXPECT_EQ(ask(served, get("/health/live")).status, 200);
}

TEST(Service, when_the_engine_does_not_answer_its_clients_are_told) {
  const Served served;
  served.backend->set_script({.hang = true});
  http::TestClient stream(served.port()), whole(served.port());
  stream.send(post("/v1/chat/completions", kStream));
  whole.send(post("/v1/chat/completions", kChat));
  while (served.backend->submitted() < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ASSERT_TRUE(stream.receive(5000)) << "it has begun";
  served.service->abandon_all();
  EXPECT_EQ(json::parse(events_of(stream.read().body).back().substr(6)).at("error").at("code"), "internal");
  expect_error(whole.read(), 500, "server_error", "internal", "");
  EXPECT_TRUE(served.server->wait_idle(5000));
}

TEST(Service, a_stream_that_waits_for_long_begins_before_its_prompt_is_ready) {
  ServiceOptions options;
  options.keep_alive_ms = 100;
  const Served served(options);
  served.backend->set_script({.prompt_delay_ms = 600, .refusal = Error(ErrorCode::kImageInvalid, "image 1: cut off")});
  const http::Reply late = ask(served, post("/v1/chat/completions", kStream));
  EXPECT_EQ(late.status, 200);
  EXPECT_NE(late.body.find(": keep-alive\n\n"), std::string::npos) << late.body;
  EXPECT_EQ(json::parse(events_of(late.body).back().substr(6)).at("error").at("code"), "image_invalid");
  served.backend->set_script({.prompt_delay_ms = 600});
  const http::Reply whole = ask(served, post("/v1/chat/completions", kStream));
  EXPECT_EQ(chunks_of(whole.body).size(), 5u) << whole.body;
  EXPECT_EQ(ask(served, post("/v1/chat/completions", kChat)).status, 200);
}

TEST(Service, a_drain_lets_answers_end_and_cuts_the_rest_with_an_error) {
  Served served;
  served.backend->set_script({.piece_delay_ms = 100});
  http::TestClient finishing(served.port());
  finishing.send(post("/v1/chat/completions", kStream));
  while (served.backend->submitted() < 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  served.service->begin_drain();
  EXPECT_TRUE(served.server->wait_idle(5000));
  EXPECT_EQ(events_of(finishing.read().body).back(), "data: [DONE]");

  Served other;
  other.backend->set_script({.hang = true});
  http::TestClient hanging(other.port());
  http::TestClient whole(other.port());
  hanging.send(post("/v1/chat/completions", kStream));
  whole.send(post("/v1/chat/completions", kChat));
  while (other.backend->submitted() < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  other.service->begin_drain();
  EXPECT_FALSE(other.server->wait_idle(100));
  other.service->cancel_all();
  EXPECT_TRUE(other.server->wait_idle(5000));
  EXPECT_EQ(json::parse(events_of(hanging.read().body).back().substr(6)).at("error").at("code"), "shutting_down");
  expect_error(whole.read(), 503, "server_error", "shutting_down", "");
}

// ---- Limits of keys ----

ServiceOptions two_keys(int most) {
  ServiceOptions options;
  options.access.api_keys = {"first", "second"};
  options.max_requests_per_key = most;
  return options;
}

std::string chat_of(const std::string& key, const std::string& body = kChat) {
  return post("/v1/chat/completions", body, "Authorization: Bearer " + key + "\r\n");
}

TEST(Service, a_key_has_only_so_many_answers_under_way) {
  const Served served(two_keys(2));
  served.backend->set_script({.hang = true});
  http::TestClient one(served.port()), two(served.port());
  one.send(chat_of("first"));
  two.send(chat_of("first", kStream));
  const auto open = [&](int count) {
    for (int i = 0; i < 2000 && served.backend->open() != count; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return served.backend->open() == count;
  };
  ASSERT_TRUE(open(2));
  const http::Reply refused = ask(served, chat_of("first"));
  expect_error(refused, 429, "rate_limit_error", "too_many_requests", "");
  EXPECT_EQ(refused.header("retry-after"), "1");
  EXPECT_EQ(ask(served, post("/v1/completions", R"({"prompt":"a"})", "Authorization: Bearer first\r\n")).status, 429);
  EXPECT_EQ(served.backend->submitted(), 2) << "the engine hears nothing of what is refused";
  // Other keys, and what is no answer, are not concerned.
  EXPECT_EQ(ask(served, post("/tokenize", R"({"prompt":"a"})", "Authorization: Bearer first\r\n")).status, 200);
  EXPECT_EQ(ask(served, get("/v1/models", "Authorization: Bearer first\r\n")).status, 200);
  served.backend->set_script({});
  EXPECT_EQ(ask(served, chat_of("second")).status, 200);
  // Who goes away leaves a place behind.
  one.close();
  ASSERT_TRUE(open(1));
  http::Reply reply;
  for (int i = 0; i < 100; ++i) {  // the place is given back a moment after the engine has ended it
    reply = ask(served, chat_of("first"));
    if (reply.status == 200) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(reply.status, 200) << reply.body;
}

TEST(Service, the_place_of_a_key_is_free_before_its_client_hears_of_the_end) {
  const Served served(two_keys(1));
  std::vector<std::pair<std::string, int>> requests = {{chat_of("first"), 200},
                                                       {chat_of("first", "{"), 400},
                                                       {chat_of("first", R"({"messages":[]})"), 400},
                                                       {chat_of("first", kStream), 200}};
  for (int i = 0; i < 40; ++i) {
    for (const auto& [bytes, status] : requests) EXPECT_EQ(ask(served, bytes).status, status) << i;
  }
  FakeBackend::Script script;
  script.refusal = Error(ErrorCode::kOverloaded, "full");
  served.backend->set_script(script);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(ask(served, chat_of("first")).status, 503) << i;
  script.refusal = std::nullopt;
  script.failure = Error(ErrorCode::kInternal, "broken");
  served.backend->set_script(script);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(ask(served, chat_of("first")).status, 500) << i;
  served.backend->set_script({});
  EXPECT_EQ(ask(served, chat_of("first")).status, 200);
}

TEST(Service, without_a_limit_a_key_may_have_any_number_under_way) {
  const Served served(two_keys(0));
  served.backend->set_script({.hang = true});
  std::vector<std::unique_ptr<http::TestClient>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<http::TestClient>(served.port()));
    clients.back()->send(chat_of("first"));
  }
  for (int i = 0; i < 5000 && served.backend->open() != 20; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(served.backend->open(), 20);
}

}  // namespace
}  // namespace idefics::openai
