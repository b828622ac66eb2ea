// Result<T>: a value, or an error that somebody can act on.
//
// In/out:  values. Nothing here throws.
// Thread:  any.
// Why:     operating errors (a peer left, a file is short) are ordinary values; one channel for them, everywhere.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "base/check.h"

namespace stagecoach::base {

/// What a caller may do about an error. Add a code only when some caller acts on it differently.
enum class ErrorCode {
  invalid_argument,   // the user's input is wrong: say what was expected and exit non-zero
  not_found,          // a file, key or peer is not there
  already_exists,     // would overwrite something that is not ours to overwrite
  corrupt,            // bytes do not match their hash, format or length: do not use them
  out_of_space,       // the disk is full: free some, nothing older was touched
  io_error,           // the operating system refused; the sentence holds its reason
  too_large,          // announced or asked for more than a limit
  unavailable,        // not now: a port in use, a peer away
  not_finite,         // NaN or inf in a tensor
  out_of_range,       // a number does not fit where it must (a gradient beyond fixed64)
  refused,            // the other side said no, with a reason
  mismatch,           // two things that must agree do not (vocabulary, config, layout, hash)
  internal,           // a library failed in a way nobody can act on
};

/// A code for the program and a sentence for the operator: what was expected, what came, what to do.
struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;

  /// The same error with `context` put before its sentence.
  Error within(const std::string& context) const { return Error{code, context + ": " + message}; }
};

/// Either a T or an Error. Reading the wrong one is a bug (CHECK), so test first.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: a value is a Result
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: an error is a Result

  bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }
  T& value() & {
    CHECK(ok(), "a Result is read only after it was tested");
    return *value_;
  }
  const T& value() const& {
    CHECK(ok(), "a Result is read only after it was tested");
    return *value_;
  }
  T&& value() && {
    CHECK(ok(), "a Result is read only after it was tested");
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const {
    CHECK(!ok(), "an error is read only where there is one");
    return error_;
  }

 private:
  std::optional<T> value_;
  Error error_;
};

/// Success without a value, or an error.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: an error is a Result

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    CHECK(!ok(), "an error is read only where there is one");
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace stagecoach::base

/// Returns the error of `expression` from the enclosing function, if it has one.
#define RETURN_IF_ERROR(expression)                               \
  do {                                                            \
    if (auto result_ = (expression); !result_.ok()) return result_.error(); \
  } while (false)
