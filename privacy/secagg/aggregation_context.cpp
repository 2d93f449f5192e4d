#include <covey/privacy/secagg_device.hpp>

#include "secagg/transcript.hpp"

namespace covey::privacy {

Digest AggregationContext::digest() const {
  Transcript all("covey secagg context v1");
  all.add(round).add(model).add(plan);
  all.add(static_cast<std::uint64_t>(settings.threat_model));
  all.add(static_cast<std::uint64_t>(settings.cipher));
  all.add(static_cast<std::uint64_t>(settings.complete_graph));
  all.add(std::uint64_t{settings.bits}).add(settings.clip).add(settings.max_weight);
  all.add(static_cast<std::uint64_t>(settings.rotation));
  all.add(std::uint64_t{settings.max_devices}).add(settings.dropout).add(settings.corruption);
  return all.digest();
}

}  // namespace covey::privacy
