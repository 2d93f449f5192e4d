#pragma once

#include "client/daemon/covey_client/options.hpp"

namespace covey::client {

/// Checks what a device needs before a server does: arithmetic, cryptography, kit, state, data,
/// memory. A line on standard output for each, "ok" or "FAILED"; false if any failed.
bool self_test(const ProgramOptions& options);

}  // namespace covey::client
