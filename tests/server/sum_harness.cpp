#include "sum_harness.hpp"

#include <covey/privacy/fixed_point.hpp>
#include <covey/privacy/packed_vector.hpp>

#include "pipeline_fixture.hpp"

namespace covey::server::testing {
namespace {

std::uint64_t channel_up(ConnectionId connection) { return 2 * value_of(connection); }
std::uint64_t channel_down(ConnectionId connection) { return 2 * value_of(connection) + 1; }

TrainingPlan plan_of(const SumOptions& options) {
  TrainingPlan plan;
  plan.strategy = "test-mean";
  plan.seed = options.seed;
  plan.secure_aggregation.threat_model = options.model;
  plan.secure_aggregation.max_weight = 2;
  plan.secure_aggregation.max_devices = options.devices;
  return plan;
}

ModelLayout layout() {
  ModelLayout layout;
  layout.append("weight", {static_cast<std::uint32_t>(kSumDimension)});
  return layout;
}

std::optional<privacy::PrivateRelease> release_of(const SumOptions& options,
                                                  const TrainingPlan& plan) {
  privacy::PrivateRelease::Run run;
  run.config = options.privacy;
  run.selection = options.selection;
  run.secure_aggregation = plan.secure_aggregation;
  run.num_rounds = options.rounds;
  run.population = options.devices;
  run.dimension = kSumDimension;
  run.strategy = "test-mean";
  auto made = privacy::PrivateRelease::make(run);
  if (!made.ok()) FAIL(made.error().message);
  return std::move(*made);
}

}  // namespace

SumHarness::SumHarness(const SumOptions& options) : options_(options), plan_(plan_of(options)) {
  auto release = release_of(options, plan_);
  if (release) plan_.privacy = release->device_plan();
  auto format = UpdatePipeline::Format::of(plan_, layout(), 0);
  REQUIRE(format.ok());
  format_ = *format;
  auto made = UpdatePipeline::make(
      std::make_unique<MeanStrategy>(), ParameterVector(kSumDimension), {}, *format,
      {std::move(release), privacy::seeded_secrets(options.seed, {}, {}, 1), 1});
  REQUIRE(made.ok());
  pipeline.emplace(std::move(made).value());
  auto secrets = privacy::seeded_secrets(options.seed, {}, {}, 2);
  authority_.emplace(privacy::IdentityAuthority::make(*secrets).value());
  for (std::uint32_t i = 1; i <= options.devices; ++i) {
    SumDevice& device = devices[ClientId{i}];
    device.client = ClientId{i};
    if (options.model == ThreatModel::kMaliciousServer) {
      device.credentials = std::make_shared<const privacy::DeviceCredentials>(
          authority_->issue(device.client, *secrets).value());
    }
  }
  RunState state{kRun, {}, pipeline->encoded_model(), std::nullopt, std::nullopt, {}};
  state.privacy = pipeline->privacy_status();
  state.participations = options.participations;
  coordinator.emplace(coordinator_options(), std::move(state));
}

CoordinatorOptions SumHarness::coordinator_options() {
  CoordinatorOptions result;
  result.config.seed = options_.seed;
  result.config.num_rounds = options_.rounds;
  result.config.selection = options_.selection;
  result.config.privacy = options_.privacy;
  result.config.server.chunk_bytes = kSumChunk;
  result.plan = plan_;
  result.compressors = format_.compressors;
  result.num_scalars = format_.reported_scalars(0);
  result.population = options_.devices;
  result.evaluates = false;
  result.make_aggregation_id = [this] {
    AggregationId id;
    id.bytes[0] = static_cast<std::uint8_t>(aggregations.size());
    id.bytes[1] = static_cast<std::uint8_t>(aggregations.size() >> 8);
    id.bytes[15] = 1;
    aggregations.push_back(id);
    return id;
  };
  if (options_.model == ThreatModel::kMaliciousServer) result.authority = authority_->key();
  return result;
}

// ---- time and deliveries

void SumHarness::start() {
  Actions actions;
  coordinator->start(now, actions);
  carry_out(actions);
  for (auto& [client, device] : devices) {
    if (!device.away) connect(device);
  }
}

void SumHarness::settle() {
  while (step()) {
  }
}

bool SumHarness::step() {
  if (deliveries_.empty()) return false;
  deliver(next_delivery());
  return true;
}

void SumHarness::advance(Duration by) {
  const Time until = now + by;
  while (now < until && !finished) {
    now = std::max(now, std::min({until, timer_.value_or(until), next_heartbeat_}));
    if (now >= next_heartbeat_) beat();
    if (timer_ && *timer_ <= now) {
      timer_.reset();
      tell(TimerFired{});
    }
    if (!any_order) settle();
  }
}

void SumHarness::beat() {
  next_heartbeat_ = now + from_seconds(options_.selection.heartbeat_s);
  for (auto& [client, device] : devices) {
    if (!device.connection || !device.task) continue;
    up(device, Received{*device.connection, Progress{device.task->run, device.task->round, 1, 1}});
  }
}

void SumHarness::run_to_the_end(Duration patience) {
  settle();
  for (const Time until = now + patience; !finished && now < until;) advance(1s);
  const std::string said = notes();
  INFO(said.substr(said.size() - std::min<std::size_t>(said.size(), 2000)));
  INFO(coordinator->status_json(now));
  REQUIRE(finished);
}

void SumHarness::tell(Event event) {
  deliveries_.push_back({next_answer_--, std::move(event)});  // in order with nothing
}

void SumHarness::release_held() {
  for (Event& event : std::exchange(held, {})) tell(std::move(event));
  settle();
}

void SumHarness::up(const SumDevice& device, Event event) {
  deliveries_.push_back({channel_up(*device.connection), std::move(event)});
}

SumHarness::Delivery SumHarness::next_delivery() {
  auto chosen = deliveries_.begin();
  if (any_order) {
    const std::uint64_t channel =
        deliveries_[static_cast<std::size_t>(any_order->below(deliveries_.size()))].channel;
    chosen = std::ranges::find(deliveries_, channel, &Delivery::channel);
  }
  Delivery delivery = std::move(*chosen);
  deliveries_.erase(chosen);
  return delivery;
}

void SumHarness::deliver(Delivery delivery) {
  if (auto* event = std::get_if<Event>(&delivery.what)) {
    if (finished) return;
    Actions actions;
    coordinator->handle(now, std::move(*event), actions);
    return carry_out(actions);
  }
  Down& down = std::get<Down>(delivery.what);
  SumDevice& device = devices.at(owners_.at(down.connection));
  if (device.connection != down.connection) return;
  if (!down.message) {
    device.connection.reset();
    if (!device.away && !finished) connect(device);
    return;
  }
  if (arrives && !arrives(device, *down.message)) {
    lose_connection(device);
    return connect(device);
  }
  device.inbox.push_back(*down.message);
  std::visit([&](auto& message) { react(device, message); }, *down.message);
}

void SumHarness::connect(SumDevice& device) {
  if (device.connection) return;
  device.away = false;
  device.connection = ConnectionId{next_connection_++};
  owners_[*device.connection] = device.client;
  up(device, DeviceConnected{*device.connection, device.client, Role::kDevice});
  say(device, Hello{});
}

void SumHarness::lose_connection(SumDevice& device, bool heard) {
  if (!device.connection) return;
  const ConnectionId lost = *device.connection;
  std::erase_if(deliveries_, [&](const Delivery& delivery) {
    const bool its_up = delivery.channel == channel_up(lost);
    // That it connected was known before anything it said.
    const auto* event = std::get_if<Event>(&delivery.what);
    const bool connecting = event != nullptr && std::holds_alternative<DeviceConnected>(*event);
    return delivery.channel == channel_down(lost) || (its_up && !heard && !connecting);
  });
  up(device, DeviceGone{lost});
  device.connection.reset();
}

void SumHarness::say(SumDevice& device, ClientMessage message) {
  if (!device.connection) return;
  switch (deed ? deed(device, message) : Deed::kSay) {
    case Deed::kSwallow:
      return;
    case Deed::kVanish:
      lose_connection(device);
      device.away = true;
      return;
    case Deed::kCutBefore:
      lose_connection(device);
      return connect(device);
    case Deed::kCutAfter:
      up(device, Received{*device.connection, std::move(message)});
      lose_connection(device, true);
      return connect(device);
    case Deed::kSayTwice:
      up(device, Received{*device.connection, message});
      break;
    case Deed::kSay:
      break;
  }
  up(device, Received{*device.connection, std::move(message)});
}

void SumHarness::insist(SumDevice& device, ClientMessage message) {
  up(device, Received{*device.connection, std::move(message)});
  settle();
}

// ---- what was seen

SharedBytes SumHarness::contribution_of(RoundNumber round, ClientId client) const {
  std::vector<float> update(kSumDimension);
  RandomStream random(options_.seed, RandomPurpose::kFault, round, client);
  for (float& x : update) x = static_cast<float>(random.uniform() - 0.5) / 64;
  if (!format_.sum) return encode_fp32(update);
  privacy::SumFigures figures;
  figures.weight = 1 + random.uniform();
  figures.num_examples = 10;
  figures.steps = 5;
  auto secrets = privacy::seeded_secrets(options_.seed, round, client, 77);
  auto encoded = privacy::encode_contribution(*format_.sum, update, figures.weight,
                                              figures.to_scalars(plan_.privacy),
                                              {plan_.seed, round, client}, *secrets);
  REQUIRE(encoded.ok());
  return SharedBytes(std::move(encoded->packed));
}

AggregationRound SumHarness::aggregation() const {
  return {kRun, next(coordinator->committed_round()), aggregations.back()};
}

std::string SumHarness::secure_step() const {
  const std::string status = coordinator->status_json(now);
  const std::string key = "\"secure_step\":\"";
  const auto at = status.find(key);
  if (at == std::string::npos) return "";
  return status.substr(at + key.size(), status.find('"', at + key.size()) - at - key.size());
}

std::string SumHarness::notes() const {
  std::string all;
  for (const Action& action : log) {
    if (const auto* note = std::get_if<Note>(&action)) all += note->text + "\n";
  }
  return all;
}

std::size_t SumHarness::refusals() const {
  std::size_t found = 0;
  for (const auto& [client, device] : devices) {
    for (const ServerMessage& message : device.inbox) {
      const auto* refusal = std::get_if<Refusal>(&message);
      found += refusal != nullptr && refusal->reason == RefusalReason::kProtocol;
    }
  }
  return found;
}

void SumHarness::check_sum() {
  const privacy::PackedFormat& packed = format_.sum->packed;
  std::vector<std::uint64_t> expected(packed.words());
  for (const ClientId client : pipeline->counted()) {
    privacy::add_packed(
        packed, contribution_of(next(coordinator->committed_round()), client).span(), expected);
  }
  REQUIRE(std::ranges::equal(expected, pipeline->packed_sum()));
  sums.push_back(pipeline->counted());
}

// ---- actions of the coordinator

void SumHarness::carry_out(Actions& actions) {
  for (Action& action : actions) {
    if (auto* send = std::get_if<Send>(&action)) {
      deliveries_.push_back(
          {channel_down(send->connection), Down{send->connection, std::move(send->message)}});
      continue;
    }
    log.push_back(action);
    std::visit([this](auto& a) { perform(a); }, action);
  }
}

void SumHarness::answer(bool hold, Event event) {
  if (hold) {
    held.push_back(std::move(event));
  } else {
    tell(std::move(event));
  }
}

void SumHarness::perform(Close& close) {
  deliveries_.push_back({channel_down(close.connection), Down{close.connection, std::nullopt}});
}

void SumHarness::perform(OpenUpload& open) {
  tell(UploadOpened{open.key, std::uint64_t{spool_[open.key].size()}});
}

void SumHarness::perform(WriteUpload& write) {
  auto& bytes = spool_[write.key];
  REQUIRE(write.offset == bytes.size());
  bytes.insert(bytes.end(), write.payload.span().begin(), write.payload.span().end());
}

void SumHarness::perform(JudgeUpdate& judge) {
  auto verdict = pipeline->judge(judge.key.client, judge.report, SharedBytes(spool_.at(judge.key)));
  answer(holds_judgements, UpdateJudged{judge.key, std::move(verdict)});
}

void SumHarness::perform(ApplyStrategy& apply) {
  answer(holds_strategy, apply_strategy(*pipeline, apply, [this] { check_sum(); }));
}

void SumHarness::perform(CommitRound& commit) {
  if (commit.model) participants.push_back(commit.participants);
  tell(RoundStored{commit.metrics.round, {}});
}

}  // namespace covey::server::testing
