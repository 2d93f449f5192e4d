#pragma once

#include <covey/privacy/packed_vector.hpp>
#include <covey/privacy/secagg_server.hpp>
#include <map>
#include <memory>
#include <vector>

#include "fake_server.hpp"

/// A server of one secure sum, and the four correct devices beside the one under test.
namespace covey::client::testing {

inline constexpr ClientId kUnderTest{3};
inline constexpr privacy::PackedFormat kSumFormat{.sum_bits = 20, .coordinates = 700};

/// Of 17 bits at most, so that five fit.
inline std::vector<std::byte> packed_contribution(ClientId client) {
  RandomStream random(23, RandomPurpose::kFault, RoundNumber{1}, client);
  std::vector<std::int64_t> values(kSumFormat.coordinates);
  for (auto& value : values) value = static_cast<std::int64_t>(random.below(1 << 17));
  std::vector<std::uint64_t> words(kSumFormat.words());
  privacy::pack(kSumFormat, values, words);
  const auto bytes = std::as_bytes(std::span(words));
  return {bytes.begin(), bytes.end()};
}

inline TrainedUpdate packed_update() {
  TrainedUpdate trained = make_update();
  trained.update = SharedBytes(packed_contribution(kUnderTest));
  trained.digest = sha256(trained.update.span());
  trained.packed = kSumFormat;
  return trained;
}

struct SumServer {
  using Answers = std::vector<ServerMessage>;
  using Step = privacy::SecAggServer::Step;

  SharedBytes model = patterned_bytes(kSmallModelBytes, 1);
  Assignment assignment = make_assignment(model);
  std::optional<privacy::IdentityAuthority> authority;
  std::map<ClientId, std::shared_ptr<const privacy::DeviceCredentials>> credentials;
  std::map<ClientId, privacy::SecAggDevice> peers;
  std::optional<privacy::SecAggServer> sum;
  std::vector<std::uint64_t> packed_sum;
  std::vector<std::byte> upload;
  std::optional<Report> report;
  std::vector<Digest> blobs;  ///< of each attempt
  std::uint32_t attempts = 0;
  bool round_done = false;
  bool waits = false;                   ///< closes no step: the device's answers are kept waiting
  const Participant* device = nullptr;  ///< under test

  void set_up(ThreatModel threat_model) {
    auto& plan = assignment.plan.secure_aggregation;
    plan.threat_model = threat_model;
    plan.max_weight = 1;
    plan.max_devices = 5;
    auto secrets = privacy::seeded_secrets(5, {}, {}, 1);
    authority.emplace(privacy::IdentityAuthority::make(*secrets).value());
    for (std::uint64_t client = 1; client <= 5; ++client) {
      credentials[ClientId{client}] = std::make_shared<const privacy::DeviceCredentials>(
          authority->issue(ClientId{client}, *secrets).value());
    }
    new_attempt();
  }

  /// The same round under another name.
  void new_attempt() {
    ++attempts;
    assignment.aggregation.bytes[0] = static_cast<std::uint8_t>(attempts);
    upload.clear();
    report.reset();
    round_done = false;
    packed_sum.assign(kSumFormat.words(), 0);
    const privacy::AggregationContext context{
        {assignment.run, assignment.round, assignment.aggregation},
        assignment.model,
        digest_of(assignment.plan),
        assignment.plan.secure_aggregation};
    sum.emplace(context, authority->key());
    peers.clear();
    for (const std::uint64_t client : {1, 2, 4, 5}) {
      privacy::SecAggDevice::Options options;
      options.client = ClientId{client};
      options.context = context;
      options.credentials = credentials.at(options.client);
      options.secrets = privacy::seeded_secrets(6, {}, options.client, attempts);
      peers.emplace(options.client, privacy::SecAggDevice::make(std::move(options)).value());
    }
  }

  Answers answer(const ClientMessage& message) {
    return std::visit([this](const auto& m) { return on(m); }, message);
  }

  /// What the step at hand asks of the device.
  Answers of_step() {
    const auto list = [](auto message) {
      return message ? Answers{std::move(*message)} : Answers{};
    };
    switch (sum->step()) {
      case Step::kAdvertise:
        return {};
      case Step::kShare:
        return list(sum->neighbour_keys(kUnderTest));
      case Step::kMask:
        return list(sum->peer_shares(kUnderTest));
      case Step::kConfirm:
        return list(sum->survivor_set(kUnderTest));
      case Step::kUnmask:
        if (auto confirmations = sum->confirmations(kUnderTest)) return {std::move(*confirmations)};
        return list(sum->survivor_set(kUnderTest));
    }
    return {};
  }

 private:
  bool malicious() const {
    return assignment.plan.secure_aggregation.threat_model == ThreatModel::kMaliciousServer;
  }
  Answers on(const Hello&) { return {Welcome{kProtocolVersion, 512, 10s}}; }
  Answers on(const CheckIn&) {
    if (round_done && device != nullptr && device->rounds_accepted() > 0) {
      return {Refusal{RefusalReason::kRunFinished, "done"}};
    }
    if (round_done) return {Waiting{}};
    return {Waiting{}, assignment};
  }
  Answers on(const BlobRequest& request) {
    return {BlobChunk{request.blob, request.offset, model.slice(request.offset, request.length)}};
  }
  Answers on(const Progress& progress) {
    return {ProgressReply{progress.run, progress.round, !round_done}};
  }
  Answers on(const Decline&) { return {}; }
  Answers on(const StatusRequest&) { return {}; }

  Answers on(const AdvertiseKeys& message) {
    if (round_done) return {accepted()};
    REQUIRE(sum->add(kUnderTest, message).ok());  // the same keys, however often
    if (sum->step() == Step::kAdvertise && !waits) {
      for (auto& [client, peer] : peers) REQUIRE(sum->add(client, peer.advertise()).ok());
      REQUIRE(sum->close_step().ok());
    }
    return of_step();
  }
  Answers on(const ShareKeys& message) {
    REQUIRE(sum->add(kUnderTest, message).ok());
    if (sum->step() != Step::kShare || waits) return {};
    for (auto& [client, peer] : peers) {
      REQUIRE(sum->add(client, *peer.take(*sum->neighbour_keys(client))).ok());
    }
    REQUIRE(sum->close_step().ok());
    return of_step();
  }
  Answers on(const Report& r) {
    if (round_done) return {accepted()};
    if (sum->step() != Step::kMask) return {};
    if (report) REQUIRE(report->blob == r.blob);  // masked once
    if (!report) blobs.push_back(r.blob);
    report = r;
    return grant_or_close();
  }
  Answers on(const BlobChunk& chunk) {
    REQUIRE(report);
    REQUIRE(chunk.blob == report->blob);
    REQUIRE(chunk.offset == upload.size());
    upload.insert(upload.end(), chunk.payload.span().begin(), chunk.payload.span().end());
    return grant_or_close();
  }
  Answers grant_or_close() {
    if (upload.size() < report->blob_size) return {UploadGrant{report->blob, upload.size(), 1024}};
    if (waits) return {};
    REQUIRE(sha256(upload) == report->blob);
    privacy::add_packed(kSumFormat, upload, packed_sum);
    sum->add_masked_input(kUnderTest);
    for (auto& [client, peer] : peers) {
      const auto job = *peer.take(*sum->peer_shares(client));
      const auto masked = *job->run(kSumFormat, packed_contribution(client));
      privacy::add_packed(kSumFormat, masked.span(), packed_sum);
      sum->add_masked_input(client);
    }
    REQUIRE(sum->close_step().ok());
    return of_step();
  }
  Answers on(const ConfirmSurvivors& message) {
    REQUIRE(sum->add(kUnderTest, message).ok());
    if (waits) return {};
    if (sum->step() == Step::kConfirm) {
      for (auto& [client, peer] : peers) {
        const auto confirmed = *peer.take(*sum->survivor_set(client));
        REQUIRE(sum->add(client, std::get<ConfirmSurvivors>(confirmed)).ok());
      }
      REQUIRE(sum->close_step().ok());
    }
    return of_step();
  }
  Answers on(const Unmask& message) {
    if (round_done) return {accepted()};
    REQUIRE(sum->add(kUnderTest, message).ok());
    if (waits) return {};
    for (auto& [client, peer] : peers) {
      if (malicious()) {
        REQUIRE(sum->add(client, *peer.take(*sum->confirmations(client))).ok());
      } else {
        const auto revealed = *peer.take(*sum->survivor_set(client));
        REQUIRE(sum->add(client, std::get<covey::Unmask>(revealed)).ok());
      }
    }
    REQUIRE(sum->unmask()->run(kSumFormat, packed_sum, 1).ok());
    round_done = true;
    return {accepted()};
  }
  ReportAccepted accepted() const {
    return {assignment.run, assignment.round, RetryWindow{1s, 2s}};
  }
};

struct SumWorld : BasicWorld<SumServer> {
  explicit SumWorld(ThreatModel model, ParticipantOptions of_device = small_options())
      : BasicWorld<SumServer>(with_secrets(std::move(of_device), model)) {
    update = packed_update();
    server.set_up(model);
    server.device = &device;
  }

  /// Made in every SumServer alike.
  static std::shared_ptr<const privacy::DeviceCredentials> credentials_under_test() {
    SumServer same;
    same.set_up(ThreatModel::kMaliciousServer);
    return same.credentials.at(kUnderTest);
  }
  static ParticipantOptions with_secrets(ParticipantOptions options, ThreatModel model) {
    if (model == ThreatModel::kMaliciousServer) options.credentials = credentials_under_test();
    options.make_secrets = [](const AggregationRound& round) {
      return privacy::seeded_secrets(8, round.round, kUnderTest, round.id.bytes[0]);
    };
    return options;
  }

  bool sum_is_plain() const {
    std::vector<std::uint64_t> expected(kSumFormat.words());
    for (std::uint64_t client = 1; client <= 5; ++client) {
      privacy::add_packed(kSumFormat, packed_contribution(ClientId{client}), expected);
    }
    return server.packed_sum == expected;
  }
  std::string last_decline() const {
    const auto declines = sent<Decline>(log);
    return declines.empty() ? "" : declines.back().reason;
  }
};

}  // namespace covey::client::testing
