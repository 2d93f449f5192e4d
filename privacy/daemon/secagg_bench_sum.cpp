#include <covey/random.hpp>
#include <cstring>
#include <variant>

#include "secagg_bench_run.hpp"

namespace covey::bench {
namespace {

/// Masking what goes unmeasured may take so long; more, and only the vectors' beginnings are masked
/// and compared.
constexpr double kCheckSeconds = 15;
constexpr double kFloorSeconds = 0.6;

double median_of(std::span<BenchDevice* const> sample, double SecAggDeviceTimes::*part) {
  std::vector<double> values;
  for (const BenchDevice* device : sample) values.push_back(device->times.*part);
  std::ranges::sort(values);
  return values[values.size() / 2];
}

}  // namespace

Result<void> SecureSum::encode_sample() {
  std::vector<float> update(bench_.dimension);
  for (std::size_t i = 0; i < sample_; ++i) {
    const ClientId client = left_[i]->client;
    RandomStream random(bench_.seed, RandomPurpose::kDataGeneration, RoundNumber{1}, client);
    const double clip = context_.settings.clip;
    for (float& x : update) x = static_cast<float>(random.uniform(-clip, clip));
    const auto secrets = privacy::seeded_secrets(bench_.seed, RoundNumber{1}, client, 1);
    const privacy::ContributionDraw draw{bench_.seed, RoundNumber{1}, client};
    const CpuTime time(left_[i]->times.encode);
    COVEY_ASSIGN(auto encoded,
                 privacy::encode_contribution(format_, update, 1, {}, draw, *secrets));
    contributions_.push_back(std::move(encoded.packed));
  }
  return {};
}

/// As many of the vector's blocks as all devices can mask in kCheckSeconds.
Result<privacy::PackedFormat> SecureSum::checked_format() const {
  COVEY_ASSIGN(const double rate, measure_keystream(context_.settings.cipher, result_.sum_bits,
                                                    bench_.threads, kFloorSeconds / 4));
  const double masks = static_cast<double>(left_.size()) * (result_.neighbourhood.degree + 1.0);
  const double most_bytes = kCheckSeconds * 1e9 * rate / masks;
  privacy::PackedFormat checked = format_.packed;
  if (most_bytes < static_cast<double>(checked.bytes())) {
    const double blocks = most_bytes / (8.0 * static_cast<double>(checked.block_words()));
    checked.coordinates =
        std::min(checked.coordinates, std::max<std::size_t>(1, static_cast<std::size_t>(blocks)) *
                                          privacy::PackedFormat::kBlockCoordinates);
  }
  return checked;
}

/// The sample masks all of its vector, on one thread as a device does; the others only what will be
/// compared: the rest would cost this program time and tell nothing, since the server's work is the
/// same whatever it sums.
Result<SharedBytes> SecureSum::mask_one(std::size_t index) const {
  const std::span<const std::byte> contribution = contributions_[index % sample_];
  BenchDevice& device = *left_[index];
  if (index < sample_) {
    const CpuTime time(device.times.mask);
    return device.masks->run(format_.packed, contribution);
  }
  return device.masks->run(checked_, contribution.first(checked_.bytes()), bench_.threads);
}

Result<void> SecureSum::mask() {
  COVEY_TRY(encode_sample());
  COVEY_ASSIGN(checked_, checked_format());
  sum_.assign(format_.packed.words(), 0);
  plain_.assign(format_.packed.words(), 0);
  for (std::size_t i = 0; i < left_.size(); ++i) {
    COVEY_ASSIGN(const SharedBytes masked, mask_one(i));
    if (i == 0) stand_in_.assign(masked.span().begin(), masked.span().end());
    const bool whole = masked.size() == format_.bytes();
    if (!whole) std::memcpy(stand_in_.data(), masked.data(), masked.size());
    left_[i]->bytes_up += format_.bytes();
    left_[i]->masks.reset();
    privacy::add_packed(format_.packed, contributions_[i % sample_], plain_);
    const WallTime time(result_.server.sum);
    privacy::add_packed(format_.packed, whole ? masked.span() : stand_in_, sum_);
    server_->add_masked_input(left_[i]->client);
  }
  const WallTime time(result_.server.collect);
  COVEY_TRY(server_->close_step());
  result_.survivors = server_->survivors();
  return {};
}

Result<void> SecureSum::reveal() {
  using Answer = std::variant<Unmask, ConfirmSurvivors>;
  double& server_s = result_.server.collect;
  const auto add = [this](BenchDevice& device, const auto& answer) {
    device.bytes_up += content_bytes(answer);
    return server_->add(device.client, answer);
  };
  COVEY_TRY(exchange(
      server_s, [this](ClientId client) { return server_->survivor_set(client); },
      [](BenchDevice& device, const SurvivorSet& message) {
        const CpuTime time(device.times.unmask);
        return device.device->take(message);
      },
      [&add](BenchDevice& device, const Answer& answer) {
        return std::visit([&](const auto& message) { return add(device, message); }, answer);
      }));
  if (context_.settings.threat_model == ThreatModel::kMaliciousServer) {
    {
      const WallTime time(server_s);
      COVEY_TRY(server_->close_step());
    }
    COVEY_TRY(exchange(
        server_s, [this](ClientId client) { return server_->confirmations(client); },
        [](BenchDevice& device, const SurvivorConfirmations& message) {
          const CpuTime time(device.times.unmask);
          return device.device->take(message);
        },
        add));
  }
  if (!server_->faults().empty()) {
    const auto& fault = server_->faults().front();
    return failed(
        fmt::format("device {} is said to be at fault: {}", value_of(fault.client), fault.what));
  }
  return {};
}

Result<void> SecureSum::unmask() {
  COVEY_ASSIGN(result_.floor, measure_floor(context_.settings.cipher, result_.sum_bits,
                                            bench_.threads, kFloorSeconds));
  COVEY_ASSIGN(const auto job, server_->unmask());
  double cpu_ms = 0;
  {
    const CpuTime time(cpu_ms, CLOCK_PROCESS_CPUTIME_ID);
    COVEY_ASSIGN(result_.server.unmask, job.run(format_.packed, sum_, bench_.threads));
  }
  result_.server.unmask_cpu = cpu_ms / 1e3;
  const auto checked = static_cast<std::ptrdiff_t>(checked_.words());
  if (!std::equal(sum_.begin(), sum_.begin() + checked, plain_.begin())) {
    return failed("the unmasked sum is not the sum of the contributions");
  }
  result_.coordinates_checked = checked_.coordinates;
  return {};
}

void SecureSum::finish() {
  const auto sample = std::span(left_).first(sample_);
  SecAggDeviceTimes& device = result_.device;
  for (BenchDevice* of : sample) {
    SecAggDeviceTimes& t = of->times;
    t.total = t.advertise + t.share + t.agree + t.encode + t.mask + t.unmask;
    result_.bytes_up += static_cast<double>(of->bytes_up) / static_cast<double>(sample_);
    result_.bytes_down += static_cast<double>(of->bytes_down) / static_cast<double>(sample_);
  }
  using Times = SecAggDeviceTimes;
  for (const auto part : {&Times::advertise, &Times::share, &Times::agree, &Times::encode,
                          &Times::mask, &Times::unmask, &Times::total}) {
    device.*part = median_of(sample, part);
  }
}

}  // namespace covey::bench
