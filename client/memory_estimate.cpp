#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <covey/client/memory_estimate.hpp>
#include <covey/compression/compressor.hpp>
#include <covey/models/engine.hpp>
#include <covey/models/training_memory.hpp>
#include <covey/privacy/fixed_point.hpp>
#include <covey/privacy/sum_figures.hpp>
#include <cstdio>

#include "batches.hpp"
#include "contribution.hpp"
#include "plan_encodings.hpp"

namespace covey::client {
namespace {

constexpr std::uint64_t kFloat = sizeof(float);
constexpr double kMiB = 1 << 20;

/// Code, stacks and small buffers that the first training touches: up to 1.0 MiB were seen on
/// x86-64.
constexpr std::uint64_t kFirstTouched = std::uint64_t{5} << 18;
/// A zstd context of level 3: window, hash and chain tables (ZSTD_estimateCCtxSize(3) is 1.27 MiB).
constexpr std::uint64_t kZstdContext = std::uint64_t{3} << 19;

struct Update {
  const TrainingPlan& plan;
  const CompressorSpec& compressor;
  const models::TrainingMemory& engine;
  const strategies::Strategy& strategy;

  std::uint64_t vector() const { return engine.parameters * kFloat; }
  /// The difference takes the weights' place (Engine::take_difference).
  bool in_place() const {
    return strategy.sends_difference() &&
           (plan.precision == "fp32" || plan.precision == "qat-int8");
  }
};

/// The update as a vector of fp32, beside the weights: once as bytes and once decoded, if it is not
/// in place.
std::uint64_t vector_bytes(const Update& update) {
  if (update.in_place()) return 0;
  const bool made_by_strategy = !update.strategy.sends_difference();
  return (made_by_strategy ? 3 : 2) * update.vector();
}

/// Plain encodings are made from the engine's weights.
std::uint64_t plain_bytes(const Update& update, Encoding encoding) {
  const std::uint64_t d = update.engine.parameters;
  const std::uint64_t made_by_strategy = update.strategy.sends_difference() ? 0 : update.vector();
  switch (encoding) {
    case Encoding::kFp32:
      return update.in_place() ? 0 : made_by_strategy + update.vector();
    case Encoding::kBf16:
      return made_by_strategy + update.vector() / 2;
    case Encoding::kInt8:
      // Scales, and tensors of rank 1 in fp32, are few beside the values.
      if (update.plan.precision == "int8") return update.engine.model_bytes;  // they are int8
      // A tensor at a time as fp32, then as int8.
      return made_by_strategy + d + d / 8 + (kFloat + 1) * update.engine.largest_tensor;
  }
  return update.vector();
}

/// What the compressors of compression/ keep while they encode.
std::uint64_t compressor_scratch(const CompressorSpec& spec, std::uint64_t d) {
  switch (spec.kind) {
    case CompressorKind::kDrive:
    case CompressorKind::kEden:
      return d + (1 << 18);  // they rotate a block at a time, and keep a code each
    case CompressorKind::kTopK:
    case CompressorKind::kRandomK:
      // Values, places, and what choosing them takes.
      return static_cast<std::uint64_t>(static_cast<double>(d) * spec.parameter * 20) + (1 << 18);
    case CompressorKind::kRateDistortion:
      return d * kFloat;
    default:
      return 0;
  }
}

Result<std::uint64_t> compressed_bytes(const Update& update) {
  const CompressorSpec& spec = update.compressor;
  COVEY_ASSIGN(const models::Network network,
               models::make_network(update.plan.model, update.plan.precision));
  COVEY_ASSIGN(const auto compressor, compression::make_compressor(spec, network.layout()));
  const std::uint64_t encoded = compressor->sizes().max;
  std::uint64_t bytes = compressor_scratch(spec, update.engine.parameters) + encoded;
  if (spec.zstd) bytes += encoded + kZstdContext;
  // What was lost: decoded, and at first a copy of the earlier rounds'.
  if (spec.error_feedback) {
    bytes += update.vector();
    if (spec.kind == CompressorKind::kRateDistortion) bytes += update.vector();
  }
  return vector_bytes(update) + bytes;
}

struct SecureBytes {
  std::uint64_t update = 0;
  std::uint64_t masking = 0;
};

Result<SecureBytes> secure_bytes(const Update& update) {
  const SecureAggregationPlan& plan = update.plan.secure_aggregation;
  privacy::SumFigures figures;
  figures.scalars.assign(update.strategy.num_scalars(), 0);
  COVEY_ASSIGN(const auto format,
               privacy::SumFormat::make(plan, update.plan.privacy, update.engine.parameters,
                                        figures.to_scalars(update.plan.privacy).size()));
  SecureBytes bytes;
  bytes.update = vector_bytes(update) + format.bytes();
  if (plan.rotation || format.summed < format.dimension) {
    bytes.update += update.vector();
    bytes.update += format.summed < format.dimension ? format.summed * sizeof(std::uint64_t) : 0;
  }
  // What the sum says of it, as words and in doubles, and what it does not.
  if (update.compressor.error_feedback) {
    bytes.update += format.bytes() + 3 * sizeof(double) * format.dimension;
  }
  bytes.masking = 2 * format.bytes();
  return bytes;
}

}  // namespace

std::uint64_t MemoryEstimate::peak() const {
  const std::uint64_t at_work = std::max(weights + scratch, weights + update);
  return base + model + residual + std::max(at_work, masking);
}

Result<MemoryEstimate> estimate_memory(const TrainingPlan& plan,
                                       const strategies::Registry& registry,
                                       const MemoryBase& base) {
  COVEY_ASSIGN(const PlanEncodings encodings, encodings_of(plan));
  COVEY_ASSIGN(const auto strategy, registry.make(plan.strategy, plan.strategy_parameters));
  const auto n = static_cast<std::size_t>(std::max<std::uint64_t>(1, base.num_examples));
  // Only sequences have more than one label each, and the network says how many: planned for one
  // example.
  COVEY_ASSIGN(models::TrainingMemory engine,
               models::training_memory(plan.model, plan.precision, 1, plan.optimizer));
  const std::size_t labels = engine.labels_per_example;
  const std::size_t batch = batches_of(plan, *strategy, n, labels).largest();
  COVEY_ASSIGN(engine, models::training_memory(plan.model, plan.precision, batch, plan.optimizer));

  MemoryEstimate estimate;
  estimate.base = base.process_bytes + base.data_bytes + kFirstTouched;
  estimate.model = engine.model_bytes;
  estimate.weights = engine.weight_bytes;
  estimate.scratch = engine.scratch_bytes + sizeof(std::uint32_t) * n +
                     batch * (engine.example_size + labels) * kFloat;
  const Update update{plan, encodings.update, engine, *strategy};
  if (encodings.update.error_feedback) estimate.residual = update.vector();
  if (plan.secure_aggregation.enabled()) {
    COVEY_ASSIGN(const SecureBytes bytes, secure_bytes(update));
    estimate.update = bytes.update;
    estimate.masking = bytes.masking + (encodings.update.error_feedback ? update.vector() : 0);
  } else if (needs_privacy(plan)) {
    estimate.update = vector_bytes(update) + update.vector();
  } else if (const auto plain = plain_encoding(encodings.update)) {
    estimate.update = plain_bytes(update, *plain);
  } else {
    COVEY_ASSIGN(estimate.update, compressed_bytes(update));
  }
  return estimate;
}

Result<void> check_memory(const TrainingPlan& plan, const strategies::Registry& registry,
                          const MemoryBase& base, std::uint64_t max_bytes) {
  if (max_bytes == 0) return {};
  COVEY_ASSIGN(const MemoryEstimate estimate, estimate_memory(plan, registry, base));
  if (estimate.peak() <= max_bytes) return {};
  return failed(fmt::format("training takes {:.1f} MiB of memory, this device allows {:.1f} MiB",
                            static_cast<double>(estimate.peak()) / kMiB,
                            static_cast<double>(max_bytes) / kMiB));
}

std::uint64_t resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  unsigned long long size = 0, resident = 0;  // in pages
  const bool read = std::fscanf(file, "%llu %llu", &size, &resident) == 2;
  std::fclose(file);
  return read ? resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

}  // namespace covey::client
