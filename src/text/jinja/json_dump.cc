// json.dumps.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/utf8.h"
#include "text/jinja/format.h"
#include "text/jinja/interpreter.h"

namespace idefics::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Interpreter& in, const JsonStyle& style) : budget_(in.budget()), style_(style), out_(budget_) {}

  Value run(const Value& value) {
    write(value, 0);
    if (tainted_) out_.taint_from(0);
    return out_.finish();
  }

 private:
  void write(const Value& value, int level) {
    budget_.work(16);
    tainted_ = tainted_ || (value.is_text() ? value.text().taint.any() : value.tainted());
    switch (value.kind()) {
      case Kind::kNone: return put("null");
      case Kind::kBool: return put(value.boolean() ? "true" : "false");
      case Kind::kInt: return put(fmt::to_string(value.integer()));
      case Kind::kFloat: return put(number(value.real()));
      case Kind::kText: return string(value.text().view);
      case Kind::kList:
      case Kind::kTuple: return array(value.items(), level);
      case Kind::kDict: return object(value.dict(), level);
      case Kind::kUndefined: fail("tojson of an undefined value: " + value.why_undefined());
      default: fail(fmt::format("JSON has no values of type {}", type_name(value)));
    }
  }

  void put(std::string_view text) { out_.append(text, false); }

  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return float_repr(value);
  }

  void string(std::string_view text) {
    put("\"");
    size_t plain = 0;  // where the characters begin that need no escape and are not written yet
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = decode_utf8(text, at);
      const size_t next = at + static_cast<size_t>(c.length);
      if (const std::string escape = escape_of(c.value); !escape.empty()) {
        put(text.substr(plain, at - plain));
        put(escape);
        plain = next;
      }
      at = next;
    }
    put(text.substr(plain));
    put("\"");
  }

  std::string escape_of(char32_t c) const {
    switch (c) {
      case '"': return "\\\"";
      case '\\': return "\\\\";
      case '\n': return "\\n";
      case '\r': return "\\r";
      case '\t': return "\\t";
      case '\f': return "\\f";
      case '\b': return "\\b";
      default: break;
    }
    const auto code = static_cast<uint32_t>(c);
    if (code < 0x20 || (style_.ensure_ascii && code >= 0x7f && code < 0x10000)) return fmt::format("\\u{:04x}", code);
    if (!style_.ensure_ascii || code < 0x7f) return "";
    return fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
  }

  void new_line(int level) {
    if (!style_.indent.has_value()) return;
    put("\n");
    out_.append_repeated(*style_.indent, static_cast<size_t>(level), false);
  }

  void array(const std::vector<Value>& items, int level) {
    if (items.empty()) return put("[]");
    put("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) put(style_.item_separator);
      new_line(level + 1);
      write(items[i], level + 1);
    }
    new_line(level);
    put("]");
  }

  void object(const Dict& dict, int level) {
    if (dict.entries.empty()) return put("{}");
    std::vector<const std::pair<Value, Value>*> entries;
    budget_.expect_memory(dict.entries.size() * sizeof(void*));
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return less(budget_, a->first, b->first); });
    }
    put("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) put(style_.item_separator);
      new_line(level + 1);
      key(entries[i]->first);
      put(style_.key_separator);
      write(entries[i]->second, level + 1);
    }
    new_line(level);
    put("}");
  }

  void key(const Value& value) {
    tainted_ = tainted_ || tainted_inside(budget_, value);
    switch (value.kind()) {
      case Kind::kText: return string(value.text().view);
      case Kind::kNone: return string("null");
      case Kind::kBool: return string(value.boolean() ? "true" : "false");
      case Kind::kInt: return string(fmt::to_string(value.integer()));
      case Kind::kFloat: return string(number(value.real()));
      default: fail(fmt::format("JSON has no keys of type {}", type_name(value)));
    }
  }

  Budget& budget_;
  const JsonStyle& style_;
  TextBuilder out_;
  bool tainted_ = false;
};

}  // namespace

Value to_json(Interpreter& in, const Value& value, const JsonStyle& style) { return JsonWriter(in, style).run(value); }

}  // namespace idefics::jinja
