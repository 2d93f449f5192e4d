#include <catch2/catch.hpp>
#include <covey/client/spool.hpp>
#include <covey/client/spool_record.hpp>

#include "fake_server.hpp"
#include "sum_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

namespace {

const std::chrono::system_clock::time_point kWall{1'700'000'000s};
const Moment kNow{Time(40s), kWall};

struct Disk {
  std::shared_ptr<MemoryDisk> memory = std::make_shared<MemoryDisk>();
  std::vector<std::string> notes;
  std::uint64_t max_bytes = 1 << 20;

  Spool open() {
    SpoolOptions options;
    options.client = ClientId{3};
    options.max_bytes = max_bytes;
    options.encode = [](const Assignment& a) { return proto::encode(ServerMessage(a)).header; };
    options.decode = [](std::span<const std::byte> bytes) -> Result<Assignment> {
      COVEY_ASSIGN(ServerMessage message, proto::decode_server_message(bytes, {}));
      return std::get<Assignment>(std::move(message));
    };
    options.note = [this](std::string_view text) { notes.emplace_back(text); };
    return Spool(memory->open(), std::move(options));
  }
};

SavedWork with_model(const SharedBytes& model) {
  SavedWork work;
  work.model = SavedModel{sha256(model.span()), model};
  return work;
}

SavedWork with_update() {
  const SharedBytes model = patterned_bytes(kSmallModelBytes, 1);
  SavedWork work = with_model(model);
  SavedTask& task = work.task.emplace();
  task.assignment = make_assignment(model, 5);
  task.trained = make_update();
  return work;
}

}  // namespace

TEST_CASE("what binds a device for ever is not said while its record is not on disk") {
  Disk disk;
  Spool spool = disk.open();
  const ClientMessage keys = AdvertiseKeys{}, shares = Unmask{}, hello = Hello{};
  Report report;
  report.run = RunId{7};
  report.round = RoundNumber{5};
  SavedWork work = with_update();
  CHECK(spool.save(work, kNow));
  for (const auto& message : {keys, shares, hello}) CHECK(spool.may_send(message, kNow));
  disk.memory->fails_from = disk.memory->writes;
  CHECK_FALSE(spool.save(work, kNow));
  CHECK_FALSE(spool.may_send(keys, kNow));
  CHECK_FALSE(spool.may_send(shares, kNow));
  CHECK(spool.may_send(hello, kNow));
  CHECK(spool.may_send(report, kNow));
  work.released = RoundOfRun(RunId{7}, RoundNumber{5});
  CHECK_FALSE(spool.save(work, kNow));
  CHECK_FALSE(spool.may_send(report, kNow));
  CHECK_FALSE(disk.notes.empty());
  disk.memory->fails_from.reset();
  CHECK(spool.may_send(report, kNow));  // tried again, and written
  CHECK(disk.open().load(kNow).released == work.released);
}

TEST_CASE("what the record on disk names is there until another record is") {
  const SharedBytes first = patterned_bytes(2000, 1), second = patterned_bytes(2000, 2);
  // Both fit; the second only in place of the first.
  const std::uint64_t room = GENERATE(1 << 20, 3000);
  for (std::uint32_t n = 0;; ++n) {
    INFO("with " << room << " bytes, write " << n << " and those behind it fail");
    Disk disk;
    disk.max_bytes = room;
    Spool spool = disk.open();
    REQUIRE(spool.save(with_model(first), kNow));
    disk.memory->fails_from = disk.memory->writes + n;
    const bool landed = spool.save(with_model(second), kNow);
    const bool failed_once = disk.memory->writes > *disk.memory->fails_from;
    disk.memory->fails_from.reset();
    const auto back = disk.open().load(kNow);
    if (!landed && n < 2) REQUIRE(back.model);
    if (n == 0) REQUIRE(back.model.has_value() == (room > 3000 || !landed));
    if (failed_once) continue;
    REQUIRE(back.model);
    REQUIRE(back.model->digest == sha256(second.span()));
    break;
  }
}

TEST_CASE("a download in the smallest pieces stays within the disk's bounds") {
  const SharedBytes blob = patterned_bytes(3000, 3);
  Disk disk;
  disk.max_bytes = 4000;
  Spool spool = disk.open();
  for (std::uint64_t at = 0; at < blob.size(); ++at) {
    spool.append({sha256(blob.span()), blob.size(), at, blob.slice(at, 1)}, Time(41s));
    REQUIRE(spool.bytes_on_disk() <= 4000);
  }
  REQUIRE(disk.notes.size() == 1);
  CHECK(disk.notes[0].find("goes on in memory only") != std::string::npos);
}

TEST_CASE("no clock costs an update") {
  Disk disk;
  SavedWork work = with_update();
  work.not_before = Time(100s);
  work.task->report_by = Time(500s);
  SECTION("set back to before 1970") {
    disk.open().save(work, {Time(40s), std::chrono::system_clock::time_point(-100h)});
  }
  SECTION("set beyond all years") {
    disk.open().save(work, {Time(40s), std::chrono::system_clock::time_point(24h * 366 * 20000)});
  }
  SECTION("and a record with moments that no clock shows") {
    StateRecord record;
    record.written = WallTime(-1us);
    record.not_before = WallTime::max();
    const auto read = parse_state(serialise(record));
    REQUIRE(read);
    CHECK(read->written == kEarliestWallTime);
    CHECK(read->not_before == kLatestWallTime);
    return;
  }
  const auto back = disk.open().load(kNow);
  REQUIRE(back.task);
  CHECK(back.task->trained);
}

TEST_CASE("a training that ended the process twice is declined, and not begun a third time") {
  World world;
  world.training_takes = 100s;
  world.switch_on();
  world.run_until_phase("training");
  world.kill();
  CHECK(world.trainings == 2);
  world.kill();
  CHECK(world.trainings == 2);
  world.run_until([&] { return !sent<Decline>(world.log).empty(); });
  CHECK(sent<Decline>(world.log).back().reason.find("began 2 times") != std::string::npos);
  world.kill();  // and remembered
  world.run_until([&] { return sent<Decline>(world.log).size() > 1; });
  CHECK(world.trainings == 2);
}

TEST_CASE("an update with noise that left the device and was lost is not drawn again") {
  const auto noise = GENERATE(DeviceNoise::kNone, DeviceNoise::kGaussian);
  World world;
  PrivacyPlan& privacy = world.server.assignment.plan.privacy;
  privacy = {ClipKind::kFlat, 1.0, noise, 0.5};
  world.max_disk_bytes = 3000;  // the update does not fit, what is to be remembered does
  world.switch_on();
  world.run_until([&] { return !sent<Report>(world.log).empty(); });
  world.kill();
  if (noise == DeviceNoise::kNone) {
    world.run_until_finished();
    CHECK(world.trainings == 2);
  } else {
    world.run_until([&] { return !sent<Decline>(world.log).empty(); });
    CHECK(sent<Decline>(world.log).back().reason.find("second draw") != std::string::npos);
    CHECK(world.trainings == 1);
  }
}
