#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <covey/server/fleet_record.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

using namespace covey;
using namespace covey::server;

namespace {

class Folder {
 public:
  explicit Folder(const std::string& name)
      : path_((std::filesystem::temp_directory_path() /
               ("covey-record-" + name + "-" + std::to_string(::getpid())))
                  .string()) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }
  std::string csv() const { return path_ + "/fleet.csv"; }

 private:
  std::string path_;
};

constexpr ClientId kDevice{7};
constexpr RoundNumber kRound{3};

Time at(int s) { return Time{} + std::chrono::seconds(s); }

FleetRecord open(const Folder& folder, std::uint64_t max_bytes = 1 << 20) {
  auto record = FleetRecord::open({folder.path(), at(100), 5000, max_bytes});
  REQUIRE(record.ok());
  return std::move(*record);
}

void one_round(FleetRecord& record) {
  record.connected(at(101), kDevice);
  CheckIn check_in;
  check_in.conditions.device_class = "low-end";
  record.received(at(102), kDevice, check_in);
  Assignment assignment;
  assignment.round = kRound;
  assignment.model_size = 400;
  record.sent(at(103), kDevice, assignment);
  record.received(at(104), kDevice, Progress{});  // says nothing that is asked for
  Report report;
  report.round = kRound;
  report.blob_size = 401;
  report.train_seconds = 1.25;
  report.num_examples = 20;
  report.steps = 2;
  record.received(at(105), kDevice, report);
  record.sent(at(106), kDevice, ReportAccepted{{}, kRound, {}});
  RoundMetrics metrics;
  metrics.round = kRound;
  metrics.started = at(102);
  metrics.ended = at(106);
  record.ended(at(107), metrics);
  record.gone(at(108), kDevice);
}

FleetEvent checked_in(double at_s, const std::string& device_class) {
  FleetEvent event{at_s, FleetEventKind::kCheckedIn, kDevice};
  event.device_class = device_class;
  return event;
}

const std::vector<FleetEvent> kOneRound = {
    {5000, FleetEventKind::kStarted},
    {5001, FleetEventKind::kConnected, kDevice},
    checked_in(5002, "low-end"),
    {5003, FleetEventKind::kAssigned, kDevice, kRound, 400},
    {5005, FleetEventKind::kReported, kDevice, kRound, 401, 1.25, 20, 2},
    {5006, FleetEventKind::kAccepted, kDevice, kRound},
    {5007, FleetEventKind::kCommitted, std::nullopt, kRound, std::nullopt, 4.0},
    {5008, FleetEventKind::kGone, kDevice}};

}  // namespace

TEST_CASE("what devices did is read back as it was written") {
  Folder folder("round-trip");
  {
    FleetRecord record = open(folder);
    one_round(record);
  }
  const auto events = read_fleet_record(folder.path());
  REQUIRE(events.ok());
  CHECK(*events == kOneRound);
}

TEST_CASE("a record goes on behind its last whole line") {
  Folder folder("torn");
  {
    FleetRecord record = open(folder);
    one_round(record);
  }
  std::ofstream(folder.csv(), std::ios::app) << "5009.0,conn";
  CHECK(read_fleet_record(folder.path())->size() == kOneRound.size());
  { FleetRecord record = open(folder); }
  const auto events = read_fleet_record(folder.path());
  REQUIRE(events.ok());
  REQUIRE(events->size() == kOneRound.size() + 1);
  CHECK(events->back().kind == FleetEventKind::kStarted);
}

TEST_CASE("a record keeps the newest of its bytes and no more than twice its limit") {
  Folder folder("rotation");
  constexpr std::uint64_t kMost = 4096;
  {
    FleetRecord record = open(folder, kMost);
    for (int i = 0; i < 100; ++i) one_round(record);
    CHECK_FALSE(record.problem());
  }
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    bytes += entry.file_size();
  }
  CHECK(bytes <= 2 * kMost);
  CHECK(bytes > kMost);
  const auto events = read_fleet_record(folder.path());
  REQUIRE(events.ok());
  CHECK(events->back() == kOneRound.back());
}

namespace {

std::vector<FleetEvent> events_in(const Folder& folder) {
  auto events = read_fleet_record(folder.path());
  INFO((events.ok() ? "" : events.error().message));
  REQUIRE(events.ok());
  return std::move(*events);
}

void assign(FleetRecord& record, Time when, ClientId client = kDevice) {
  Assignment assignment;
  assignment.round = kRound;
  assignment.model_size = 400;
  record.sent(when, client, assignment);
}

}  // namespace

TEST_CASE("what a device says again and again is written down once") {
  Folder folder("chatty");
  {
    FleetRecord record = open(folder);
    record.connected(at(101), kDevice);
    Report report;
    report.round = kRound;
    for (int i = 0; i < 1000; ++i) {  // reports, declines and verdicts of a round it has no part in
      record.received(at(102), kDevice, CheckIn{});
      record.received(at(102), kDevice, report);
      record.received(at(102), kDevice, Decline{{}, kRound, {}, false});
      record.sent(at(102), kDevice, ReportRejected{{}, kRound, RejectReason::kLate, {}, {}});
    }
    for (int i = 0; i < 1000; ++i) {
      assign(record, at(103));
      record.received(at(103), kDevice, report);
    }
    for (int i = 0; i < 1000; ++i) record.sent(at(104), kDevice, ReportAccepted{{}, kRound, {}});
  }
  const std::vector<FleetEvent> expected = {
      {5000, FleetEventKind::kStarted},
      {5001, FleetEventKind::kConnected, kDevice},
      {5002, FleetEventKind::kCheckedIn, kDevice},
      {5003, FleetEventKind::kAssigned, kDevice, kRound, 400},
      {5003, FleetEventKind::kReported, kDevice, kRound, 0, 0.0, 0, 0},
      {5004, FleetEventKind::kAccepted, kDevice, kRound}};
  CHECK(events_in(folder) == expected);
}

TEST_CASE("a device that checks in as another class, or has no name of one, says what it is") {
  Folder folder("classes");
  {
    FleetRecord record = open(folder);
    record.connected(at(101), kDevice);
    CheckIn check_in;
    for (const std::string name : {"slow", "fast", "fast", "a,b\n1,gone,7,,,,,,", "slow"}) {
      check_in.conditions.device_class = name;
      record.received(at(102), kDevice, check_in);
    }
  }
  const std::vector<FleetEvent> expected = {{5000, FleetEventKind::kStarted},
                                            {5001, FleetEventKind::kConnected, kDevice},
                                            checked_in(5002, "slow"),
                                            checked_in(5002, "fast"),
                                            checked_in(5002, ""),
                                            checked_in(5002, "slow")};
  CHECK(events_in(folder) == expected);
}

TEST_CASE("one device's endless connections leave room for all the others") {
  constexpr ClientId kNoisy{8};
  Folder folder("noisy");
  {
    FleetRecord record = open(folder, 8192);
    record.connected(at(100), kDevice);
    for (int i = 0; i < 10000; ++i) {
      record.connected(at(101), kNoisy);
      record.received(at(101), kNoisy, CheckIn{});
      assign(record, at(101), kNoisy);
      record.received(at(101), kNoisy, Decline{{}, kRound, {}, false});
      record.gone(at(101), kNoisy);
    }
    record.connected(at(102), kNoisy);
    RoundMetrics metrics;
    metrics.round = kRound;
    record.ended(at(103), metrics);
    record.received(at(104), kNoisy, CheckIn{});
  }
  const auto events = events_in(folder);
  CHECK(events[0].kind == FleetEventKind::kStarted);
  CHECK(events[1] == FleetEvent{5000, FleetEventKind::kConnected, kDevice});
  const auto lines = std::count_if(events.begin(), events.end(), [&](const FleetEvent& event) {
    return event.client == kNoisy && event.at_s < 5003;
  });
  CHECK(lines == FleetRecord::kMostLines);
  // Behind the round's end the record says what is true of it, and takes it up again.
  const auto connected = std::count_if(events.begin(), events.end(), [&](const FleetEvent& event) {
    return event.client == kNoisy && event.kind == FleetEventKind::kConnected;
  });
  const auto gone = std::count_if(events.begin(), events.end(), [&](const FleetEvent& event) {
    return event.client == kNoisy && event.kind == FleetEventKind::kGone;
  });
  CHECK(connected == gone + 1);
  CHECK(events.back() == FleetEvent{5004, FleetEventKind::kCheckedIn, kNoisy});
}

TEST_CASE("a device whose newer connection takes over is not gone") {
  Folder folder("takeover");
  {
    FleetRecord record = open(folder);
    record.connected(at(101), kDevice);
    record.connected(at(102), kDevice);
    record.gone(at(103), kDevice);
    record.gone(at(104), kDevice);
  }
  const std::vector<FleetEvent> expected = {{5000, FleetEventKind::kStarted},
                                            {5001, FleetEventKind::kConnected, kDevice},
                                            {5002, FleetEventKind::kConnected, kDevice},
                                            {5004, FleetEventKind::kGone, kDevice}};
  CHECK(events_in(folder) == expected);
}

TEST_CASE("a round that is tried again is given out again, and an answer may follow a full disk") {
  Folder folder("again");
  {
    FleetRecord record = open(folder);
    assign(record, at(101));
    RoundMetrics metrics;
    metrics.round = kRound;
    metrics.committed = false;
    record.ended(at(102), metrics);
    assign(record, at(103));
    record.sent(at(104), kDevice, ReportRejected{{}, kRound, RejectReason::kServerFailed, {}, {}});
    record.sent(at(105), kDevice, ReportAccepted{{}, kRound, {}});
  }
  const std::vector<FleetEvent> expected = {
      {5000, FleetEventKind::kStarted},
      {5001, FleetEventKind::kAssigned, kDevice, kRound, 400},
      {5002, FleetEventKind::kAbandoned, std::nullopt, kRound, std::nullopt, 0.0},
      {5003, FleetEventKind::kAssigned, kDevice, kRound, 400},
      {5004, FleetEventKind::kRejected, kDevice, kRound},
      {5005, FleetEventKind::kAccepted, kDevice, kRound}};
  CHECK(events_in(folder) == expected);
}

TEST_CASE("times that are none, as a hostile device may report them, are left out") {
  Folder folder("hostile");
  for (const double seconds :
       {-1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    FleetRecord record = open(folder);
    assign(record, at(101));
    Report report;
    report.round = kRound;
    report.train_seconds = seconds;
    record.received(at(101), kDevice, report);
  }
  const auto events = read_fleet_record(folder.path());
  REQUIRE(events.ok());
  CHECK(events->back().kind == FleetEventKind::kReported);
  for (const FleetEvent& event : *events) CHECK_FALSE(event.seconds);
}

TEST_CASE("a line that is no event is refused, naming file and line") {
  const std::string header = "time_s,event,device,round,bytes,seconds,examples,steps,class\n";
  for (const std::string line :
       {"", "1,gone,7,,,,,", "1,gone,7,,,,,,,", "x,gone,7,,,,,,", "1,flew,7,,,,,,", "1,gone,,,,,,,",
        "1,gone,-7,,,,,,", "1,assigned,7,,,,,,", "1,committed,7,1,,,,,", "1,committed,,1,,-1,,,",
        "1,reported,7,1,5,1e999,,,", "nan,gone,7,,,,,,", "1,checked-in,7,,,,,,a b"}) {
    Folder folder("bad-line");
    CAPTURE(line);
    std::ofstream(folder.csv()) << header << "1,started,,,,,,,\n" << line << "\n";
    const auto events = read_fleet_record(folder.path());
    REQUIRE_FALSE(events.ok());
    CHECK(events.error().message.find(folder.csv() + ":3") != std::string::npos);
  }
  Folder empty("absent");
  CHECK(read_fleet_record(empty.path()).error().code == ErrorCode::kNotFound);
}
