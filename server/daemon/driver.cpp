#include "server/daemon/driver.hpp"

#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include <covey/proto/codec.hpp>

namespace covey::server {

Driver::Driver(transport::EventLoop& loop, Options options, CoordinatorOptions coordinator,
               RunState state, UpdatePipeline pipeline, std::unique_ptr<UploadSpool> spool, Store store)
    : loop_(loop),
      options_(std::move(options)),
      coordinator_(std::move(coordinator), std::move(state)),
      pipeline_(std::move(pipeline)),
      spool_(std::move(spool)),
      store_(std::move(store)),
      timer_(loop, [this] { tell(TimerFired{}); }),
      last_goodbye_(loop, [this] { loop_.stop(); }),
      trust_watch_(loop, [this] { watch_trust(); }),
      worker_(std::make_unique<transport::WorkerPool>(1)) {}

Driver::~Driver() {
  listener_.reset();
  worker_.reset();
}

Result<void> Driver::start() {
  COVEY_ASSIGN(listener_, transport::Listener::make(loop_, options_.listener,
                                                    [this] { return handlers(); }));
  Actions actions;
  coordinator_.start(loop_.now(), actions);
  carry_out(actions);
  watch_trust();
  return {};
}

void Driver::stop() { tell(StopRequested{}); }

// ---- connections

transport::ConnectionHandlers Driver::handlers() {
  const auto id = static_cast<ConnectionId>(next_connection_++);
  return {.on_open = [this, id](auto connection) { on_open(id, std::move(connection)); },
          .on_frame = [this, id](auto header,
                                 auto payload) { on_frame(id, header, std::move(payload)); },
          .on_closed = [this, id](const Error& reason) { on_closed(id, reason); }};
}

void Driver::on_open(ConnectionId id, std::shared_ptr<transport::Connection> connection) {
  const transport::PeerIdentity identity = connection->peer();
  spdlog::debug("connected connection={} peer={} address={}", value_of(id), identity.common_name,
                connection->peer_address());
  const bool is_operator = identity.kind == transport::PeerIdentity::Kind::kOperator;
  Peer peer{std::move(connection), identity.common_name};
  if (options_.record != nullptr && !is_operator) {
    peer.device = identity.client;
    options_.record->connected(loop_.now(), identity.client);
  }
  peers_.emplace(value_of(id), std::move(peer));
  tell(DeviceConnected{id, identity.client, is_operator ? Role::kOperator : Role::kDevice});
}

void Driver::on_frame(ConnectionId id, std::span<const std::byte> header, SharedBytes payload) {
  auto message = proto::decode_client_message(header, std::move(payload));
  const auto peer = peers_.find(value_of(id));
  if (peer == peers_.end()) return;
  if (message.ok()) {
    const auto* check_in = std::get_if<CheckIn>(&*message);
    if (check_in != nullptr && !peer->second.remembered) {  // once: a chatty peer costs no disk
      peer->second.remembered = true;
      remember(peer->second.connection->peer(), check_in->conditions.agent_version);
    }
    if (peer->second.device) {
      options_.record->received(loop_.now(), *peer->second.device, *message);
    }
    tell(Received{id, std::move(*message)});
    return;
  }
  spdlog::warn("message refused peer={} reason=\"{}\"", peer->second.name, message.error().message);
  const auto connection = peer->second.connection;  // close() may end in on_closed
  connection->send(proto::encode(
      ServerMessage(Refusal{RefusalReason::kProtocol, message.error().message})));
  connection->close();
}

void Driver::remember(const transport::PeerIdentity& peer, const std::string& agent_version) {
  if (peer.kind != transport::PeerIdentity::Kind::kDevice) return;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto unix_seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  on_worker([this, client = peer.client, unix_seconds, agent_version]() -> std::optional<Event> {
    const auto stored = store_.touch_client(client, unix_seconds, agent_version);
    if (!stored.ok()) spdlog::warn("check-in not recorded: {}", stored.error().message);
    return std::nullopt;
  });
}

void Driver::on_closed(ConnectionId id, const Error& reason) {
  const auto peer = peers_.find(value_of(id));
  if (peer == peers_.end()) {
    spdlog::info("connection refused reason=\"{}\"", reason.message);
    return;
  }
  spdlog::log(reason.code == ErrorCode::kMalformed ? spdlog::level::warn : spdlog::level::debug,
              "disconnected peer={} reason=\"{}\"", peer->second.name, reason.message);
  bytes_sent_ += peer->second.connection->bytes_sent();
  bytes_received_ += peer->second.connection->bytes_received();
  if (peer->second.device) options_.record->gone(loop_.now(), *peer->second.device);
  peers_.erase(peer);
  tell(DeviceGone{id});
  if (finished_ && peers_.empty()) loop_.stop();
}

void Driver::watch_trust() {
  constexpr auto kPause = std::chrono::seconds(2);
  constexpr std::uint64_t kExpiryLooks = 30;  // certificates also expire: every minute all are looked at
  trust_watch_.set(loop_.now() + kPause);
  const std::uint64_t version = listener_->trust_version();
  if (std::exchange(trust_version_, version) == version && ++trust_looks_ % kExpiryLooks != 0) return;
  std::vector<std::shared_ptr<transport::Connection>> unwelcome;
  for (const auto& [id, peer] : peers_) {
    const auto trusted = peer.connection->still_trusted();
    if (trusted.ok()) continue;
    spdlog::warn("closed peer={} reason=\"{}\"", peer.name, trusted.error().message);
    peer.connection->send(
        proto::encode(ServerMessage(Refusal{RefusalReason::kRevoked, trusted.error().message})));
    unwelcome.push_back(peer.connection);
  }
  for (const auto& connection : unwelcome) connection->close();
}

// ---- the coordinator

void Driver::tell(Event event) {
  Actions actions;
  coordinator_.handle(loop_.now(), std::move(event), actions);
  carry_out(actions);
}

void Driver::carry_out(Actions& actions) {
  for (Action& action : actions) {
    if (auto* send = std::get_if<Send>(&action)) {
      const auto peer = peers_.find(value_of(send->connection));
      if (peer == peers_.end()) continue;
      if (peer->second.device) {
        options_.record->sent(loop_.now(), *peer->second.device, send->message);
      }
      peer->second.connection->send(proto::encode(send->message));
    } else if (const auto* close = std::get_if<Close>(&action)) {
      const auto peer = peers_.find(value_of(close->connection));
      if (peer != peers_.end()) {
        const auto connection = peer->second.connection;
        connection->close();
      }
    } else if (const auto* timer = std::get_if<SetTimer>(&action)) {
      timer_.set(timer->at);
    } else if (const auto* metrics = std::get_if<PublishMetrics>(&action)) {
      publish(metrics->metrics);
    } else if (const auto* note = std::get_if<Note>(&action)) {
      spdlog::info("{}", note->text);
    } else if (auto* end = std::get_if<RunFinished>(&action)) {
      finish(std::move(*end));
    } else {
      auto job = std::make_shared<Action>(std::move(action));
      on_worker([this, job] { return compute(*job); });
    }
  }
}

void Driver::publish(const RoundMetrics& metrics) {
  spdlog::info("round {} round={} selected={} accepted={} rejected={} dropped={}{}{}{}",
               metrics.committed ? "committed" : "abandoned", value_of(metrics.round),
               metrics.selected, metrics.accepted, metrics.rejected, metrics.dropped,
               metrics.private_figures ? "" : fmt::format(" train_loss={:.4f}", metrics.train_loss),
               (metrics.epsilon ? fmt::format(" epsilon={:.4g}", *metrics.epsilon) : "") +
                   (metrics.staleness ? fmt::format(" staleness={:.3g}", *metrics.staleness) : ""),
               metrics.accuracy ? fmt::format(" accuracy={:.4f} loss={:.4f}", *metrics.accuracy,
                                              metrics.loss.value_or(0))
                                : "");
  if (metrics.accuracy) {
    on_worker([this, metrics]() -> std::optional<Event> {
      const auto stored =
          store_.record_evaluation(metrics.round, *metrics.accuracy, metrics.loss.value_or(0));
      if (!stored.ok()) spdlog::error("evaluation not stored: {}", stored.error().message);
      return std::nullopt;
    });
  }
  if (options_.record != nullptr) options_.record->ended(loop_.now(), metrics);
  if (options_.on_round) options_.on_round(metrics);
}

void Driver::finish(RunFinished finished) {
  if (finished_) return;
  finished_ = std::move(finished);
  if (peers_.empty()) {
    loop_.stop();
    return;
  }
  // Connections flush for two seconds at most; one that stays is not waited for.
  last_goodbye_.set(loop_.now() + std::chrono::seconds(3));
}

void Driver::on_worker(std::function<std::optional<Event>()> job) {
  worker_->submit([this, job = std::move(job)] {
    auto answer = job();
    if (!answer) return;
    auto event = std::make_shared<Event>(std::move(*answer));
    loop_.post([this, event] { tell(std::move(*event)); });
  });
}

std::optional<Event> Driver::compute(const Action& action) {
  if (const auto* open = std::get_if<OpenUpload>(&action)) {
    if (spool_oldest_ != open->oldest) {
      spool_->keep_only(open->key.run, open->oldest);
      spool_oldest_ = open->oldest;
    }
    return UploadOpened{open->key, spool_->open(open->key, open->size)};
  }
  if (const auto* write = std::get_if<WriteUpload>(&action)) {
    auto written = spool_->write(write->key, write->offset, write->payload);
    if (!written.ok()) return UploadFailed{write->key, written.error()};
  } else if (const auto* drop = std::get_if<DropUpload>(&action)) {
    spool_->drop(drop->key);
  } else if (const auto* judge = std::get_if<JudgeUpdate>(&action)) {
    auto bytes = spool_->read(judge->key);
    if (!bytes.ok()) return UploadFailed{judge->key, bytes.error()};
    return UpdateJudged{judge->key, pipeline_.judge(*judge, *bytes)};
  } else if (const auto* begin = std::get_if<BeginSum>(&action)) {
    pipeline_.begin(begin->round);
  } else if (const auto* applying = std::get_if<ApplyStrategy>(&action)) {
    return apply_strategy(pipeline_, *applying);
  } else if (const auto* commit = std::get_if<CommitRound>(&action)) {
    const auto stored = commit->model ? store_.commit_round(commit->metrics, *commit->model,
                                                            pipeline_.state(),
                                                            options_.keep_snapshots,
                                                            commit->participants)
                                      : store_.record_abandoned(commit->metrics);
    return RoundStored{commit->metrics.round, stored};
  } else if (const auto* evaluate = std::get_if<EvaluateModel>(&action)) {
    const auto [accuracy, loss] = options_.evaluate(pipeline_.model().span());
    return ModelEvaluated{evaluate->round, accuracy, loss};
  }
  return std::nullopt;
}

}  // namespace covey::server
