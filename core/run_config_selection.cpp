#include <algorithm>
#include <cmath>
#include <covey/run_config.hpp>
#include <string>

#include "run_file_keys.hpp"

namespace covey {
namespace {

bool asks_for_losses(const SelectionConfig& selection) {
  return selection.policy == "oort" || selection.policy == "power-of-choice";
}

/// Devices of a round as far as the run file tells; 0: only the data do.
double cohort_of(const RunConfig& config) {
  const SelectionConfig& selection = config.selection;
  const std::uint32_t available = selection.min_available_clients > 0
                                      ? selection.min_available_clients
                                      : config.partition.clients;
  constexpr double kSlack = 1e-9;  // 0.29 * 100 is 28.999999999999996
  const double goal = std::max<double>(selection.min_fit_clients,
                                       std::floor(selection.fraction_fit * available + kSlack));
  return available == 0 ? 0 : std::ceil(goal * selection.over_selection - kSlack);
}

}  // namespace

std::optional<KeyProblem> selection_problem(const RunConfig& config) {
  const SelectionConfig& selection = config.selection;
  const bool secure = config.secure_aggregation.mode != "off";
  if (asks_for_losses(selection) && (secure || config.privacy.mechanism != "none")) {
    return KeyProblem{"selection.policy",
                      "\"" + selection.policy +
                          "\" prefers devices by their training losses, which " +
                          (secure ? "secure-aggregation.mode = \"" + config.secure_aggregation.mode
                                  : "privacy.mechanism = \"" + config.privacy.mechanism) +
                          "\" keeps from the server; use \"uniform\""};
  }
  if (selection.policy == "oort" && selection.exploration_min > selection.exploration) {
    return KeyProblem{"selection.exploration-min",
                      "is more than selection.exploration, which decays to it"};
  }
  const double cohort = cohort_of(config);
  if (selection.policy == "power-of-choice" && selection.candidates > 0 &&
      selection.candidates < cohort) {
    return KeyProblem{"selection.candidates",
                      std::to_string(selection.candidates) + " are fewer than the " +
                          std::to_string(static_cast<std::uint64_t>(cohort)) +
                          " devices that a round selects from among them (fraction-fit, "
                          "min-fit-clients and over-selection)"};
  }
  return std::nullopt;
}

Result<void> check_selection(const RunConfig& config) {
  if (const auto problem = selection_problem(config)) {
    return invalid_argument(problem->key + ": " + problem->sentence);
  }
  return {};
}

}  // namespace covey
