#include "secagg_bench.hpp"

#include <algorithm>
#include <cmath>
#include <covey/random.hpp>
#include <utility>

#include "secagg_bench_run.hpp"

namespace covey {
namespace bench {
namespace {

/// Devices whose work is measured.
constexpr std::size_t kSample = 8;

}  // namespace

Result<void> SecureSum::prepare() {
  context_.round.run = RunId{bench_.seed};
  context_.round.round = RoundNumber{1};
  context_.settings = bench_.plan;
  context_.settings.max_devices = bench_.clients;
  context_.settings.max_weight = 1;
  // The graph is drawn for as many drop-outs as there will be.
  context_.settings.dropout = std::max(bench_.dropout, context_.settings.dropout);
  COVEY_ASSIGN(format_, privacy::SumFormat::make(context_.settings, {}, bench_.dimension, 0));
  result_.sum_bits = format_.packed.sum_bits;
  result_.masked_bytes = format_.bytes();
  draw_drop_outs();
  if (sample_ == 0) return invalid_argument("--dropout leaves no device whose update is summed");
  if (context_.settings.threat_model == ThreatModel::kMaliciousServer) COVEY_TRY(make_identities());
  server_.emplace(context_, authority_);
  return {};
}

void SecureSum::draw_drop_outs() {
  devices_.resize(bench_.clients);
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    devices_[i].client = ClientId{i + 1};
    left_.push_back(&devices_[i]);
  }
  RandomStream(bench_.seed, RandomPurpose::kDropout).shuffle(std::span(left_));
  result_.dropped = static_cast<std::uint32_t>(std::lround(bench_.dropout * bench_.clients));
  for (std::size_t i = 0; i < result_.dropped; ++i) left_[left_.size() - 1 - i]->drops = true;
  sample_ = std::min(kSample, left_.size() - result_.dropped);
  result_.device_sample = sample_;
}

Result<void> SecureSum::make_identities() {
  const auto secrets = privacy::seeded_secrets(bench_.seed, RoundNumber{}, ClientId{});
  COVEY_ASSIGN(const auto authority, privacy::IdentityAuthority::make(*secrets));
  for (const BenchDevice& device : devices_) {
    COVEY_ASSIGN(auto issued, authority.issue(device.client, *secrets));
    authority_ = issued.authority;
    credentials_.push_back(std::make_shared<const privacy::DeviceCredentials>(std::move(issued)));
  }
  return {};
}

Result<void> SecureSum::make_device(BenchDevice& device) const {
  SecAggDevice::Options options;
  options.client = device.client;
  options.context = context_;
  if (!credentials_.empty()) options.credentials = credentials_[value_of(device.client) - 1];
  options.secrets = privacy::seeded_secrets(bench_.seed, RoundNumber{1}, device.client);
  const CpuTime time(device.times.advertise);
  COVEY_ASSIGN(device.device, SecAggDevice::make(std::move(options)));
  return {};
}

Result<void> SecureSum::advertise() {
  COVEY_TRY(on_devices([this](BenchDevice& device) { return make_device(device); }));
  for (BenchDevice& device : devices_) {
    device.bytes_up += content_bytes(device.device->advertise());
    const WallTime time(result_.server.advertise);
    COVEY_TRY(server_->add(device.client, device.device->advertise()));
  }
  const WallTime time(result_.server.advertise);
  COVEY_TRY(server_->close_step());
  result_.neighbourhood = server_->neighbourhood();
  return {};
}

Result<void> SecureSum::share() {
  COVEY_TRY(exchange(
      result_.server.share, [this](ClientId client) { return server_->neighbour_keys(client); },
      [](BenchDevice& device, const NeighbourKeys& message) {
        const CpuTime time(device.times.share);
        return device.device->take(message);
      },
      [this](BenchDevice& device, const ShareKeys& answer) {
        device.bytes_up += content_bytes(answer);
        return server_->add(device.client, answer);
      }));
  const WallTime time(result_.server.share);
  return server_->close_step();
}

void SecureSum::vanish() {
  for (BenchDevice& device : devices_) {
    if (!device.drops) continue;
    server_->leave(device.client);
    device.device.reset();
    device.masks.reset();
  }
  std::erase_if(left_, [](const BenchDevice* device) { return device->drops; });
}

Result<void> SecureSum::agree() {
  return exchange(
      result_.server.share, [this](ClientId client) { return server_->peer_shares(client); },
      [](BenchDevice& device, const PeerShares& message) {
        const CpuTime time(device.times.agree);
        return device.device->take(message);
      },
      [](BenchDevice& device, const std::shared_ptr<const MaskJob>& masks) -> Result<void> {
        device.masks = masks;
        return {};
      });
}

}  // namespace bench

Result<SecAggBenchResult> run_secagg_bench(const SecAggBench& bench) {
  return bench::SecureSum(bench).run();
}

}  // namespace covey
