// A server, and a host, that say anything at any time to one device with a disk: see README.md.

#include <algorithm>
#include <covey/assert.hpp>
#include <covey/client/participant.hpp>
#include <deque>
#include <optional>

#include "device_disk.hpp"

namespace {

using namespace covey;
using namespace covey::client;
using namespace covey::fuzz;
using namespace std::chrono_literals;

constexpr std::uint64_t kMaxModelBytes = 16 * 1024;
constexpr std::size_t kMostActions = 64;   // for one event: a window's chunks are most of them
constexpr std::uint32_t kMostWrites = 40;  // for one event

class Host {
 public:
  explicit Host(Choices choices) : choices_(choices) { boot(); }

  void run() {
    for (int steps = 0; !choices_.empty() && steps < 4000 && !device_->finished(); ++steps) {
      once();
      check();
    }
  }

 private:
  void boot() {
    up_ = dialling_ = false;
    timer_.reset();
    training_.reset();
    to_server_.clear();
    spool_ = open_spool(*disk_);
    ParticipantOptions options;
    options.client = ClientId{3};
    options.seed = 42;
    options.request_bytes = 256;
    options.conditions.num_examples = 12;
    options.max_model_bytes = kMaxModelBytes;
    options.max_training_time = 1h;
    options.permissions = permissions_;
    options.saves_work = true;
    options.saved = spool_->load(moment());
    device_ = std::make_unique<Participant>(std::move(options));
    Actions actions;
    device_->start(now_, actions);
    carry_out(actions);
  }

  Moment moment() const {
    return {now_, std::chrono::system_clock::time_point(1'700'000'000s) + wall_};
  }

  void event(Event e) {
    const std::uint32_t writes = disk_->writes;
    Actions actions;
    device_->handle(now_, std::move(e), actions);
    COVEY_ASSERT(actions.size() <= kMostActions);
    carry_out(actions);
    COVEY_ASSERT(disk_->writes - writes <= kMostWrites);
  }

  /// As it would come over the wire.
  void receive(const ServerMessage& message) {
    auto encoded = proto::encode(message);
    auto decoded = proto::decode_server_message(encoded.header, encoded.payload);
    if (decoded && up_) event(Received{std::move(*decoded)});
  }

  void once() {
    switch (choices_.byte() % 12) {
      case 0:
      case 1:
      case 2:
        return honest();
      case 3:
        return receive(anything());
      case 4: {
        auto decoded = proto::decode_server_message(choices_.take(choices_.byte()), {});
        if (decoded && up_) event(Received{std::move(*decoded)});
        return;
      }
      case 5:
        return pass_time();
      case 6:
        if (!dialling_ && !up_) return;
        up_ = dialling_ = false;
        to_server_.clear();
        return event(ConnectionLost{"cut"});
      case 7:
        return finish_training();
      case 8:
        permissions_.train = choices_.byte() % 4 != 0;
        permissions_.transfer = choices_.byte() % 4 != 0;
        return event(ConditionsChanged{{.num_examples = choices_.number()}, permissions_});
      case 9:
        disk_->fails_at = disk_->writes + choices_.byte();
        disk_->tears = choices_.byte() % 2 != 0;
        return;
      case 10:
        // Back or ahead, between 1970 and what a clock in nanoseconds shows.
        wall_ += std::chrono::seconds(static_cast<std::int32_t>(choices_.number()));
        wall_ = std::clamp(wall_, std::chrono::seconds(-1'700'000'000),
                           std::chrono::seconds(5'000'000'000));
        return boot();
      default:
        return event(TrainingProgress{static_cast<std::uint32_t>(choices_.number()), 0});
    }
  }

  /// What is due next, as a correct server would do it.
  void honest() {
    if (dialling_) {
      dialling_ = false;
      up_ = true;
      return event(Connected{});
    }
    if (!up_ || to_server_.empty()) return pass_time();
    const ClientMessage message = std::move(to_server_.front());
    to_server_.pop_front();
    if (std::holds_alternative<Hello>(message)) {
      receive(Welcome{kProtocolVersion, 512, 10s});
    } else if (std::holds_alternative<CheckIn>(message)) {
      if (choices_.byte() % 8 == 0) ++round_;
      receive(Waiting{});
      receive(small_assignment(model_, round_));
    } else if (const auto* request = std::get_if<BlobRequest>(&message)) {
      if (request->blob != model_.digest() || request->offset + request->length > model_.size()) {
        return receive(BlobMissing{request->blob});
      }
      receive(BlobChunk{request->blob, request->offset,
                        model_.slice(request->offset, request->length)});
    } else if (const auto* report = std::get_if<Report>(&message)) {
      report_ = *report;
      receive(UploadGrant{report->blob, 0, 1024});
    } else if (const auto* chunk = std::get_if<BlobChunk>(&message)) {
      const std::uint64_t end = chunk->offset + chunk->payload.size();
      if (end < report_.blob_size) return receive(UploadGrant{chunk->blob, end, 1024});
      receive(ReportAccepted{report_.run, report_.round, {1s, 2s}});
    } else if (const auto* progress = std::get_if<Progress>(&message)) {
      receive(ProgressReply{progress->run, progress->round, true});
    }
  }

  void pass_time() {
    const auto ahead = std::chrono::milliseconds(choices_.number() % 100'000'000);
    now_ = timer_ && choices_.byte() % 2 == 0 ? std::max(now_, *timer_) : now_ + ahead;
    if (!timer_ || *timer_ > now_) return;
    timer_.reset();
    event(TimerFired{});
  }

  void finish_training() {
    if (!training_) return;
    const TrainingTask task = *std::exchange(training_, std::nullopt);
    if (choices_.byte() % 4 == 0) {
      return event(TrainingFinished{task.run, task.round, failed("no memory"), 1s});
    }
    TrainedUpdate trained;
    trained.update = pattern(1 + choices_.byte() * 16u, value_of(task.round));
    trained.digest = trained.update.digest();
    trained.weight = 12;
    if (choices_.byte() % 2 != 0) trained.residual = pattern(600, value_of(task.round) + 1);
    event(TrainingFinished{task.run, task.round, std::move(trained), 1s});
  }

  Duration duration() { return Duration(static_cast<std::int64_t>(choices_.number())); }
  Digest digest() {
    const std::uint8_t which = choices_.byte() % 4;
    return which == 0 ? report_.blob : which == 1 ? model_.digest() : sha256(choices_.take(1));
  }

  ServerMessage anything() {
    const auto run = RunId{choices_.byte() % 8 == 0 ? choices_.number() : 7};
    const auto round = RoundNumber{
        static_cast<std::uint32_t>(choices_.byte() % 4 == 0 ? choices_.number() : round_)};
    const AggregationRound sum{run, round, {}};
    switch (choices_.byte() % 16) {
      case 0:
        return Welcome{1, static_cast<std::uint32_t>(choices_.number()), duration()};
      case 1:
        return Refusal{static_cast<RefusalReason>(1 + choices_.byte() % 6), "no"};
      case 2:
        return Waiting{};
      case 3:
        return RetryLater{{duration(), duration()}, "later"};
      case 4:
        return assignment();
      case 5:
        return BlobChunk{digest(), choices_.number(), SharedBytes(choices_.take(choices_.byte()))};
      case 6:
        return BlobMissing{digest()};
      case 7:
        return UploadGrant{digest(), choices_.number(),
                           static_cast<std::uint32_t>(choices_.number())};
      case 8:
        return ProgressReply{run, round, choices_.byte() % 2 == 0};
      case 9:
        return ReportAccepted{run, round, {duration(), duration()}};
      case 10:
        return ReportRejected{run,
                              round,
                              static_cast<RejectReason>(1 + choices_.byte() % 8),
                              "no",
                              {duration(), duration()}};
      case 11:
        return RoundOver{run, round, {duration(), duration()}};
      case 12:
        return StatusReply{"{}"};
      case 13:
        return NeighbourKeys{.round = sum};
      case 14:
        return PeerShares{.round = sum};
      default:
        return SurvivorSet{.round = sum};
    }
  }

  Assignment assignment() {
    Assignment made = small_assignment(model_, round_ + choices_.byte() % 3);
    switch (choices_.byte() % 8) {
      case 0:
        made.model_size = choices_.number();
        break;
      case 1:
        made.report_within = duration();
        break;
      case 2:
        made.plan.local_epochs = UINT32_MAX;
        break;
      case 3:
        made.model = digest();
        break;
      case 4:
        made.plan.compressor = choices_.byte() % 2 == 0 ? "top-k:0.1" : "?";
        break;
      case 5:
        made.delta = ModelDelta{digest(), digest(), choices_.number(), "xor-zstd"};
        break;
      case 6:
        made.run = RunId{choices_.number()};
        break;
      default:
        break;
    }
    return made;
  }

  void carry_out(const Actions& actions) {
    for (const Action& action : actions) {
      if (const auto* send = std::get_if<Send>(&action)) {
        COVEY_ASSERT(up_);
        to_server_.push_back(send->message);
      } else if (const auto* timer = std::get_if<SetTimer>(&action)) {
        timer_ = timer->at;
      } else if (std::holds_alternative<Connect>(action)) {
        COVEY_ASSERT(!up_ && !dialling_);
        dialling_ = true;
      } else if (std::holds_alternative<Disconnect>(action)) {
        up_ = dialling_ = false;
        to_server_.clear();
      } else if (const auto* start = std::get_if<StartTraining>(&action)) {
        COVEY_ASSERT(!training_);
        training_ = start->task;
      } else if (std::holds_alternative<CancelTraining>(action)) {
        COVEY_ASSERT(training_);
        training_.reset();
      } else if (const auto* saving = std::get_if<Save>(&action)) {
        spool_->save(*saving->work, moment());
        device_->use_stored([&](const SharedBytes& bytes) { return spool_->stored(bytes); });
      } else if (const auto* piece = std::get_if<AppendDownload>(&action)) {
        spool_->append(*piece, now_);
      }
    }
  }

  void check() const {
    COVEY_ASSERT(spool_->bytes_on_disk() <=
                 kMaxDiskBytes + 16 * 1024);  // the record is not counted ahead
    COVEY_ASSERT(to_server_.size() <= 100'000);
    if (device_->finished() || !permissions_.transfer || !permissions_.train) return;
    // Something will happen, whoever falls silent.
    COVEY_ASSERT(timer_ || dialling_ || training_ || device_->phase_name() == "resting");
  }

  Choices choices_;
  std::shared_ptr<client::testing::MemoryDisk> disk_ =
      std::make_shared<client::testing::MemoryDisk>();
  std::unique_ptr<Spool> spool_;
  std::unique_ptr<Participant> device_;
  SharedBytes model_ = pattern(2440, 1);
  Report report_;
  std::uint32_t round_ = 1;
  Permissions permissions_;
  Time now_{};
  std::chrono::seconds wall_{};
  bool up_ = false, dialling_ = false;
  std::optional<Time> timer_;
  std::optional<TrainingTask> training_;
  std::deque<ClientMessage> to_server_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Host(Choices({data, size})).run();
  return 0;
}
