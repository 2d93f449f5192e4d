#include <algorithm>
#include <array>
#include <cctype>

#include "tree_rules.hpp"

namespace covey::tree {
namespace {

// Comments, literals and preprocessor lines become spaces; lines stay.
class Blanker {
 public:
  explicit Blanker(std::string_view text) : text_(text) {}

  std::string run() && {
    bool line_is_blank = true;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#' && line_is_blank) {
        directive();
      } else if (text_.substr(at_, 2) == "//") {
        until("\n");
      } else if (text_.substr(at_, 2) == "/*") {
        blank(2);
        until("*/");
        blank(2);
      } else if (text_.substr(at_, 2) == "R\"") {
        raw_string();
      } else if (c == '"' || (c == '\'' && !digit_before())) {
        literal(c);
      } else {
        out_ += c;
        ++at_;
      }
      line_is_blank = c == '\n' || (line_is_blank && c == ' ');
    }
    return std::move(out_);
  }

 private:
  // 1'000'000
  bool digit_before() const {
    return at_ > 0 && std::isalnum(static_cast<unsigned char>(text_[at_ - 1])) != 0;
  }
  void blank(std::size_t count) {
    for (; count > 0 && at_ < text_.size(); --count, ++at_) out_ += text_[at_] == '\n' ? '\n' : ' ';
  }
  void until(std::string_view end) { blank(std::min(text_.find(end, at_), text_.size()) - at_); }
  void directive() {
    std::size_t end = at_;
    do {
      end = std::min(text_.find('\n', end + 1), text_.size());
    } while (end < text_.size() && text_[end - 1] == '\\');
    blank(end - at_);
  }
  void raw_string() {
    const std::size_t open = text_.find('(', at_);
    if (open == std::string_view::npos) return blank(text_.size() - at_);
    const std::string end = ")" + std::string(text_.substr(at_ + 2, open - at_ - 2)) + "\"";
    until(end);
    blank(end.size());
  }
  void literal(char quote) {
    blank(1);
    while (at_ < text_.size() && text_[at_] != quote) blank(text_[at_] == '\\' ? 2 : 1);
    blank(1);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::string out_;
};

bool has_word(std::string_view text, std::string_view word) {
  const auto is_name = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
  };
  for (std::size_t at = text.find(word); at != std::string_view::npos;
       at = text.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    if ((at == 0 || !is_name(text[at - 1])) && (end == text.size() || !is_name(text[end]))) {
      return true;
    }
  }
  return false;
}

// Without a leading template <...>, whose parameters may be classes.
std::string_view after_template(std::string_view head) {
  const std::size_t begin = std::min(head.find_first_not_of(" \n"), head.size());
  if (!head.substr(begin).starts_with("template")) return head;
  std::size_t depth = 0;
  for (std::size_t i = head.find('<', begin); i < head.size(); ++i) {
    if (head[i] == '<') ++depth;
    if (head[i] == '>' && --depth == 0) return after_template(head.substr(i + 1));
  }
  return head;
}

// What stands between the last ';' or brace and an opening brace: a function's head has parentheses
// and does not begin a type, a namespace or a concept.
bool is_function_head(std::string_view head) {
  const std::size_t open = head.find('(');
  if (open == std::string_view::npos) return false;
  const std::string_view before = head.substr(0, open);
  constexpr std::array<std::string_view, 6> kOthers{"namespace", "class", "struct",
                                                    "enum",      "union", "requires"};
  return std::none_of(kOthers.begin(), kOthers.end(),
                      [&](std::string_view word) { return has_word(before, word); });
}

std::string function_name(std::string_view head) {
  std::size_t end = head.find('(');
  while (end > 0 && head[end - 1] == ' ') --end;
  std::size_t begin = end;
  const auto belongs = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == ':' || c == '~';
  };
  while (begin > 0 && belongs(head[begin - 1])) --begin;
  return begin == end ? "(a lambda)" : std::string(head.substr(begin, end - begin));
}

}  // namespace

std::vector<FunctionLength> function_lengths(std::string_view text) {
  const std::string code = Blanker(text).run();
  std::vector<FunctionLength> functions;
  std::size_t line = 1, head_begin = 0;
  std::vector<bool> blocks;  // open braces: is it a block, or a list as in member_{0}?
  std::size_t function_depth =
      0;  // open braces inside the outermost open function, 0: none is open
  for (std::size_t i = 0; i < code.size(); ++i) {
    const char c = code[i];
    bool ends_head = c == ';';
    if (c == '\n') ++line;
    if (c == '{') {
      // clang-format puts a space before a block's brace and none before a list's.
      blocks.push_back(i > 0 && std::isspace(static_cast<unsigned char>(code[i - 1])) != 0);
      ends_head = blocks.back();
      const auto head = after_template(std::string_view(code).substr(head_begin, i - head_begin));
      if (blocks.back() && function_depth == 0 && is_function_head(head)) {
        function_depth = blocks.size();
        functions.push_back({function_name(head), line, 0});
      }
    } else if (c == '}' && !blocks.empty()) {
      if (blocks.size() == function_depth) {
        functions.back().lines = line - functions.back().line + 1;
        function_depth = 0;
      }
      ends_head = blocks.back();
      blocks.pop_back();
    }
    if (ends_head) head_begin = i + 1;
  }
  return functions;
}

}  // namespace covey::tree
