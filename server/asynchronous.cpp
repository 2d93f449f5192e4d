#include <fmt/format.h>

#include <algorithm>
#include <covey/server/asynchronous.hpp>

namespace covey::server {
namespace {

Result<void> check_strategy(const RunConfig& config, const strategies::Strategy& strategy) {
  const std::uint32_t buffer = config.asynchronous.buffer;
  const auto* sum_strategy = dynamic_cast<const strategies::SumStrategy*>(&strategy);
  if (sum_strategy == nullptr && buffer > 0) {
    return invalid_argument(fmt::format(
        "strategy.name = \"{}\" compares the updates of one round, and with asynchronous.buffer = "
        "{} "
        "they begin with different models: choose a strategy of sums, such as fedbuff, or set "
        "asynchronous.buffer = 0",
        strategy.name(), buffer));
  }
  if (sum_strategy == nullptr || !sum_strategy->needs_base()) return {};
  if (buffer != 1) {
    return invalid_argument(
        fmt::format("strategy.name = \"{}\" moves the model at every single update: set "
                    "asynchronous.buffer = 1, "
                    "not {}",
                    strategy.name(), buffer));
  }
  const bool has_parts = std::ranges::any_of(
      config.client.classes, [](const ClientClassConfig& device) { return device.width < 1; });
  if (has_parts) {
    return invalid_argument(fmt::format(
        "client.class.*.width below 1 does not go with strategy.name = \"{}\": it moves every "
        "parameter towards the device's, also those that the device does not train",
        strategy.name()));
  }
  return {};
}

}  // namespace

Result<void> check_asynchronous(const RunConfig& config, const strategies::Strategy& strategy,
                                std::uint32_t population) {
  COVEY_TRY(covey::check_asynchronous(config));
  COVEY_TRY(check_strategy(config, strategy));
  const AsynchronousConfig& asynchronous = config.asynchronous;
  if (asynchronous.buffer > population) {
    return invalid_argument(fmt::format(
        "asynchronous.buffer = {} updates of different devices, but there are {} devices",
        asynchronous.buffer, population));
  }
  if (asynchronous.enabled() && asynchronous.concurrency > population) {
    return invalid_argument(
        fmt::format("asynchronous.concurrency = {} devices at work at a time, but there are {}",
                    asynchronous.concurrency, population));
  }
  return {};
}

}  // namespace covey::server
