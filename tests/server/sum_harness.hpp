#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/privacy/secagg_device.hpp>
#include <covey/random.hpp>
#include <covey/server/round_coordinator.hpp>
#include <covey/server/update_pipeline.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "pipeline_fixture.hpp"

/// A coordinator, a real pipeline and devices with real keys, shares and masks, in one thread and
/// virtual time.
namespace covey::server::testing {

using namespace std::chrono_literals;

/// All devices in each round, none of which may be missing.
inline SelectionConfig everyone() {
  SelectionConfig selection;
  selection.fraction_fit = 1;
  return selection;
}

struct SumOptions {
  ThreatModel model = ThreatModel::kHonestButCurious;  ///< kNone: updates are sent as they are
  std::uint32_t devices = 5;
  std::uint32_t rounds = 1;
  std::uint64_t seed = 1;
  SelectionConfig selection = everyone();
  PrivacyConfig privacy = {};
  std::map<ClientId, std::uint32_t> participations = {};
};

inline constexpr std::size_t kSumDimension = 24;
inline constexpr std::uint32_t kSumChunk = 512;  ///< of masked updates of 1 to 2 KiB

/// What happens to a message on its way to the server.
enum class Deed {
  kSay,
  kSayTwice,
  kCutBefore,  ///< the connection drops instead, and the device comes back
  kCutAfter,
  kVanish,   ///< it drops instead and the device stays away
  kSwallow,  ///< nothing is said
};

/// Plays a correct device's part; `deed` may change what it says.
struct SumDevice {
  ClientId client{};
  std::shared_ptr<const privacy::DeviceCredentials> credentials;
  std::optional<ConnectionId> connection;
  bool away = false;  ///< does not connect again by itself
  std::optional<Assignment> task;
  std::optional<privacy::SecAggDevice> sum;
  std::optional<Report> report;  ///< said, and not answered
  SharedBytes upload;            ///< of `report`
  std::vector<ServerMessage> inbox;

  template <typename Message>
  std::size_t count() const {
    return static_cast<std::size_t>(std::ranges::count_if(
        inbox, [](const auto& m) { return std::holds_alternative<Message>(m); }));
  }
  template <typename Message>
  const Message* last() const {
    for (auto m = inbox.rbegin(); m != inbox.rend(); ++m) {
      if (const auto* found = std::get_if<Message>(&*m)) return found;
    }
    return nullptr;
  }
};

class SumHarness {
 public:
  static constexpr RunId kRun{4711};

  explicit SumHarness(const SumOptions& options);

  std::optional<UpdatePipeline> pipeline;
  std::optional<RoundCoordinator> coordinator;
  std::map<ClientId, SumDevice> devices;  ///< 1 to options.devices
  Time now{};

  // ---- what goes otherwise than well
  std::function<Deed(SumDevice&, ClientMessage&)> deed;
  /// False: lost with the connection, and the device comes back.
  std::function<bool(SumDevice&, const ServerMessage&)> arrives;
  bool holds_judgements = false;  ///< answers go to `held`
  bool holds_strategy = false;
  std::optional<RandomStream> any_order;  ///< of deliveries on different connections

  // ---- what was seen
  std::vector<Action> log;  ///< every action but Send
  std::vector<RoundMetrics> published;
  std::vector<std::vector<ClientId>> participants;  ///< of each committed round
  std::vector<AggregationId> aggregations;
  std::vector<std::set<ClientId>> sums;  ///< who is in each unmasked sum
  std::optional<RunFinished> finished;
  std::vector<Event> held;

  SumDevice& device(std::uint64_t client) { return devices.at(ClientId{client}); }

  void start();
  void settle();
  /// One delivery; false when there is none.
  bool step();
  /// Time passes: timers fire, and devices at work say that they live.
  void advance(Duration by);
  /// Until the run is over; fails if it is not in so long.
  void run_to_the_end(Duration patience = std::chrono::hours(2));
  void tell(Event event);
  void release_held();

  void connect(SumDevice& device);
  /// What was under way is lost; with `heard` only what was on its way down.
  void lose_connection(SumDevice& device, bool heard = false);
  void say(SumDevice& device, ClientMessage message);
  /// Straight to the server, whatever `deed` says, and all that follows.
  void insist(SumDevice& device, ClientMessage message);

  /// Packed (without secure aggregation: fp32), what a device adds to the sum of a round: always
  /// the same.
  SharedBytes contribution_of(RoundNumber round, ClientId client) const;
  AggregationRound aggregation() const;  ///< the last one
  std::string secure_step() const;       ///< of the sum in progress: "share", "mask", ...
  std::string notes() const;
  bool noted(const std::string& part) const { return notes().find(part) != std::string::npos; }
  std::size_t refusals() const;  ///< that devices were sent, but for the run's end

  template <typename Wanted>
  std::size_t count() const {
    return static_cast<std::size_t>(std::ranges::count_if(
        log, [](const auto& a) { return std::holds_alternative<Wanted>(a); }));
  }

 private:
  struct Down {
    ConnectionId connection{};
    std::optional<ServerMessage> message;  ///< none: the server closed it
  };
  struct Delivery {
    std::uint64_t channel = 0;  ///< what is on one arrives in order
    std::variant<Event, Down> what;
  };

  CoordinatorOptions coordinator_options();
  void up(const SumDevice& device, Event event);
  Delivery next_delivery();
  void deliver(Delivery delivery);
  void carry_out(Actions& actions);
  void beat();
  void check_sum();

  // ---- actions of the coordinator
  void answer(bool hold, Event event);
  template <typename Other>
  void perform(Other&) {}  // of no consequence here
  void perform(SetTimer& set) { timer_ = set.at; }
  void perform(Close& close);
  void perform(OpenUpload& open);
  void perform(WriteUpload& write);
  void perform(DropUpload& drop) { spool_.erase(drop.key); }
  void perform(JudgeUpdate& judge);
  void perform(BeginSum& begin) { pipeline->begin(begin.round); }
  void perform(ApplyStrategy& apply);
  void perform(CommitRound& commit);
  void perform(PublishMetrics& publish) { published.push_back(publish.metrics); }
  void perform(RunFinished& end) { finished = end; }

  // ---- a device's answers
  template <typename Other>
  void react(SumDevice&, Other&) {}
  void react(SumDevice& device, Welcome&);
  void react(SumDevice& device, Waiting&);
  void react(SumDevice& device, Assignment& assignment);
  void react(SumDevice& device, NeighbourKeys& message);
  void react(SumDevice& device, PeerShares& message);
  void react(SumDevice& device, UploadGrant& grant);
  void react(SumDevice& device, SurvivorSet& message);
  void react(SumDevice& device, SurvivorConfirmations& message);
  void react(SumDevice& device, ReportAccepted& message) { task_done(device, message.round); }
  void react(SumDevice& device, ReportRejected& message) { task_done(device, message.round); }
  void react(SumDevice& device, RoundOver& message) { task_done(device, message.round); }
  void report(SumDevice& device, SharedBytes upload);
  void give_up(SumDevice& device, const Error& error);
  void task_done(SumDevice& device, RoundNumber round);

  SumOptions options_;
  TrainingPlan plan_;
  UpdatePipeline::Format format_;
  std::optional<privacy::IdentityAuthority> authority_;
  std::map<UploadKey, std::vector<std::byte>> spool_;
  std::uint64_t next_connection_ = 1;
  std::uint64_t next_answer_ = UINT64_MAX;
  std::uint64_t streams_ = 100;  ///< of devices' secrets, none used twice
  std::map<ConnectionId, ClientId> owners_;
  std::deque<Delivery> deliveries_;
  std::optional<Time> timer_;
  Time next_heartbeat_{};
};

}  // namespace covey::server::testing
