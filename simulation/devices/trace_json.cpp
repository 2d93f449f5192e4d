#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "trace_reader.hpp"

namespace covey::simulation {
namespace {

using Json = nlohmann::json;

/// "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error while ...",
/// without what is said already.
std::string_view plain(std::string_view what) {
  constexpr std::size_t kMostCharacters = 200;
  for (const std::string_view before : {"] ", ": "}) {
    const std::size_t at = what.find(before);
    if (at != std::string_view::npos) what.remove_prefix(at + before.size());
  }
  return what.substr(0, kMostCharacters);
}

/// Builds devices from the parser's events, so that a large trace is never held as a document.
class DeviceReader final : public nlohmann::json_sax<Json> {
 public:
  DeviceReader(std::string_view text, const std::string& name, const TraceSink& sink)
      : text_(text), name_(name), sink_(sink) {}

  Error problem{ErrorCode::kMalformed, {}};

  bool null() override { return other("nothing"); }
  bool boolean(bool) override { return other("true or false"); }
  bool string(string_t& text) override {
    return other(fmt::format("the text \"{}\"", text.substr(0, 40)));
  }
  bool binary(binary_t&) override { return other("bytes"); }
  bool number_integer(number_integer_t value) override {
    return number(static_cast<double>(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return number(static_cast<double>(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return number(value); }

  bool start_object(std::size_t) override {
    if (depth_ == 0 || depth_ == 1) {
      ++depth_;
      return true;
    }
    return begin_nested("an object", false);
  }
  bool end_object() override {
    if (skipped_ > 0) return --skipped_, true;
    if (--depth_ == 0) return true;
    const auto taken = sink_(device_);
    if (taken.ok()) return true;
    problem = taken.error();
    return false;
  }
  bool start_array(std::size_t) override { return begin_nested("a list", true); }
  bool end_array() override {
    if (skipped_ > 0) {
      --skipped_;
    } else {
      list_ = nullptr;
    }
    return true;
  }

  bool key(string_t& name) override {
    if (skipped_ > 0) return true;
    if (depth_ == 2) {
      field_ = name;
      return true;
    }
    device_ = {};
    const auto id = device_number(name);
    if (!id) {
      return fail(fmt::format("\"{}\" is no device's number", name.substr(0, 40)));
    }
    device_.id = *id;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    const auto end = std::min(position, text_.size());
    const auto line =
        1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(end), '\n');
    problem = malformed(fmt::format("{}:{}: not JSON: {}", name_, line, plain(error.what())));
    return false;
  }

 private:
  bool fail(std::string_view sentence) {
    problem = malformed(fmt::format("{}: {}", name_, sentence));
    return false;
  }
  bool fail_in_device(std::string_view sentence) {
    problem = malformed(fmt::format("{}: {}: {}", device_.place(name_), field_, sentence));
    return false;
  }
  std::optional<double>* scalar() {
    if (field_ == "computation") return &device_.computation;
    if (field_ == "communication") return &device_.communication;
    return field_ == "finish_time" ? &device_.finish_time : nullptr;
  }
  std::optional<std::vector<double>>* list() {
    if (field_ == "active") return &device_.active;
    return field_ == "inactive" ? &device_.inactive : nullptr;
  }
  bool misplaced(std::string_view what) {
    if (depth_ == 0) {
      return fail(fmt::format("expected an object of devices, found {}", what));
    }
    return fail(fmt::format("device {}: expected an object, found {}", device_.id, what));
  }

  bool number(double value) {
    if (skipped_ > 0) return true;
    if (depth_ < 2) return misplaced("a number");
    if (list_ != nullptr) {
      list_->push_back(value);
      return true;
    }
    if (list() != nullptr) return fail_in_device("expected a list of seconds, found a number");
    if (auto* target = scalar()) {
      if (target->has_value()) return fail_in_device("is given twice");
      *target = value;
    }
    return true;
  }

  bool other(std::string_view what) {
    if (skipped_ > 0) return true;
    if (depth_ < 2) return misplaced(what);
    if (list_ != nullptr) {
      return fail_in_device(fmt::format("[{}]: expected a number, found {}", list_->size(), what));
    }
    if (list() != nullptr) {
      return fail_in_device(fmt::format("expected a list of seconds, found {}", what));
    }
    if (scalar() != nullptr)
      return fail_in_device(fmt::format("expected a number, found {}", what));
    return true;
  }

  bool begin_nested(std::string_view what, bool is_list) {
    if (skipped_ > 0) return ++skipped_, true;
    if (depth_ < 2 || list_ != nullptr || scalar() != nullptr) return other(what);
    if (list() == nullptr) return ++skipped_, true;  // a field that says nothing here
    if (!is_list) return other(what);
    if (list()->has_value()) return fail_in_device("is given twice");
    list_ = &list()->emplace();
    return true;
  }

  std::string_view text_;
  const std::string& name_;
  const TraceSink& sink_;
  TraceDevice device_;
  std::string field_;
  std::vector<double>* list_ = nullptr;  ///< that is being read
  int depth_ = 0;                        ///< 1: among devices, 2: in one
  std::size_t skipped_ = 0;              ///< containers deep in a field of no interest
};

}  // namespace

Result<void> read_json_trace(std::string_view text, const std::string& name,
                             const TraceSink& sink) {
  DeviceReader reader(text, name, sink);
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) return std::move(reader.problem);
  return {};
}

}  // namespace covey::simulation
