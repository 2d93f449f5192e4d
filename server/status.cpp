#include "status.hpp"

#include <nlohmann/json.hpp>

namespace covey::server {
namespace {

nlohmann::ordered_json number_or_null(const std::optional<double>& number) {
  return number ? nlohmann::ordered_json(*number) : nlohmann::ordered_json(nullptr);
}

}  // namespace

std::string to_json(const Status& status) {
  nlohmann::ordered_json json = {
      {"phase", to_string(status.phase)},
      {"run", value_of(status.run)},
      {"round", value_of(status.round)},
      {"committed_round", value_of(status.committed_round)},
      {"num_rounds", status.num_rounds},
      {"attempt", status.attempt},
      {"connections", status.connections},
      {"pool", status.pool},
      {"pool_needed", status.start_at},
      {"cohort",
       {{"selected", status.selected},
        {"accepted", status.accepted},
        {"rejected", status.rejected},
        {"dropped", status.dropped},
        {"uploading", status.uploading},
        {"queued", status.queued}}},
      {"accuracy", number_or_null(status.accuracy)},
      {"loss", number_or_null(status.loss)},
      {"model_sha256", status.model.hex()},
      {"deadline_s", number_or_null(status.deadline_s)},
  };
  if (!status.secure_step.empty()) json["secure_step"] = status.secure_step;
  if (status.epsilon) json["epsilon"] = *status.epsilon;
  if (status.buffer > 0) {
    json["asynchronous"] = {{"buffer", status.buffer},
                            {"at_work", status.at_work},
                            {"oldest_staleness", status.oldest_staleness}};
  }
  return json.dump();
}

}  // namespace covey::server
