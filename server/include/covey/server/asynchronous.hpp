#pragma once

#include <covey/result.hpp>
#include <covey/run_config.hpp>
#include <covey/strategies/strategy.hpp>
#include <cstdint>

namespace covey::server {

/// Error, naming the keys, where this run cannot be asynchronous (check_asynchronous of the core),
/// or its strategy cannot: one that sees single updates; one that moves the model by single updates
/// with a buffer of more, or without a buffer. Or where the run has too few devices for the buffer.
Result<void> check_asynchronous(const RunConfig& config, const strategies::Strategy& strategy,
                                std::uint32_t population);

}  // namespace covey::server
