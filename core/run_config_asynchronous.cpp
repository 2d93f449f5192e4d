#include <covey/run_config.hpp>
#include <string>

#include "run_file_keys.hpp"

namespace covey {

std::optional<KeyProblem> asynchronous_problem(const RunConfig& config) {
  if (!config.asynchronous.enabled()) return std::nullopt;
  constexpr const char* kInstead = "; leave it out, or set asynchronous.buffer = 0";
  if (config.secure_aggregation.mode != "off") {
    return KeyProblem{"secure-aggregation.mode",
                      "\"" + config.secure_aggregation.mode +
                          "\" masks updates in pairs of one cohort, and the masks vanish only from "
                          "the sum of all of "
                          "it; with asynchronous.buffer there is no cohort, devices come and go" +
                          kInstead};
  }
  const std::string& mechanism = config.privacy.mechanism;
  if (mechanism != "none" && mechanism != "local-gaussian") {
    return KeyProblem{
        "privacy.mechanism",
        "\"" + mechanism +
            "\" counts on the cohort of a round: who was in it, all of one weight and on one "
            "model; with "
            "asynchronous.buffer there is none. \"local-gaussian\" is each device's own noise and "
            "goes with it" +
            kInstead};
  }
  if (config.selection.policy != "uniform") {
    return KeyProblem{"selection.policy",
                      "\"" + config.selection.policy +
                          "\" compares the devices that wait for a round; with asynchronous.buffer "
                          "a free place goes to one of those who are there, uniformly" +
                          kInstead};
  }
  return std::nullopt;
}

Result<void> check_asynchronous(const RunConfig& config) {
  if (const auto problem = asynchronous_problem(config)) {
    return invalid_argument(problem->key + " = " + problem->sentence);
  }
  return {};
}

}  // namespace covey
