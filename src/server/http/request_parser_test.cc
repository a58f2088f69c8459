#include "server/http/request_parser.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace idefics::http {
namespace {

using State = RequestParser::State;

struct Result {
  State state;
  Fault fault;
  Request request;
  std::string rest;  // not used
};

// Feeds pieces as a connection does: what was not used comes again.
Result parse(const std::vector<std::string>& pieces, const Limits& limits = {}) {
  RequestParser parser(limits);
  std::string waiting;
  for (const std::string& piece : pieces) {
    waiting += piece;
    for (State before = State::kFailed; before != parser.state();) {
      before = parser.state();
      if (before != State::kHead && before != State::kBody) break;
      waiting.erase(0, parser.push(waiting));
    }
  }
  Result result{parser.state(), parser.fault(), parser.take(), waiting};
  return result;
}

const std::string kSized = "POST /v1/x?a=b HTTP/1.1\r\nHost: h\r\nX-Thing:  a b \r\nContent-Length: 5\r\n\r\nhello";
const std::string kChunked =
    "POST /v1/x?a=b HTTP/1.1\r\nHost: h\r\nX-Thing:  a b \r\nTransfer-Encoding: chunked\r\n\r\n"
    "2;ext=1\r\nhe\r\n3\r\nllo\r\n0\r\nHost: evil\r\n\r\n";

void expect_hello(const Result& result, const std::string& where) {
  ASSERT_EQ(result.state, State::kDone) << where;
  EXPECT_EQ(result.request.method, "POST");
  EXPECT_EQ(result.request.path, "/v1/x");
  EXPECT_EQ(result.request.query, "a=b");
  EXPECT_EQ(result.request.header("host"), "h");
  EXPECT_EQ(result.request.header("x-thing"), "a b");
  EXPECT_EQ(result.request.body, "hello");
  EXPECT_TRUE(result.request.keep_alive);
  EXPECT_EQ(result.rest, "GET") << where;
}

TEST(RequestParser, any_cut_of_the_bytes_gives_the_same_request) {
  for (std::string bytes : {kSized, kChunked}) {
    bytes += "GET";  // the next request is not touched
    std::vector<std::string> single;
    for (const char c : bytes) single.emplace_back(1, c);
    expect_hello(parse(single), "byte by byte");
    for (size_t i = 0; i <= bytes.size(); ++i) {
      for (size_t k = i; k <= bytes.size(); k += 7)
        expect_hello(parse({bytes.substr(0, i), bytes.substr(i, k - i), bytes.substr(k)}), std::to_string(i));
    }
  }
}

TEST(RequestParser, a_trailer_is_no_header) { EXPECT_EQ(parse({kChunked}).request.count("host"), 1); }

TEST(RequestParser, what_proxies_disagree_about_is_malformed) {
  const std::string post = "POST / HTTP/1.1\r\nHost: h\r\n";
  const std::vector<std::string> cases = {
      "GARBAGE\r\n\r\n",
      "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
      "GET / HTTP/0.9\r\nHost: h\r\n\r\n",
      "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET /\r\nHost: h\r\n\r\n",
      "GET / HTTP/1.1\nHost: h\n\n",
      "GET / HTTP/1.1\r\nHost: h\n\r\n",
      "GET / HTTP/1.1\r\nHost: h\r\nA: b\nC: d\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\tc\r\n\r\n",
      "GET / HTTP/1.1\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
      "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
      "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET * HTTP/1.1\r\nHost: h\r\n\r\n",
      "GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
      std::string("GET / HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n", 35),
      std::string("GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", 28),
      post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
      post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
      post + "Content-Length: 5, 6\r\n\r\nhello",
      post + "Content-Length: -5\r\n\r\nhello",
      post + "Content-Length: +5\r\n\r\nhello",
      post + "Content-Length: 0x5\r\n\r\nhello",
      post + "Content-Length: 5 5\r\n\r\nhello",
      post + "Content-Length: \r\n\r\nhello",
      post + "Content-Length: 99999999999999999999999\r\n\r\nhello",
      post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
      post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      post + "Transfer-Encoding: identity\r\n\r\nhello",
      post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      post + "Transfer-Encoding: chunked\r\n\r\nz\r\n\r\n",
      post + "Transfer-Encoding: chunked\r\n\r\n-1\r\nh\r\n0\r\n\r\n",
      post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
      post + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
      post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
  };
  for (const std::string& bytes : cases) {
    const Result result = parse({bytes});
    EXPECT_EQ(result.state, State::kFailed) << bytes;
    EXPECT_EQ(result.fault, Fault::kMalformed) << bytes;
    EXPECT_TRUE(result.request.body.empty() || bytes.find("chunked") != std::string::npos) << bytes;
  }
}

TEST(RequestParser, a_length_is_one_plain_number) {
  const std::string post = "POST / HTTP/1.1\r\nHost: h\r\n";
  for (const std::string length : {"5,5",
                                   "5, 5",
                                   "5 ,5",
                                   "5 , 5",
                                   "5\t,\t5",
                                   ",5",
                                   "5,",
                                   " ,5",
                                   "5,,5",
                                   "5, ",
                                   "5,5,5",
                                   "1 ,1",
                                   "0,0",
                                   "00",
                                   "05",
                                   "005",
                                   "0000",
                                   "+5",
                                   "-5",
                                   "- 5",
                                   "5.",
                                   "5.0",
                                   "5e0",
                                   "0x5",
                                   "5h",
                                   "5;",
                                   "5;q=1",
                                   "\"5\"",
                                   "'5'",
                                   "5 5",
                                   "5\t5",
                                   "5_",
                                   "1_0",
                                   "1'0",
                                   "",
                                   " ",
                                   "\t",
                                   "five",
                                   "\xd9\xa5",
                                   "\xc2\xb2",
                                   "\xa0"
                                   "5",
                                   "5\xa0",
                                   "5\x0b",
                                   "\x0c"
                                   "5",
                                   "5\x7f",
                                   "18446744073709551616",
                                   "18446744073709551621",
                                   "99999999999999999999999999999999999999999",
                                   "0x",
                                   "NaN",
                                   "inf",
                                   "5%30",
                                   "(5)",
                                   "[5]",
                                   "5:",
                                   "5=5"}) {
    const Result result = parse({post + "Content-Length: " + length + "\r\n\r\nhello"});
    EXPECT_EQ(result.state, State::kFailed) << "\"" << length << "\"";
    EXPECT_EQ(result.fault, Fault::kMalformed) << "\"" << length << "\"";
    EXPECT_EQ(result.request.body, "") << "\"" << length << "\"";
  }
  // Twice is once too often, though both say the same.
  for (const std::string second : {"5", " 5", "05", "6", "5,5", ""}) {
    for (const std::string name : {"Content-Length", "content-length", "CONTENT-LENGTH"}) {
      EXPECT_EQ(parse({post + "Content-Length: 5\r\n" + name + ": " + second + "\r\n\r\nhello"}).state,
                State::kFailed)
          << second;
    }
  }
  for (const std::string length : {"5", " 5", "5 ", "\t5\t", "  5  "}) {
    const Result result = parse({post + "Content-Length:" + length + "\r\n\r\nhello"});
    EXPECT_EQ(result.state, State::kDone) << length;
    EXPECT_EQ(result.request.body, "hello") << length;
  }
  EXPECT_EQ(parse({post + "Content-Length: 0\r\n\r\n"}).state, State::kDone);
  EXPECT_EQ(parse({post + "Content-Length: 10\r\n\r\n0123456789"}).request.body, "0123456789");
}

// The same names, whatever they carry: a header that frames the body must not have another reading.
TEST(RequestParser, an_encoding_is_one_plain_word) {
  const std::string post = "POST / HTTP/1.1\r\nHost: h\r\n", body = "\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
  for (const std::string encoding : {"chunked,",
                                     ",chunked",
                                     "chunked ,",
                                     "chunked;q=1",
                                     "chunked;",
                                     "\"chunked\"",
                                     "chunked chunked",
                                     "chunked,chunked",
                                     "chunked , chunked",
                                     "identity, chunked",
                                     "chunked, identity",
                                     "chunke",
                                     "chunkedd",
                                     "",
                                     " ",
                                     "chunked\x0b",
                                     "\x0b"
                                     "chunked",
                                     "chunked\xa0",
                                     "gzip",
                                     "chun ked",
                                     "trailers, chunked",
                                     "'chunked'"}) {
    EXPECT_EQ(parse({post + "Transfer-Encoding: " + encoding + body}).state, State::kFailed) << encoding;
  }
  for (const std::string encoding : {"chunked", "Chunked", "CHUNKED", " chunked ", "\tchunked\t"})
    EXPECT_EQ(parse({post + "Transfer-Encoding:" + encoding + body}).request.body, "hello") << encoding;
  for (const std::string size : {"+5", "-5", "0x5", "5h", "5,5", "5 5", " 5", "\t5", "5.", "", "5\x0b", "\"5\"", "5_"})
    EXPECT_EQ(parse({post + "Transfer-Encoding: chunked\r\n\r\n" + size + "\r\nhello\r\n0\r\n\r\n"}).state,
              State::kFailed)
        << "\"" << size << "\"";
}

// The same verdict, and the same request, whole, byte by byte and in two pieces.
Result parse_in_any_cut(const std::string& bytes) {
  const Result whole = parse({bytes});
  std::vector<std::vector<std::string>> cuts(1);
  for (const char c : bytes) cuts.front().emplace_back(1, c);
  for (size_t i = 1; i < bytes.size(); i += 3) cuts.push_back({bytes.substr(0, i), bytes.substr(i)});
  for (const std::vector<std::string>& pieces : cuts) {
    const Result cut = parse(pieces);
    EXPECT_EQ(cut.state, whole.state) << bytes << "\nfirst piece: " << pieces.front();
    EXPECT_EQ(cut.fault, whole.fault) << bytes;
    if (whole.state != State::kDone) continue;
    EXPECT_EQ(cut.request.body, whole.request.body) << bytes;
    EXPECT_EQ(cut.request.path, whole.request.path) << bytes;
    EXPECT_EQ(cut.rest, whole.rest) << bytes;
  }
  return whole;
}

TEST(RequestParser, no_byte_out_of_place_is_let_through) {
  const std::string chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  std::vector<std::string> cases;
  const auto with = [&](const std::string& before, char byte, const std::string& behind) {
    cases.push_back(before + byte + behind);
  };
  for (int b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    const bool control = (b < 32 && c != '\t' && c != '\r' && c != '\n') || b == 127;
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    const bool word = letter || (c != 0 && std::string("!#$%&'*+-.^_`|~").find(c) != std::string::npos);
    if (control) {
      with("GET / HTTP/1.1\r\nHost: h", c, "\r\n\r\n");
      with("GET /a", c, "b HTTP/1.1\r\nHost: h\r\n\r\n");
      with("GET / HTTP/1.1\r\nHost: h\r\nA: b", c, "c\r\n\r\n");
    }
    if (!word && c != ':' && b < 128) with("GET / HTTP/1.1\r\nHost: h\r\nA", c, "b: c\r\n\r\n");
    if (!word && c != ' ' && b < 128) with("GE", c, "T / HTTP/1.1\r\nHost: h\r\n\r\n");
    const bool hex = std::string("0123456789abcdefABCDEF").find(c) != std::string::npos;
    if (!hex && b < 128 && c != ';' && c != '\r') with(chunked, c, "5\r\nhello\r\n0\r\n\r\n");
  }
  for (const char* version :
       {"1.2", "1.9", "2.0", "3.0", "0.9", "1", "1.", ".1", "1.1.1", "1.10", "11.1", "a.b", "-1.1"})
    cases.push_back(fmt::format("GET / HTTP/{}\r\nHost: h\r\n\r\n", version));
  for (const char* length :
       {"1 ,2", "1;", "1.0", "1e0", "١", "'1'", "0b1", "18446744073709551616", "9223372036854775808x"})
    cases.push_back(fmt::format("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\nh", length));
  for (const char* coding : {"chunked,", ",chunked", "chunked;q=1", "chunked identity", "chunked\t, gzip", "gzip",
                             "deflate", "", "\"chunked\"", "chun ked"})
    cases.push_back(fmt::format("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: {}\r\n\r\n0\r\n\r\n", coding));
  EXPECT_GE(cases.size(), 300u);
  for (const std::string& bytes : cases) {
    const Result result = parse_in_any_cut(bytes);
    EXPECT_EQ(result.state, State::kFailed) << bytes;
    EXPECT_EQ(result.fault, Fault::kMalformed) << bytes;
    EXPECT_EQ(parse_in_any_cut(kSized).request.body, "hello") << "beside it";
  }
}

TEST(RequestParser, a_head_over_a_limit_is_refused_as_soon_as_it_is) {
  const std::string start = "GET / HTTP/1.1\r\nHost: h\r\n";
  const Limits limits;
  EXPECT_EQ(parse({"GET /" + std::string(9000, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n"}).fault, Fault::kHeadersTooLarge);
  EXPECT_EQ(parse({"GET /" + std::string(7000, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n"}).state, State::kDone);
  EXPECT_EQ(parse({std::string(40'000, 'G')}).state, State::kFailed);
  EXPECT_EQ(parse({"GET /" + std::string(40'000, 'a')}).fault, Fault::kHeadersTooLarge);
  EXPECT_EQ(parse({start + "A: " + std::string(40'000, 'a')}).fault, Fault::kHeadersTooLarge);
  std::string many = start;
  for (int i = 1; i < limits.headers; ++i) many += "A: b\r\n";
  EXPECT_EQ(parse({many + "\r\n"}).state, State::kDone);
  EXPECT_EQ(parse({many + "A: b\r\n\r\n"}).fault, Fault::kHeadersTooLarge);
}

TEST(RequestParser, a_body_over_the_limit_is_refused_before_it_comes) {
  Limits limits;
  limits.body_bytes = 10;
  const std::string post = "POST / HTTP/1.1\r\nHost: h\r\n";
  EXPECT_EQ(parse({post + "Content-Length: 10\r\n\r\n0123456789"}, limits).state, State::kDone);
  EXPECT_EQ(parse({post + "Content-Length: 11\r\n\r\n"}, limits).fault, Fault::kBodyTooLarge);
  EXPECT_EQ(parse({post + "Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n5\r\n"}, limits).fault,
            Fault::kBodyTooLarge);
  std::string endless = post + "Transfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 11; ++i) endless += "1\r\nx\r\n";
  EXPECT_EQ(parse({endless}, limits).fault, Fault::kBodyTooLarge);
  EXPECT_EQ(parse({post + "Transfer-Encoding: chunked\r\n\r\n1;" + std::string(40'000, 'x')}, limits).state,
            State::kFailed)
      << "an endless extension of a chunk";
}

TEST(RequestParser, a_million_chunks_take_their_time_and_no_stack) {
  std::string bytes = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 1'000'000; ++i) bytes += "1\r\nx\r\n";
  std::vector<std::string> pieces;
  for (size_t at = 0; at < bytes.size(); at += 65536) pieces.push_back(bytes.substr(at, 65536));
  pieces.emplace_back("0\r\n\r\n");
  EXPECT_EQ(parse(pieces).request.body.size(), 1'000'000u);
}

TEST(RequestParser, keep_alive_follows_version_and_header) {
  EXPECT_TRUE(parse({"GET / HTTP/1.1\r\nHost: h\r\n\r\n"}).request.keep_alive);
  EXPECT_FALSE(parse({"GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n"}).request.keep_alive);
  EXPECT_FALSE(parse({"GET / HTTP/1.0\r\n\r\n"}).request.keep_alive);
  EXPECT_TRUE(parse({"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"}).request.keep_alive);
}

}  // namespace
}  // namespace idefics::http
