#include "text/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>

#include "base/utf8.h"
#include "text/jinja/analysis.h"
#include "text/jinja/filters.h"
#include "text/jinja/lexer.h"
#include "text/jinja/tests.h"

namespace idefics::jinja {
namespace {

constexpr size_t kMaxArguments = 255;

using Names = std::initializer_list<std::string_view>;

class Parser {
 public:
  Parser(std::vector<Token> tokens, std::string_view where) : tokens_(std::move(tokens)), where_(where) {}

  std::vector<StatementPtr> run() { return statements({}); }

 private:
  // --- tokens ---

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  const Token& take() {
    const Token& token = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool take_operator(std::string_view op) { return current().is_operator(op) && (take(), true); }
  bool take_name(std::string_view name) { return current().is_name(name) && (take(), true); }
  [[noreturn]] void fail_here(std::string_view problem) const { fail_syntax(where_, line(), problem); }
  void expect_operator(std::string_view op) {
    if (!take_operator(op)) fail_here(fmt::format("expected '{}', found {}", op, describe(current())));
  }
  void expect_name(std::string_view name) {
    if (!take_name(name)) fail_here(fmt::format("expected '{}', found {}", name, describe(current())));
  }
  std::string expect_any_name() {
    if (current().kind != TokenKind::kName) fail_here(fmt::format("expected a name, found {}", describe(current())));
    return take().text;
  }
  void expect(TokenKind kind, std::string_view what) {
    if (current().kind != kind) fail_here(fmt::format("expected {}, found {}", what, describe(current())));
    take();
  }
  bool at_any_name(Names names) const {
    return current().kind == TokenKind::kName && std::find(names.begin(), names.end(), current().text) != names.end();
  }

  class Deeper {
   public:
    explicit Deeper(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxSyntaxDepth) {
        parser_.fail_here(fmt::format("nested more than {} levels deep", kMaxSyntaxDepth));
      }
    }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    ~Deeper() { --parser_.depth_; }

   private:
    Parser& parser_;
  };

  // --- statements ---

  // Statements up to a tag named by one of `ends`, whose name is then the current token; or up to the end of the
  // template when there are no ends.
  std::vector<StatementPtr> statements(Names ends) {
    Deeper deeper(*this);
    std::vector<StatementPtr> out;
    while (current().kind != TokenKind::kEnd) {
      const int start = line();
      if (current().kind == TokenKind::kText) {
        out.push_back(std::make_unique<TextStatement>(take().text, start));
      } else if (current().kind == TokenKind::kOpenPrint) {
        take();
        out.push_back(std::make_unique<PrintStatement>(tuple(), start));
        expect(TokenKind::kClosePrint, "}}");
      } else {
        expect(TokenKind::kOpenBlock, "{%");
        if (at_any_name(ends)) return out;
        statement(out);
        expect(TokenKind::kCloseBlock, "%}");
      }
    }
    if (ends.size() > 0) fail_here(fmt::format("the template ends before {{% {} %}}", fmt::join(ends, " %} or {% ")));
    return out;
  }

  // The body of a block: from the end of its opening tag to a tag of `ends`.
  std::vector<StatementPtr> block(Names ends) {
    take_operator(":");
    expect(TokenKind::kCloseBlock, "%}");
    return statements(ends);
  }
  Body closed_block(std::string_view end) {
    Body body;
    body.statements = block({end});
    take();
    return body;
  }

  void statement(std::vector<StatementPtr>& out) {
    if (current().kind != TokenKind::kName)
      fail_here(fmt::format("expected the name of a tag, found {}", describe(current())));
    const std::string tag = current().text;
    if (tag == "print") return print_statement(out);
    out.push_back(tagged(tag));
  }

  StatementPtr tagged(const std::string& tag) {
    if (tag == "if") return if_statement();
    if (tag == "for") return for_statement();
    if (tag == "set") return set_statement();
    if (tag == "macro") return macro_statement();
    if (tag == "call") return call_statement();
    if (tag == "filter") return filter_statement();
    if (tag == "with") return with_statement();
    if (tag == "generation") return body_statement(StatementKind::kGeneration, "endgeneration");
    if (tag == "block") return block_statement();
    if (tag == "autoescape") return body_statement(StatementKind::kAutoescape, "endautoescape");
    if (tag == "break") return plain_statement(StatementKind::kBreak);
    if (tag == "continue") return plain_statement(StatementKind::kContinue);
    if (tag == "include" || tag == "import" || tag == "from" || tag == "extends") return loader_statement();
    fail_here(fmt::format("unknown tag {}", describe(current())));
  }

  void print_statement(std::vector<StatementPtr>& out) {
    const int start = take().line;
    for (bool first = true; current().kind != TokenKind::kCloseBlock; first = false) {
      if (!first) expect_operator(",");
      out.push_back(std::make_unique<PrintStatement>(expression(), start));
    }
  }

  StatementPtr if_statement() {
    auto out = std::make_unique<IfStatement>(line());
    take();
    while (true) {
      IfStatement::Branch branch;
      branch.condition = tuple(false);
      branch.statements = block({"elif", "else", "endif"});
      out->branches.push_back(std::move(branch));
      if (take_name("elif")) continue;
      if (take().text == "endif") return out;
      break;
    }
    IfStatement::Branch last;
    last.statements = block({"endif"});
    out->branches.push_back(std::move(last));
    take();
    return out;
  }

  StatementPtr for_statement() {
    auto out = std::make_unique<ForStatement>(line());
    take();
    out->target = target_tuple("in", false);
    expect_name("in");
    out->iterable = tuple(false, "recursive");
    if (take_name("if")) out->condition = expression();
    out->recursive = take_name("recursive");
    out->body.statements = block({"endfor", "else"});
    if (take().text == "else") out->otherwise = closed_block("endfor");
    return out;
  }

  StatementPtr set_statement() {
    const int start = take().line;
    Target target = target_tuple("", true);
    if (take_operator("=")) {
      auto out = std::make_unique<SetStatement>(start);
      out->target = std::move(target);
      out->value = tuple();
      return out;
    }
    auto out = std::make_unique<SetBlockStatement>(start);
    out->target = std::move(target);
    while (take_operator("|")) out->filters.push_back(filter());
    out->body = closed_block("endset");
    return out;
  }

  void signature(Routine& routine) {
    expect_operator("(");
    while (!current().is_operator(")")) {
      if (!routine.parameters.empty()) expect_operator(",");
      if (routine.parameters.size() >= kMaxArguments) fail_here("too many parameters");
      Routine::Parameter parameter;
      parameter.name = assignable_name();
      for (const auto& other : routine.parameters) {
        if (other.name == parameter.name) fail_here(fmt::format("parameter {} occurs twice", quote(parameter.name)));
      }
      if (take_operator("=")) {
        parameter.standard = expression();
      } else if (!routine.parameters.empty() && routine.parameters.back().standard != nullptr) {
        fail_here("a parameter without a default follows one with a default");
      }
      routine.parameters.push_back(std::move(parameter));
    }
    take();
  }

  StatementPtr macro_statement() {
    auto out = std::make_unique<MacroStatement>(line());
    take();
    out->routine.name = assignable_name();
    signature(out->routine);
    out->routine.body = closed_block("endmacro");
    return out;
  }

  StatementPtr call_statement() {
    auto out = std::make_unique<CallBlockStatement>(line());
    take();
    out->caller.name = "caller";
    out->caller.is_caller = true;
    if (current().is_operator("(")) signature(out->caller);
    ExprPtr call = expression();
    auto* postfix = call->kind == ExprKind::kPostfix ? static_cast<PostfixExpr*>(call.get()) : nullptr;
    if (postfix == nullptr || postfix->steps.back().kind != Step::Kind::kCall) fail_here("a call block needs a call");
    call.release();
    out->call.reset(postfix);
    out->caller.body = closed_block("endcall");
    return out;
  }

  StatementPtr filter_statement() {
    auto out = std::make_unique<FilterBlockStatement>(line());
    take();
    do {
      out->filters.push_back(filter());
    } while (take_operator("|"));
    out->body = closed_block("endfilter");
    return out;
  }

  StatementPtr with_statement() {
    auto out = std::make_unique<WithStatement>(line());
    take();
    while (current().kind != TokenKind::kCloseBlock) {
      if (!out->assignments.empty()) expect_operator(",");
      Target target = target_tuple("", false);
      expect_operator("=");
      out->assignments.emplace_back(std::move(target), expression());
    }
    out->body = closed_block("endwith");
    return out;
  }

  StatementPtr body_statement(StatementKind kind, std::string_view end) {
    auto out = std::make_unique<BodyStatement>(kind, line());
    take();
    if (kind == StatementKind::kAutoescape) out->value = expression();
    out->body = closed_block(end);
    return out;
  }

  StatementPtr block_statement() {
    auto out = std::make_unique<BodyStatement>(StatementKind::kBlock, line());
    take();
    out->name = expect_any_name();
    out->is_scoped = take_name("scoped");
    if (current().is_name("required"))
      fail_here("a required block needs template inheritance, which a chat template has not");
    if (std::find(blocks_.begin(), blocks_.end(), out->name) != blocks_.end()) {
      fail_here(fmt::format("block {} is defined twice", quote(out->name)));
    }
    blocks_.push_back(out->name);
    out->body = closed_block("endblock");
    take_name(out->name);
    return out;
  }

  StatementPtr plain_statement(StatementKind kind) {
    auto out = std::make_unique<PlainStatement>(kind, line());
    out->name = take().text;
    return out;
  }

  // There is nothing to include or import from: what the tag says does not matter.
  StatementPtr loader_statement() {
    auto out = plain_statement(StatementKind::kNeedsLoader);
    if (current().kind == TokenKind::kCloseBlock) fail_here("the tag lacks the name of a template");
    while (current().kind != TokenKind::kCloseBlock && current().kind != TokenKind::kEnd) take();
    return out;
  }

  // --- targets ---

  std::string assignable_name() {
    static constexpr std::array<std::string_view, 6> kReserved = {"true", "false", "none", "True", "False", "None"};
    if (std::find(kReserved.begin(), kReserved.end(), current().text) != kReserved.end()) {
      fail_here(fmt::format("cannot assign to {}", describe(current())));
    }
    return expect_any_name();
  }

  bool at_target_end(std::string_view end) const {
    const Token& token = current();
    return token.kind == TokenKind::kClosePrint || token.kind == TokenKind::kCloseBlock || token.is_operator(")") ||
           (!end.empty() && token.is_name(end));
  }

  Target target_tuple(std::string_view end, bool with_attribute) {
    Target out;
    out.line = line();
    bool is_tuple = false;
    while (true) {
      if (at_target_end(end)) break;
      out.items.push_back(single_target(with_attribute));
      if (!take_operator(",")) break;
      is_tuple = true;
    }
    if (is_tuple) {
      out.kind = Target::Kind::kTuple;
      return out;
    }
    if (out.items.empty()) fail_here(fmt::format("expected a name, found {}", describe(current())));
    Target only = std::move(out.items.front());
    return only;
  }

  Target single_target(bool with_attribute) {
    Deeper deeper(*this);
    Target out;
    out.line = line();
    if (take_operator("(")) {
      out = target_tuple("", false);
      expect_operator(")");
      return out;
    }
    out.name = assignable_name();
    if (with_attribute && take_operator(".")) {
      out.kind = Target::Kind::kAttribute;
      out.attribute = make_text(nullptr, expect_any_name());
    }
    return out;
  }

  // --- expressions ---

  // One expression, or a tuple when commas follow.
  ExprPtr tuple(bool with_conditional = true, std::string_view end = "", bool in_parentheses = false) {
    const int start = line();
    auto out = std::make_unique<ListExpr>(ExprKind::kTuple, start);
    bool is_tuple = false;
    while (true) {
      if (at_target_end(end)) break;
      out->items.push_back(with_conditional ? expression() : or_expression());
      if (!take_operator(",")) break;
      is_tuple = true;
    }
    if (is_tuple || (out->items.empty() && in_parentheses)) return out;
    if (out->items.empty()) fail_here(fmt::format("expected an expression, found {}", describe(current())));
    return std::move(out->items.front());
  }

  ExprPtr expression() {
    Deeper deeper(*this);
    ExprPtr out = or_expression();
    for (int rounds = 0; take_name("if"); ++rounds) {
      if (rounds > kMaxSyntaxDepth) fail_here("too many conditional expressions in a row");
      auto conditional = std::make_unique<ConditionalExpr>(out->line);
      conditional->then = std::move(out);
      conditional->condition = or_expression();
      if (take_name("else")) conditional->otherwise = expression();
      out = std::move(conditional);
    }
    return out;
  }

  template <typename Next, typename More>
  ExprPtr list_of(ExprKind kind, Next next, More more) {
    ExprPtr first = next();
    if (!more()) return first;
    auto out = std::make_unique<ListExpr>(kind, first->line);
    out->items.push_back(std::move(first));
    do {
      out->items.push_back(next());
    } while (more());
    return out;
  }

  ExprPtr or_expression() {
    return list_of(
        ExprKind::kOr, [this] { return and_expression(); }, [this] { return take_name("or"); });
  }
  ExprPtr and_expression() {
    return list_of(
        ExprKind::kAnd, [this] { return not_expression(); }, [this] { return take_name("and"); });
  }

  ExprPtr not_expression() {
    if (!current().is_name("not")) return compare_expression();
    Deeper deeper(*this);
    const int start = take().line;
    return std::make_unique<UnaryExpr>(ExprKind::kNot, not_expression(), start);
  }

  std::optional<Operator> take_compare_operator() {
    static constexpr std::pair<std::string_view, Operator> kCompare[] = {
        {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
        {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual}};
    for (const auto& [text, op] : kCompare) {
      if (take_operator(text)) return op;
    }
    if (take_name("in")) return Operator::kIn;
    if (current().is_name("not") && ahead().is_name("in")) {
      take();
      take();
      return Operator::kNotIn;
    }
    return std::nullopt;
  }

  template <typename Next, typename TakeOperator>
  ExprPtr chain_of(ExprKind kind, Next next, TakeOperator take_op) {
    ExprPtr first = next();
    auto op = take_op();
    if (!op.has_value()) return first;
    auto out = std::make_unique<ChainExpr>(kind, first->line);
    out->first = std::move(first);
    for (; op.has_value(); op = take_op()) out->rest.emplace_back(*op, next());
    return out;
  }

  ExprPtr compare_expression() {
    return chain_of(
        ExprKind::kCompare, [this] { return sum(); }, [this] { return take_compare_operator(); });
  }

  std::optional<Operator> take_one_of(std::initializer_list<std::pair<std::string_view, Operator>> choices) {
    for (const auto& [text, op] : choices) {
      if (take_operator(text)) return op;
    }
    return std::nullopt;
  }

  ExprPtr sum() {
    return chain_of(
        ExprKind::kArithmetic, [this] { return concatenation(); },
        [this] {
          return take_one_of({{"+", Operator::kAdd}, {"-", Operator::kSubtract}});
        });
  }
  ExprPtr concatenation() {
    return list_of(
        ExprKind::kConcat, [this] { return product(); }, [this] { return take_operator("~"); });
  }
  ExprPtr product() {
    return chain_of(
        ExprKind::kArithmetic, [this] { return power(); },
        [this] {
          return take_one_of({{"*", Operator::kMultiply},
                              {"/", Operator::kDivide},
                              {"//", Operator::kFloorDivide},
                              {"%", Operator::kModulo}});
        });
  }
  ExprPtr power() {
    return chain_of(
        ExprKind::kArithmetic, [this] { return unary(true); },
        [this] {
          return take_one_of({{"**", Operator::kPower}});
        });
  }

  ExprPtr unary(bool with_filters) {
    if (!current().is_operator("-") && !current().is_operator("+")) return postfix(primary(), with_filters);
    Deeper deeper(*this);
    const ExprKind kind = current().text == "-" ? ExprKind::kNegative : ExprKind::kPositive;
    const int start = take().line;
    return postfix(std::make_unique<UnaryExpr>(kind, unary(false), start), with_filters);
  }

  ExprPtr primary() {
    const Token& token = current();
    switch (token.kind) {
      case TokenKind::kName: return name_or_constant();
      case TokenKind::kString: return string();
      case TokenKind::kInteger: return std::make_unique<ConstantExpr>(Value::integer(take().integer), token.line);
      case TokenKind::kFloat: return std::make_unique<ConstantExpr>(Value::real(take().real), token.line);
      default: break;
    }
    if (take_operator("(")) {
      ExprPtr out = tuple(true, "", true);
      expect_operator(")");
      return out;
    }
    if (take_operator("[")) return list();
    if (take_operator("{")) return dict();
    fail_here(fmt::format("expected an expression, found {}", describe(token)));
  }

  ExprPtr name_or_constant() {
    const Token& token = take();
    if (token.text == "true" || token.text == "True")
      return std::make_unique<ConstantExpr>(Value::boolean(true), token.line);
    if (token.text == "false" || token.text == "False")
      return std::make_unique<ConstantExpr>(Value::boolean(false), token.line);
    if (token.text == "none" || token.text == "None") return std::make_unique<ConstantExpr>(Value(), token.line);
    return std::make_unique<NameExpr>(token.text, token.line);
  }

  ExprPtr string() {
    const int start = line();
    std::string text;
    while (current().kind == TokenKind::kString) text += take().text;
    return std::make_unique<ConstantExpr>(make_text(nullptr, text), start);
  }

  ExprPtr list() {
    auto out = std::make_unique<ListExpr>(ExprKind::kList, line());
    while (!current().is_operator("]")) {
      if (!out->items.empty()) expect_operator(",");
      if (current().is_operator("]")) break;
      out->items.push_back(expression());
    }
    expect_operator("]");
    return out;
  }

  ExprPtr dict() {
    auto out = std::make_unique<DictExpr>(line());
    while (!current().is_operator("}")) {
      if (!out->entries.empty()) expect_operator(",");
      if (current().is_operator("}")) break;
      ExprPtr key = expression();
      expect_operator(":");
      out->entries.emplace_back(std::move(key), expression());
    }
    expect_operator("}");
    return out;
  }

  // --- postfix: attributes, items, calls, then filters and tests ---

  ExprPtr postfix(ExprPtr base, bool with_filters) {
    std::vector<Step> steps;
    plain_steps(steps);
    while (with_filters) {
      if (take_operator("|")) {
        steps.push_back(filter());
      } else if (current().is_name("is")) {
        steps.push_back(test());
      } else if (current().is_operator("(")) {
        steps.push_back(call());
      } else {
        break;
      }
    }
    return with_steps(std::move(base), std::move(steps));
  }

  static ExprPtr with_steps(ExprPtr base, std::vector<Step> steps) {
    if (steps.empty()) return base;
    const int start = base->line;
    auto out = std::make_unique<PostfixExpr>(std::move(base), start);
    out->steps = std::move(steps);
    return out;
  }

  void plain_steps(std::vector<Step>& steps) {
    while (true) {
      if (current().is_operator(".")) {
        steps.push_back(attribute());
      } else if (current().is_operator("[")) {
        steps.push_back(item());
      } else if (current().is_operator("(")) {
        steps.push_back(call());
      } else {
        return;
      }
    }
  }

  Step new_step(Step::Kind kind) const {
    Step step;
    step.kind = kind;
    step.line = line();
    return step;
  }

  Step attribute() {
    Step step = new_step(Step::Kind::kAttribute);
    take();
    if (current().kind == TokenKind::kInteger) {
      step.kind = Step::Kind::kItem;
      step.index[0] = std::make_unique<ConstantExpr>(Value::integer(current().integer), line());
      take();
    } else {
      step.name = expect_any_name();
    }
    return step;
  }

  Step item() {
    Step step = new_step(Step::Kind::kItem);
    take();
    std::vector<ExprPtr> parts;
    while (!current().is_operator("]")) {
      if (!parts.empty()) expect_operator(",");
      if (!current().is_operator(":")) parts.push_back(expression());
      if (current().is_operator(":")) {
        if (parts.size() > 1) fail_here("a slice cannot stand beside other indices");
        return slice(std::move(step), parts.empty() ? nullptr : std::move(parts.front()));
      }
    }
    take();
    if (parts.size() == 1) {
      step.index[0] = std::move(parts.front());
    } else {
      auto index = std::make_unique<ListExpr>(ExprKind::kTuple, step.line);
      index->items = std::move(parts);
      step.index[0] = std::move(index);
    }
    return step;
  }

  Step slice(Step step, ExprPtr from) {
    step.kind = Step::Kind::kSlice;
    step.index[0] = std::move(from);
    take();
    if (!current().is_operator(":") && !current().is_operator("]")) step.index[1] = expression();
    if (take_operator(":") && !current().is_operator("]")) step.index[2] = expression();
    expect_operator("]");
    return step;
  }

  Step call() {
    Step step = new_step(Step::Kind::kCall);
    step.arguments = std::make_unique<CallArguments>(arguments());
    return step;
  }

  CallArguments arguments() {
    CallArguments out;
    expect_operator("(");
    for (bool first = true; !current().is_operator(")"); first = false) {
      if (!first) {
        expect_operator(",");
        if (current().is_operator(")")) break;
      }
      argument(out);
    }
    take();
    return out;
  }

  void argument(CallArguments& out) {
    if (out.named.size() >= kMaxArguments) fail_here("too many arguments");
    const auto ensure = [this](bool good) {
      if (!good) fail_here("arguments of a call stand in the wrong order");
    };
    if (take_operator("*")) {
      ensure(out.star == nullptr && out.star_star == nullptr);
      out.star = expression();
    } else if (take_operator("**")) {
      ensure(out.star_star == nullptr);
      out.star_star = expression();
    } else if (current().kind == TokenKind::kName && ahead().is_operator("=")) {
      ensure(out.star_star == nullptr);
      const std::string name = take().text;
      take();
      for (const auto& [other, value] : out.named) {
        if (other.text().view == name) fail_here(fmt::format("argument {} occurs twice", quote(name)));
      }
      out.named.emplace_back(make_text(nullptr, name), expression());
    } else {
      ensure(out.star == nullptr && out.star_star == nullptr && out.named.empty());
      out.positional.push_back(expression());
    }
  }

  std::string dotted_name() {
    std::string name = expect_any_name();
    while (take_operator(".")) name += "." + expect_any_name();
    return name;
  }

  Step filter() {
    Step step = new_step(Step::Kind::kFilter);
    step.name = dotted_name();
    if (current().is_operator("(")) step.arguments = std::make_unique<CallArguments>(arguments());
    step.filter = find_filter(step.name);
    return step;
  }

  Step test() {
    Step step = new_step(Step::Kind::kTest);
    take();
    step.negated = take_name("not");
    step.name = dotted_name();
    if (current().is_operator("(")) {
      step.arguments = std::make_unique<CallArguments>(arguments());
    } else if (starts_test_argument()) {
      if (current().is_name("is")) fail_here("tests with 'is' cannot be chained");
      Deeper deeper(*this);
      ExprPtr base = primary();
      std::vector<Step> steps;
      plain_steps(steps);
      step.arguments = std::make_unique<CallArguments>();
      step.arguments->positional.push_back(with_steps(std::move(base), std::move(steps)));
    }
    step.test = find_test(step.name);
    return step;
  }

  // `x is divisibleby 3`: one argument without parentheses.
  bool starts_test_argument() const {
    const Token& token = current();
    if (token.kind == TokenKind::kName) return !token.is_name("else") && !token.is_name("or") && !token.is_name("and");
    return token.kind == TokenKind::kString || token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat ||
           token.is_operator("[") || token.is_operator("{");
  }

  std::vector<Token> tokens_;
  const std::string_view where_;
  size_t at_ = 0;
  int depth_ = 0;
  std::vector<std::string> blocks_;
};

}  // namespace

Body parse(std::string_view source, std::string_view where) {
  if (source.size() > kMaxSourceBytes) {
    fail_syntax(where, 1,
                fmt::format("the template has {} bytes; at most {} are read", source.size(), kMaxSourceBytes));
  }
  if (!is_utf8(source)) fail_syntax(where, 1, "the template is not UTF-8");
  Body body;
  body.statements = Parser(tokenize(source, where), where).run();
  analyse(body, where);
  return body;
}

}  // namespace idefics::jinja
