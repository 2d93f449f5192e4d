#include <fmt/format.h>
#include <fmt/ranges.h>

#include <covey/strategies/registry.hpp>
#include <exception>

#include "built_in.hpp"

namespace covey::strategies {

Registry Registry::with_built_ins() {
  Registry registry;
  registry.factories_.emplace("fedavg", make_fedavg);
  registry.factories_.emplace("fedprox", make_fedprox);
  registry.factories_.emplace("qfedavg", make_qfedavg);
  registry.factories_.emplace("fedmedian", make_fedmedian);
  registry.factories_.emplace("fedbuff", make_fedbuff);
  registry.factories_.emplace("fedasync", make_fedasync);
  return registry;
}

Result<void> Registry::add(std::string name, Factory factory) {
  if (name.empty()) return invalid_argument("a strategy needs a name");
  if (!factory) return invalid_argument(fmt::format("strategy {} has no factory", name));
  if (factories_.contains(name)) {
    return invalid_argument(fmt::format("there is a strategy named {} already", name));
  }
  factories_.emplace(std::move(name), std::move(factory));
  return {};
}

Result<std::unique_ptr<Strategy>> Registry::make(std::string_view name,
                                                 const Parameters& parameters) const {
  const auto found = factories_.find(name);
  if (found == factories_.end()) {
    return invalid_argument(fmt::format("there is no strategy named \"{}\"; there are: {}", name,
                                        fmt::join(names(), ", ")));
  }
  try {
    auto made = found->second(parameters);
    if (made.ok() && *made == nullptr) {
      return failed(fmt::format("the factory of strategy {} made nothing", name));
    }
    return made;
  } catch (const std::exception& exception) {  // a plug-in's factory
    return failed(fmt::format("strategy {} cannot be made: {}", name, exception.what()));
  }
}

std::vector<std::string> Registry::names() const {
  std::vector<std::string> names;
  for (const auto& [name, factory] : factories_) names.push_back(name);
  return names;
}

ParameterReader::ParameterReader(const Parameters& parameters)
    : parameters_(parameters), used_(parameters.size()) {}

double ParameterReader::number(std::string_view key, double fallback, double lowest,
                               double highest) {
  known_.emplace_back(key);
  const auto note = [this](std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
  };
  double value = fallback;
  bool given = false;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].first != key) continue;
    if (given) note(fmt::format("{} is given twice", key));
    given = true;
    used_[i] = true;
    value = parameters_[i].second;
    if (!(value >= lowest && value <= highest)) {
      note(fmt::format("{} = {} is not between {} and {}", key, value, lowest, highest));
    }
  }
  return value;
}

Result<void> ParameterReader::finish(std::string_view strategy) const {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (used_[i]) continue;
    const std::string known =
        known_.empty() ? "it takes none" : fmt::format("it knows {}", fmt::join(known_, ", "));
    return invalid_argument(fmt::format("strategy {} has no parameter \"{}\": {}", strategy,
                                        parameters_[i].first, known));
  }
  if (!problem_.empty()) {
    return invalid_argument(fmt::format("strategy {}: {}", strategy, problem_));
  }
  return {};
}

}  // namespace covey::strategies
