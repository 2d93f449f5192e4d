#pragma once

#include <covey/result.hpp>
#include <covey/simulation/plot.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "sweep_plan.hpp"
#include "sweep_runner.hpp"

namespace covey {

/// Mean and standard deviation (of the sample, n - 1) over the seeds that know a figure.
struct SeedFigures {
  std::size_t count = 0;
  double mean = 0;
  double deviation = 0;  ///< 0 for a single seed
};
std::optional<SeedFigures> over_seeds(const std::vector<std::optional<double>>& values);

/// A row of the sweep's table: a case over its finished seeds.
struct SweepRow {
  std::string name;
  std::size_t seeds = 0;  ///< finished, of
  std::size_t wanted = 0;
  std::vector<std::optional<SeedFigures>> figures;  ///< in the order of the columns
};

/// What the finished runs' result.json say, a row for each case.
struct SweepTable {
  static Result<SweepTable> of(const SweepPlan& plan, const std::vector<SweepRun>& runs);

  std::string csv() const;         ///< every column, with mean, deviation and count
  std::string for_people() const;  ///< aligned; columns that no case knows are left out
  nlohmann::json json() const;

  std::vector<SweepRow> rows;
};

/// The chosen figure of every case, its mean and spread over the finished seeds; one plot for each
/// panel.
Result<std::vector<simulation::Plot>> sweep_panels(const SweepPlan& plan,
                                                   const std::vector<SweepRun>& runs);

}  // namespace covey
