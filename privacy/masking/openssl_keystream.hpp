#pragma once

#include <covey/privacy_plan.hpp>
#include <covey/result.hpp>
#include <memory>

#include "masking/keystream.hpp"
#include "masking/lanes.hpp"

namespace covey::privacy::masking {

/// Keystreams by OpenSSL, through a buffer that stays in the first-level cache. One thread's.
class OpenSslKeystream {
 public:
  /// Error: OpenSSL has no such cipher (a FIPS provider alone has no ChaCha20) or no memory.
  static Result<OpenSslKeystream> make(MaskCipher cipher);
  OpenSslKeystream(OpenSslKeystream&&) noexcept;
  OpenSslKeystream& operator=(OpenSslKeystream&&) noexcept;
  ~OpenSslKeystream();

  Result<void> add(const KeystreamTask& task);

 private:
  struct State;
  explicit OpenSslKeystream(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace covey::privacy::masking
