#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include <covey/assert.hpp>

namespace covey {

/// What a caller can do about a failure; the sentence in `Error::message` says what happened and where.
enum class ErrorCode {
  kInvalidArgument,  ///< a flag, file or value given by the user is wrong: exit code 2
  kNotFound,         ///< a file, table or name does not exist: exit code 2
  kFailed,           ///< the operation was tried and did not work (network, disk, full, in use)
  kMalformed,        ///< bytes from a peer or a file do not parse
};

struct Error {
  ErrorCode code = ErrorCode::kFailed;
  std::string message;
};

inline Error invalid_argument(std::string message) {
  return {ErrorCode::kInvalidArgument, std::move(message)};
}
inline Error not_found(std::string message) { return {ErrorCode::kNotFound, std::move(message)}; }
inline Error failed(std::string message) { return {ErrorCode::kFailed, std::move(message)}; }
inline Error malformed(std::string message) { return {ErrorCode::kMalformed, std::move(message)}; }

/// Puts "context: " in front of the message.
inline Error with_context(std::string context, Error error) {
  error.message = std::move(context) + ": " + error.message;
  return error;
}

/// A value or an Error. Reading the wrong side is a bug and aborts.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    COVEY_ASSERT(ok());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    COVEY_ASSERT(ok());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    COVEY_ASSERT(ok());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const {
    COVEY_ASSERT(!ok());
    return *std::get_if<1>(&state_);
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    COVEY_ASSERT(!ok());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace covey

#define COVEY_CONCAT_(a, b) a##b
#define COVEY_CONCAT(a, b) COVEY_CONCAT_(a, b)

/// COVEY_TRY(expression): returns its error from the enclosing function, if it has one.
#define COVEY_TRY(expression)                                     \
  do {                                                            \
    if (auto covey_status = (expression); !covey_status.ok()) {   \
      return covey_status.error();                                \
    }                                                             \
  } while (false)

/// COVEY_ASSIGN(auto x, expression): the value, or returns the error from the enclosing function.
#define COVEY_ASSIGN(target, expression) \
  COVEY_ASSIGN_(target, expression, COVEY_CONCAT(covey_result_, __LINE__))
#define COVEY_ASSIGN_(target, expression, result) \
  auto result = (expression);                     \
  if (!result.ok()) return result.error();        \
  target = std::move(result).value()
