#pragma once

#include <covey/result.hpp>
#include <covey/strategies/strategy.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace covey::strategies {

/// Makes a strategy, or says which parameter is unknown or out of range.
using Factory = std::function<Result<std::unique_ptr<Strategy>>(const Parameters&)>;

/// Strategies by name. Filled at start (built-ins, then plug-ins), read-only afterwards; then any
/// thread may call `make`.
class Registry {
 public:
  /// "fedavg", "fedprox", "qfedavg", "fedmedian", "fedbuff", "fedasync".
  static Registry with_built_ins();

  /// Error if the name is taken.
  Result<void> add(std::string name, Factory factory);
  /// Error naming the known strategies if `name` is not one of them.
  Result<std::unique_ptr<Strategy>> make(std::string_view name, const Parameters& parameters) const;
  std::vector<std::string> names() const;

  /// Loads a shared library (strategies/plugin.hpp) and adds what it brings: everything or, with an
  /// error, nothing. A path without a leading slash starts at the working directory. The library
  /// stays loaded until the process ends.
  Result<void> load_plugin(const std::string& path);

 private:
  std::map<std::string, Factory, std::less<>> factories_;
};

/// Reads the parameters a strategy knows and refuses the others by name:
///   ParameterReader read(parameters);
///   double mu = read.number("proximal-mu", 0.0, 0.0, 1e6);   // key, default, lowest, highest
///   COVEY_TRY(read.finish("fedprox"));
/// `parameters` must outlive the reader.
class ParameterReader {
 public:
  explicit ParameterReader(const Parameters& parameters);
  /// The key's value, or `fallback` if it is not given. Out of [lowest, highest], or given twice:
  /// `finish` says so.
  double number(std::string_view key, double fallback, double lowest, double highest);
  Result<void> finish(std::string_view strategy) const;

 private:
  const Parameters& parameters_;
  std::vector<bool> used_;
  std::vector<std::string> known_;
  std::string problem_;
};

}  // namespace covey::strategies
