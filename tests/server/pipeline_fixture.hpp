#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/server/update_pipeline.hpp>
#include <cstring>
#include <stdexcept>
#include <vector>

/// Strategies that show what a pipeline did, and updates to give it.
namespace covey::server::testing {

/// w += (sum of weight_k * update_k) / (sum of weight_k); state counts the rounds; scalars are
/// ignored unless `scalars` are asked for, whose sum goes into state[1].
class MeanStrategy : public strategies::SumStrategy {
 public:
  explicit MeanStrategy(std::size_t scalars = 0) : scalars_(scalars) {}
  std::string_view name() const override { return "test-mean"; }
  std::size_t num_scalars() const override { return scalars_; }
  std::size_t state_size(std::size_t) const override { return 2; }
  Result<void> apply(const strategies::Sum& sum, strategies::ServerModel model) override {
    model.state[0] += 1.0f;
    model.state[1] = sum.scalars.empty() ? 0.0f : static_cast<float>(sum.scalars[0]);
    for (std::size_t i = 0; i < model.parameters.size(); ++i) {
      model.parameters[i] += static_cast<float>(sum.vector[i] / sum.weight);
    }
    if (explode) throw std::runtime_error("the plug-in threw");
    if (refuse) return failed("the strategy refused");
    return {};
  }

  bool explode = false;
  bool refuse = false;

 private:
  std::size_t scalars_;
};

/// Remembers what it was shown and takes the first update.
class FirstStrategy : public strategies::IndividualStrategy {
 public:
  std::string_view name() const override { return "test-first"; }
  Result<void> aggregate(std::span<const strategies::IndividualUpdate> updates,
                         strategies::ServerModel model) override {
    seen.assign(updates.begin(), updates.end());
    std::ranges::copy(updates.front().update, model.parameters.begin());
    return {};
  }

  std::vector<strategies::IndividualUpdate> seen;
};

/// One tensor of rank 1.
inline UpdatePipeline::Format format_of(std::size_t size, double max_norm = 0) {
  UpdatePipeline::Format format;
  format.layout.append("weight", {static_cast<std::uint32_t>(size)});
  format.max_update_norm = max_norm;
  return format;
}

/// One compressor, without negotiation.
inline std::vector<OfferedCompressor> offered(const ModelLayout& layout, std::string_view name) {
  return offer_compressors({std::string(name)}, layout).value();
}

inline UpdatePipeline make_pipeline(std::unique_ptr<strategies::Strategy> strategy,
                                    std::size_t size, double max_norm = 0) {
  auto made = UpdatePipeline::make(std::move(strategy), ParameterVector(size), {},
                                   format_of(size, max_norm));
  REQUIRE(made.ok());
  return std::move(made).value();
}

inline Report report_for(const SharedBytes& bytes, double weight = 1,
                         std::vector<double> scalars = {}) {
  Report report;
  report.blob = sha256(bytes.span());
  report.blob_size = bytes.size();
  report.weight = weight;
  report.scalars = std::move(scalars);
  return report;
}

/// The same content at an address that is not a multiple of 4.
inline SharedBytes misaligned(const SharedBytes& bytes) {
  std::vector<std::byte> shifted(bytes.size() + 1);
  std::memcpy(shifted.data() + 1, bytes.data(), bytes.size());
  return SharedBytes(std::move(shifted)).slice(1, bytes.size());
}

inline SharedBytes encoded(std::vector<float> values) { return encode_fp32(values); }

inline std::vector<float> values_of(const ParameterVector& vector) {
  return {vector.span().begin(), vector.span().end()};
}

}  // namespace covey::server::testing
