#include "inc/json.h"

#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <utility>

namespace ktnet {

namespace {

constexpr int kDeepest = 32;  // levels; a manifest has four
constexpr double kLargestWhole = 9007199254740992.0;

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  Json Document() {
    Json value = Value(0);
    SkipSpace();
    if (at_ != text_.size()) Fail("more after the end");
    return value;
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    throw std::invalid_argument("character " + std::to_string(at_ + 1) + ": " + what);
  }

  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void SkipSpace() {
    while (at_ < text_.size() && text_.find_first_of(" \t\r\n", at_) == at_) ++at_;
  }

  bool Take(char wanted) {
    SkipSpace();
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  void Expect(char wanted) {
    if (!Take(wanted)) Fail(std::string("no ") + wanted);
  }

  bool TakeWord(const std::string& word) {
    if (text_.compare(at_, word.size(), word) != 0) return false;
    at_ += word.size();
    return true;
  }

  Json Value(int depth) {
    if (depth > kDeepest) Fail("nested too deeply");
    SkipSpace();
    if (Take('{')) return {Object(depth)};
    if (Take('[')) return {Array(depth)};
    if (Peek() == '"') return {Text()};
    if (TakeWord("true")) return {true};
    if (TakeWord("false")) return {false};
    if (TakeWord("null")) return {};
    return {Number()};
  }

  JsonObject Object(int depth) {
    JsonObject members;
    if (Take('}')) return members;
    do {
      SkipSpace();
      std::string key = Text();
      Expect(':');
      members.insert_or_assign(std::move(key), Value(depth + 1));
    } while (Take(','));
    Expect('}');
    return members;
  }

  JsonArray Array(int depth) {
    JsonArray items;
    if (Take(']')) return items;
    do {
      items.push_back(Value(depth + 1));
    } while (Take(','));
    Expect(']');
    return items;
  }

  // Names in a manifest are ASCII; an escape is refused rather than decoded.
  std::string Text() {
    Expect('"');
    const size_t start = at_;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\\' || static_cast<unsigned char>(text_[at_]) < ' ') Fail("an escape or control character");
      ++at_;
    }
    if (at_ >= text_.size()) Fail("a string without an end");
    return text_.substr(start, at_++ - start);
  }

  double Number() {
    const char* const start = text_.c_str() + at_;
    if (*start != '-' && (*start < '0' || *start > '9')) Fail("no value");
    char* end = nullptr;
    const double value = std::strtod(start, &end);
    if (end == start || !std::isfinite(value)) Fail("no number");
    at_ += static_cast<size_t>(end - start);
    return value;
  }

  const std::string& text_;
  size_t at_ = 0;
};

template <typename Kind>
const Kind& Get(const Json& json, const char* what) {
  const Kind* const value = std::get_if<Kind>(&json.value);
  if (value == nullptr) throw std::invalid_argument(std::string("not ") + what);
  return *value;
}

}  // namespace

const std::string& Json::Text() const { return Get<std::string>(*this, "a string"); }

size_t Json::Size() const {
  const double number = Get<double>(*this, "a number");
  if (number < 0.0 || number > kLargestWhole || number != std::floor(number)) {
    throw std::invalid_argument("not a whole number");
  }
  return static_cast<size_t>(number);
}

const JsonArray& Json::Array() const { return Get<JsonArray>(*this, "a list"); }

const Json& Json::At(const std::string& key) const {
  const JsonObject& members = Get<JsonObject>(*this, "an object");
  const auto found = members.find(key);
  if (found == members.end()) throw std::invalid_argument("no \"" + key + "\"");
  return found->second;
}

Json ParseJson(const std::string& text) { return Parser(text).Document(); }

}  // namespace ktnet
