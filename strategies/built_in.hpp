#pragma once

#include <covey/result.hpp>
#include <covey/strategies/strategy.hpp>
#include <memory>

/// The strategies that come with Covey, one file each.
namespace covey::strategies {

Result<std::unique_ptr<Strategy>> make_fedavg(const Parameters& parameters);
Result<std::unique_ptr<Strategy>> make_fedprox(const Parameters& parameters);
Result<std::unique_ptr<Strategy>> make_qfedavg(const Parameters& parameters);
Result<std::unique_ptr<Strategy>> make_fedmedian(const Parameters& parameters);
Result<std::unique_ptr<Strategy>> make_fedbuff(const Parameters& parameters);
Result<std::unique_ptr<Strategy>> make_fedasync(const Parameters& parameters);

}  // namespace covey::strategies
